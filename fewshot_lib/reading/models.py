"""The networks of notebooks 06 and 10, from the cache or trained anew (07 uses one, too).

A ``Recipe`` says everything that makes a network what it is; ``train`` follows it. A finished
network is read in a moment, an interrupted training goes on, a changed recipe has another file.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fewshot_lib.checker.language import words
from fewshot_lib.data import anatomy
from fewshot_lib.data.cache import cache_dir, lock
from fewshot_lib.episodes import SliceDataset
from fewshot_lib.evaluation import dice, episode_dice
from fewshot_lib.heads import Kind, Similarity
from fewshot_lib.networks import FewShotSegmentationNet, PixelClassifier, UNetEncoder
from fewshot_lib.superpixels import superpixel_episodes
from fewshot_lib.training import (
    SegmentationEpisode,
    TrainingResult,
    episodic_training_epoch,
    fit_pixel_classifier,
    gather_episodes,
    random_orientation,
    sample_slices,
)

_ = words("reading")

Network = TypeVar("Network", FewShotSegmentationNet, PixelClassifier)

VERSION = 1  # raise it when the same recipe would train another network: other data, other code
SIZE = (48, 64)  # pixels, rows and columns
MIN_PIXELS = 20  # of an organ, for a slice to count as showing it
FIRST_TEST_SUBJECT = 8000  # training subjects are numbered from 0


@dataclass(frozen=True)
class Recipe:
    """Say how a network of notebook 06 is made and trained; the best row is ``Recipe()``.

    Arguments:
        prototypes, similarity, scale: as for ``FewShotSegmentationNet``.
        background_grid: of ``MaskedHead``; other heads have one background.
        nonnegative: of the encoder: end with a ReLU.
        feat_dim, width, depth, stride: of the ``UNetEncoder``.
        steps: optimizer steps.
        episodes_per_step: ≥ 1.
        n_way, k_shot, n_query, all_classes: as for ``sample_episode``.
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
    stride: int = 1
    steps: int = 400
    episodes_per_step: int = 3
    n_way: int = 1
    k_shot: int = 1
    n_query: int = 2
    all_classes: bool = True
    turned: bool = False
    learning_rate: float = 3e-3
    dice_weight: float = 0.5
    subjects: int = 400


BEST = Recipe()
ONE_BACKGROUND = replace(BEST, background_grid=1)  # trained as long as BEST: the matched row
# What the other rows vary. So few steps need more slices in each.
SHORT = replace(BEST, stride=2, steps=60, episodes_per_step=4, n_query=3, background_grid=1)
# What came after prototypes (notebook 10), each trained as briefly as SHORT.
PARTS = replace(SHORT, background_grid=8)
LOCAL = replace(PARTS, prototypes="local")
ATTENTION = replace(SHORT, prototypes="attention")
# One organ at a time, as their authors have it. With every organ marked, other organs hold an
# organ's pixels back in training, and nothing does at test, where the threshold is alone. One small
# organ in a slice is few pixels, so that the Dice term has to weigh more: with ½ both heads learn
# to call everything background.
THRESHOLD = replace(SHORT, prototypes="threshold", all_classes=False, dice_weight=3.0)
CROSS = replace(THRESHOLD, prototypes="cross", scale=1.0)
# The note's 5 ways, 1 shot, one episode per step, with about as many slices as the others: 15, 16.
FIVE_WAY = replace(
    SHORT, background_grid=8, all_classes=False, n_way=5, n_query=2, episodes_per_step=1
)


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
    if not 1 <= subjects <= FIRST_TEST_SUBJECT:
        raise ValueError(
            f"subjects must be 1 … {FIRST_TEST_SUBJECT}, got {subjects}: the subjects from there "
            "on are for testing"
        )
    volumes = anatomy.make_volumes(subjects, size=SIZE, alignment=0.0, without=anatomy.NOVEL_ORGANS)
    slices = SliceDataset(volumes, anatomy.BASE_ORGANS, min_pixels=MIN_PIXELS)
    slices.images = normalised(slices.images)
    seen = zip(slices.classes, slices.presence.sum(dim=0).tolist(), strict=True)
    return slices.select([name for name, count in seen if count > 20])


