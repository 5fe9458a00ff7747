"""Plots: numbers, alt texts, the look and its second cues, held to loops, SciPy, brute force."""

from __future__ import annotations

import io
import itertools
import re
import sys
import xml.etree.ElementTree as ElementTree
from functools import cache, partial

import matplotlib as mpl
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from scipy.spatial.distance import dice as scipy_dissimilarity

from fewshot_lib import figures, mixture
from fewshot_lib.episodes import Volume
from fewshot_lib.evaluation import EP1, EP2, segment_volume
from fewshot_lib.figures import style, tiles
from fewshot_lib.networks import FewShotSegmentationNet
from fewshot_lib.prototypes import Distance, log_posterior, masked_prototypes

NAMES = ("background", "liver", "spleen", "kidneys")
RNG = np.random.default_rng(0)
IMAGE = RNG.random((24, 20)).astype(np.float32)
LABELS = np.zeros((24, 20), dtype=np.int64)
LABELS[2:10, 3:9], LABELS[14:20, 10:18] = 1, 2
POINTS = np.concatenate([RNG.normal(c, 0.4, (15, 2)) for c in ((0, 0), (3, 1), (1, 3))])
CLASSES = np.repeat([0, 1, 2], 15)
CENTRES = np.array([[0.0, 0.0], [3.0, 1.0], [1.0, 3.0]])
VOLUME = Volume(
    torch.from_numpy(np.stack([IMAGE] * 3))[:, None],
    torch.from_numpy(np.stack([LABELS, LABELS * 0, LABELS])),
    NAMES,
    "subject 7",
    (5.0, 1.0, 1.0),
)
FOUND = [[0, 1, 0], [0, 1, 2], [1, 3, 2], [1, 3, 3]]  # rows (fold, support, query)
SHIFTED = np.roll(LABELS, 12, axis=0)


def nearest(name: str, distance: Distance = "squared_euclidean", prior=None) -> figures.Reading:
    """Read the plane by the nearest of CENTRES."""
    centres = torch.from_numpy(CENTRES)
    read = partial(log_posterior, prototypes=centres, distance=distance, log_prior=prior)
    return figures.Reading(name, read, centres)


def gaussians(shift: float, variance: float, prior=(0.5, 0.25, 0.25)) -> figures.Mixture:
    """Mix Gaussians around CENTRES, moved to the right by ``shift``."""
    centres = torch.from_numpy(CENTRES) + torch.tensor([shift, 0.0])
    shares = torch.tensor(prior, dtype=torch.float64)

    def log_joint(z: torch.Tensor) -> torch.Tensor:
        return mixture.gaussian_log_density(z, centres, variance) + shares.log()

    return figures.Mixture(f"variance {variance:g}", log_joint, centres, shares)


GALLERY = {
    "lines": lambda: figures.lines(
        [1, 2, 4], {"a": ([0.1, 0.2, 0.3], [0, 0.1, 0.2], [0.2, 0.3, 0.4]), "b": [0.5, 0.4, 0.3]},
        xlabel="x (px)", ylabel="y", references={"chance": 0.2},
    ),
    "accuracy_against_shots": lambda: figures.accuracy_against_shots(
        [1, 5], {"pixels": [0.72, 0.89]}, n_way=5
    ),
    "dice_against_grid": lambda: figures.dice_against_grid(
        [1, 2, 4], {"alignment 0": [0.7, 0.5, 0.3]}, copied={"alignment 0": 0.29}
    ),
    "dice_against_shift": lambda: figures.dice_against_shift([0, 24], {"note": [0.99, 0.0]}),
    "learning_curve": lambda: figures.learning_curve([1, 10], {"U-Net": [0.2, 0.6]}, copied=0.3),
    "softmax_ceiling": lambda: figures.softmax_ceiling(),
    "mask_shrinking": lambda: figures.mask_shrinking([3, 5], {"nearest": [0.86, 0.61]}, stride=8),
    "loss_curve": lambda: figures.loss_curve(np.linspace(2, 1, 300), total=500),
    "methods": lambda: figures.methods(
        {"masked": (0.75, 0.7, 0.8), "note": 0.3, "copied mask": (0.29, 0.2, 0.4)}
    ),
    "reliability": lambda: figures.reliability([0.9, 0.6, 0.3, 0.95], [True, False, False, True]),
    "score_histogram": lambda: figures.score_histogram({"EP1": [0.2, 0.9, np.nan], "EP2": [0.4]}),
    "heat_map": lambda: figures.heat_map(
        [[0.9, 0.1], [-np.inf, 1.0]], ["q0", "q1"], ["cat", "dog"], label="logit"
    ),
    "dots": lambda: figures.dots(
        [[0.7, 0.3], [0.0, 0.0]], ["liver", "spleen"], ["volume", "slices"], label="Dice"
    ),
    "methods beside a level": lambda: figures.methods(
        {"a": (0.0, -0.1, 0.1)}, baseline=None, reference=("raw pixels", 0.0), limits=(-0.2, 0.2)
    ),
    "lines with a long name": lambda: figures.lines(
        [0, 5, 10, 20, 40, 300], {"a": [0.1, 0.4, 0.5, 0.6, 0.7, 0.8], "b": [0.3] * 6},
        xlabel="episodes", ylabel="Dice", references={"another person, mean of the three": 0.41},
    ),
    "ranks that cross": lambda: figures.ranks(
        {"x": {"a": 0.8, "b": 0.7, "c": 0.2}, "y": {"a": 0.5, "b": 0.6, "c": 0.7},
         "z": {"a": 0.1, "b": 0.6, "c": 0.7}, "w": {"a": 0.7, "b": 0.1, "c": 0.5}}
    ),
    "examples": lambda: figures.examples(
        np.random.default_rng(1).random((5, 8, 8)),
        list("00711"),
        roles=["support"] * 2 + ["query"] * 3,
    ),
    "overlay": lambda: figures.overlay(IMAGE, LABELS, NAMES, title="slice 3"),
    "strip": lambda: figures.strip(IMAGE, {"truth": LABELS, "answer": SHIFTED}, NAMES),
    "montage": lambda: figures.montage(VOLUME),
    "episode": lambda: figures.episode(
        IMAGE, LABELS, IMAGE, SHIFTED, {"copy": LABELS, "truth": SHIFTED}, NAMES
    ),
    "embedding": lambda: figures.embedding(POINTS, CLASSES, prototypes=CENTRES),
    "embedding with support": lambda: figures.embedding(
        POINTS, CLASSES, prototypes=CENTRES, support=CENTRES, support_labels=[0, 1, 2],
        moved_from=CENTRES + np.array([[0, 0], [0, 0], [1, 0]]), distance="cosine", scale=20,
        names=["zero", "one", "two"],
    ),
    "embedding of points alone": lambda: figures.embedding(POINTS, CLASSES),
    "compare_regions": lambda: figures.compare_regions(
        nearest("squared"), nearest("plain", "euclidean"), ["zero", "one", "two"], (-1, 4, -1, 4)
    ),
    "mixtures": lambda: figures.mixtures(
        [gaussians(0.0, 0.5), gaussians(1.0, 0.5), gaussians(0.0, 0.25)],
        ["zero", "one", "two"], (-1, 4, -1, 4),
    ),
    "ranks": lambda: figures.ranks(
        {"EP1": {"a": 0.8, "b": 0.7, "c": 0.2}, "EP2": {"a": 0.5, "b": 0.6, "c": 0.1}}
    ),
    "diagram_episode": lambda: figures.diagram_episode(3, 2, 2),
    "diagram_pooling": lambda: figures.diagram_pooling(),
    "diagram_network": lambda: figures.diagram_network(),
    "diagram_protocols": lambda: figures.diagram_protocols(),
    "folds": lambda: figures.folds({"found": FOUND, "repaired": [[0, 2, 0], [1, 0, 2]]}, 4),
}  # fmt: skip

