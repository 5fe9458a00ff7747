"""Pictures that move without a kernel: small ES modules that compute in the browser.

One text of each module serves every page: a widget (anywidget) where a person runs the cell, an
inline script where the notebook is a page of the book. Where neither runs, a still picture and its
text stand in the place. The modules and their data lie in ``modules/``.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fewshot_lib.checker import language as speech
from fewshot_lib.checker.frontend import choose_form, emit, emit_live
from fewshot_lib.reading.show import HOLE, close, picture_bundle, picture_text, table_html

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from fewshot_lib.figures import PlotData

_ = speech.words("reading")

MODULES = Path(__file__).parent / "modules"


class Scene(NamedTuple):
    """A drawn slice: ``image`` (1, H, W) float64 in 0 … 1, and ``labels`` (H, W), 1 the organ."""

    image: torch.Tensor
    labels: torch.Tensor


def moving(name: str) -> None:
    """Show a picture that moves: "organ", "plane" or "switchboard".

    Live (JupyterLab, Notebook 7, VS Code, Colab) it answers to pointer, touch and keys, and no
    kernel is asked; the notebook is saved with a still picture. Elsewhere, and in a live front end
    without anywidget, the still picture and its text are all there is.

    Arguments:
        name: which picture.

    Raises:
        ValueError: no such picture.

    Notebooks: 00, 03 and 04.

    >>> moving("organ")  # doctest: +ELLIPSIS
    The organ moves 24 pixels to the right. The mask of the note's network stays.
    Picture: Strip of 4 images of 64×96 pixels: support, query with its true organ...
    """
    if name not in STILLS:
        raise ValueError(f"no moving picture {name!r}; there are {', '.join(STILLS)}")
    figure, seen = STILLS[name](data(name))
    form = choose_form()
    if form == "text":
        emit({"text/plain": picture_text(seen, seen.finding)})
        close(figure)
        return
    bundle = saved_form(name, figure, seen)
    if form == "live" and find_spec("anywidget"):
        sentence = _("{what}: run this cell to move it; a still picture is below.")
        sentence = sentence.format(what=seen.what)
        emit_live(widget(name), f"moving {name}", sentence, *bundle)
    else:
        emit(*bundle)


def saved_form(name: str, figure: Figure, seen: PlotData) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (data, metadata) of the output that holds the still; a page may set it going."""
    from fewshot_lib.figures import picture

    details = table_html(seen.columns, seen.rows)
    around = f'<div class="fewshot-moving" data-module="{html.escape(name)}">{HOLE}</div>'
    text = picture_text(seen, seen.finding)
    made = picture_bundle(picture(figure), seen.alt, seen.finding, text, details, around)
    close(figure)
    return made


def data(name: str) -> dict[str, Any]:
    """Read what a module computes with."""
    read: dict[str, Any] = json.loads((MODULES / f"{name}.json").read_text(encoding="utf-8"))
    return read


def told(name: str) -> dict[str, Any]:
    """Give what a module computes with and, in other languages than English, its words.

    Returns:
        As :func:`data`; ``words`` holds the translation of each English text of the module, and the
        names of classes and axes are translated.
    """
    read = data(name)
    if speech.language() == speech.SOURCE:
        return read
    named: dict[str, Any] = {
        key: [_said(text) for text in read[key]] for key in ("names", "axes") if key in read
    }
    return {**read, **named, "words": translations(source(name))}


#: What a module says, as Python does: _("words", …), literals joined by +.
SPOKEN = re.compile(r'\b_\(\s*("(?:[^"\\]|\\.)*"(?:\s*\+\s*"(?:[^"\\]|\\.)*")*)')


def spoken(text: str) -> list[str]:
    """List what a module's text says, each once.

    >>> spoken('say(_("one " + "two", { n })); _("three")')
    ['one two', 'three']
    """
    found = (re.split(r'(?<=")\s*\+\s*(?=")', literals) for literals in SPOKEN.findall(text))
    return list(dict.fromkeys("".join(map(json.loads, parts)) for parts in found))


def translations(text: str) -> dict[str, str]:
    """Give the words of a module's text in the reader's language; {} in English."""
    known = {said: _said(said) for said in spoken(text)}
    return {english: said for english, said in known.items() if english != said}


