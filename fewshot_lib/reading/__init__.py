"""What a notebook shows its reader.

show       a figure with alt text, caption and numbers
moving     a picture that moves without a kernel: "organ", "plane" or "switchboard"
explore    a drawing function over its parameters: live, saved, or as a table
question   a question with a reply to every answer; answer() for where nothing can be clicked
predict    a prediction before a cell runs; prediction() gives it to the figure that follows
claim      a row of the claim ledger; ledger() prints them
"""

from __future__ import annotations

from fewshot_lib.reading.claims import claim, ledger
from fewshot_lib.reading.explore import explore
from fewshot_lib.reading.moving import moving
from fewshot_lib.reading.predict import predict, prediction
from fewshot_lib.reading.question import answer, question
from fewshot_lib.reading.show import show

__all__ = [
    "answer", "claim", "explore", "ledger", "moving", "predict", "prediction", "question", "show",
]  # fmt: skip
