"""Announce a reply of 2^62 bytes."""
import os, struct
os.write(3, struct.pack("<Q", 2**62))
os.write(3, b"x" * 1000)
import time; time.sleep(60)
