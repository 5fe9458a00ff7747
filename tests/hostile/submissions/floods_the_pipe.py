"""Write without end into the reply socket."""
import os
block = b"\x00" * 2**20
while True:
    os.write(3, block)