def _said(text: str) -> str:
    """Say a module's words: by their own catalogue, or by that of what Python says, too."""
    own = speech.translate(text, "modules")
    return speech.translate(text, "reading") if own == text else own


def source(name: str) -> str:
    """Return a module as one text: what it imports from its neighbours stands in it.

    The text imports nothing, so it needs neither a server nor the network.
    """
    text = (MODULES / f"{name}.js").read_text(encoding="utf-8")
    for line, neighbour in re.findall(r'^(import .* from "\./(\w+)\.js";)$', text, re.MULTILINE):
        shared = (MODULES / f"{neighbour}.js").read_text(encoding="utf-8")
        text = text.replace(line, re.sub(r"^export ", "", shared, flags=re.MULTILINE))
    return text


def widget(name: str) -> Any:
    """Make the widget that runs a module; nothing comes back to the kernel."""
    import anywidget
    from traitlets import Dict

    held = {"_esm": source(name), "data": Dict(told(name)).tag(sync=True)}
    return type("Moving", (anywidget.AnyWidget,), held)()


def organ_scene(settings: Mapping[str, Any], shift: tuple[int, int], seed: int) -> Scene:
    """Draw the slice of ``organ.js`` with the organ moved by (right, down) pixels.

    The noise comes from x ← 1664525 x + 1013904223 mod 2³², so that a browser draws the same.
    """
    import torch

    height, width = settings["size"]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")

    def inside(shape: Mapping[str, Any], right: int = 0, down: int = 0) -> torch.Tensor:
        (u, v), (a, b) = shape["centre"], shape["radii"]
        return ((x - right - u) / a) ** 2 + ((y - down - v) / b) ** 2 < 1

    body, organ = settings["body"], settings["organ"]
    where, states = inside(organ, *shift), [seed]
    for _ in range(height * width):
        states.append((1664525 * states[-1] + 1013904223) % 2**32)
    chance = 2 * torch.tensor(states[1:], dtype=torch.float64).view(height, width) / 2**32 - 1
    grey = body["grey"] * inside(body).double() + organ["grey"] * where.double()
    return Scene((grey + settings["noise"] * chance).clamp(0, 1)[None], where.long())


def organ_logits(
    settings: Mapping[str, Any], shift: tuple[int, int]
) -> tuple[Scene, Scene, dict[str, torch.Tensor]]:
    """Return support, query and what both networks of ``organ.js`` say: name → (2, H, W)."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    from fewshot_lib.networks import FewShotSegmentationNet

    class Fixed(nn.Module):
        """The mean of 3×3 pixels, times weights, plus biases, ReLU: (B, 1, H, W) → (B, 2, H, W)."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            mean = F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
            weights, biases = (
                torch.tensor(settings["encoder"][one], dtype=images.dtype)[:, None, None]
                for one in ("weights", "biases")
            )
            return (weights * mean + biases).relu()

    support = organ_scene(settings, (0, 0), settings["seeds"]["support"])
    query = organ_scene(settings, shift, settings["seeds"]["query"])
    masks = F.one_hot(support.labels, 2).movedim(-1, 0)[None]
    scales: dict[Any, float] = settings["scales"]
    said = {
        kind: FewShotSegmentationNet(prototypes=kind, scale=scale, encoder=Fixed())(
            support.image[None], masks, query.image
        )
        for kind, scale in scales.items()
    }
    return support, query, said


def _organ(settings: Mapping[str, Any]) -> tuple[Figure, PlotData]:
    from fewshot_lib import figures

    shift = (24, 0)
    support, query, said = organ_logits(settings, shift)
    names = {"position": "note's network", "masked": "masked pooling"}
    drawn = {names[kind]: logits.argmax(dim=0) for kind, logits in said.items()}
    figure, seen = figures.episode(*support, *query, drawn, ("background", "organ"))
    same = (drawn[names["position"]] == support.labels).double().mean().item()
    finding = (
        _("The organ moves {n} pixels to the right. The mask of the note's network stays.")
        if same >= 0.99
        else _("The organ moves {n} pixels to the right. The mask of the note's network moves.")
    )
    return figure, replace(seen, finding=finding.format(n=shift[0]), what=_("the organ that moves"))