every_figure = pytest.mark.parametrize("name", GALLERY)


@cache
def shown(name: str) -> tuple[Figure, figures.PlotData, figures.Picture]:
    """Draw and save a plot of the gallery once; nothing that follows changes it."""
    figure, data = GALLERY[name]()
    return figure, data, figures.picture(figure)


def rgb(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def hex_rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def test_the_gallery_of_this_test_holds_every_public_plot() -> None:
    not_plots = {"PALETTE", "SIZES", "Mixture", "Picture", "PlotData", "Reading"}
    not_plots |= {"counted", "drawing", "number", "organ_looks", "picture", "png", "svg"}
    drawn = {name.split()[0] for name in GALLERY}
    assert drawn == set(figures.__all__) - not_plots


@every_figure
def test_a_plot_returns_a_figure_and_what_it_shows(name: str) -> None:
    figure, data, _ = shown(name)
    assert isinstance(figure, Figure)
    assert isinstance(data, figures.PlotData)
    assert len(data.alt) >= 40
    assert re.search(r"\d", data.alt), "an alt text without a number"
    assert data.alt.endswith(".")
    assert not data.finding or data.finding.endswith(".")
    assert data.rows
    assert data.numbers
    assert all(len(row) == len(data.columns) for row in data.rows)


@every_figure
def test_a_plot_is_a_small_svg_or_a_sharp_png_no_wider_than_a_column(name: str) -> None:
    figure, _, made = shown(name)
    size = tuple(figure.get_size_inches())
    of_images = bool(figure.findobj(mpl.image.AxesImage))
    assert size in set(figures.SIZES.values()) or of_images  # images are as high as their rows
    assert size[0] in {width for width, _ in figures.SIZES.values()}
    assert made.width <= 730
    assert len(made.content) < 75_000
    assert (made.kind == "image/png") == of_images
    dots = Image.open(io.BytesIO(made.png)).size
    assert np.abs(np.subtract(dots, (2 * made.width, 2 * made.height))).max() <= 1  # half a pixel
    if made.kind == "image/png":
        assert made.content == made.png
    else:
        assert b"<image" not in made.content
        assert b"<text" not in made.content  # no font of the reader's machine
        assert b"NaN" not in made.content
        ElementTree.fromstring(made.content)


@every_figure
def test_a_plot_drawn_again_has_the_same_bytes_and_leaves_pyplot_and_settings_alone(name) -> None:
    before = mpl.rcParams.copy()
    again = figures.picture(GALLERY[name]()[0])
    assert mpl.rcParams.copy() == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []
    assert again == shown(name)[2]
    for word in (b"<metadata", b"matplotlib", b"Date"):
        assert word not in again.content


def test_an_svg_shows_what_the_png_of_the_same_figure_shows() -> None:
    """Rounding and shortening an SVG must not move a line: its path ends where the data do."""
    figure, _ = figures.lines([0, 1], {"a": [0.25, 0.75]}, xlabel="x", ylabel="y")
    text = figures.svg(figure).decode()
    line = figure.axes[0].lines[0]
    height = 72 * figure.get_size_inches()[1]
    ends = line.get_transform().transform(line.get_xydata()) * 72 / figure.dpi
    path = " L".join(f"{x:.2f} {height - y:.2f}" for x, y in ends)
    shown = re.sub(r"(\d)\.00\b|(\.\d)0\b", r"\1\2", path)
    assert f'd="M{shown}' in text


# ---- the look ---------------------------------------------------------------------------------

#: Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def lab(colour: str, blindness: str) -> np.ndarray:
    """CIELAB (D65) of a colour as someone with this colour vision sees it."""
    srgb = hex_rgb(colour) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(BLINDNESS[blindness]) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = (xyz @ seen) / np.array([0.9505, 1.0, 1.089])
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("palette", [style.PALETTE[:5], tiles.OVERLAY[:4]], ids=["plots", "organs"])
def test_the_first_colours_differ_for_every_colour_vision(palette, blindness: str) -> None:
    """A difference of 10 in CIELAB is seen at a glance; red against green would have 3."""
    for a, b in itertools.combinations(palette, 2):
        assert np.linalg.norm(lab(a, blindness) - lab(b, blindness)) > 10, (a, b, blindness)


def test_that_test_of_colours_would_notice_red_against_green() -> None:
    red_and_green = ("#c1622d", "#7f8a2d")
    gap = [np.linalg.norm(lab(red_and_green[0], b) - lab(red_and_green[1], b)) for b in BLINDNESS]
    assert gap[0] > 30
    assert min(gap) < 10


def test_colours_of_lines_and_writing_stand_out_on_white() -> None:
    def contrast(colour: str) -> float:
        return 1.05 / (style.luminance(colour) + 0.05)

    assert contrast(style.INK) > 7
    assert contrast(style.QUIET) > 4.5
    assert all(contrast(colour) >= 3 for colour in style.PALETTE[:3])  # WCAG 2.2, 1.4.11
    assert all(contrast(colour) >= 2 for colour in style.PALETTE[:5])


def test_lines_differ_by_marker_and_line_style_as_well_as_colour() -> None:
    series = {f"series {i}": [0.1 * i, 0.2 * i] for i in range(6)}
    figure, _ = figures.lines([1, 2], series, xlabel="x", ylabel="y")
    drawn = [line for line in figure.axes[0].lines if line.get_label() in series]
    for look in (lambda line: line.get_marker(), lambda line: str(line._dash_pattern)):
        assert len({look(line) for line in drawn}) == 6


@given(st.permutations(["liver", "spleen", "stomach", "kidney_left", "colon", "aorta", "lungs"]))
@settings(deadline=None, max_examples=20)
def test_the_organs_of_the_lessons_keep_their_look_in_any_order(order: list[str]) -> None:
    looks = figures.organ_looks(["background", *order])
    alone = {name: figures.organ_looks(["background", name])[name] for name in order}
    for name in ("liver", "spleen", "stomach", "kidney_left", "aorta"):
        assert looks[name] == alone[name]


def test_many_organs_never_share_both_colour_and_hatch() -> None:
    names = ["background", "liver", "kidneys", *(f"organ {i}" for i in range(25))]
    looks = figures.organ_looks(names)
    assert len({(look.colour, look.hatch) for look in looks.values()}) == len(names) - 1


def test_the_saved_palette_keeps_small_coloured_marks() -> None:
    """A palette made by median cut turned green marks blue."""
    figure, _ = figures.embedding(POINTS, CLASSES, prototypes=CENTRES, scale=0.1)
    pixels = rgb(figures.png(figure)).reshape(-1, 3)
    for colour in style.PALETTE[:3]:
        assert np.abs(pixels - hex_rgb(colour)).max(axis=1).min() <= 16, colour


# ---- numbers and words ------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
@settings(deadline=None, max_examples=15)
def test_the_alt_text_of_lines_has_the_numbers_at_both_ends(values: list[float]) -> None:
    x = list(range(1, len(values) + 1))
    _, data = figures.lines(x, {"a": values}, xlabel="x", ylabel="y")
    assert f"a: from {values[0]:.2f} at 1 to {values[-1]:.2f} at {len(values)}" in data.alt
    assert [row[1] for row in data.rows] == [f"{value:.2f}" for value in values]


def test_the_alt_text_of_lines_tells_intervals_peaks_and_levels() -> None:
    series = {"a": ([0.1, 0.9, 0.2], [0.0, 0.8, 0.1], [0.2, 1.0, 0.3])}
    _, data = figures.lines([1, 2, 3], series, xlabel="x", ylabel="y", references={"chance": 0.5})
    assert "from 0.10 [0.00, 0.20] at 1 to 0.20 [0.10, 0.30] at 3" in data.alt
    assert "highest 0.90 [0.80, 1.00] at 2" in data.alt
    assert "Level chance: 0.50." in data.alt


def test_methods_names_the_best_and_its_distance_to_the_baseline() -> None:
    _, data = figures.methods({"copied mask": 0.6, "a": (0.5, 0.4, 0.6), "b": 0.2})
    assert data.finding == ("Best: a, Dice 0.50 [0.40, 0.60]; copied mask 0.60 (difference −0.10).")
    assert data.numbers["a"] == (0.5, 0.4, 0.6)


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted), min_size=1))
@settings(deadline=None, max_examples=30)
def test_the_axis_of_methods_holds_every_interval_is_wide_enough_and_stays_in_0_to_1(rows) -> None:
    results = {f"m{i}": (mean, low, high) for i, (low, mean, high) in enumerate(rows[:8])}
    figure, _ = figures.methods(results, baseline=None)
    low, high = figure.axes[0].get_xlim()
    assert low <= min(row[1] for row in results.values()) + 1e-9
    assert high >= max(row[2] for row in results.values()) - 1e-9
    assert high - low >= 0.2 - 1e-9
    assert low >= 0
    assert high <= 1 + 1e-9


