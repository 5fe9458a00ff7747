"""The networks that notebook 06 trains, from the cache or trained anew (notebooks 06 and 07).

A ``Recipe`` says everything that makes a network what it is; ``train`` follows it. A finished
network is read in a moment, an interrupted training goes on, a changed recipe has another file.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot_lib.data import anatomy
from fewshot_lib.data.cache import cache_dir, lock
from fewshot_lib.episodes import SliceDataset
from fewshot_lib.networks import FewShotSegmentationNet, Kind, Similarity, UNetEncoder
from fewshot_lib.training import TrainingResult, episodic_training_epoch, random_orientation

VERSION = 1  # raise it when the same recipe would train another network: other data, other code
SIZE = (48, 64)  # pixels, rows and columns
MIN_PIXELS = 20  # of an organ, for a slice to count as showing it
FIRST_TEST_SUBJECT = 7000  # training subjects are numbered from 0


@dataclass(frozen=True)
class Recipe:
    """Say how a network of notebook 06 is made and trained; the best row is ``Recipe()``.

    Arguments:
        prototypes, similarity, scale, background_grid: as for ``FewShotSegmentationNet``.
        nonnegative: of the encoder: end with a ReLU.
        feat_dim, width, depth, stride: of the ``UNetEncoder``.
        steps: optimizer steps.
        episodes_per_step: of one support and one query slice each, ≥ 1.
        n_way, k_shot, all_classes: as for ``sample_episode``.
        turned: turn each step's episodes by ``random_orientation``.
        learning_rate: the highest of Adam's one cycle, which rises to it and falls.
        dice_weight: of the loss.
        subjects: training subjects, drawn without the novel organs, organs anywhere.
    """

    prototypes: Kind = "masked"
    similarity: Similarity = "cosine"
    scale: float = 20.0
    background_grid: int = 8
    nonnegative: bool = False
    feat_dim: int = 32
    width: int = 16
    depth: int = 2
    stride: int = 2
    steps: int = 800
    episodes_per_step: int = 8
    n_way: int = 1
    k_shot: int = 1
    all_classes: bool = True
    turned: bool = True
    learning_rate: float = 3e-3
    dice_weight: float = 0.5
    subjects: int = 400

    @property
    def num_episodes(self) -> int:
        """Count the episodes of a whole training."""
        return self.steps * self.episodes_per_step


BEST = Recipe()


def normalised(images: Tensor) -> Tensor:
    """Bring intensities 0 … 1 of the synthetic scanners to what the networks expect.

    (x − 0.3) / 0.3: air about −1, soft tissue about 0.5. The same numbers for every image, so that
    one slice is never brighter for what else it shows.

    Arguments:
        images: floating, any shape, as ``anatomy.make_volumes`` and ``Volume.images`` have them.

    Returns:
        The same shape.

    Raises:
        TypeError: not floating point.

    Notebooks: 06 and 07.

    >>> normalised(torch.tensor([0.0, 0.3])).tolist()
    [-1.0, 0.0]
    """
    if not images.dtype.is_floating_point:
        raise TypeError(f"images must be floating point, got {images.dtype}; use .float()")
    return (images - 0.3) / 0.3


def training_slices(subjects: int = BEST.subjects) -> SliceDataset:
    """Draw the training subjects as single normalised slices, labelled with the base organs.

    Organs lie anywhere in the body (alignment 0). The novel organs are not there at all, not even
    unlabelled. A base organ on 20 slices or fewer is left out.

    Arguments:
        subjects: how many, ≥ 1, numbered from 0.

    Returns:
        ``SliceDataset`` with images (N, 1, 48, 64).

    Notebooks: 06.

    >>> "liver" in training_slices(2).classes
    False
    """
    _require_before_tests(subjects)
    volumes = anatomy.make_volumes(subjects, size=SIZE, alignment=0.0, without=anatomy.NOVEL_ORGANS)
    slices = SliceDataset(volumes, anatomy.BASE_ORGANS, min_pixels=MIN_PIXELS)
    slices.images = normalised(slices.images)
    seen = zip(slices.classes, slices.presence.sum(dim=0).tolist(), strict=True)
    return slices.select([name for name, count in seen if count > 20])


def unseen_slices(subjects: int = 40) -> SliceDataset:
    """Draw people whom no training has seen, labelled with the novel organs, as single slices.

    Arguments:
        subjects: how many, ≥ 1, numbered from 7000.

    Returns:
        ``SliceDataset`` with normalised images (N, 1, 48, 64).

    Notebooks: 06.

    >>> unseen_slices(1).classes
    ('liver', 'spleen', 'kidneys', 'stomach')
    """
    volumes = anatomy.make_volumes(
        subjects, size=SIZE, alignment=0.0, first_subject=FIRST_TEST_SUBJECT
    )
    slices = SliceDataset(volumes, anatomy.NOVEL_ORGANS, min_pixels=MIN_PIXELS)
    slices.images = normalised(slices.images)
    return slices


def untrained(recipe: Recipe = BEST, seed: int = 0) -> FewShotSegmentationNet:
    """Make the recipe's network with the seed's first weights; torch's own generator is left alone.

    >>> untrained().encoder.feat_dim
    32
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = UNetEncoder(
            1,
            recipe.feat_dim,
            width=recipe.width,
            depth=recipe.depth,
            stride=recipe.stride,
            nonnegative=recipe.nonnegative,
        )
    return FewShotSegmentationNet(
        prototypes=recipe.prototypes,
        similarity=recipe.similarity,
        scale=recipe.scale,
        background_grid=recipe.background_grid,
        encoder=encoder,
    )


