"""Send thousands of well-formed replies to answers that do not exist."""
import os, struct
from fewshot_lib.exercises import values
for number in range(20_000):
    data = values.pack({"answer": f"answer {number}", "outcomes": []})
    os.write(3, struct.pack("<Q", len(data)) + data)
