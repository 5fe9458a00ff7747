"""Where the reader sits: before live widgets, a saved page, or a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Literal, get_args

from fewshot_lib.checker.console import say

Form = Literal["live", "static", "text"]
VARIABLE = "FEWSHOT_EXPLORE"


def choose_form(wanted: str | None = None) -> Form:
    """Say in which form interactive things are to be shown.

    ``wanted`` decides, else the environment variable FEWSHOT_EXPLORE, else the front end: "live"
    where a person executes a cell (JupyterLab, Notebook 7, VS Code name the cell in the request;
    Colab), "static" in every other kernel (nbconvert, nbclient, nbval), "text" without one.

    Arguments:
        wanted: "live", "static", "text" or None.

    Returns:
        the form; "static" when live widgets are due by the front end but ipywidgets is missing.

    Raises:
        ValueError: an unknown form, by argument or environment.

    >>> choose_form("text")
    'text'
    """
    for source, value in (("the argument", wanted), (VARIABLE, os.environ.get(VARIABLE))):
        if value:
            if value not in get_args(Form):
                raise ValueError(
                    f"{source} says {value!r}; a form is one of {', '.join(get_args(Form))}"
                )
            return value  # type: ignore[return-value]
    shell = _shell()
    if shell is None or not hasattr(shell, "kernel"):
        return "text"
    if _person_is_there(shell) and _has_widgets():
        return "live"
    return "static"


def emit(data: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> None:
    """Put one output before the reader: rich where there is a front end, else its text.

    Arguments:
        data: MIME type → content; "text/plain" is required.
        metadata: MIME type → metadata, saved with the output.

    Raises:
        ValueError: no "text/plain".
    """
    if "text/plain" not in data:
        raise ValueError(
            "every output needs text/plain: terminals, screen readers and nbval read it"
        )
    if _shell() is None:
        say(data["text/plain"])
        return
    from IPython.display import display

    display(dict(data), raw=True, metadata=dict(metadata or {}))


WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

#: Beside a widget that lives, its saved form is hidden; before the saved form of one that died or
#: still loads, what the front end says of it is. In JupyterLab and Notebook the two are in one
#: output area; elsewhere (VS Code, Colab) they are found by their name.
STYLE = (
    "<style>"
    ".jp-OutputArea:has(.fewshot-live) .jp-OutputArea-child:has(.fewshot-still),"
    "body:not(:has(.jp-OutputArea)):has(.fewshot-live-{name}) .fewshot-still-{name},"
    ".jp-OutputArea:not(:has(.fewshot-live))"
    " .jp-OutputArea-child:has(+ .jp-OutputArea-child .fewshot-still)"
    "{{display:none}}</style>"
)

#: JupyterLab opens a folded output again when its cell is run. So where the source of a cell is
#: folded and all that it put out is printed text, the text stays out of sight until the source is
#: opened.
FOLDED = (
    "<style>.jp-CodeCell:has(.jp-InputPlaceholder):not(:has(.jp-OutputArea-output"
    ':not([data-mime-type="application/vnd.jupyter.stdout"]))) .jp-Cell-outputWrapper'
    "{display:none}</style>"
)


def emit_live(
    box: Any, name: str, sentence: str, data: Mapping[str, Any], metadata: Mapping[str, Any]
) -> None:
    """Put a live widget before the reader, and below it what a saved notebook shows instead.

    They are two outputs: a widget dies with its kernel, and a notebook that was saved and opened
    again must still show something. Where the widget lives, the saved form is out of sight.

    Arguments:
        box: the widget.
        name: of what is shown, the same in every run: "prototypes.learned".
        sentence: stands for the widget where only text is shown.
        data, metadata: of the saved form, as for :func:`emit`; its "text/html" is required.
    """
    known = "".join(c if c.isalnum() else "-" for c in name.lower())
    box.add_class("fewshot-live")
    box.add_class(f"fewshot-live-{known}")
    view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    emit({WIDGET_VIEW: view, "text/plain": sentence})
    still = (
        f'{STYLE.format(name=known)}{FOLDED}<div class="fewshot-still fewshot-still-{known}">'
        f"{data['text/html']}</div>"
    )
    emit({**data, "text/html": still}, metadata)


def _shell() -> Any:
    """Return the running IPython shell, or None, without importing IPython for nothing."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    return get_ipython()


def _person_is_there(shell: Any) -> bool:
    """Say whether a front end with cells sent the running request; runners do not name cells."""
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    return "cellId" in (parent.get("metadata") or {}) or "google.colab" in sys.modules


def _has_widgets() -> bool:
    """Say whether ipywidgets is installed."""
    from importlib.util import find_spec

    return find_spec("ipywidgets") is not None


#: Options as wide as the question, their words wrapped: ipywidgets would cut them off.
LOOK = """<style>
.fewshot-option.jupyter-button, .fewshot-option.jupyter-widgets {white-space: normal; height: auto;
  text-align: left; line-height: 1.4; padding: .35em .8em; overflow: visible}
.fewshot-option > .widget-label {display: none !important}
.fewshot-option .widget-label-basic {display: flex; gap: .6em; align-items: baseline; width: 100%;
  white-space: normal; overflow: visible; height: auto; line-height: 1.4; cursor: pointer}
.fewshot-option .widget-label-basic > input {flex: 0 0 auto; width: auto; margin: 0}
.fewshot-option .widget-label-basic > span {flex: 1 1 auto; text-align: left; white-space: normal;
  overflow: visible}
.fewshot-option:focus-visible, .fewshot-option input:focus-visible {outline: 3px solid #1a73e8}
</style>"""