def test_intervals_of_methods_are_wider_than_their_markers_and_given_limits_stay() -> None:
    results = {"a": (0.83, 0.81, 0.85), "b": (0.77, 0.75, 0.79), "copied mask": (0.52, 0.5, 0.54)}
    figure, _ = figures.methods(results)
    figures.png(figure)  # lays it out
    axes = figure.axes[0]
    lines = [line for line in axes.lines if len(set(line.get_ydata())) == 1]
    bars, dots = ([line for line in lines if len(line.get_xdata()) == n] for n in (2, 1))
    assert len(bars) == len(dots) == 3
    for bar, dot in zip(bars, dots, strict=True):
        ends = axes.transData.transform([(x, 0) for x in bar.get_xdata()])[:, 0]
        assert np.ptp(ends) > 1.2 * dot.get_markersize() * style.DPI / 72
    assert figures.methods(results, limits=(0, 1))[0].axes[0].get_xlim() == (0, 1)
    figures.methods({"a": 40.0}, baseline=None, within=(0, np.inf))


@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 2**16))
@settings(deadline=None, max_examples=15)
def test_calibration_error_agrees_with_a_loop_over_bins(n_bins: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, correct = rng.random(n), rng.random(n) < 0.5
    expected = 0.0
    for b in range(n_bins):
        inside = [
            i for i in range(n) if b / n_bins <= confidence[i] < (b + 1) / n_bins
            or (b == n_bins - 1 and confidence[i] == 1)
        ]  # fmt: skip
        if inside:
            gap = abs(np.mean(confidence[inside]) - np.mean(correct[inside]))
            expected += len(inside) / n * gap
    _, data = figures.reliability(confidence, correct, n_bins=n_bins)
    assert data.numbers["ece"] == pytest.approx(expected)


@given(st.lists(st.floats(0, 9), min_size=1, max_size=30), st.integers(1, 10))
@settings(deadline=None, max_examples=15)
def test_the_running_mean_of_losses_agrees_with_a_loop(losses: list[float], window: int) -> None:
    _, data = figures.loss_curve(losses, window=window)
    expected = [np.mean(losses[max(0, i + 1 - window) : i + 1]) for i in range(len(losses))]
    np.testing.assert_allclose(data.numbers[""], expected, atol=1e-12)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("n_way", [2, 5])
def test_no_cosines_reach_more_than_the_ceiling(n_way: int, nonnegative: bool) -> None:
    _, data = figures.softmax_ceiling((n_way,), [1.0, 3.0], nonnegative=nonnegative)
    ceiling = data.numbers[f"K = {n_way}"].mean
    low = 0.0 if nonnegative else -1.0
    corners = torch.tensor(list(itertools.product([low, 0.3, 1.0], repeat=n_way)))
    for i, scale in enumerate((1.0, 3.0)):
        reached = torch.softmax(scale * corners, dim=1).max()
        assert float(reached) == pytest.approx(ceiling[i], abs=1e-6)


def test_regions_of_the_embedding_are_those_of_the_nearest_prototype() -> None:
    _, data = figures.embedding(POINTS, CLASSES, prototypes=CENTRES)
    nearest = [min(range(3), key=lambda k: np.sum((p - CENTRES[k]) ** 2)) for p in POINTS]
    assert data.numbers["accuracy"] == np.mean(np.array(nearest) == CLASSES)
    assert data.numbers["share"].sum() == pytest.approx(1)
    np.testing.assert_allclose(data.numbers["probabilities"].sum(-1), 1)


def test_a_lower_scale_makes_paler_regions_and_the_same_borders() -> None:
    sharp = figures.embedding(POINTS, CLASSES, prototypes=CENTRES, scale=5)[1].numbers
    soft = figures.embedding(POINTS, CLASSES, prototypes=CENTRES, scale=0.1)[1].numbers
    assert soft["confidence"] < sharp["confidence"]
    np.testing.assert_array_equal(
        soft["probabilities"].argmax(-1), sharp["probabilities"].argmax(-1)
    )


def test_compared_regions_differ_where_a_loop_says_so_and_nowhere_when_alike() -> None:
    prior = torch.tensor([0.8, 0.1, 0.1]).double().log()
    truth, model = nearest("with priors", prior=prior), nearest("without")
    _, data = figures.compare_regions(truth, model, ["a", "b", "c"], (-1.0, 4.0, 0.0, 3.0))
    side = np.linspace(0, 1, len(data.numbers["difference"]))
    most, otherwise = 0.0, 0
    for x, y in itertools.product(5 * side - 1, 3 * side):
        logits = -np.array([(x - a) ** 2 + (y - b) ** 2 for a, b in CENTRES])
        p, q = np.exp(logits) * [0.8, 0.1, 0.1], np.exp(logits)
        most = max(most, np.abs(p / p.sum() - q / q.sum()).max())
        otherwise += p.argmax() != q.argmax()
    assert data.numbers["largest"] == pytest.approx(most, abs=1e-9)
    assert data.numbers["otherwise"] == pytest.approx(otherwise / side.size**2)
    same = figures.compare_regions(model, model, ["a", "b", "c"], (-1.0, 4.0, 0.0, 3.0))[1]
    assert same.numbers["largest"] == same.numbers["otherwise"] == 0
    assert "agree" in same.finding
    unsquared = nearest("plain", "euclidean")
    plain = figures.compare_regions(model, unsquared, ["a", "b", "c"], (-1.0, 4.0, 0.0, 3.0))[1]
    assert plain.numbers["otherwise"] == 0 < plain.numbers["largest"]


def test_mixtures_may_share_a_posterior_and_are_apart_as_a_loop_says() -> None:
    c = torch.from_numpy(CENTRES)
    first, limits = gaussians(0.0, 0.5, (1 / 3,) * 3), (-6.0, 9.0, -6.0, 9.0)
    turned = (c @ torch.tensor([1.0, 0.0]).double()).softmax(dim=0)  # centres c + a/2, a = (1, 0)
    shifted = gaussians(0.5, 0.5, turned.tolist())
    _, data = figures.mixtures([first, shifted, first], ["a", "b", "c"], limits)
    assert data.numbers["probability"] < 1e-12
    assert "The posterior is the same" in data.finding
    assert data.numbers["moved"][0] == data.numbers["moved"][2] == 0
    side = np.linspace(-6, 9, 96)
    mass = np.zeros((2, 96, 96))
    for i, j in itertools.product(range(96), repeat=2):
        for k, (x, y) in enumerate(CENTRES):
            d = (side[i] - x) ** 2 + (side[j] - y) ** 2
            mass[0, i, j] += np.exp(-d) / 3
            mass[1, i, j] += np.exp(-d - 0.25 + (side[i] - x)) * turned[k].item()
    mass /= mass.sum(axis=(1, 2), keepdims=True)
    assert data.numbers["moved"][1] == pytest.approx(np.abs(mass[0] - mass[1]).sum() / 2)
    other = figures.mixtures([first, gaussians(0.5, 0.5), first], ["a", "b", "c"], limits)[1]
    assert other.numbers["probability"] > 0.1
    assert "The posteriors differ, too" in other.finding


def test_moved_support_points_are_counted() -> None:
    _, data, _ = shown("embedding with support")
    assert "3 support points (1 moved)" in data.alt


def test_the_episode_strip_measures_dice_and_copying() -> None:
    _, data, _ = shown("episode")
    expected = np.mean(
        [1 - scipy_dissimilarity((k == LABELS).ravel(), (k == SHIFTED).ravel()) for k in (1, 2)]
    )
    assert data.numbers["dice"]["copy"] == pytest.approx(expected)
    assert data.numbers["agreement"]["copy"] == 1.0
    assert data.numbers["dice"]["truth"] == 1.0
    assert data.numbers["agreement"]["truth"] == np.mean(LABELS == SHIFTED)


def test_the_overlay_says_how_large_organs_are_and_where() -> None:
    _, data, _ = shown("overlay")
    assert data.rows[0] == ("liver", 48, "10.0 %", "upper left")
    assert data.rows[1] == ("spleen", 48, "10.0 %", "lower right")


def test_the_montage_spreads_its_slices_and_can_keep_to_some_organs() -> None:
    _, data = figures.montage(VOLUME, slices=2, organs=["spleen"])
    assert data.numbers["slices"].tolist() == [0, 2]
    assert data.rows == (("spleen", 2, 96),)
    assert "(0 and 2 of 3)" in data.alt
    _, data = figures.montage(VOLUME, slices=2, titles=["for the liver", "for the spleen"])
    assert "(for the liver and for the spleen)" in data.alt


def test_a_window_decides_what_is_black_and_white() -> None:
    image = np.full((8, 8), 100.0)
    labels = np.zeros((8, 8), dtype=np.int64)
    middle = {}
    for window in ((100, 200), (0, 100), None):
        figure, _ = figures.overlay(image, labels, NAMES, window=window)
        pixels = rgb(figures.png(figure))
        middle[window] = int(pixels[pixels.shape[0] // 2, 100].mean())
    assert middle[(100, 200)] < 10 < 245 < middle[(0, 100)]


# ---- pictures of images -------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(1, 10))
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 8])
def test_a_picture_of_anatomy_is_240_px_wide_or_wider(count: int, columns: int) -> None:
    volume = Volume(VOLUME.images, VOLUME.labels * 0, NAMES, "s", VOLUME.spacing)
    figure, _ = figures.montage(volume, slices=[0] * count, columns=columns)
    extents = [drawn.get_extent() for drawn in figure.axes[0].images]
    assert len(extents) == count
    assert all(96 * (right - left) >= 239.9 for left, right, _, _ in extents)
    width, height = figure.get_size_inches()
    assert width - max(right for _, right, _, _ in extents) < 0.1, "a blank column"
    assert height - max(bottom for _, _, bottom, _ in extents) < 0.4, "a blank row"


@pytest.mark.parametrize("name", ["overlay", "strip", "montage", "episode"])
def test_every_picture_of_anatomy_has_panels_of_240_px(name: str) -> None:
    extents = [drawn.get_extent() for drawn in shown(name)[0].axes[0].images]
    assert all(96 * (right - left) >= 239.9 for left, right, _, _ in extents)


def test_hounsfield_units_are_drawn_in_the_window_of_soft_tissue() -> None:
    rows = torch.linspace(-1000, 1000, 24)[:, None].expand(24, 20)
    figure, _ = figures.overlay(rows, LABELS, NAMES)
    assert figure.axes[0].images[0].get_clim() == (-160, 240)
    figure, _ = figures.overlay(rows / 1000, LABELS, NAMES)
    assert figure.axes[0].images[0].get_clim() == pytest.approx((-0.978, 0.978), abs=0.03)


def test_long_titles_are_folded_and_have_room() -> None:
    long = "a title of a panel that is far longer than a tile of 240 px is wide"
    figure, _ = figures.strip(IMAGE, {long: LABELS, "short": SHIFTED}, NAMES)
    figures.png(figure, quick=True)
    titles = [text.get_window_extent() for text in figure.axes[0].texts]
    assert all(
        box.x0 >= 0 and box.y1 <= figure.bbox.y1 and box.x1 <= 245 + box.x0 for box in titles
    )


@pytest.mark.parametrize("level", [0.2, 0.5, 0.78, 0.99])
def test_an_axis_zooms_to_its_data_and_every_reference_is_named_outside(level: float) -> None:
    figure, _ = figures.lines(
        [1, 2], {"a": [0.7, 0.8]}, xlabel="x", ylabel="y", references={"chance": level, "b": 0.78}
    )
    low, high = figure.axes[0].get_ylim()
    assert (low <= level <= high) == (0.6 <= level <= 0.9)
    assert high - low < 0.35
    figures.png(figure, quick=True)
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    assert all(box.x0 >= figure.axes[0].bbox.x1 for box in boxes)
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)
    assert not boxes[0].overlaps(boxes[1])
    arrows = {0.2: "chance 0.20 ↓", 0.5: "chance 0.50 ↓", 0.99: "chance 0.99 ↑"}
    assert arrows.get(level, f"chance {level:.2f}") in {text.get_text() for text in texts}


