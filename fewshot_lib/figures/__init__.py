"""Plots: every function returns ``(figure, data)`` and never shows anything.

``data`` is a ``PlotData``: the plotted numbers, an alt text computed from them, a table, and the
finding in one sentence. ``fewshot_lib.reading.show(figure, data)`` puts both before the reader.

    curves     lines, accuracy_against_shots, dice_against_grid, dice_against_shift,
               learning_curve, softmax_ceiling, mask_shrinking, loss_curve
    charts     methods, dots, reliability, score_histogram, heat_map
    images     examples, overlay, strip, montage, episode
    spaces     embedding
    regions    compare_regions, of two Readings; mixtures, of three Mixtures
    protocols  ranks, folds
    diagrams   diagram_episode, diagram_pooling, diagram_network, diagram_protocols
    tiles      images in a grid with organs drawn over them
    style      the look: sizes, palette and second cue; SVG and PNG
"""

from __future__ import annotations

from fewshot_lib.figures.charts import dots, heat_map, methods, reliability, score_histogram
from fewshot_lib.figures.curves import (
    accuracy_against_shots,
    dice_against_grid,
    dice_against_shift,
    learning_curve,
    lines,
    loss_curve,
    mask_shrinking,
    softmax_ceiling,
)
from fewshot_lib.figures.diagrams import (
    diagram_episode,
    diagram_network,
    diagram_pooling,
    diagram_protocols,
)
from fewshot_lib.figures.images import (
    episode,
    examples,
    montage,
    overlay,
    strip,
)
from fewshot_lib.figures.protocols import folds, ranks
from fewshot_lib.figures.regions import Mixture, Reading, compare_regions, mixtures
from fewshot_lib.figures.spaces import embedding
from fewshot_lib.figures.style import (
    PALETTE,
    SIZES,
    Picture,
    PlotData,
    counted,
    drawing,
    number,
    picture,
    png,
    svg,
)
from fewshot_lib.figures.tiles import organ_looks

__all__ = [
    "PALETTE", "SIZES", "Mixture", "Picture", "PlotData", "Reading", "accuracy_against_shots",
    "compare_regions", "counted", "diagram_episode", "diagram_network", "diagram_pooling",
    "diagram_protocols", "dice_against_grid", "dice_against_shift", "dots", "drawing", "embedding",
    "episode", "examples", "folds", "heat_map", "learning_curve", "lines", "loss_curve",
    "mask_shrinking", "methods", "mixtures", "montage", "number", "organ_looks", "overlay",
    "picture", "png", "ranks", "reliability", "score_histogram", "softmax_ceiling", "strip", "svg",
]  # fmt: skip
