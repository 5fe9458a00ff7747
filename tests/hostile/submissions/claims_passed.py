"""Forge outcomes with a status that no call has."""
import os, struct
from fewshot_lib.exercises import values
data = values.pack({"answer": "class_prototypes", "outcomes": [{"status": "passed", "points": 5}] * 9})
os.write(3, struct.pack("<Q", len(data)) + data)
os._exit(0)
