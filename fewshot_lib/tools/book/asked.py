"""Questions and predictions for a page without a kernel: their texts and replies as data."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from fewshot_lib.checker.language import words
from fewshot_lib.checker.markup import inline
from fewshot_lib.reading.predict import Prediction
from fewshot_lib.reading.predict import find as find_prediction
from fewshot_lib.reading.question import Question, points, values
from fewshot_lib.reading.question import find as find_question

_ = words("reading")

#: The frame that a saved notebook holds, and the call in it that names what is asked.
FRAME = re.compile(
    r'<div class="fewshot-(?:question|predict)".*?\.(?:answer|predict)\((?:"|&quot;)'
    r"([a-z_]+\.[a-z0-9-]+)(?:\"|&quot;),.*?</code></div></div>",
    re.DOTALL,
)


def make_live(page: str) -> str:
    """Replace the saved questions and predictions in an output's HTML by ones that can be answered.

    >>> from fewshot_lib.reading.question import as_html
    >>> "data-asked" in make_live(as_html(find_question("prototypes.learned")))
    True
    """
    return FRAME.sub(lambda found: frame(found[1], "fewshot-predict" in found[0][:40]), page)


def frame(name: str, is_prediction: bool) -> str:
    """Give a question or prediction as HTML: its text, its data, and a form without JavaScript."""
    if is_prediction:
        predicted = find_prediction(name)
        word, text, data = _("Your prediction."), predicted.text, prediction_data(predicted)
    else:
        asked = find_question(name)
        word, text, data = _("Question."), asked.text, question_data(asked)
    rows = "".join(f"<li>{option['html']}</li>" for option in data["options"])
    still = f'<ol class="fewshot-still-form" type="A">{rows}</ol>' if rows else ""
    return (
        f'<div class="fewshot-asked" role="group" aria-label="{word}" data-name="{name}" '
        f'data-asked="{encode(data)}"><div><b>{word}</b> {inline(text)}</div>{still}</div>'
    )


def question_data(asked: Question) -> dict[str, Any]:
    """Give what ``questions.js`` needs to ask and to judge; formulas as values at points."""
    return {
        "id": asked.id,
        "kind": asked.kind,
        "hint": inline(asked.hint),
        "options": [
            {"html": inline(one.text), "right": one.right, "reply": inline(one.reply)}
            for one in asked.options
        ],
        "names": list(asked.names),
        "points": points(asked),
        "value": values(asked.value, asked) if asked.value else [],
        "reply": inline(asked.reply),
        "wrong": [
            {"value": values(value, asked), "reply": inline(reply)} for value, reply in asked.wrong
        ],
        "tolerance": asked.tolerance,
    }


def prediction_data(asked: Prediction) -> dict[str, Any]:
    """Give what ``questions.js`` needs to take a prediction."""
    return {
        "id": asked.id,
        "kind": asked.kind,
        "wanted": asked.wanted,
        "options": [{"html": inline(text), "text": text} for text in asked.options],
        "low": asked.low,
        "high": asked.high,
        "x": list(asked.x),
        "xlabel": asked.xlabel,
        "ylabel": asked.ylabel,
    }


def encode(data: dict[str, Any]) -> str:
    """Write data so that nobody reads an answer by accident: JSON in base64. It hides no secret."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(text.encode()).decode("ascii")