def _plane(settings: Mapping[str, Any]) -> tuple[Figure, PlotData]:
    import torch

    from fewshot_lib import figures
    from fewshot_lib.prototypes import class_prototypes

    shots = torch.tensor(settings["shots"])[:, : settings["n_shots"]]  # (K, n, 2)
    owners = torch.arange(len(shots)).repeat_interleave(shots.shape[1])
    points = shots.flatten(0, 1)
    figure, seen = figures.embedding(
        points, owners, prototypes=class_prototypes(points, owners, len(shots)),
        limits=settings["limits"], axis_names=settings["axes"], names=settings["names"],
    )  # fmt: skip
    finding = _("Examples make prototypes (stars), and prototypes make regions.")
    return figure, replace(seen, finding=finding, what=_("the prototype plane"))


class Board(NamedTuple):
    """What the switches of ``switchboard.js`` say; all off by default."""

    prior: float = 1.0
    width: float = 1.0
    stretch: float = 1.0
    lumps: bool = False
    distance: Any = "squared_euclidean"
    shots: float | None = None


def board_models(settings: Mapping[str, Any], switches: Board) -> tuple[Any, dict[str, Any]]:
    """Return the network and the three mixtures of ``switchboard.js``, computed by the library.

    Returns:
        (prototypes (3, 2) float64, name → (log π + log p(z | y = k) as a function of z, means,
        priors)).
    """
    import torch

    from fewshot_lib.mixture import gaussian_log_density

    centres, tilt, lumps, noise = (
        torch.tensor(settings[name], dtype=torch.float64)
        for name in ("centres", "tilt", "lumps", "noise")
    )
    middle = centres.mean(dim=0)
    apart = centres - middle
    cases = {
        "centres c, variance ½": (apart, 0.5, 1.0, apart.new_zeros(3)),
        "centres c + a/2, variance ½": (apart + tilt / 2, 0.5, 1.0, apart @ tilt),
        "centres c/2, variance ¼": (apart / 2, 0.25, 0.5, -apart.square().sum(dim=1) / 2),
    }
    spread = torch.tensor([switches.stretch, 1.0], dtype=torch.float64)
    widths = torch.tensor([switches.width, 1.0, 1.0], dtype=torch.float64)[:, None]
    first = torch.tensor([switches.prior, 1.0, 1.0], dtype=torch.float64).log()

    def joint(
        means: torch.Tensor, variance: float, scale: float, weight: torch.Tensor
    ) -> tuple[Any, torch.Tensor, torch.Tensor]:
        prior = (weight + first).log_softmax(dim=0)
        covariance = torch.diag_embed(variance * spread * widths)  # (K, 2, 2)

        def log_joint(z: torch.Tensor) -> torch.Tensor:
            density = gaussian_log_density(z, means + middle, covariance=covariance)
            if switches.lumps:
                pair = means[1] + middle + scale * lumps
                halves = gaussian_log_density(z, pair, covariance=covariance[1])
                density[:, 1] = halves.logsumexp(dim=-1) - torch.tensor(2.0).double().log()
            return density + prior

        return log_joint, means + middle, prior.exp()

    off = 0.0 if switches.shots is None else (1 / switches.shots) ** 0.5
    prototypes = centres + noise * off * (0.5 * spread * widths).sqrt()
    return prototypes, {name: joint(*case) for name, case in cases.items()}


def _switchboard(settings: Mapping[str, Any]) -> tuple[Figure, PlotData]:
    from functools import partial

    from fewshot_lib import figures
    from fewshot_lib.prototypes import log_posterior

    width = settings["widths"][-1]
    prototypes, models = board_models(settings, Board(width=width))
    log_joint, means = next(iter(models.values()))[:2]
    truth = figures.Reading("the mixture", lambda z: log_joint(z).log_softmax(dim=-1), means)
    network = figures.Reading("network", partial(log_posterior, prototypes=prototypes), prototypes)
    figure, seen = figures.compare_regions(
        truth, network, settings["names"], settings["limits"], settings["axes"]
    )
    said = _("One switch: the liver's variance is multiplied by {width}. {finding}")
    finding = said.format(width=width, finding=seen.finding)
    return figure, replace(seen, finding=finding, what=_("one posterior, with switches"))


STILLS = {"organ": _organ, "plane": _plane, "switchboard": _switchboard}
