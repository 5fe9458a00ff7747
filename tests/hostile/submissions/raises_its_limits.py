"""Raise the limits again, lower the priority of others, take every descriptor."""
import os, resource
for kind in (0, 1, 4, 6, 7, 8, 9):  # those that the sandbox sets
    try:
        resource.setrlimit(kind, (-1, -1))
        print("CANARY-UNLIMITED", kind)
    except (ValueError, OSError):
        pass
try:
    os.nice(-20)
    print("CANARY-NICE")
except OSError:
    pass
kept = []
try:
    while True:
        kept.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    print(error)