def words_of(figure: Figure) -> list[mpl.text.Text]:
    """Every text that is seen, of a figure that was drawn."""
    unseen = set()  # matplotlib keeps ticks beyond the ends of an axis
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not (axis.get_visible() and low - 1e-9 <= tick.get_loc() <= high + 1e-9):
                unseen |= {tick.label1, tick.label2}
        if not axis.get_visible():
            unseen.add(axis.label)
    texts = figure.findobj(mpl.text.Text)
    return [t for t in texts if t.get_visible() and t.get_text().strip() and t not in unseen]


CHARTS = [
    *("lines", "accuracy_against_shots", "dice_against_grid", "dice_against_shift", "loss_curve"),
    *("learning_curve", "softmax_ceiling", "mask_shrinking", "methods", "reliability", "dots"),
    *("score_histogram", "heat_map", "embedding with support", "compare_regions", "mixtures"),
    *("ranks", "ranks that cross", "folds", "lines with a long name", "methods beside a level"),
]


@pytest.mark.parametrize("name", CHARTS)
def test_no_word_of_a_chart_touches_another_word_a_curve_or_the_edge(name: str) -> None:
    figure, _ = GALLERY[name]()
    figures.png(figure, quick=True)
    texts = words_of(figure)
    boxes = [text.get_window_extent() for text in texts]
    assert len(texts) >= 3
    assert {text.get_fontsize() for text in texts} <= {8.0, 9.0}
    for text, box in zip(texts, boxes, strict=True):
        assert figure.bbox.x0 - 0.5 <= box.x0 < box.x1 <= figure.bbox.x1 + 0.5, text
        assert figure.bbox.y0 - 0.5 <= box.y0 < box.y1 <= figure.bbox.y1 + 0.5, text
    for (a, one), (b, other) in itertools.combinations(zip(texts, boxes, strict=True), 2):
        assert not one.padded(-1).overlaps(other.padded(-1)), (a, b)
    curves = [
        np.linspace(start, end, 200)
        for axes in figure.axes
        for line in axes.lines
        for start, end in itertools.pairwise(line.get_transform().transform(line.get_xydata()))
    ]
    for curve, (text, box) in itertools.product(curves, zip(texts, boxes, strict=True)):
        through = (curve > box.min + 1).all(axis=1) & (curve < box.max - 1).all(axis=1)
        assert not through.any(), text


