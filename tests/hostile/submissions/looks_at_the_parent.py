"""Reach the parent through /proc: its memory, its descriptors, its command line."""
import os
for path in (f"/proc/{os.getppid()}/{name}" for name in ("mem", "environ", "cmdline", "fd", "maps", "root", "cwd")):
    try:
        print(path, os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(200))
    except OSError as error:
        print(path, error)
