"""Send a reply nested a hundred thousand deep, to exhaust the reader's stack."""
import os, struct
header = b'{"arrays":[],"value":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
data = b"FSV1" + struct.pack("<Q", len(header)) + header
os.write(3, struct.pack("<Q", len(data)) + data)
