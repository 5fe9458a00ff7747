"""Announce an array of 10^15 numbers in a small message."""
import json, os, struct
header = json.dumps({"value": {"array": 0}, "arrays": [["float64", [10**15]]]}).encode()
data = b"FSV1" + struct.pack("<Q", len(header)) + header
os.write(3, struct.pack("<Q", len(data)) + data)
