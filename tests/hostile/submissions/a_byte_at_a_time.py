"""Dribble a reply byte by byte, to hold the reader as long as possible."""
import os, time
while True:
    os.write(3, b"\x01")
    time.sleep(0.01)
