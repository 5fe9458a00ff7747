"""One call, three forms: live controls, small multiples saved with the notebook, a text table.

Whatever the form, the saved output holds pictures that the function drew, their alt text, and a
table: GitHub, an exported page, nbval, a terminal and a screen reader are told the same.
"""

from __future__ import annotations

from typing import Any

from fewshot_lib.checker.frontend import Form, choose_form, emit
from fewshot_lib.checker.language import translate, words
from fewshot_lib.reading.multiples import small_multiples, small_table
from fewshot_lib.reading.parameters import Drawing, read_parameters

_ = words("reading")

PANELS = 6  # small multiples shown when nobody says how many


def explore(
    function: Drawing,
    /,
    *,
    _form: Form | None = None,
    _panels: int = PANELS,
    _title: str = "",
    _varies: bool = False,
    **parameters: Any,
) -> None:
    """Show what a drawing function does over its parameters, in the form that fits the reader.

    Live (JupyterLab, Notebook 7, VS Code, Colab): a control for each parameter, and the picture of
    the newest values. Static (nbconvert, nbclient, nbval): small multiples over a selection of the
    settings. Text (a terminal): a table. The environment variable FEWSHOT_EXPLORE = live, static or
    text decides where ``_form`` does not.

    Arguments:
        function: called with one value a parameter; returns (figure, data) like the functions of
            ``fewshot_lib.figures``. A ValueError of its own (a setting that cannot be) stands as a
            sentence in the picture's place; live, every exception does.
        _form: "live", "static" or "text"; by default what the front end can show.
        _panels: how many small multiples at most, ≥ 1; of more than six, four stand open. Of more
            settings a spread selection is shown, and the caption says so.
        _title: what is explored; by default the function's name.
        _varies: True when what is seen differs from machine to machine (something was trained):
            the text that nbval compares then leaves it out, the saved page keeps it.
        parameters: name → what it may be:
            a list: these values (numbers make a slider, anything else a row of buttons);
            a dictionary: label → value, a row of buttons;
            a tuple (low, high) of whole numbers or (low, high, step): a slider, ends included;
            True or False: a switch that starts so;
            a string: a line of text that starts so.
            A control starts at the function's own default where that is among the values, else at
            the first value.

    Raises:
        TypeError: a function that cannot be called with these parameters or does not return
            (figure, data), or a parameter that is none of the above.
        ValueError: no parameters, no values, a range that runs backwards or has over 1000 values.

    Notebooks: 00, 03, 05, 06 and on.

    >>> from fewshot_lib import figures
    >>> def ceiling(scale): return figures.softmax_ceiling((2, 5), [scale])
    >>> explore(ceiling, scale=[1, 20], _form="text")
    ceiling: 2 settings.
    scale  what is seen
    1      At α = 1 no probability exceeds 0.88 for K = 2 and 0.65 for K = 5.
    20     At α = 20 no probability exceeds 1.00 for K = 2 and 1.00 for K = 5.
    """
    controls = read_parameters(function, parameters)
    if _panels < 1:
        raise ValueError(f"_panels must be at least 1, got {_panels}")
    title = _title or getattr(function, "__name__", "picture").replace("_", " ")
    title = translate(title, "captions")
    form = choose_form(_form)
    if form == "live":
        from fewshot_lib.reading.panel import live

        live(function, controls, title, _panels)
    elif form == "static":
        data, metadata = small_multiples(function, controls, title, _panels)
        if _varies:
            names = _(", ").join(control.title for control in controls)
            data["text/plain"] = _(
                "{title}: small multiples over {names}. "
                "Its numbers differ a little from machine to machine and are not part of this text."
            ).format(title=title, names=names)
        emit(data, metadata)
    else:
        emit({"text/plain": small_table(function, controls, title, _panels)})