def test_rows_of_an_episode_lie_close_where_nothing_is_written_between_them() -> None:
    extents = [drawn.get_extent() for drawn in shown("episode")[0].axes[0].images]
    tops, bottoms = (
        sorted({top for *_, top in extents}),
        sorted({bottom for *_, bottom, _ in extents}),
    )
    assert len(tops) == 2
    assert tops[1] - bottoms[0] < tiles.LINE + tiles.GAP + 0.01


def test_the_arrow_of_a_moved_support_point_shows_its_head() -> None:
    figure, _ = GALLERY["embedding with support"]()
    figures.png(figure, quick=True)
    [arrow] = [a for a in figure.axes[0].patches if isinstance(a, mpl.patches.FancyArrowPatch)]
    x0, _, x1, _ = arrow.get_window_extent().extents
    left, right = figure.axes[0].transData.transform([CENTRES[2], CENTRES[2] + (1, 0)])[:, 0]
    assert left + 8 <= x0 < x1 <= right  # outside the marker, whose radius is 8.7 px
    assert x1 - x0 > 12


@given(st.floats(-0.6, 0.6), st.integers(0, 3))
def test_no_number_is_a_negative_zero(value: float, digits: int) -> None:
    for words in (figures.number(value, digits), figures.number(value, digits, sign=True),
                  style.percent(value, digits)):  # fmt: skip
        assert "-" not in words
        bare = words.lstrip("−+").rstrip(" %")
        assert float(bare) > 0 or bare == words.rstrip(" %")


