"""Announce an array with a negative and an overflowing shape."""
import json, os, struct
for shape in ([-1, -8], [2**40, 2**40, 0], [True], ["9"]):
    header = json.dumps({"value": {"array": 0}, "arrays": [["float64", shape]]}).encode()
    data = b"FSV1" + struct.pack("<Q", len(header)) + header
    os.write(3, struct.pack("<Q", len(data)) + data)
