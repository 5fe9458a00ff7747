"""Take and touch memory without end."""
hoard = []
while True:
    try:
        hoard.append(bytearray(b"x" * 10**7))
    except MemoryError:
        pass