def test_tiles_show_their_image_at_their_place() -> None:
    with figures.drawing("strip") as figure:
        boxes = tiles.Box(0.1, 0.1, 2.0, 2.0), tiles.Box(2.2, 0.1, 2.0, 2.0)
        grid = tiles.Tiles(style.inch_axes(figure), boxes)
        grid.image(0, np.zeros((4, 4)), cmap="gray", vmin=0, vmax=1)
        grid.image(1, np.array([[1.0, 0.0], [0.0, 1.0]]), cmap="gray", vmin=0, vmax=1)
    pixels = rgb(figures.png(figure, quick=True))

    def at(i: int, across: float, down: float) -> int:
        box = grid.boxes[i]
        row, column = box.top + down * box.height, box.left + across * box.width
        return int(pixels[round(row * style.DPI), round(column * style.DPI)].mean())

    assert at(0, 0.5, 0.5) < 20
    corners = [at(1, a, d) > 128 for d in (0.25, 0.75) for a in (0.25, 0.75)]
    assert corners == [True, False, False, True]


def test_an_organ_is_tinted_inside_its_outline_only() -> None:
    labels = np.zeros((10, 10), dtype=np.int64)
    labels[:5] = 1  # touches three borders
    with figures.drawing("small") as figure:
        grid = tiles.Tiles(style.inch_axes(figure), (tiles.Box(0.1, 0.1, 2.5, 2.5),))
        grid.image(0, np.full((10, 10), 0.5), cmap="gray", vmin=0, vmax=1)
        grid.organs(0, labels, ("background", "liver"), figures.organ_looks(("", "liver")))
    box = grid.boxes[0]
    pixels = rgb(figures.png(figure, quick=True))
    column = round((box.left + box.width / 2) * style.DPI)
    inside, outside = (
        pixels[round((box.top + share * box.height) * style.DPI), column] for share in (0.25, 0.75)
    )
    assert np.ptp(outside) < 16, "grey where there is no organ"
    assert inside[0] - inside[2] > 20, "yellow where the liver is"


@given(st.integers(1, 40), st.integers(1, 12), st.floats(0.4, 2.0))
@settings(deadline=None, max_examples=30)
def test_tiles_lie_inside_the_figure_and_apart(count: int, columns: int, aspect: float) -> None:
    grid = tiles.layout(count, columns, aspect=aspect, legend=1)
    width, height = figures.SIZES[grid.size][0], grid.height
    for a in grid.boxes:
        assert a.left >= 0
        assert a.left + a.width <= width + 1e-6
        assert a.top >= 0
        assert a.top + a.height <= height + 1e-6
    for a, b in itertools.combinations(grid.boxes, 2):
        apart = a.left + a.width <= b.left or b.left + b.width <= a.left
        assert apart or a.top + a.height <= b.top or b.top + b.height <= a.top


# ---- diagrams ----------------------------------------------------------------------------------


def strokes(figure: Figure) -> list[np.ndarray]:
    """Every line and border of a diagram in pixels, as points less than a pixel apart."""
    kinds = (mpl.patches.FancyArrowPatch, mpl.lines.Line2D, mpl.patches.Rectangle)
    axes, found = figure.axes[0], []
    for artist in axes.get_children():
        if isinstance(artist, kinds) and artist is not axes.patch:
            path = artist.get_transform().transform_path(artist.get_path())
            for part in path.to_polygons(closed_only=False):
                found += [
                    np.linspace(a, b, 2 + int(np.abs(b - a).max()))
                    for a, b in itertools.pairwise(part)
                ]
    return found