def unseen_slices(subjects: int = 40) -> SliceDataset:
    """Draw people whom no training has seen, labelled with the novel organs, as single slices.

    Arguments:
        subjects: how many, ≥ 1, numbered from 8000.

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


def unseen_tests(
    slices: SliceDataset, episodes: int = 120
) -> tuple[SegmentationEpisode, Tensor, list[str]]:
    """Draw the one-shot test of notebook 06, the same episodes whenever it is asked for.

    Arguments:
        slices: what ``unseen_slices`` gave.
        episodes: E ≥ 1.

    Returns:
        The episodes; (E,) the subject of each query, for intervals; the organ of each episode.

    Notebooks: 10.

    >>> unseen_tests(unseen_slices(4), 2)[0].support_images.shape
    torch.Size([2, 1, 1, 48, 64])
    """
    chance = torch.Generator().manual_seed(0)
    # Notebook 06 draws five support slices and takes the first: so are its episodes these.
    drawn = [sample_slices(slices, 1, 5, 1, chance) for _ in range(episodes)]
    images, masks, queries, truth = gather_episodes(slices, drawn)
    tests = SegmentationEpisode(images[:, :1], masks[:, :1], queries, truth)
    people = torch.stack([slices.subjects[one.query_index[0, 0]] for one in drawn])
    return tests, people, [slices.classes[int(one.classes[0]) - 1] for one in drawn]


def untrained(recipe: Recipe = BEST, seed: int = 0) -> FewShotSegmentationNet:
    """Make the recipe's network with the seed's first weights; torch's own generator is left alone.

    Notebooks: 06.

    >>> untrained().encoder.feat_dim
    32
    """
    options = {"background_grid": recipe.background_grid} if recipe.background_grid > 1 else {}
    encoder = _encoder(recipe, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for a head that has weights
        return FewShotSegmentationNet(
            feat_dim=recipe.feat_dim,
            prototypes=recipe.prototypes,
            similarity=recipe.similarity,
            scale=recipe.scale,
            encoder=encoder,
            **options,
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
    """Train a network on episodes by its recipe, or read it from the cache if that was done before.

    Training says so in a line on stderr. Its checkpoint lies in the cache folder under a name made
    of the recipe; interrupted, it goes on from there. A checkpoint that cannot be read is set aside
    with a line that says so, and the network trained anew.

    Arguments:
        recipe: how.
        seed: of the first weights and of the episodes, ≥ 0.
        slices: what ``training_slices`` gave for the recipe's subjects, to have it drawn once for
            several networks. None: drawn if needed.
        cached: read and write the cache.
        progress, on_step: as for ``episodic_training_epoch``; a network from the cache has neither.

    Returns:
        The network in evaluation mode, and what the training did.

    Notebooks: 06.

    >>> network, result = train(Recipe(steps=1, subjects=2), cached=False, progress=False)
    >>> len(result.losses), network.training
    (3, False)
    """

    def run(network: nn.Module, path: Path | None) -> TrainingResult:
        return episodic_training_epoch(
            network,
            training_slices(recipe.subjects) if slices is None else slices,
            num_episodes=total,
            n_way=recipe.n_way,
            k_shot=recipe.k_shot,
            n_query=recipe.n_query,
            episodes_per_step=recipe.episodes_per_step,
            all_classes=recipe.all_classes,
            augment=random_orientation if recipe.turned else None,
            checkpoint_every=50 * recipe.episodes_per_step,
            on_step=on_step,
            **_options(network, recipe, seed, path, progress),
        )

    path = checkpoint(recipe, seed) if cached else None
    total = recipe.steps * recipe.episodes_per_step
    what = _("{n} steps").format(n=recipe.steps)
    return _kept(path, lambda: untrained(recipe, seed), total, run, what)


def train_pixels(
    recipe: Recipe = BEST,
    seed: int = 0,
    *,
    slices: SliceDataset | None = None,
    cached: bool = True,
    progress: bool = True,
    on_step: Callable[[list[float]], None] | None = None,
) -> tuple[PixelClassifier, TrainingResult]:
    """Train the recipe's encoder without episodes: classify the pixels of as many slices per step.

    Same first weights of the encoder, same slices, optimizer, steps and loss as ``train``; one
    linear classifier of the base organs in the place of prototypes. Nothing is turned: a fixed
    classifier would be told that a textured organ and the same organ on its side are one.

    Arguments:
        recipe, seed, slices, cached, progress, on_step: as for ``train``.

    Returns:
        The classifier in evaluation mode (its ``encoder`` serves prototypes), and what was done.

    Notebooks: 06.

    >>> model, result = train_pixels(Recipe(steps=1, subjects=6), cached=False, progress=False)
    >>> len(result.losses), model.training
    (1, False)
    """
    known = training_slices(recipe.subjects) if slices is None else slices

    def make() -> PixelClassifier:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return PixelClassifier(_encoder(recipe, seed), recipe.feat_dim, len(known.classes) + 1)

    def run(model: PixelClassifier, path: Path | None) -> TrainingResult:
        return fit_pixel_classifier(
            model,
            known,
            num_steps=recipe.steps,
            batch_size=recipe.episodes_per_step * recipe.n_way * (recipe.k_shot + recipe.n_query),
            checkpoint_every=50,
            on_step=on_step,
            **_options(model, recipe, seed, path, progress),
        )

    path = checkpoint(recipe, seed, "pixels") if cached else None
    what = _("{n} steps, pixels").format(n=recipe.steps)
    return _kept(path, make, recipe.steps, run, what)


def train_superpixels(
    recipe: Recipe,
    seed: int = 0,
    *,
    slices: SliceDataset | None = None,
    cached: bool = True,
    progress: bool = True,
    on_step: Callable[[list[float]], None] | None = None,
) -> tuple[FewShotSegmentationNet, TrainingResult]:
    """Train the recipe's network without any label: superpixels in the place of organs.

    Same first weights, slices, optimizer, steps, loss and number of slices per step as ``train``;
    the tasks are those of ``superpixel_episodes``, which never looks at ``slices.labels``.

    Arguments:
        recipe, seed, slices, cached, progress, on_step: as for ``train``.

    Returns:
        The network in evaluation mode, and what was done.

    Notebooks: 10.

    >>> few = Recipe(steps=1, subjects=2, width=4)
    >>> len(train_superpixels(few, cached=False, progress=False)[1].losses)
    3
    """

    def run(network: nn.Module, path: Path | None) -> TrainingResult:
        known = training_slices(recipe.subjects) if slices is None else slices
        drawn = superpixel_episodes(
            known.images, n_query=recipe.n_query, episodes=recipe.episodes_per_step, seed=seed
        )
        return episodic_training_epoch(
            network,
            drawn,
            num_episodes=total,
            checkpoint_every=50 * recipe.episodes_per_step,
            on_step=on_step,
            **_options(network, recipe, seed, path, progress),
        )

    path = checkpoint(recipe, seed, "superpixels") if cached else None
    total = recipe.steps * recipe.episodes_per_step
    what = _("{n} steps, superpixels").format(n=recipe.steps)
    return _kept(path, lambda: untrained(recipe, seed), total, run, what)


def fit_threshold(
    network: FewShotSegmentationNet, episodes: SegmentationEpisode
) -> FewShotSegmentationNet:
    """Choose the threshold of a finished encoder by the mean Dice on episodes of one organ each.

    Arguments:
        network: with masked prototypes and cosines.
        episodes: with a leading E, as ``gather_episodes`` gives them; of base organs, if novel ones
            are to be tested.

    Returns:
        The same encoder with a ``ThresholdHead``, its threshold one of −0.5, −0.475 … 0.975.

    Notebooks: 06.

    >>> from fewshot_lib.training import sample_slices, gather_episodes
    >>> slices = training_slices(6)
    >>> drawn = [sample_slices(slices, 1, 1, 1, torch.Generator().manual_seed(0))]
    >>> bool(0 < fit_threshold(untrained(SHORT), gather_episodes(slices, drawn)).head.threshold < 1)
    True
    """
    found: list[Tensor] = []

    def keep(images: Tensor, masks: Tensor, queries: Tensor) -> Tensor:
        found.append(network(images, masks, queries))
        return found[-1]

    episode_dice(keep, episodes)
    alike = torch.cat(found)[:, :, 1] / network.head.scale  # (E, Q, H, W)
    truth = episodes.query_masks[:, :, 1] > 0.5
    candidates = [step / 40 for step in range(-20, 40)]
    scores = torch.stack([dice(alike > t, truth).nanmean() for t in candidates])
    return FewShotSegmentationNet(
        prototypes="threshold",
        scale=network.head.scale,
        encoder=network.encoder,
        threshold=candidates[int(scores.argmax())],
    )


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


def checkpoint(recipe: Recipe = BEST, seed: int = 0, kind: str = "episodes") -> Path:
    """Say where in the cache folder the recipe's network lies, or will lie once trained.

    The name holds a hash of the recipe, of ``VERSION`` and of the data that its first subject
    gives, so that a network trained otherwise is never taken for it. ``kind`` is "episodes" for
    what ``train`` keeps, "pixels" for ``train_pixels``, "superpixels" for ``train_superpixels``.

    >>> checkpoint().parent.name
    'checkpoints'
    """
    settings: dict[str, Any] = {**asdict(recipe), "version": VERSION, "data": _data_mark()}
    digest = hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:12]
    return cache_dir() / "checkpoints" / f"organs-{kind}-{digest}-seed{seed}.pt"


def _encoder(recipe: Recipe, seed: int) -> UNetEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNetEncoder(
            1,
            recipe.feat_dim,
            width=recipe.width,
            depth=recipe.depth,
            stride=recipe.stride,
            nonnegative=recipe.nonnegative,
        )


def _options(
    network: nn.Module, recipe: Recipe, seed: int, path: Path | None, progress: bool
) -> dict[str, Any]:
    """Give what all trainings have in common."""
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=max(recipe.steps, 1)
    )
    return {
        "optimizer": optimizer, "scheduler": scheduler, "dice_weight": recipe.dice_weight,
        "seed": seed, "checkpoint": path, "progress": progress,
    }  # fmt: skip


def _kept(
    path: Path | None,
    make: Callable[[], Network],
    total: int,
    run: Callable[[Network, Path | None], TrainingResult],
    what: str,
) -> tuple[Network, TrainingResult]:
    """Read the trained network from ``path`` or train it there; one process at a time."""
    network = make()
    with nullcontext() if path is None else lock(path.with_name(f".{path.name}.lock")):
        kept = None if path is None else _read(path, make)
        if kept is not None and len(kept[1].losses) == total:
            return kept
        said = _("Training a network ({what}) …")
        if kept is not None:
            said = _("Going on with a network ({what}) …")
        _say(said.format(what=what))
        result = run(network, path)
    network.eval()
    return network, result


@cache
def _data_mark() -> str:
    # Labels exactly, intensities to a hundredth of their mean: the same on every machine.
    volume = anatomy.make_volumes(1, size=SIZE, alignment=0.0)[0]
    counts = torch.bincount(volume.labels.flatten(), minlength=len(volume.names)).tolist()
    return f"{counts} {volume.images.mean():.2f} {volume.images.std():.2f}"


def _read(path: Path, make: Callable[[], Network]) -> tuple[Network, TrainingResult] | None:
    """Read a checkpoint, finished or not; None: there is none that can be used."""
    if not path.exists():
        return None
    network = make()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        losses = tuple(state["losses"].tolist())
        if state["settings"]["model"] != repr(network):
            raise ValueError("it holds another network")
        network.load_state_dict(state["model"])
    except Exception as error:
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        said = _(
            "The cached network {file} cannot be used ({error}: it may have been cut off while it "
            "was copied); it is now called {aside}."
        )
        _say(said.format(file=path.name, error=type(error).__name__, aside=aside.name))
        return None
    network.eval()
    return network, TrainingResult(losses, float(state["seconds"]), len(losses))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
