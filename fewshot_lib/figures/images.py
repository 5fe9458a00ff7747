"""Pictures of images and label maps: examples, overlays, montages, episodes, target beside yours.

An organ keeps its colour, hatch and line style in every picture of the course, by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from fewshot_lib import evaluation
from fewshot_lib.checker import language
from fewshot_lib.episodes import Volume
from fewshot_lib.figures.style import (
    PALETTE,
    PlotData,
    counted,
    drawing,
    inch_axes,
    listing,
    number,
    numpy_of,
    percent,
)
from fewshot_lib.figures.tiles import (
    Tiles,
    black_and_white,
    folded,
    layout,
    legend_lines,
    organ_tiles,
    told_of,
)

_ = language.words("figures")

Image = ArrayLike | torch.Tensor
Window = tuple[float, float]

SMALL = 1.0  # inches, the width of an example where there is room
ROLES: dict[str, tuple[str, Any]] = {"support": (PALETTE[1], "-"), "query": (PALETTE[0], "--")}


def examples(
    images: Image,
    titles: Sequence[str] | None = None,
    *,
    roles: Sequence[str] | None = None,
    columns: int = 10,
    what: str = "examples",
) -> tuple[Figure, PlotData]:
    """Draw small images in a grid, each with its title and, if given, its role in the episode.

    Arguments:
        images: (N, H, W) or (N, 1, H, W).
        titles: N titles (the class, say).
        roles: N of "support" or "query"; drawn as a solid or a dashed frame in another colour.
        columns: images per row at most.
        what: names the picture.

    Returns:
        figure, and data with a row per image. Notebooks 00, 02, 03.

    Raises:
        ValueError: no image, or numbers of titles or roles that differ from the images'.

    >>> examples(torch.zeros(3, 8, 8), ["0", "0", "7"])[1].alt
    '3 examples of 8×8 pixels in a grid: 2 of 0 and 1 of 7.'
    """
    stack = numpy_of(images, "images")
    if stack.ndim == 4:
        stack = stack[:, 0]
    if stack.ndim != 3 or len(stack) == 0:
        raise ValueError(f"images must be (N, H, W) or (N, 1, H, W), N ≥ 1, got {stack.shape}")
    for given, word in ((titles, "titles"), (roles, "roles")):
        if given is not None and len(given) != len(stack):
            raise ValueError(f"{len(given)} {word} for {len(stack)} images")
    unknown = set(roles or ()) - set(ROLES)
    if unknown:
        raise ValueError(f"a role is {' or '.join(ROLES)}, got {sorted(unknown)}")
    lines = {"above": int(titles is not None), "legend": int(roles is not None)}
    aspect = stack.shape[1] / stack.shape[2]
    placed = layout(len(stack), columns, aspect=aspect, gap=0.08, least=SMALL, **lines)
    with drawing(placed.size, placed.height) as figure:
        low, high = black_and_white(stack)
        grid = Tiles(inch_axes(figure), placed.boxes)
        for i, picture in enumerate(stack):
            title = str(titles[i]) if titles is not None else ""
            grid.image(i, picture, title, cmap="gray_r", vmin=low, vmax=high)
            if roles is not None:
                grid.frame(i, *ROLES[roles[i]], 2.2)
        if roles is not None:
            handles = [
                Patch(fill=False, ec=colour, ls=line, lw=2, label=role)
                for role, (colour, line) in ROLES.items()
                if role in roles
            ]
            figure.legend(handles=handles, loc="lower center", ncols=2)
    height, width = stack.shape[1:]
    told = [str(title) for title in titles] if titles is not None else ["?"] * len(stack)
    counts = {title: told.count(title) for title in dict.fromkeys(told)}
    alt = _("{stack} {what} of {height}×{width} pixels in a grid").format(
        stack=len(stack), what=what, height=height, width=width
    )
    if titles is not None:
        alt += _(": ") + listing(
            [
                _("{count} of {title}").format(count=count, title=title)
                for title, count in counts.items()
            ]
        )
    if roles is not None:
        alt += _("; ") + listing(
            [f"{list(roles).count(role)} {role}" for role in dict.fromkeys(roles)]
        )
    return figure, PlotData(
        what=what,
        alt=alt + _("."),
        columns=(_("image"), _("title"), _("role")),
        rows=tuple((i, told[i], roles[i] if roles is not None else "") for i in range(len(stack))),
        numbers={"images": stack},
    )


def overlay(
    image: Image,
    labels: Image,
    names: Sequence[str],
    *,
    title: str = "",
    aspect: float = 1.0,
    window: Window | None = None,
) -> tuple[Figure, PlotData]:
    """Draw an image with its organs outlined, tinted and hatched, and a legend of their names.

    Arguments:
        image: (H, W) or (1, H, W).
        labels: (H, W) integer, indexing ``names``; 0 is background.
        names: the class names.
        title: above the image.
        aspect: height of a pixel over its width.
        window: intensities drawn black and white; None: as ``black_and_white`` says.

    Returns:
        figure, and data with a row per organ: its pixels, its share, its centre. Notebooks 01, 05.

    Raises:
        ValueError: shapes that differ, or a label without a name.

    >>> labels = torch.zeros(8, 8, dtype=torch.int64)
    >>> labels[2:4, 2:4] = 1
    >>> overlay(torch.rand(8, 8), labels, ["background", "liver"])[1].rows
    (('liver', 4, '6.2 %', 'upper left'),)
    """
    picture, where = _image(image), _labels(labels, names)
    _same_shape(picture, where)
    placed = layout(1, 1, aspect=aspect * picture.shape[0] / picture.shape[1], above=bool(title),
                    right=1.6)  # fmt: skip
    figure = organ_tiles(placed, [picture], [where], [title], names, window, legend="center right")
    rows = _organ_rows(where, names)
    seen = listing(
        [
            _("{name} ({share} of the pixels, {place})").format(name=name, share=share, place=place)
            for name, _pixels, share, place in rows
        ]
    )
    height, width = picture.shape
    return figure, PlotData(
        what=title or _("labelled image"),
        alt=(
            _("Image of {height}×{width} pixels{title} with {organs}: {seen}.")
            if rows
            else _("Image of {height}×{width} pixels{title} with no labelled organ.")
        ).format(
            height=height,
            width=width,
            title=_(", {title},").format(title=title) if title else "",
            organs=counted(len(rows), "outlined organ"),
            seen=seen,
        ),
        columns=(_("organ"), _("pixels"), _("share"), _("centre")),
        rows=rows,
        finding=_("{counted} labelled.").format(counted=counted(len(rows), "organ"))
        if rows
        else _("No organ labelled."),
        numbers={"image": picture, "labels": where},
    )


def strip(
    image: Image | Sequence[Image],
    labelled: Mapping[str, Image],
    names: Sequence[str],
    *,
    columns: int = 2,
    aspect: float = 1.0,
    window: Window | None = None,
) -> tuple[Figure, PlotData]:
    """Draw an image several times, with other labels over it each time.

    Arguments:
        image: (H, W) or (1, H, W), the same in every panel; or one image per panel.
        labelled: title → (H, W) integer labels, indexing ``names``; 0 is background.
        names: the class names.
        columns: panels per row at most; fewer where one would be narrower than 240 px.
        aspect: height of a pixel over its width.
        window: intensities drawn black and white; None: as ``black_and_white`` says.

    Returns:
        figure, and data with a row per panel: the pixels of each organ. Notebook 08.

    Raises:
        ValueError: no panel, shapes that differ, or a label without a name.

    >>> labels = torch.zeros(8, 8, dtype=torch.int64)
    >>> names = ["background", "liver"]
    >>> strip(torch.rand(8, 8), {"truth": labels + 1, "answer": labels}, names)[1].rows
    (('truth', 64), ('answer', 0))
    """
    if not labelled:
        raise ValueError("no panel to draw: give a dictionary title → labels")
    given: Any = image
    images = [given] * len(labelled) if hasattr(given, "ndim") else list(given)
    pictures = [_image(one) for one in images]
    shown = [_labels(one, names) for one in labelled.values()]
    for picture, where in zip(pictures, shown, strict=True):
        _same_shape(picture, where)
    everything = np.stack(shown)
    aspect *= everything.shape[1] / everything.shape[2]
    lines = legend_lines(everything)
    headings, above = folded(list(labelled), len(shown), columns)
    placed = layout(len(shown), columns, aspect=aspect, legend=lines, above=above)
    figure = organ_tiles(placed, pictures, shown, headings, names, window)
    organs = [told_of(name) for name in names[1:]]
    counts = {
        title: [int((where == k).sum()) for k in range(1, len(names))]
        for title, where in zip(labelled, shown, strict=True)
    }
    told = _("; ").join(
        _("{title}: {organs}").format(
            title=title,
            organs=listing([f"{n} {name}" for name, n in zip(organs, row, strict=True) if n]),
        )
        if any(row)
        else _("{title}: none").format(title=title)
        for title, row in counts.items()
    )
    return figure, PlotData(
        what=_("{shown} labellings of one image").format(shown=len(shown)),
        alt=_("{shown} panels, organs outlined. Pixels of each organ: {told}.").format(
            shown=len(shown), told=told
        ),
        columns=(_("panel"), *organs),
        rows=tuple((title, *row) for title, row in counts.items()),
        finding=told + _("."),
        numbers={"labels": everything},
    )


def montage(
    volume: Volume,
    *,
    slices: Sequence[int] | int = 8,
    labels: Image | None = None,
    columns: int = 4,
    organs: Sequence[str] | None = None,
    window: Window | None = None,
    titles: Sequence[str] | None = None,
) -> tuple[Figure, PlotData]:
    """Draw slices of a subject with the labels over them.

    Arguments:
        volume: the subject.
        slices: which slices, or how many, spread evenly over the volume.
        labels: (Z, H, W) other labels for the same images (a prediction, say).
        columns: slices per row at most; fewer where one would be narrower than 240 px.
        organs: draw only these; None: all.
        window: intensities drawn black and white, (−160, 240) HU for soft tissue in CT, say; None:
            as ``black_and_white`` says.
        titles: one per slice shown; None: their numbers.

    Returns:
        figure, and data with a row per organ: in how many of the slices it is seen, its voxels.
        Notebooks 01, 02, 05, 08.

    Raises:
        ValueError: a slice that does not exist, an organ that is not among the names, other shapes,
            titles that are not one per slice.

    >>> images, labels = torch.rand(3, 1, 8, 8), torch.zeros(3, 8, 8, dtype=torch.int64)
    >>> montage(Volume(images, labels, ("background", "liver"), "s1"), slices=[0, 2])[1].what
    '2 slices of s1'
    """
    depth = volume.images.shape[0]
    if isinstance(slices, int | np.integer):
        count = min(int(slices), depth)
        slices = [round((i + 0.5) * depth / count - 0.5) for i in range(count)]
    if not slices or not all(0 <= z < depth for z in slices):
        raise ValueError(f"slices must be some of 0 … {depth - 1}, got {list(slices)}")
    shown_as = _("{shown} of {depth}").format(shown=listing([str(z) for z in slices]), depth=depth)
    if titles is not None:
        shown_as = listing(titles)
    titles = titles or [f"slice {z}" for z in slices]
    if len(titles) != len(slices):
        raise ValueError(
            f"titles must be one per slice: {len(slices)} slices, {len(titles)} titles"
        )
    where = _labels(volume.labels if labels is None else labels, volume.names, ndim=3)
    if where.shape != tuple(volume.labels.shape):
        raise ValueError(f"labels {where.shape} for a volume of {tuple(volume.labels.shape)}")
    if organs is not None:
        missing = set(organs) - set(volume.names)
        if missing:
            raise ValueError(f"no class {sorted(missing)}; there are {', '.join(volume.names)}")
        keep = [volume.names.index(name) for name in organs]
        where = np.where(np.isin(where, keep), where, 0)
    pictures = numpy_of(volume.images, "images")[:, 0]
    shown = where[list(slices)]
    height, width = pictures.shape[1:]
    aspect = height * volume.spacing[1] / (width * volume.spacing[2])
    lines = legend_lines(shown)
    headings, above = folded(titles, len(slices), columns)
    placed = layout(len(slices), columns, aspect=aspect, legend=lines, above=above)
    images, marked = [pictures[z] for z in slices], [where[z] for z in slices]
    figure = organ_tiles(placed, images, marked, headings, volume.names, window)
    rows = tuple(
        (told_of(name), int((shown == i).any(axis=(1, 2)).sum()), int((shown == i).sum()))
        for i, name in enumerate(volume.names)
        if i and (shown == i).any()
    )
    what = _("{counted} of {subject}").format(
        counted=counted(len(slices), "slice"), subject=volume.subject
    )
    seen = (
        listing(
            [_("{name} in {count}").format(name=name, count=count) for name, count, _pixels in rows]
        )
        if rows
        else _("none")
    )
    return figure, PlotData(
        what=what,
        alt=_("{what} ({shown_as}), labels outlined. Organs by number of slices: {seen}.").format(
            what=what, shown_as=shown_as, seen=seen
        ),
        columns=(_("organ"), _("slices"), _("pixels")),
        rows=rows,
        finding=_("{counted} labelled in {what}.").format(
            counted=counted(len(rows), "organ"), what=what
        ),
        numbers={"slices": np.array(slices), "labels": shown},
    )


def episode(
    support_image: Image,
    support_labels: Image,
    query_image: Image,
    query_labels: Image,
    predictions: Mapping[str, Image],
    names: Sequence[str],
    *,
    window: Window | None = None,
) -> tuple[Figure, PlotData]:
    """Draw support, query and predictions side by side, with Dice and agreement with the support.

    Agreement with the support mask is the share of pixels to which the prediction gives the label
    that the *support* has there: near 100 % with a low Dice means that the mask was copied.

    Arguments:
        support_image, query_image: (H, W) or (1, H, W).
        support_labels, query_labels: (H, W) integer, indexing ``names``; 0 is background.
        predictions: method → (H, W) predicted labels, at most four.
        names: the class names.
        window: intensities drawn black and white; None: as ``black_and_white`` says.

    Returns:
        figure, and data with a row per method: mean Dice over the query's organs and agreement,
        both in ``numbers`` too. Notebooks 05, 05b and 06.

    Raises:
        ValueError: shapes that differ, or no or more than four predictions.

    >>> image, mask = torch.zeros(8, 8), torch.eye(8, dtype=torch.int64)
    >>> episode(image, mask, image, mask.flip(0), {"copy": mask}, ["background", "x"])[1].rows
    (('copy', '0.00', '100.0 %'),)
    """
    if not 1 <= len(predictions) <= 4:
        raise ValueError(f"the strip shows 1 … 4 predictions, got {len(predictions)}")
    support, query = _image(support_image), _image(query_image)
    support_mask, query_mask = _labels(support_labels, names), _labels(query_labels, names)
    guesses = {name: _labels(value, names) for name, value in predictions.items()}
    for array in (support_mask, query, query_mask, *guesses.values()):
        _same_shape(support, array)
    classes = [k for k in range(1, len(names)) if (query_mask == k).any()]
    dice = {
        name: _mean([evaluation.dice(_mask(guess, k), _mask(query_mask, k)) for k in classes])
        for name, guess in guesses.items()
    }
    agreement = {name: float((g == support_mask).mean()) for name, g in guesses.items()}
    shown = {"support": support_mask, "query, truth": query_mask} | guesses
    masks = list(shown.values())
    placed = layout(
        len(shown), 3, aspect=support.shape[0] / support.shape[1], below=2,
        below_from=2, legend=legend_lines(np.stack(masks)),
    )  # fmt: skip
    window = window or black_and_white(np.stack([support, query]))
    pictures = [support] + [query] * (len(shown) - 1)
    below = {
        name: f"Dice {number(dice[name])}\nas support {percent(agreement[name], 1)}"
        for name in guesses
    }
    figure = organ_tiles(placed, pictures, masks, list(shown), names, window, below)
    organs = listing([told_of(names[k]) for k in classes]) or _("no organ")
    told = _("; ").join(
        _("{name}: Dice {number}, {percent} of its pixels carry the support's label").format(
            name=name, number=number(dice[name]), percent=percent(agreement[name], 1)
        )
        for name in guesses
    )
    return figure, PlotData(
        what=_("support, query and prediction"),
        alt=_(
            "Strip of {n} images of {height}×{width} pixels: support, query with its true "
            "{organs}, and predictions. {told}."
        ).format(
            n=2 + len(guesses),
            height=support.shape[0],
            width=support.shape[1],
            organs=organs,
            told=told,
        ),
        columns=(_("method"), _("Dice"), _("agrees with support mask")),
        rows=tuple((name, number(dice[name]), percent(agreement[name], 1)) for name in guesses),
        finding=told + _("."),
        numbers={"dice": dice, "agreement": agreement},
    )


def _image(values: Image) -> NDArray[Any]:
    """Bring an image to (H, W)."""
    array = numpy_of(values, "image")
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2:
        raise ValueError(f"an image must be (H, W) or (1, H, W), got shape {array.shape}")
    return array


def _labels(values: Image, names: Sequence[str], ndim: int = 2) -> NDArray[Any]:
    """Bring labels to integers that have names."""
    array = numpy_of(values, "labels", ndim)
    if array.dtype.kind not in "iub":
        raise TypeError(f"labels must be integers that index names, got {array.dtype}")
    if array.size and not 0 <= array.min() <= array.max() < len(names):
        raise ValueError(
            f"labels must lie in 0 … {len(names) - 1} (one per name), got "
            f"{array.min()} … {array.max()}"
        )
    return array.astype(np.int64)


def _same_shape(first: NDArray[Any], second: NDArray[Any]) -> None:
    if first.shape != second.shape:
        raise ValueError(f"shapes differ: {first.shape} and {second.shape}")


def _organ_rows(labels: NDArray[Any], names: Sequence[str]) -> tuple[tuple[object, ...], ...]:
    """List the organs of a slice: name, pixels, share, where its centre lies in the picture."""
    rows = []
    for i in np.unique(labels):
        if i:
            r, c = np.argwhere(labels == i).mean(axis=0) / labels.shape
            rows_of = (_("upper {side}"), _("middle {side}"), _("lower {side}"))
            side = (_("left"), _("centre"), _("right"))[min(int(c * 3), 2)]
            place = rows_of[min(int(r * 3), 2)].format(side=side)
            share = percent(float((labels == i).mean()), 1)
            rows.append((told_of(names[i]), int((labels == i).sum()), share, place))
    return tuple(rows)


def _mask(labels: NDArray[Any], k: int) -> torch.Tensor:
    return torch.from_numpy(labels == k)


def _mean(values: Sequence[torch.Tensor]) -> float:
    return float(np.mean(values)) if values else float("nan")