def drawn_labels(figure: Figure) -> list[mpl.text.Text]:
    figures.png(figure, quick=True)
    return [text for text in figure.axes[0].texts if text.get_text().strip()]


DIAGRAMS = [name for name in GALLERY if name.startswith("diagram")]
MORE_DIAGRAMS = {
    "one of each": lambda: figures.diagram_episode(1, 1, 1),
    "three of each": lambda: figures.diagram_episode(3, 3, 3),
    "pooling in 5×5": lambda: figures.diagram_pooling(np.eye(5), np.eye(5)),
    "pooling in 2×2": lambda: figures.diagram_pooling(np.eye(2), np.eye(2)),
    "24 slices": lambda: figures.diagram_protocols((2, 20), (0, 23), 24, 4),
    "an organ at the end": lambda: figures.diagram_protocols((0, 0), (5, 5), 6, 2),
}


@pytest.mark.parametrize("name", [*DIAGRAMS, *MORE_DIAGRAMS])
def test_no_line_of_a_diagram_runs_through_a_label_nor_a_label_through_another(name: str) -> None:
    figure, _ = (GALLERY | MORE_DIAGRAMS)[name]()
    labels = drawn_labels(figure)
    assert {text.get_fontsize() for text in labels} == {9.0}
    boxes = [text.get_window_extent() for text in labels]
    page = figure.bbox
    lines = strokes(figure)
    assert len(lines) > 10
    for text, box in zip(labels, boxes, strict=True):
        assert page.x0 <= box.x0 < box.x1 <= page.x1, text.get_text()
        assert page.y0 <= box.y0 < box.y1 <= page.y1, text.get_text()
        for line in lines:
            inside = (line > box.min).all(axis=1) & (line < box.max).all(axis=1)
            assert not inside.any(), text.get_text()
    for (a, one), (b, other) in itertools.combinations(zip(labels, boxes, strict=True), 2):
        assert not one.overlaps(other), (a.get_text(), b.get_text())


def test_the_protocols_drawn_ask_for_the_slices_that_the_library_asks_for() -> None:
    labels = torch.zeros(2, 12, 4, 4, dtype=torch.int64)
    labels[0, 2:9], labels[1, 4:12] = 1, 1
    support, query = (
        Volume(torch.arange(12.0)[:, None, None, None].expand(12, 1, 4, 4), one, NAMES[:2], name)
        for one, name in zip(labels, "sq", strict=True)
    )
    _, data = figures.diagram_protocols((2, 8), (4, 11), 12)
    for protocol in (EP1, EP2):
        used = {}

        def model(images, masks, queries, used=used):
            used.update((int(q[0, 0, 0]), int(images[0, 0, 0, 0])) for q in queries)
            return torch.zeros(len(queries), 2, 4, 4)

        _, asked = segment_volume(model, support, query, "liver", protocol)
        drawn = data.numbers["asked"][protocol.name]
        assert [z >= 0 for z in drawn] == asked.tolist()
        assert {z: s for z, s in enumerate(drawn) if s >= 0} == used


def test_the_prototypes_drawn_are_those_of_the_library() -> None:
    features, mask = RNG.integers(0, 9, (4, 4)), np.eye(4)[::-1].copy()
    _, data = figures.diagram_pooling(features, mask)
    masks = torch.from_numpy(np.stack([1 - mask, mask]))[None]
    prototypes, _ = masked_prototypes(torch.from_numpy(features)[None, None].float(), masks)
    assert prototypes[:, 0].tolist() == pytest.approx(
        [data.numbers["background"], data.numbers["organ"]]
    )


def test_the_shapes_drawn_are_those_of_the_network() -> None:
    letters = {"S": 2, "K": 3, "C": 1, "H": 32, "W": 64, "D": 8}
    net = FewShotSegmentationNet(feat_dim=letters["D"])
    images, masks = torch.rand(2, 1, 32, 64), torch.ones(2, 3, 32, 64)
    features = net.encoder(images)
    letters |= {"H′": features.shape[-2], "W′": features.shape[-1]}
    prototypes = net.compute_prototypes(features, masks)
    made = {
        "support images": images,
        "query image": images[0],
        "support features": features,
        "query features": features[0],
        "support masks": masks,
        "prototypes": prototypes.vectors.squeeze(),
        "logits": net.match_features(features[:1], prototypes),
        "probabilities": net(images, masks, images[0]).softmax(0),
    }
    for name, shape in figures.diagram_network()[1].rows:
        expected = [letters[letter] for letter in re.findall(r"\w′?", shape)]
        assert list(made.pop(name).shape) == expected, name
    assert not made


# ---- what is refused ----------------------------------------------------------------------------

