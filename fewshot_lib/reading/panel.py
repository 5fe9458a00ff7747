"""The live form of ``explore``: controls, what is seen, and the picture of the newest values."""

from __future__ import annotations

import gc
import html
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import TYPE_CHECKING, Any

from fewshot_lib.checker.frontend import emit_live
from fewshot_lib.checker.language import translate_message
from fewshot_lib.checker.language import words as spoken
from fewshot_lib.reading.multiples import draw, in_a_sentence, small_multiples, words
from fewshot_lib.reading.parameters import Control, Drawing, Setting
from fewshot_lib.reading.show import HOLE, close, png_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ = spoken("reading")

SAVED_SECONDS = 1.0  # that the live form may spend on the small multiples saved with the notebook
FLUENT = 0.25  # seconds a picture may take for sliders to draw while they are being dragged
NEWEST = 0.4  # the weight of the newest picture in the running mean of these seconds

#: ipywidgets gives a slider's handle no name and a rounded value, and a picture no alt text (its
#: ``tooltip`` breaks an Image); only the page can. Where this does not run, the rest still works.
NAMES = """<style>
.fewshot-explore .widget-inline-hbox > .widget-label {text-align: left; width: 11em; flex: 0 0 11em;
  white-space: normal; line-height: 1.3; align-self: center}
</style><script>(function name(tries) {
  for (const box of document.querySelectorAll(".fewshot-explore:not([data-named])")) {
    const words = box.querySelector(".fewshot-words"), image = box.querySelector("img");
    if (!words || !image) continue;
    box.dataset.named = "yes";
    for (const slider of box.querySelectorAll(".widget-slider")) {
      const handle = slider.querySelector("[role=slider]");
      const readout = slider.querySelector(".widget-readout");
      const read = () => handle.setAttribute("aria-valuetext", readout.textContent);
      handle.setAttribute("aria-label", slider.querySelector("label").textContent);
      new MutationObserver(read).observe(readout, {childList: true, characterData: true,
        subtree: true});
      read();
    }
    const tell = () => { image.alt = words.textContent.trim(); };
    new MutationObserver(tell).observe(words, {childList: true, subtree: true});
    tell();
  }
  if (tries) setTimeout(name, 250, tries - 1);
})(40)</script>"""


