"""What questions and predictions share: how their files are read, and how they are put."""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Generic, TypeVar

from fewshot_lib.checker import frontend
from fewshot_lib.checker import language as speech
from fewshot_lib.checker.markup import plain

FRAME = "border-left:4px solid #4c5f7a;padding:.3em 1em;max-width:52em;line-height:1.45"
#: Seconds to wait for what the front end has still to send of a typed answer.
LAST_KEYS = 0.25


Asked = TypeVar("Asked")


@dataclass(frozen=True, eq=False)
class Shelf(Generic[Asked]):
    """All questions, or all predictions, by notebook: ``KINDs/WORD.toml`` with ``[[KIND]]`` tables.

    Arguments:
        kind: "question" or "prediction".
        read_one: a table and its id → what is asked, held to the rules.
        translated: what is asked, and how a text is said → the same in the reader's language.
        bad: raised for a file that breaks a rule.
        missing: raised for a name that is not there.
    """

    kind: str
    read_one: Callable[[dict[str, Any], str], Asked]
    translated: Callable[[Asked, Callable[[str], str]], Asked]
    bad: type[ValueError]
    missing: type[LookupError]

    def file(self, word: str) -> Traversable:
        """Give the file of a notebook's word."""
        return resources.files("fewshot_lib.reading") / f"{self.kind}s" / f"{word}.toml"

    @cache  # noqa: B019 - there are two of these, for as long as the program runs
    def words(self) -> tuple[str, ...]:
        """Give the words of the notebooks that ask something."""
        folder = resources.files("fewshot_lib.reading") / f"{self.kind}s"
        names = (entry.name for entry in folder.iterdir())
        return tuple(sorted(name[:-5] for name in names if name.endswith(".toml")))

    def read(self, text: str, word: str) -> dict[str, Asked]:
        """Read a file's text and hold it to the rules; ``word`` is the first part of every id.

        Raises:
            BadQuestion, BadPrediction: says which one, and what is wrong with it.
        """
        try:
            tables = tomllib.loads(text).get(self.kind, [])
        except tomllib.TOMLDecodeError as error:
            raise self.bad(f"{self.kind}s/{word}.toml: {error}") from None
        found: dict[str, Asked] = {}
        for table in map(dict, tables):
            name = f"{word}.{table.pop('id', '')}"
            if not re.fullmatch(r"[a-z_]+\.[a-z][a-z0-9-]*", name):
                raise self.bad(f"{name}: an id is lower-case letters, digits and hyphens")
            if name in found:
                raise self.bad(f"{name}: there are two of this name")
            found[name] = self.read_one(table, name)
        return found

    def of(self, word: str) -> Mapping[str, Asked]:
        """Give what one notebook asks, by id, in the reader's language.

        Raises:
            NoSuchQuestion, NoSuchPrediction: the notebook asks nothing.
        """
        return self._spoken(word, speech.language())

    def find(self, name: str) -> Asked:
        """Give a question or prediction by its id.

        Raises:
            NoSuchQuestion, NoSuchPrediction: there is none; lists those of the notebook.
        """
        known = self.of(name.partition(".")[0])
        if name not in known:
            raise self.missing(f"no {self.kind} {name!r}; there are {', '.join(known)}")
        return known[name]

    @cache  # noqa: B019
    def _spoken(self, word: str, spoken: str) -> Mapping[str, Asked]:
        known = speech.catalogue(spoken, f"{self.kind}s")
        return {
            name: self.translated(asked, lambda text: known.get(text, text))
            for name, asked in self._english(word).items()
        }

    @cache  # noqa: B019
    def _english(self, word: str) -> Mapping[str, Asked]:
        if word not in self.words():
            raise self.missing(
                f"no {self.kind}s for {word!r}; there are some for {', '.join(self.words())}"
            )
        return self.read(self.file(word).read_text(encoding="utf-8"), word)


def put(
    asked: Asked,
    form: str | None,
    forms: tuple[Callable[[Asked], str], Callable[[Asked], str], Callable[[Asked], Any]],
    name: str,
    sentence: str,
) -> None:
    """Put what is asked before the reader, in the form that fits where this runs.

    Arguments:
        asked: a question or a prediction.
        form: "live", "static" or "text"; chosen by the front end when omitted.
        forms: that make it a text, a page and a widget.
        name: of the widget, the same in every run.
        sentence: stands for the widget where only text is shown.
    """
    chosen = frontend.choose_form(form)
    as_text, as_html, as_widget = forms
    data = {"text/plain": as_text(asked)}
    if chosen != "text":
        data["text/html"] = as_html(asked)
    if chosen == "live":
        frontend.emit_live(as_widget(asked), name, sentence, data, {})
    else:
        frontend.emit(data)


def framed(parts: Sequence[Any]) -> Any:
    """Give widgets below each other in the frame of what is asked."""
    import ipywidgets as widgets

    box = widgets.VBox(parts)
    box.layout.border_left = "4px solid #4c5f7a"
    box.layout.padding = "0.3em 1em"
    box.layout.max_width = "54em"
    return box


def push_button(words: str, tip: str, act: Callable[..., Any]) -> Any:
    """Give a button that acts when it is pressed."""
    import ipywidgets as widgets

    button = widgets.Button(description=words, tooltip=tip)
    button.on_click(act)
    return button


def option_button(words: str, option: str, press: Callable[[Any, str], Any]) -> Any:
    """Give an option's button, as wide as its words; ``press`` gets button and option."""
    import ipywidgets as widgets

    button = widgets.Button(description=plain(words))
    button.layout.width, button.layout.height = "auto", "auto"
    button.add_class("fewshot-option")
    button.on_click(lambda button: press(button, option))
    return button


def typed(
    description: str, placeholder: str, width: str, act: Callable[[str], Any]
) -> tuple[Any, Callable[..., None]]:
    """Give a field for typing, and what acts on its text: Enter does, and a button may."""
    import ipywidgets as widgets

    field = widgets.Text(description=description, placeholder=placeholder)
    field.style.description_width = "initial"
    field.layout.width = width

    def submit(*_: Any) -> None:
        """Act when the last keys have come: Enter overtakes the letters typed just before it."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            act(field.value)
        else:
            loop.call_later(LAST_KEYS, lambda: act(field.value))

    def heard(_: Any, content: Any, __: Any) -> None:
        if content.get("event") == "submit":  # Enter was pressed
            submit()

    field.on_msg(heard)
    return field, submit
