"""Diagrams: an episode, pooling under a mask, the network's data flow, EP1 beside EP2.

Everything is placed by hand in inches, top-down, in one axes and one type size. No line runs
through a label (a test looks at all of them), and every number drawn is computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch, Rectangle
from numpy.typing import ArrayLike

from fewshot_lib import evaluation
from fewshot_lib.checker import language
from fewshot_lib.figures.style import (
    HATCHES,
    INK,
    PALETTE,
    QUIET,
    PlotData,
    counted,
    drawing,
    inch_axes,
    listing,
    number,
    numpy_of,
)

_ = language.words("figures")

PALE = "#EEF3F8"
TYPE = 9.0  # points, of every label


@dataclass(frozen=True)
class Sketch:
    """Labels, boxes and arrows on a figure whose unit is the inch, from the top left corner."""

    axes: Axes

    def text(self, x: float, y: float, words: str, ha: str = "center", **how: Any) -> None:
        """Write a label with its middle at height ``y``."""
        self.axes.text(x, y, words, ha=ha, va="center", fontsize=TYPE, **how)

    def box(
        self, x: float, y: float, width: float, height: float, words: str = "", **how: Any
    ) -> None:
        """Draw a rectangle with its upper left corner at (x, y), and words inside."""
        look: dict[str, Any] = {"fc": PALE, "ec": QUIET, "lw": 0.8, "clip_on": False} | how
        self.axes.add_artist(Rectangle((x, y), width, height, **look))
        if words:
            self.text(x + width / 2, y + height / 2, words)

    def arrow(self, *corners: tuple[float, float], **how: Any) -> None:
        """Draw a line through the corners, with a head at its end."""
        look: dict[str, Any] = {"color": INK, "lw": 1.2} | how
        self.axes.plot(*zip(*corners[:-1], strict=True), solid_capstyle="round", **look)
        self.axes.add_artist(
            FancyArrowPatch(
                *corners[-2:], arrowstyle="-|>", mutation_scale=11, shrinkA=0, shrinkB=0, **look
            )
        )

    def slice(self, x: float, y: float, side: float, places: ArrayLike) -> None:
        """Draw a body with an organ at each place, (n, 2) in 0 … 1 of the side."""
        self.box(x, y, side, side, fc="black")
        self._blob(x + side / 2, y + side / 2, 0.88 * side, 0.72 * side, "#666666")
        for i, (across, down) in enumerate(np.asarray(places)):
            grey = ("#C8C8C8", "#9A9A9A", "#E6E6E6", "#B0B0B0", "#828282")[i]
            self._blob(x + across * side, y + down * side, 0.26 * side, 0.2 * side, grey)

    def mask(self, x: float, y: float, side: float, place: Sequence[float], colour: str) -> None:
        """Draw the mask of one organ."""
        self.box(x, y, side, side, fc="white")
        across, down = place
        self._blob(x + across * side, y + down * side, 0.26 * side, 0.2 * side, colour)

    def _blob(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self.axes.add_artist(Ellipse((x, y), width, height, fc=colour, ec="none"))


def diagram_episode(n_way: int = 2, k_shot: int = 2, n_query: int = 2) -> tuple[Figure, PlotData]:
    """Draw what an episode of segmentation holds: labelled slices per class, slices without.

    Arguments:
        n_way: classes, 1 … 3.
        k_shot: labelled slices per class, 1 … 3.
        n_query: slices to be segmented, 1 … 3.

    Returns:
        figure, and data with the number of labelled and of query slices. Notebook 02.

    Raises:
        ValueError: a number out of range.

    >>> diagram_episode(2, 3)[1].finding
    'A 2-way 3-shot episode: 2×3 = 6 labelled slices of the support, 2 slices of the query.'
    """
    counts = {"n_way": n_way, "k_shot": k_shot, "n_query": n_query}
    for name, count in counts.items():
        if not 1 <= count <= 3:
            raise ValueError(f"the diagram has room for {name} = 1 … 3, got {count}")
    rng = np.random.default_rng(0)
    names = ("liver", "spleen", "kidney")
    middles = np.array([[0.36, 0.42], [0.68, 0.45], [0.5, 0.66]])

    def places() -> Any:
        return middles + rng.uniform(-0.05, 0.05, middles.shape)

    rows, gap, left, top = max(n_way, n_query), 0.08, 0.75, 0.75
    side = min((5.9 - 3 * gap * k_shot) / (2 * k_shot + 2), 2.2 / rows - 2 * gap)
    pair = 2 * side + gap
    with drawing("wide") as figure:
        sketch = Sketch(inch_axes(figure))
        title = f"support: {n_way} way{'s' * (n_way > 1)} × {k_shot} shot{'s' * (k_shot > 1)}"
        sketch.text(left, 0.22, title, "left", weight="bold")
        for shot in range(k_shot):
            x = left + shot * (pair + 2 * gap)
            sketch.text(x + pair / 2, 0.55, f"shot {shot + 1}")
            for way in range(n_way):
                y, where = top + way * (side + 2 * gap), places()
                sketch.slice(x, y, side, where)
                sketch.mask(x + side + gap, y, side, where[way], PALETTE[way])
        for way in range(n_way):
            y = top + way * (side + 2 * gap) + side / 2
            sketch.text(left - 0.1, y, names[way], "right", color=PALETTE[way], weight="bold")
        x, middle = 7.5 - pair, top + (n_way * (side + 2 * gap) - 2 * gap) / 2
        sketch.text(7.5, 0.22, "query: other people", "right", weight="bold")
        sketch.text(x + pair / 2, 0.55, "no labels")
        for query in range(n_query):
            y = top + query * (side + 2 * gap)
            sketch.slice(x, y, side, places())
            sketch.box(x + side + gap, y, side, side, "?", fc="white")
        sketch.arrow((left + k_shot * (pair + 2 * gap), middle), (x - 0.15, middle))
        sketch.text(left, 3.2, "A class is known by its support and by nothing else.", "left")
        sketch.text(7.5, 3.2, "True masks: for the score or the loss.", "right")
    labelled = n_way * k_shot
    finding = _(
        "A {n_way}-way {k_shot}-shot episode: {n_way}×{k_shot} = {labelled} labelled slices "
        "of the support, {n_query} of the query."
    ).format(n_way=n_way, k_shot=k_shot, labelled=labelled, n_query=counted(n_query, "slice"))
    return figure, PlotData(
        what=_("an episode of segmentation"),
        alt=_(
            "Diagram. Left, the support: {labelled} slices in {n_way} rows ({listing}) and "
            "{k_shot} columns (shots), each beside the mask of its row's organ. An arrow leads "
            "to the right, to the query: {n_query} slices of other people, each beside an empty "
            "mask with a question mark."
        ).format(
            labelled=labelled,
            n_way=n_way,
            listing=listing(names[:n_way]),
            k_shot=k_shot,
            n_query=n_query,
        ),
        columns=(_("part"), _("slices"), _("masks given")),
        rows=((_("support"), labelled, labelled), (_("query"), n_query, 0)),
        finding=finding,
        numbers={"support": labelled, "query": n_query},
    )


def diagram_pooling(
    features: ArrayLike = ((9, 8, 2, 1), (7, 8, 1, 2), (2, 1, 1, 2), (1, 2, 2, 1)),
    mask: ArrayLike = ((1, 1, 0, 0), (1, 1, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0)),
) -> tuple[Figure, PlotData]:
    """Draw pooling under a mask: the mean of the features inside it, and of those outside.

    c_k = Σ_p M_k(p) f(p) / Σ_p M_k(p)

    Arguments:
        features: (R, R) one feature per position, R ≤ 5.
        mask: (R, R) of 0 and 1, where the organ is; some of each.

    Returns:
        figure, and data with the prototypes "organ" and "background". Notebook 05.

    Raises:
        ValueError: shapes that differ or do not fit, a mask without organ or background.

    >>> diagram_pooling([[4, 1], [2, 3]], [[1, 0], [0, 0]])[1].finding
    'Two prototypes: organ 4.00, the mean of 1 position; background 2.00, the mean of 3.'
    """
    values = numpy_of(features, "features", 2).astype(float)
    marked = numpy_of(mask, "mask", 2).astype(bool)
    if values.shape != marked.shape or len(set(values.shape)) > 1 or len(values) > 5:
        raise ValueError(
            f"expected features and a mask (R, R) with R ≤ 5, got {values.shape} and {marked.shape}"
        )
    if marked.all() or not marked.any():
        raise ValueError("the mask must have some 1 (organ) and some 0 (background)")
    means = {"organ": values[marked].mean(), "background": values[~marked].mean()}
    counts = {"organ": int(marked.sum()), "background": int((~marked).sum())}
    looks = {"organ": (PALETTE[4], "///"), "background": (PALE, "")}
    cell = 2.0 / len(values)
    with drawing("wide") as figure:
        sketch = Sketch(inch_axes(figure))
        for left, title in ((0.3, "features f(p)"), (2.9, "mask M(p) on the features")):
            sketch.text(left + 1, 0.3, title, weight="bold")
            for (r, c), value in np.ndenumerate(values):
                word = f"{value:g}" if left < 1 else f"{int(marked[r, c])}"
                colour = looks["organ" if marked[r, c] else "background"][0]
                sketch.box(left + c * cell, 0.55 + r * cell, cell, cell, word, fc=colour)
        sketch.text(6.4, 0.3, "prototypes: means", weight="bold")
        for y, name in ((0.75, "organ"), (1.85, "background")):
            sketch.arrow((5.0, y + 0.25), (5.6, y + 0.25))
            sketch.box(5.7, y, 1.5, 0.5, f"{name}: {number(means[name])}", fc=looks[name][0])
            sketch.text(5.7, y + 0.68, f"mean of {counts[name]} positions", "left")
        sketch.text(0.3, 2.95, "A real feature is a vector: each of its numbers is averaged in the "
                    "same way.", "left")  # fmt: skip
        sketch.text(0.3, 3.2, "Where the organ is in the slice is forgotten.", "left")
    finding = _(
        "Two prototypes: organ {number}, the mean of {counted}; background {number2}, the "
        "mean of {counts}."
    ).format(
        number=number(means["organ"]),
        counted=counted(counts["organ"], "position"),
        number2=number(means["background"]),
        counts=counts["background"],
    )
    size = f"{len(values)}×{len(values)}"
    return figure, PlotData(
        what=_("pooling under a mask"),
        alt=_(
            "Diagram: a grid of {size} features, the {size} mask with {counts} positions of the "
            "organ, and arrows to two means. {finding}"
        ).format(size=size, counts=counts["organ"], finding=finding),
        columns=(_("prototype"), _("positions"), _("mean")),
        rows=tuple((name, counts[name], number(means[name])) for name in means),
        finding=finding,
        numbers=means,
    )


FLOW = (
    ("support images", "(S, C, H, W)"),
    ("query image", "(C, H, W)"),
    ("support features", "(S, D, H′, W′)"),
    ("query features", "(D, H′, W′)"),
    ("support masks", "(S, K, H, W)"),
    ("prototypes", "(K, D)"),
    ("logits", "(K, H′, W′)"),
    ("probabilities", "(K, H, W)"),
)


def diagram_network() -> tuple[Figure, PlotData]:
    """Draw the data flow of a prototypical segmentation network, with the shape at each step.

    S support images, K classes (background among them), D features, stride H/H′.

    Returns:
        figure, and data with the shapes as rows. Notebook 05.

    >>> diagram_network()[1].rows[5]
    ('prototypes', '(K, D)')
    """
    shape = dict(FLOW)

    def words(name: str) -> str:
        return f"{name}\n{shape[name]}"

    with drawing("broad") as figure:
        sketch = Sketch(inch_axes(figure))
        wide, tall, top, low = 1.25, 0.55, 1.3, 2.4
        given, made, step = "#FFFFFF", PALE, PALETTE[5]
        encoder = "encoder $f_θ$\n\nthe same\nfor both"
        sketch.box(1.95, top - 0.2, 1.0, low + tall - top + 0.4, encoder, fc=step)
        for y, image, features in (
            (top, "support images", "support features"),
            (low, "query image", "query features"),
        ):
            sketch.box(0.2, y, wide, tall, words(image), fc=given)
            sketch.arrow((0.2 + wide, y + tall / 2), (1.95, y + tall / 2))
            sketch.arrow((2.95, y + tall / 2), (3.3, y + tall / 2))
            sketch.box(3.3, y, 1.4, tall, words(features), fc=made)
        sketch.box(3.3, 0.25, 1.4, tall, words("support masks"), fc=given)
        sketch.box(5.05, 0.6, 1.0, 0.9, "pool under\nthe masks", fc=step)
        sketch.arrow((4.7, 0.7), (5.05, 0.7))
        sketch.arrow((4.7, 1.4), (5.05, 1.4))
        sketch.box(6.3, 0.78, 1.1, tall, words("prototypes"), fc=made)
        sketch.arrow((6.05, 0.78 + tall / 2), (6.3, 0.78 + tall / 2))
        sketch.box(5.05, low, 1.0, tall, "α · cosine", fc=step)
        sketch.arrow((4.7, low + tall / 2), (5.05, low + tall / 2))
        sketch.arrow((6.85, 0.78 + tall), (6.85, 1.85), (5.55, 1.85), (5.55, low))
        sketch.box(6.3, low, 1.1, tall, words("logits"), fc=made)
        sketch.arrow((6.05, low + tall / 2), (6.3, low + tall / 2))
        sketch.arrow((6.85, low + tall), (6.85, 3.5))
        sketch.text(6.75, 3.22, "upsample, softmax over K", "right")
        sketch.box(6.3, 3.5, 1.1, tall, words("probabilities"), fc=made)
    finding = _(
        "Support and query pass the same encoder. The masks turn the support's features into "
        "K prototypes; the cosine to each prototype is a logit."
    )
    return figure, PlotData(
        what=_("the network's data flow"),
        alt=_("Diagram of {n} tensors. ").format(n=len(FLOW))
        + _("; ").join(f"{name} {form}" for name, form in FLOW)
        + _(
            ". One encoder serves support and query. Pooling under the masks makes the "
            "prototypes. α times the cosine of query features and prototypes makes the logits; "
            "they are upsampled, and a softmax over the K classes makes probabilities."
        ),
        columns=(_("tensor"), _("shape")),
        rows=FLOW,
        finding=finding,
        numbers={"tensors": len(FLOW)},
    )


def diagram_protocols(
    support: tuple[int, int] = (4, 13),
    query: tuple[int, int] = (6, 14),
    n_slices: int = 18,
    chunks: int = 3,
) -> tuple[Figure, PlotData]:
    """Draw which slices EP1 and EP2 label and which they ask for.

    Arguments:
        support: first and last slice that shows the organ in the support volume.
        query: likewise in the query volume.
        n_slices: of each volume, 3 … 24.
        chunks: of EP1, 1 … 4.

    Returns:
        figure, and data with the labelled slices by protocol, and for each query slice the labelled
        slice that segments it (−1: not asked). Notebook 07.

    Raises:
        ValueError: an extent outside the volumes, numbers out of range.

    >>> diagram_protocols()[1].finding
    'EP1 labels 3 slices and asks for 9 of 18; EP2 labels 1 and asks for all 18.'
    """
    if not 3 <= n_slices <= 24 or not 1 <= chunks <= 4:
        raise ValueError(f"room for 3 … 24 slices in 1 … 4 chunks, got {n_slices} and {chunks}")
    for first, last in (support, query):
        if not 0 <= first <= last < n_slices:
            raise ValueError(f"an extent lies in 0 … {n_slices - 1}, got {first} … {last}")
    labelled = {
        name: evaluation.chunk_centres(*support, count) for name, count in (("EP1", chunks),
                                                                            ("EP2", 1))
    }  # fmt: skip
    length = query[1] - query[0] + 1
    inside = {z: (z - query[0]) * chunks // length for z in range(query[0], query[1] + 1)}
    asked = {
        "EP1": [labelled["EP1"][inside[z]] if z in inside else -1 for z in range(n_slices)],
        "EP2": [labelled["EP2"][0]] * n_slices,
    }
    cell = 5.9 / n_slices
    left = 1.45
    with drawing("broad") as figure:
        sketch = Sketch(inch_axes(figure))
        legend = "grey: shows the organ; colour: labelled above, asked below"
        sketch.text(left, 0.22, f"slices 0 … {n_slices - 1}; {legend}", "left")
        for top, name in ((0.5, "EP1"), (2.5, "EP2")):
            sketch.text(0.2, top + 0.15, name, "left", weight="bold")
            sketch.text(left - 0.1, top + 0.15, "support", "right")
            sketch.text(left - 0.1, top + 1.25, "query", "right")
            for z in range(n_slices):
                x = left + z * cell
                which = labelled[name].index(z) if z in labelled[name] else None
                _cell(sketch, x, top, cell, support[0] <= z <= support[1], which)
                with_ = asked[name][z]
                answer = None if with_ < 0 else labelled[name].index(with_)
                _cell(sketch, x, top + 1.1, cell, query[0] <= z <= query[1], answer)
            for i, z in enumerate(labelled[name]):
                those = [q for q in range(n_slices) if asked[name][q] == z]
                if those:
                    end = left + (those[0] + those[-1] + 1) / 2 * cell
                    start = (left + (z + 0.5) * cell, top + 0.42)
                    sketch.arrow(start, (end, top + 1.0), color=PALETTE[i], lw=2)
        right = left + 5.9
        shots = len(set(labelled["EP1"]))
        plural = "s" * (shots > 1)
        where = "asked only where the query shows the organ"
        sketch.text(right, 2.16, f"EP1: {shots} labelled slice{plural}; {where}", "right")
        sketch.text(right, 4.16, "EP2: 1 labelled slice; all slices are asked", "right")
    n_asked = sum(z >= 0 for z in asked["EP1"])
    finding = _(
        "EP1 labels {shots} and asks for {n_asked} of {n_slices}; EP2 labels 1 and asks for "
        "all {n_slices}."
    ).format(shots=counted(shots, "slice"), n_asked=n_asked, n_slices=n_slices)
    return figure, PlotData(
        what=_("EP1 beside EP2"),
        alt=_(
            "Diagram of two protocols, each a row of {n_slices} support slices above a row of "
            "query slices. {finding} In EP1 the organ's extent, slices {support} to {support2} "
            "in the support and {query} to {query2} in the query, is cut into {chunks} chunks; "
            "an arrow leads from the centre of each support chunk (slice {listing}) to the "
            "query's chunk. In EP2 one arrow leads from slice {labelled} to the whole query "
            "volume."
        ).format(
            n_slices=n_slices,
            finding=finding,
            support=support[0],
            support2=support[1],
            query=query[0],
            query2=query[1],
            chunks=chunks,
            listing=listing([str(z) for z in labelled["EP1"]]),
            labelled=labelled["EP2"][0],
        ),
        columns=(_("query slice"), _("EP1: segmented with"), _("EP2: segmented with")),
        rows=tuple(
            (z, _("not asked") if asked["EP1"][z] < 0 else asked["EP1"][z], asked["EP2"][z])
            for z in range(n_slices)
        ),
        finding=finding,
        numbers={"labelled": labelled, "asked": asked},
    )


def _cell(sketch: Sketch, x: float, y: float, side: float, shows: bool, chunk: int | None) -> None:
    """Draw a slice: grey below where it shows the organ, the look of a chunk above."""
    colour, hatch = ("white", "") if chunk is None else (PALETTE[chunk], HATCHES[chunk])
    sketch.box(x, y, side, 0.3, fc=colour, hatch=hatch, alpha=0.9)
    sketch.box(x, y + 0.3, side, 0.1, fc="#888888" if shows else "white", lw=0.4)