def train(
    recipe: Recipe = BEST,
    seed: int = 0,
    *,
    slices: SliceDataset | None = None,
    cached: bool = True,
    progress: bool = True,
    on_step: Callable[[list[float]], None] | None = None,
) -> tuple[FewShotSegmentationNet, TrainingResult]:
    """Train a network by its recipe, or read it from the cache if that was done before.

    Training says so in a line on stderr. Its checkpoint lies in the cache folder under a name made
    of the recipe; interrupted, it goes on from there. A checkpoint that cannot be read is set aside
    with a line that says so, and the network trained anew.

    Arguments:
        recipe: how.
        seed: of the first weights and of the episodes, ≥ 0.
        slices: what ``training_slices`` gave, to have it drawn once for several networks; then only
            to be used with ``cached`` for the recipe's own number of subjects. None: draw them if
            they are needed.
        cached: read and write the cache.
        progress, on_step: as for ``episodic_training_epoch``; a network from the cache has neither.

    Returns:
        The network in evaluation mode, and what the training did.

    Notebooks: 06.

    >>> network, result = train(Recipe(steps=1, subjects=2), cached=False, progress=False)
    >>> len(result.losses), network.training
    (8, False)
    """
    network = untrained(recipe, seed)
    path = checkpoint(recipe, seed) if cached else None
    with nullcontext() if path is None else lock(path.with_name(f".{path.name}.lock")):
        finished = None if path is None else _finished(path, recipe, seed)
        if finished is not None:
            return finished
        _say(
            f"{'Going on with' if path is not None and path.exists() else 'Training'} a network "
            f"of notebook 06: {recipe.steps} steps, seed {seed} …"
        )
        optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
        result = episodic_training_epoch(
            network,
            training_slices(recipe.subjects) if slices is None else slices,
            optimizer,
            recipe.num_episodes,
            n_way=recipe.n_way,
            k_shot=recipe.k_shot,
            episodes_per_step=recipe.episodes_per_step,
            all_classes=recipe.all_classes,
            dice_weight=recipe.dice_weight,
            scheduler=torch.optim.lr_scheduler.OneCycleLR(
                optimizer, recipe.learning_rate, total_steps=max(recipe.steps, 1)
            ),
            augment=random_orientation if recipe.turned else None,
            seed=seed,
            checkpoint=path,
            checkpoint_every=100 * recipe.episodes_per_step,
            progress=progress,
            on_step=on_step,
        )
    return network.eval(), result


def novel_organ_network(seed: int = 0, progress: bool = True) -> FewShotSegmentationNet:
    """Give the best network of notebook 06, which segments organs that it never saw in training.

    It expects images of 48×64 pixels (rows × columns) through ``normalised``, and masks with the
    background as channel 0. It was trained on synthetic subjects whose organs lie anywhere, without
    liver, spleen, kidneys and stomach. Read from the cache; missing there, trained (a minute or
    two) with a line that says so.

    Arguments:
        seed: of the training, ≥ 0; notebook 06 has 0.
        progress: show a progress bar if it has to be trained.

    Returns:
        ``FewShotSegmentationNet`` in evaluation mode.

    Raises:
        OSError: the cache folder cannot be written to.

    Source: notebook 06; used in notebook 07.
    """
    return train(BEST, seed, progress=progress)[0]


def checkpoint(recipe: Recipe = BEST, seed: int = 0) -> Path:
    """Say where in the cache folder the recipe's network lies, or will lie once trained.

    The name holds a hash of the recipe, of ``VERSION`` and of the data that its first subject
    gives, so that a network trained otherwise is never taken for it.

    >>> checkpoint().parent.name
    'checkpoints'
    """
    settings: dict[str, Any] = {**asdict(recipe), "version": VERSION, "data": _data_mark()}
    digest = hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:12]
    return cache_dir() / "checkpoints" / f"novel-organs-{digest}-seed{seed}.pt"


@cache
def _data_mark() -> str:
    # Labels exactly, intensities to a hundredth of their mean: the same on every machine.
    volume = anatomy.make_volumes(1, size=SIZE, alignment=0.0)[0]
    counts = torch.bincount(volume.labels.flatten(), minlength=len(volume.names)).tolist()
    return f"{counts} {volume.images.mean():.2f} {volume.images.std():.2f}"


def _finished(
    path: Path, recipe: Recipe, seed: int
) -> tuple[FewShotSegmentationNet, TrainingResult] | None:
    """Read a finished training; None: there is none, or one to go on with."""
    if not path.exists():
        return None
    network = untrained(recipe, seed)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        losses = state["losses"].tolist()
        if state["settings"]["model"] != repr(network):
            raise ValueError("it holds another network")
        network.load_state_dict(state["model"])
    except Exception as error:
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        _say(
            f"The cached network {path.name} cannot be used ({type(error).__name__}: it may have "
            f"been cut off while it was copied); it is now called {aside.name}."
        )
        return None
    if len(losses) < recipe.num_episodes:
        return None
    return network.eval(), TrainingResult(tuple(losses), float(state["seconds"]), len(losses))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _require_before_tests(subjects: int) -> None:
    if not 1 <= subjects <= FIRST_TEST_SUBJECT:
        raise ValueError(
            f"subjects must be 1 … {FIRST_TEST_SUBJECT}, got {subjects}: the subjects from there "
            "on are for testing"
        )
