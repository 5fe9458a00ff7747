"""Print and log without end, on Python's and on the system's streams."""
import os, sys
for number in range(200):
    print("x" * 10**6)
    sys.stderr.write("y" * 10**6)
    os.write(1, b"z" * 10**5)
    os.write(2, b"z" * 10**5)
