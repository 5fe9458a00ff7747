"""Announce an array of objects, whose bytes would be pointers."""
import json, os, struct
header = json.dumps({"value": {"array": 0}, "arrays": [["object", [1]]]}).encode()
data = b"FSV1" + struct.pack("<Q", len(header)) + header + b"\x41" * 8
os.write(3, struct.pack("<Q", len(data)) + data)