@contextmanager
def _garbage_at_once() -> Iterator[None]:
    """Collect what is thrown away inside as soon as it is, while it is young.

    A figure is thousands of objects that refer to each other. Left to itself Python ages them with
    everything else and then goes through the whole memory, torch and all, while a slider waits.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
            gc.collect(0)


def live(function: Drawing, controls: Sequence[Control], title: str, panels: int) -> None:
    """Show controls with their picture, and keep small multiples for who opens the saved notebook.

    The widget is one output, the small multiples another: a notebook that was saved and opened
    again shows pictures, never "model not found".
    """
    panel = Panel(function, controls)
    data, metadata = small_multiples(
        function, controls, title, panels, seconds=SAVED_SECONDS, forgive=Exception,
        around=f"{NAMES}{HOLE}",
    )  # fmt: skip
    sentence = _(
        "{title}: run this cell to move its controls; some of their settings are below."
    ).format(title=title)
    emit_live(panel.box, title, sentence, data, metadata)


class Panel:
    """Controls above, what is seen below them, the picture, and the picture in words.

    ``box`` is the widget. Every change replaces the picture's bytes in place: nothing flickers and
    nothing piles up. While a picture is being drawn the front end holds further changes back and
    then sends the newest only.
    """

    def __init__(self, function: Drawing, controls: Sequence[Control]) -> None:
        import ipywidgets as widgets

        self.function = function
        self.controls = list(controls)
        self.places: dict[int, list[Any]] = {}
        self.seconds: float | None = None  # a picture takes, as a running mean
        self.knobs = [_knob(control) for control in controls]
        self.said = widgets.HTML()
        self.picture = widgets.Image(format="png", layout=widgets.Layout(max_width="100%"))
        self.told = widgets.HTML()
        self.told.add_class("fewshot-words")
        folded = widgets.Accordion([self.told], titles=[_("The picture in words")])
        self.draw()
        for knob in self.knobs:
            knob.observe(self.draw, names="value")
        self.box = widgets.VBox([*self.knobs, self.said, self.picture, folded])
        self.box.add_class("fewshot-explore")

    @property
    def setting(self) -> Setting:
        """Return the controls' values."""
        return {
            c.name: c.nearest(knob.value) if c.kind == "range" else knob.value
            for c, knob in zip(self.controls, self.knobs, strict=True)
        }

    @_garbage_at_once()
    def draw(self, change: object = None) -> None:
        """Draw the picture of the controls' values, or say why it cannot be drawn."""
        from fewshot_lib.figures import png

        begun = time.perf_counter()
        try:
            figure, data = draw(self.function, self.setting)
            self._place(figure)
            picture = png(figure, quick=True)
        except Exception as error:
            sentence = html.escape(in_a_sentence(error))
            self.said.value = f'<p role="alert"><b>{_("No picture.")}</b> {sentence}</p>'
            self.told.value = f"<p>{_('No picture.')} {sentence}</p>"
            self.picture.layout.visibility = "hidden"
            return
        close(figure)
        self.picture.value = picture
        self.picture.width = str(png_size(picture)[0])
        self.picture.layout.visibility = "visible"
        seen = translate_message(data.finding, "captions") or data.what
        finding = html.escape(f"{words(self.controls, self.setting)}. {seen}")
        self.said.value = f'<p role="status">{finding}</p>'
        self.told.value = f"<p>{html.escape(data.alt)}</p>"
        self._took(time.perf_counter() - begun)

    def _took(self, seconds: float) -> None:
        """Let sliders draw while they are dragged as long as pictures are quick on the whole.

        The first picture of a session loads fonts, and one may fall into a busy moment: neither
        decides by itself.
        """
        if self.seconds is None:
            self.seconds = seconds
        else:
            self.seconds += NEWEST * (seconds - self.seconds)
        for knob, control in zip(self.knobs, self.controls, strict=True):
            if control.kind in ("range", "steps"):
                knob.continuous_update = self.seconds <= FLUENT

    def _place(self, figure: Figure) -> None:
        """Put axes where the last picture had them: nothing jumps, and laying out takes long."""
        engine = figure.get_layout_engine()
        if engine is None:
            return
        kept = self.places.get(len(figure.axes))
        if kept is not None:
            figure.set_layout_engine("none")
            for axes, place in zip(figure.axes, kept, strict=True):
                axes.set_position(place)
            if _fits(figure):
                return
            for axes in figure.axes:  # longer labels than before: make room for them
                axes.set_in_layout(True)
            figure.set_layout_engine(engine)
        figure.draw_without_rendering()
        self.places[len(figure.axes)] = [axes.get_position() for axes in figure.axes]


def _fits(figure: Figure) -> bool:
    """Say whether every label lies inside the picture, to a hundredth of an inch."""
    drawn, page = figure.get_tightbbox(), figure.bbox_inches.padded(0.01)
    return page.contains(drawn.x0, drawn.y0) and page.contains(drawn.x1, drawn.y1)


def _knob(control: Control) -> Any:
    """Make the widget of a control: labelled, with a readout, usable from the keyboard."""
    import ipywidgets as widgets

    how: dict[str, Any] = {
        "description": control.title,
        "style": {"description_width": "11em"},
        "layout": widgets.Layout(width="min(36em, 98%)"),
    }
    options = list(zip(control.labels, control.values, strict=True))
    if control.kind == "switch":
        return widgets.Checkbox(value=bool(control.start), **how)
    if control.kind == "text":
        return widgets.Text(value=control.values[0], continuous_update=False, **how)
    if control.kind == "menu":
        # not a drop-down: JupyterLab takes the arrows and letters that one needs for its own
        how["style"] = {"description_width": "11em", "button_width": "auto"}
        how["layout"] = widgets.Layout(width="98%")
        return widgets.ToggleButtons(options=options, index=control.start, **how)
    if control.kind == "range" and len(control.values) > 1:  # its handle tells screen readers
        low, high = control.values[0], control.values[-1]  # the value, not its place
        how |= {"min": low, "max": high, "step": control.values[1] - low}
        start = control.values[control.start]
        if all(isinstance(value, Integral) for value in control.values):
            return widgets.IntSlider(value=start, **how)
        digits = max(len(label.partition(".")[2]) for label in control.labels)
        return widgets.FloatSlider(value=start, readout_format=f".{digits}f", **how)
    return widgets.SelectionSlider(options=options, index=control.start, **how)