REFUSED = {
    "no series": (lambda: figures.lines([1], {}, xlabel="x", ylabel="y"), "no series"),
    "series too short": (
        lambda: figures.lines([1, 2], {"a": [1.0]}, xlabel="x", ylabel="y"),
        "1 numbers for 2",
    ),
    "no loss": (lambda: figures.loss_curve([]), "no loss to draw yet"),
    "no window": (lambda: figures.loss_curve([1.0], window=0), "at least 1 episode"),
    "unknown baseline": (lambda: figures.methods({"a": 0.5}), "'copied mask' is not among"),
    "interval without its mean": (
        lambda: figures.methods({"a": (0.9, 0.1, 0.2)}, baseline=None),
        "leaves out its mean",
    ),
    "Dice above one": (
        lambda: figures.methods({"a": 1.5}, baseline=None),
        "from 1.5 to 1.5 lies outside 0 … 1",
    ),
    "confidence above one": (lambda: figures.reliability([1.5], [True]), "0 … 1"),
    "unequal confidences": (lambda: figures.reliability([0.5], [True, False]), "as many"),
    "only NaN": (lambda: figures.score_histogram({"a": [np.nan]}), "not NaN"),
    "names and matrix": (
        lambda: figures.heat_map([[1.0]], ["a", "b"], ["c"], label="p"),
        "1×1 with 2 row names",
    ),
    "negative scale": (lambda: figures.softmax_ceiling((2,), [-1.0]), "positive"),
    "titles": (lambda: figures.examples(np.zeros((2, 8, 8)), ["a"]), "1 titles for 2 images"),
    "role": (
        lambda: figures.examples(np.zeros((1, 8, 8)), roles=["test"]),
        "support or query",
    ),
    "image shape": (lambda: figures.overlay(np.zeros((2, 8, 8)), LABELS, NAMES), "(H, W)"),
    "shapes differ": (lambda: figures.overlay(np.zeros((8, 8)), LABELS, NAMES), "shapes differ"),
    "label without name": (lambda: figures.overlay(IMAGE, LABELS + 3, NAMES), "0 … 3"),
    "slice": (lambda: figures.montage(VOLUME, slices=[9]), "0 … 2"),
    "organ": (lambda: figures.montage(VOLUME, organs=["heart"]), "there are background"),
    "titles of slices": (
        lambda: figures.montage(VOLUME, slices=2, titles=["a"]),
        "2 slices, 1 titles",
    ),
    "predictions": (
        lambda: figures.episode(IMAGE, LABELS, IMAGE, LABELS, {}, NAMES),
        "1 … 4 predictions",
    ),
    "three dimensions": (
        lambda: figures.embedding(np.zeros((2, 3)), [0, 1]),
        "project the embedding",
    ),
    "labels for points": (lambda: figures.embedding(POINTS, [0]), "1 labels for 45"),
    "support labels": (
        lambda: figures.embedding(POINTS, CLASSES, support=CENTRES),
        "support_labels",
    ),
    "limits backwards": (
        lambda: figures.compare_regions(nearest("a"), nearest("b"), list("012"), (1, 0, 0, 1)),
        "increasing",
    ),
    "names and posteriors": (
        lambda: figures.compare_regions(nearest("a"), nearest("b"), ["0"], (0, 1, 0, 1)),
        "(9216, 1) log-probabilities for 1 names, got (9216, 3)",
    ),
    "two mixtures": (
        lambda: figures.mixtures([gaussians(0, 1.0)] * 2, list("012"), (0, 1, 0, 1)),
        "room for three mixtures, got 2",
    ),
    "one scoring": (lambda: figures.ranks({"EP1": {"a": 1, "b": 0}}), "two or more scorings"),
    "other methods": (
        lambda: figures.ranks({"EP1": {"a": 1, "b": 0}, "EP2": {"a": 1, "c": 0}}),
        "'EP2' scores a and c, not a and b",
    ),
    "no rank": (
        lambda: figures.ranks({"EP1": {"a": 1, "b": np.nan}, "EP2": {"a": 1, "b": 0}}),
        "has no rank",
    ),
    "ways": (lambda: figures.diagram_episode(4), "n_way = 1 … 3, got 4"),
    "pooling": (lambda: figures.diagram_pooling(np.eye(2), np.eye(3)), "(2, 2) and (3, 3)"),
    "no organ": (lambda: figures.diagram_pooling(np.eye(2), np.ones((2, 2))), "some 0"),
    "chunks": (lambda: figures.diagram_protocols(chunks=5), "1 … 4 chunks, got 18 and 5"),
    "extent": (lambda: figures.diagram_protocols((4, 18)), "0 … 17, got 4 … 18"),
    "no plan": (lambda: figures.folds({}, 3), "no plan to draw"),
    "plan": (lambda: figures.folds({"a": [[0, 1]]}, 3), "three whole numbers"),
    "scan": (lambda: figures.folds({"a": [[0, 1, 3]]}, 3), "scans are 0 … 2, got up to 3"),
    "size": (lambda: figures.drawing("huge").__enter__(), "there are small"),
    "alt text": (lambda: figures.PlotData("a", " "), "needs an alt text"),
    "table": (lambda: figures.PlotData("a", "b", ("x",), ((1, 2),)), "2 entries"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_drawn_is_refused_with_a_sentence(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_labels_must_be_whole_numbers() -> None:
    with pytest.raises(TypeError, match="integers"):
        figures.overlay(IMAGE, LABELS.astype(float), NAMES)


def test_plotted_numbers_cannot_be_changed_afterwards() -> None:
    _, data, _ = shown("lines")
    with pytest.raises(TypeError):
        data.numbers["a"] = 0  # type: ignore[index]


@given(
    st.lists(
        st.lists(st.integers(0, 5), min_size=3, max_size=3).map(lambda v: [x / 5 for x in v]),
        min_size=2, max_size=4,
    )
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_ranks_count_the_better_methods_and_pairs_that_change_places(rows) -> None:
    scores = {f"s{j}": dict(zip("abc", row, strict=True)) for j, row in enumerate(rows)}
    _, data = figures.ranks(scores)
    places = data.numbers["ranks"]
    for j, row in enumerate(rows):
        assert sorted(places[:, j].tolist()) == [1, 2, 3]
        for i, score in enumerate(row):
            better = sum(other > score for other in row)
            assert better < places[i, j] <= sum(other >= score for other in row)
    changing = {
        (a, b)
        for a, b in itertools.combinations(range(3), 2)
        if len({bool(places[a, j] < places[b, j]) for j in range(len(rows))}) == 2
    }
    assert f"{len(changing)} of 3 pairs" in data.finding


def test_a_plan_is_counted_scan_by_scan_and_its_own_support_is_told() -> None:
    _, data = figures.folds({"found": FOUND}, 4)
    assert data.numbers["found"].tolist() == [1, 0, 2, 1]
    assert "found: 1 of 4 scans never queried, 1 more than once." in data.finding
    assert "query their own support in found" in data.finding
    _, data = figures.folds({"clean": [[0, 1, 0], [1, 0, 1]]}, 2)
    assert "own support" not in data.finding
