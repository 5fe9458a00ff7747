"""Exercise 05: the note's network, the test that exposes it, masked pooling (note §3.1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fewshot_lib import evaluation, networks
from fewshot_lib import prototypes as library
from fewshot_lib.checker import pictures
from fewshot_lib.checker.spec import Answer, Case, Check, Exercise, Mistake, Prose, Tolerance
from fewshot_lib.checker.spec import Variant as V
from fewshot_lib.checker.values import Given

GIVEN_AWAY = ["heads", "mixture", "networks", "prototypes"]


def _one_hot(labels: Tensor, n_classes: int) -> Tensor:
    """Make masks (…, K, H, W) of label maps (…, H, W)."""
    return F.one_hot(labels, n_classes).movedim(-1, -3).float()


def _masks(g: Generator, *shape: int) -> Tensor:
    """Draw complementary masks (…, K, H, W): every pixel belongs to one class."""
    *leading, n_classes, height, width = shape
    return _one_hot(torch.randint(n_classes, (*leading, height, width), generator=g), n_classes)


def _blocks(g: Generator, *shape: int) -> Tensor:
    """Draw complementary masks in blocks of 2 by 2 pixels."""
    *leading, height, width = shape
    small = _masks(g, *leading, (height + 1) // 2, (width + 1) // 2)
    return small.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., :height, :width]


# ------------------------------------------------------------------------------- note_prototypes


def note_prototypes(features: Tensor, masks: Tensor) -> Tensor:
    """Compute the note's prototypes, one for each class and position: the library's, in short."""
    return networks._position_prototypes(features, masks)


def _note_same_size(g: Generator) -> Iterator[Case]:
    yield Case("one shot, 2 classes", (torch.randn(1, 3, 4, 5, generator=g), _masks(g, 1, 2, 4, 5)))
    yield Case("4 shots, 3 classes", (torch.randn(4, 2, 5, 4, generator=g), _masks(g, 4, 3, 5, 4)))
    yield Case(
        "as many shots as classes as features",
        (torch.randn(3, 3, 3, 3, generator=g), _masks(g, 3, 3, 3, 3)),
    )


def _note_shrunk(g: Generator) -> Iterator[Case]:
    yield Case(
        "masks of twice the size", (torch.randn(3, 2, 4, 4, generator=g), _masks(g, 3, 2, 8, 8))
    )
    yield Case(
        "masks of 7 by 11, features of 3 by 4",
        (torch.randn(2, 4, 3, 4, generator=g), _masks(g, 2, 3, 7, 11)),
    )
    yield Case(
        "masks of True and False",
        (torch.randn(2, 2, 2, 3, generator=g), _masks(g, 2, 2, 8, 12).bool()),
    )


def _note_absent(g: Generator) -> Iterator[Case]:
    masks = _masks(g, 2, 3, 4, 4)
    masks[:, 1] = 0
    yield Case("class 1 is nowhere", (torch.randn(2, 2, 4, 4, generator=g), masks))
    yield Case(
        "soft masks, nearly nothing",
        (torch.randn(3, 2, 3, 3, generator=g), torch.rand(3, 2, 3, 3, generator=g) * 1e-4),
    )


def _small_masks(features: Tensor, masks: Tensor) -> Tensor:
    return F.interpolate(masks.to(features.dtype), size=features.shape[-2:], mode="nearest")


def _note_sums(features: Tensor, small: Tensor) -> Tensor:
    return torch.einsum("sdhw,skhw->kdhw", features, small)


def _note_mean(features: Tensor, small: Tensor, eps: float = 1e-5) -> Tensor:
    return _note_sums(features, small) / (small.sum(0)[:, None] + eps)


def _note_global(features: Tensor, masks: Tensor) -> Tensor:
    small = _small_masks(features, masks)
    sums = torch.einsum("sdhw,skhw->kd", features, small)
    return sums / (small.sum((0, 2, 3))[:, None] + 1e-5)


def _note_loop(features: Tensor, masks: Tensor) -> Tensor:
    """Do as the note does, line by line."""
    _, _, height, width = features.shape
    down = F.interpolate(masks.float(), size=(height, width), mode="nearest")
    rows = []
    for k in range(masks.shape[1]):
        mask = down[:, k : k + 1, :, :]
        rows.append((features * mask).sum(dim=0) / (mask.sum(dim=0) + 1e-5))
    return torch.stack(rows, dim=0)


def _note_by_index(features: Tensor, masks: Tensor) -> Tensor:
    height, width = features.shape[-2:]
    rows = torch.arange(height) * masks.shape[-2] // height
    columns = torch.arange(width) * masks.shape[-1] // width
    small = masks[..., rows[:, None], columns].to(features.dtype)
    return (features[:, None] * small[:, :, None]).sum(0) / (small.sum(0)[:, None] + 1e-5)


def _note_numpy(features: Tensor, masks: Tensor) -> Any:
    f, (height, width) = features.numpy(), features.shape[-2:]
    rows = np.arange(height) * masks.shape[-2] // height
    columns = np.arange(width) * masks.shape[-1] // width
    small = masks.numpy()[..., rows[:, None], columns].astype(f.dtype)
    return np.einsum("sdhw,skhw->kdhw", f, small) / (small.sum(0)[:, None] + 1e-5)


_SHRINKS = "small = F.interpolate(masks.to(features.dtype), "  # how a line of the solution begins
NOTE_CODE = "note §3.1, `compute_prototypes`; notebook 05, «The note's network, cell by cell»"

NOTE_PROTOTYPES = Answer(
    name="note_prototypes",
    reference=note_prototypes,
    section=NOTE_CODE,
    checks=[
        Check("at each position, the mean over the support images", _note_same_size, points=2),
        Check(
            "masks are brought to the features' size by `nearest`",
            _note_shrunk,
            pointer="note §3.1: masks_down",
        ),
        Check(
            "a class that is nowhere, and the note's ε",
            _note_absent,
            pointer="note §3.1: the denominator of prototype_k",
        ),
    ],
    mistakes=[
        Mistake(
            "one vector a class",
            _note_global,
            "You averaged over the positions too, which leaves one vector a class. That is what "
            "§2.2 suggests and what the third answer will ask; the note's code sums over the "
            "support images only and keeps H′ × W′.",
            NOTE_CODE,
        ),
        Mistake(
            "one vector, repeated",
            lambda f, m: _note_global(f, m)[..., None, None].expand(-1, -1, *f.shape[-2:]),
            "The shape is right, but every position has the same vector. The note's prototype "
            "differs from position to position: nothing is summed over H′ and W′.",
            NOTE_CODE,
        ),
        Mistake(
            "divided by the shots",
            lambda f, m: _note_sums(f, _small_masks(f, m)) / f.shape[0],
            "You divided by S, the number of support images. At each position the note divides by "
            "how many of them show the class there.",
            NOTE_CODE,
        ),
        Mistake(
            "sum, not mean",
            lambda f, m: _note_sums(f, _small_masks(f, m)),
            "You summed the masked features and did not divide: where two shots show the class the "
            "prototype is twice as long. (A cosine would not notice, a distance would.)",
            NOTE_CODE,
        ),
        Mistake(
            "masks not applied",
            lambda f, m: f.mean(0, keepdim=True).expand(m.shape[1], *f.shape[1:]),
            "Every class has the same prototypes: the features were averaged without the masks.",
            NOTE_CODE,
        ),
        Mistake(
            "averaged, then masked",
            lambda f, m: _small_masks(f, m).mean(0)[:, None] * f.mean(0),
            "You averaged the features over the shots first and multiplied with the averaged mask "
            "afterwards. Shots that do not show the class have then already been mixed in.",
            NOTE_CODE,
        ),
        Mistake(
            "no ε",
            lambda f, m: _note_mean(f, _small_masks(f, m), 0.0),
            "Where no shot shows the class you divide 0 by 0. The note adds a small number to the "
            "denominator, so that the prototype there is exactly zero. (Whether that is wise is "
            "another question; here it is to the letter.)",
            "note §3.1: the denominator of prototype_k",
        ),
        Mistake(
            "another ε",
            lambda f, m: _note_mean(f, _small_masks(f, m), 1e-8),
            "Your number against division by zero is not the note's. With masks of 0 and 1 nobody "
            "sees it; with soft masks it decides.",
            "note §3.1: the denominator of prototype_k",
        ),
        Mistake(
            "clamped denominator",
            lambda f, m: (
                _note_sums(f, _small_masks(f, m)) / _small_masks(f, m).sum(0).clamp_min(1)[:, None]
            ),
            "You made the denominator at least 1. Soft masks that sum to less than 1 shrink the "
            "prototype then; the note adds its ε instead.",
            "note §3.1: the denominator of prototype_k",
        ),
        Mistake(
            "masks shrunk bilinearly",
            lambda f, m: _note_mean(
                f, F.interpolate(m.float(), f.shape[-2:], mode="bilinear", align_corners=False)
            ),
            "You shrank the masks by bilinear interpolation, which makes fractions of them; the "
            "note takes the nearest pixel.",
            "note §3.1: masks_down",
        ),
        Mistake(
            "masks shrunk by area",
            lambda f, m: _note_mean(f, F.adaptive_avg_pool2d(m.float(), f.shape[-2:])),
            "You averaged the masks over each feature cell. That loses nothing, and is better than "
            "what the note does, which is to take one pixel of each cell.",
            "note §3.1: masks_down",
        ),
        Mistake(
            "features before classes",
            lambda f, m: _note_mean(f, _small_masks(f, m)).movedim(0, 1),
            "Your first axis counts features, the second classes. The result is (K, D, H′, W′).",
            NOTE_CODE,
        ),
    ],
    variants=[
        V("the note's loop over classes", _note_loop),
        V("einsum", lambda f, m: _note_mean(f, _small_masks(f, m))),
        V("nearest by index", _note_by_index),
        V("numpy", _note_numpy),
    ],
    hints=[
        "The note's code is there to be read: which of the four axes (S, D, H′, W′) does its "
        "`.sum(dim=0)` remove, and which are left?",
        "Bring the masks to H′ × W′ (`F.interpolate`, nearest), put an axis of length 1 where the "
        "features have theirs, multiply, and add up over the support images: the masked features "
        "above, the masks below.",
        "In words: interpolate `masks.float()` to `features.shape[-2:]`; multiply `features[:, "
        "None]` with the small masks `[:, :, None]`; sum over axis 0; divide by the masks' sum "
        "over axis 0 (with an axis for D) plus 1e-5.",
    ],
    equivalent={
        f"{_SHRINKS}size=features.shape[-2:], mode='nearest') → "
        f"{_SHRINKS}size=features.shape[-2:])": (
            "nearest is what interpolate does when not told otherwise"
        ),
        f"{_SHRINKS}size=features.shape[-2:], mode='nearest') → "
        f"{_SHRINKS}size=features.shape[2:], mode='nearest')": (
            "features have four axes here, so that the third is the last but one"
        ),
    },
    picture=pictures.matrix,
    withhold=GIVEN_AWAY,
    difficulty=1,
    importance=3,
    minutes=10,
)

# ------------------------------------------------------------------------------------ shift_test

Segment = Callable[[Tensor, Tensor, Tensor], Tensor]


def shift_test(
    segment: Segment, image: Tensor, mask: Tensor, shift: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Move the object and say whom the prediction follows: (Dice with query, share with support).

    Raises:
        ValueError: the object is where it was.
    """
    moved_image, moved_mask = _rolled(image, shift), _rolled(mask, shift)
    if torch.equal(moved_mask, mask):
        raise ValueError("the object is where it was, so that no network could fail; move it")
    prediction = segment(image, mask, moved_image)
    return _dice(prediction, moved_mask), _share(prediction, mask)


def _rolled(array: Tensor, shift: Sequence[int]) -> Tensor:
    return torch.roll(array, tuple(shift), dims=(-2, -1))


def _dice(prediction: Tensor, target: Tensor) -> Tensor:
    return 2 * (prediction & target).sum() / (prediction.sum() + target.sum())


def _share(prediction: Tensor, mask: Tensor) -> Tensor:
    return (prediction == mask).double().mean()


def _scene(g: Generator, size: tuple[int, int], box: tuple[int, int, int, int]) -> tuple[Any, ...]:
    """Draw an image with a bright rectangle (top, left, height, width), and its mask."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[box[0] : box[0] + box[2], box[1] : box[1] + box[3]] = True
    return 0.15 * torch.rand(size, generator=g) + 0.65 * mask, mask


def _between(g: Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=g))


def _shifts(
    g: Generator, kind: str, size: tuple[int, int] = (12, 15), by: tuple[int, int] = (3, 1)
) -> Case:
    box = (_between(g, 1, 3), _between(g, 1, 3), _between(g, 4, 5), _between(g, 3, 4))
    scene = _scene(g, size, box)
    return Case(f"{kind}, moved by {by}", (Given("segmenter", {"kind": kind}), *scene, by))


def _copier(g: Generator) -> Iterator[Case]:
    yield _shifts(g, "copies", by=(6, 5))
    yield _shifts(g, "copies", by=(2, 1))
    yield _shifts(g, "copies", by=(0, 2))


def _looker(g: Generator) -> Iterator[Case]:
    yield _shifts(g, "brightness", by=(2, 5))
    yield _shifts(g, "brightness", by=(9, 11))
    yield _shifts(g, "change", by=(1, 2))
    yield _shifts(g, "upper half", by=(4, 2))


def _careless(g: Generator) -> Iterator[Case]:
    for kind in ("nothing", "everything", "upper half"):
        yield _shifts(g, kind, by=(3, 2))


def _unmoved(g: Generator) -> Iterator[Case]:
    yield _shifts(g, "copies", by=(0, 0))
    yield _shifts(g, "brightness", by=(12, 15))
    image, _ = _scene(g, (8, 8), (2, 2, 3, 3))
    empty = torch.zeros(8, 8, dtype=torch.bool)
    yield Case("no object at all", (Given("segmenter", {"kind": "copies"}), image, empty, (2, 2)))


def _must_move(mask: Tensor, shift: Sequence[int]) -> None:
    if torch.equal(_rolled(mask, shift), mask):
        raise ValueError("the object is where it was")


def _tests(
    query: Callable[[Tensor, Tensor], Tensor] = lambda still, moved: moved,
    support: Callable[[Tensor, Tensor], Tensor] = lambda still, moved: still,
    labels: Callable[[Tensor, Tensor], Tensor] = lambda still, moved: still,
    target: Callable[[Tensor, Tensor], Tensor] = lambda still, moved: moved,
    first: Callable[[Tensor, Tensor], Tensor] = _dice,
    second: Callable[[Tensor, Tensor], Tensor] = _share,
    other: Callable[[Tensor, Tensor], Tensor] = lambda still, moved: still,
    move: Callable[[Tensor, Sequence[int]], Tensor] = _rolled,
) -> Callable[..., Any]:
    """Make a shift test that differs from the right one in what is given."""

    def test(segment: Segment, image: Tensor, mask: Tensor, shift: Sequence[int]) -> Any:
        _must_move(mask, shift)
        pictures_, masks = (image, move(image, shift)), (mask, move(mask, shift))
        prediction = segment(support(*pictures_), labels(*masks), query(*pictures_))
        return first(prediction, target(*masks)), second(prediction, other(*masks))

    return test


def _still(still: Tensor, moved: Tensor) -> Tensor:
    return still


def _moved(still: Tensor, moved: Tensor) -> Tensor:
    return moved


def _union(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction & target).sum() / (prediction | target).sum()


def _nothing_refused(segment: Segment, image: Tensor, mask: Tensor, shift: Sequence[int]) -> Any:
    prediction = segment(image, mask, _rolled(image, shift))
    return _dice(prediction, _rolled(mask, shift)), _share(prediction, mask)


def _zero_filled(array: Tensor, shift: Sequence[int]) -> Tensor:
    result = torch.zeros_like(array)
    rows, columns = (min(n, size) for n, size in zip(shift, array.shape, strict=True))
    kept = array[: array.shape[0] - rows, : array.shape[1] - columns]
    result[rows:, columns:] = kept
    return result


def _shift_numpy(segment: Segment, image: Tensor, mask: Tensor, shift: Sequence[int]) -> Any:
    moved_image, moved_mask = (np.roll(a.numpy(), shift, axis=(0, 1)) for a in (image, mask))
    if (moved_mask == mask.numpy()).all():
        raise ValueError("nothing moved")
    found = segment(image, mask, torch.from_numpy(moved_image)).numpy()
    overlap = np.logical_and(found, moved_mask).sum()
    return (
        float(2 * overlap / (found.sum() + moved_mask.sum())),
        float(np.mean(found == mask.numpy())),
    )


def _shift_by_index(segment: Segment, image: Tensor, mask: Tensor, shift: Sequence[int]) -> Any:
    height, width = image.shape
    rows = (torch.arange(height) - shift[0]) % height
    columns = (torch.arange(width) - shift[1]) % width
    target = mask[rows[:, None], columns]
    if not (target ^ mask).any():
        raise ValueError("nothing moved")
    found = segment(image, mask, image[rows[:, None], columns])
    both, either = (found & target).sum().item(), (found | target).sum().item()
    return 2 * both / (both + either), 1 - (found ^ mask).double().mean().item()


def _shift_by_library(segment: Segment, image: Tensor, mask: Tensor, shift: Sequence[int]) -> Any:
    _must_move(mask, shift)
    found = segment(image, mask, _rolled(image, shift))
    return evaluation.dice(found, _rolled(mask, shift)), _share(found, mask)


def _shift_by_loop(segment: Segment, image: Tensor, mask: Tensor, shift: Sequence[int]) -> Any:
    _must_move(mask, shift)
    (height, width), moved_image = image.shape, torch.empty_like(image)
    target = torch.empty_like(mask)
    for row in range(height):
        for column in range(width):
            to = (row + shift[0]) % height, (column + shift[1]) % width
            moved_image[to], target[to] = image[row, column], mask[row, column]
    found, hits, size, same = segment(image, mask, moved_image), 0, 0, 0
    for row in range(height):
        for column in range(width):
            here, there = bool(found[row, column]), bool(target[row, column])
            hits, size = hits + (here and there), size + here + there
            same += here == bool(mask[row, column])
    return 2 * hits / size, same / (height * width)


SHIFT = "notebook 05, «The shift test»"

SHIFT_TEST = Answer(
    name="shift_test",
    reference=shift_test,
    section=SHIFT,
    returns=("dice", "agreement"),
    checks=[
        Check("a network that copies the support mask is exposed", _copier, points=2),
        Check("a network that looks at the query is told from one that does not", _looker),
        Check("Dice with the query; share of pixels with the support", _careless),
        Check(
            "a test that moves nothing is refused",
            _unmoved,
            pointer="the docstring: which error, and when",
        ),
    ],
    mistakes=[
        Mistake(
            "the query is the support",
            _tests(query=_still, target=_still),
            "You tested with the support image itself as the query. Copying is then right, and a "
            "network that only copies has full marks: the query has to be the moved image, and "
            "the moved mask its target.",
            SHIFT,
        ),
        Mistake(
            "the target stays",
            _tests(target=_still),
            "You moved the image but compared with the mask as it was. A copier is then perfect "
            "and a network that sees the object has Dice 0, the wrong way round.",
            SHIFT,
        ),
        Mistake(
            "the image stays",
            _tests(query=_still),
            "You moved the mask but gave the network the image as it was: its query does not show "
            "what the target says.",
            SHIFT,
        ),
        Mistake(
            "the support mask moves too",
            _tests(labels=_moved),
            "You gave the network the moved mask as support mask. That is the query's answer: a "
            "copier passes. Support image and support mask stay as they are.",
            SHIFT,
        ),
        Mistake(
            "the support moves too",
            _tests(support=_moved, labels=_moved, other=_moved),
            "You moved support and query alike. Then nothing moves relative to the other, and "
            "copying is right again.",
            SHIFT,
        ),
        Mistake(
            "the support image moves",
            _tests(support=_moved),
            "You gave the network the moved image as support image as well; its mask no longer "
            "fits it.",
            SHIFT,
        ),
        Mistake(
            "support and query exchanged",
            _tests(support=_moved, query=_still),
            "You exchanged the images: segment(support image, support mask, query image). The "
            "moved one is the query.",
            SHIFT,
        ),
        Mistake(
            "share of equal pixels for Dice",
            _tests(first=_share),
            "Your first number counts pixels where prediction and query agree, background "
            "included. Most of an image is background, so a prediction that misses the whole "
            "organ still has a high share; Dice looks at the organ.",
            "notebook 01, «Dice»",
        ),
        Mistake(
            "intersection over union",
            _tests(first=_union),
            "You divided the overlap by the union. Dice is twice the overlap over the sum of the "
            "two sizes.",
            "notebook 01, «Dice»",
        ),
        Mistake(
            "agreement with the query",
            _tests(other=_moved),
            "Your second number compares with the query's mask, like the first. It is to say how "
            "far the prediction is the *support* mask, which stays where it was.",
            SHIFT,
        ),
        Mistake(
            "agreement as a Dice",
            _tests(second=_dice),
            "Your second number is the Dice score with the support mask. Asked is the share of all "
            "pixels on which the two agree, background included.",
            SHIFT,
        ),
        Mistake(
            "rows and columns exchanged",
            _tests(move=lambda array, shift: _rolled(array, shift[::-1])),
            "You moved by (columns, rows). The shift is (rows, columns), down and to the right.",
            SHIFT,
        ),
        Mistake(
            "moved the other way",
            _tests(move=lambda array, shift: _rolled(array, [-n for n in shift])),
            "You moved up and to the left; a positive shift goes down and to the right.",
            SHIFT,
        ),
        Mistake(
            "what leaves is lost",
            _tests(move=_zero_filled),
            "What leaves the image on one side is lost in yours, and blank comes in on the other. "
            "It comes back on the other side, so that image and mask keep all their pixels.",
            SHIFT,
        ),
        Mistake(
            "the unmoved is accepted",
            _nothing_refused,
            "With a shift that leaves the mask as it was (0, a whole turn, an empty mask) your "
            "test lets every copier pass. A test that cannot fail must not look like one that was "
            "passed: refuse it with a ValueError.",
            SHIFT,
        ),
    ],
    variants=[
        V("numpy", _shift_numpy),
        V("moved by index", _shift_by_index),
        V("the library's Dice", _shift_by_library),
        V("pixel by pixel", _shift_by_loop),
    ],
    hints=[
        "Which of the four, support image, support mask, query image and query mask, must move so "
        "that copying the support mask becomes wrong?",
        "Roll the image and the mask by the same shift; they are query and target. The support "
        "stays. Two numbers then say whom the prediction follows.",
        "In words: `torch.roll` image and mask along (rows, columns); raise ValueError if the "
        "rolled mask equals the mask; call segment(image, mask, rolled image); return the Dice "
        "with the rolled mask, and the mean of «prediction equals mask».",
    ],
    equivalent={
        "if torch.equal(mask, target): → if torch.equal(target, mask):": "equality is symmetric",
        "query = torch.roll(image, shift, dims=(-2, -1)) → "
        "query = torch.roll(image, shift, dims=(-2, 1))": (
            "an image has two axes here, of which 1 is the last"
        ),
        "target = torch.roll(mask, shift, dims=(-2, -1)) → "
        "target = torch.roll(mask, shift, dims=(-2, 1))": (
            "a mask has two axes here, of which 1 is the last"
        ),
    },
    difficulty=2,
    importance=5,
    minutes=15,
)

# ----------------------------------------------------------------------------- compute_prototypes


def compute_prototypes(features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Average upsampled features under each class's masks: the library's, in short."""
    return library.masked_prototypes(features, masks)


def _pooled(g: Generator) -> Iterator[Case]:
    yield Case("2 shots, 3 classes", (torch.randn(2, 4, 5, 6, generator=g), _masks(g, 2, 3, 5, 6)))
    yield Case("one shot, 2 classes", (torch.randn(1, 2, 4, 4, generator=g), _masks(g, 1, 2, 4, 4)))
    yield Case(
        "masks of True and False",
        (torch.randn(2, 3, 4, 4, generator=g), _masks(g, 2, 2, 4, 4).bool()),
    )


def _unequal(g: Generator) -> Iterator[Case]:
    masks = torch.zeros(3, 2, 6, 6)
    masks[0, 0, 0:5, 0:5] = 1
    masks[1, 0, 2, 3] = 1
    masks[2, 0, 1:3, 1:4] = 1
    masks[:, 1] = 1 - masks[:, 0]
    features = (
        torch.randn(3, 4, 6, 6, generator=g) + torch.tensor([0.0, 4.0, -4.0])[:, None, None, None]
    )
    yield Case("an organ of 25, 1 and 6 pixels", (features, masks))
    yield Case("soft masks: weights from 0 to 1", (features, torch.rand(3, 2, 6, 6, generator=g)))


def _strided(g: Generator) -> Iterator[Case]:
    small = torch.zeros(1, 2, 16, 16)
    row, column = _between(g, 1, 13), _between(g, 1, 13)
    row, column = row + (row % 4 == 0), column + (column % 4 == 0)
    small[0, 1, row, column] = 1
    small[:, 0] = 1 - small[:, 1]
    yield Case("an organ of one pixel at stride 4", (torch.randn(1, 3, 4, 4, generator=g), small))
    yield Case(
        "masks of twice the features' size",
        (torch.randn(2, 3, 4, 5, generator=g), _blocks(g, 2, 3, 8, 10)),
    )
    yield Case(
        "features of 3 by 4, masks of 10 by 9",
        (torch.randn(2, 2, 3, 4, generator=g), _blocks(g, 2, 2, 10, 9)),
    )


def _absent(g: Generator) -> Iterator[Case]:
    masks = _masks(g, 2, 3, 5, 5)
    masks[:, 2] = 0
    yield Case("class 2 is nowhere", (torch.randn(2, 3, 5, 5, generator=g), masks))
    one = _masks(g, 2, 3, 5, 5)
    one[1, 0] = 0
    yield Case("class 0 is in one of two shots", (torch.randn(2, 3, 5, 5, generator=g), one))
    soft = _masks(g, 2, 3, 5, 5)
    soft[:, 1] = 0
    soft[0, 1, 2, 1:4] = 0.05 + 0.2 * torch.rand(3, generator=g)
    features = torch.randn(2, 3, 5, 5, generator=g)
    yield Case("class 1 has less than a pixel, in soft masks", (features, soft))


def _pooled_episodes(g: Generator) -> Iterator[Case]:
    masks = _blocks(g, 3, 2, 2, 8, 8)
    masks[1, :, 0] = 0
    yield Case("3 episodes of 2 shots", (torch.randn(3, 2, 4, 4, 4, generator=g), masks))
    yield Case(
        "2 × 2 episodes of one shot",
        (torch.randn(2, 2, 1, 3, 4, 3, generator=g), _masks(g, 2, 2, 1, 3, 4, 3)),
    )


def _large(features: Tensor, masks: Tensor, mode: str = "bilinear", corners: bool = False) -> Any:
    """Bring features to the masks' size, and masks to the features' type."""
    how: dict[str, Any] = {"align_corners": corners} if mode == "bilinear" else {}
    flat = F.interpolate(features.flatten(0, -4), size=masks.shape[-2:], mode=mode, **how)
    return flat.view(*features.shape[:-2], *masks.shape[-2:]), masks.to(features.dtype)


def _pool(large: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    sums = torch.einsum("...skhw,...sdhw->...kd", weights, large)
    mass = weights.sum((-4, -2, -1))
    return sums / torch.where(mass > 0, mass, 1.0)[..., None], mass > 0


def _by_size(features: Tensor, masks: Tensor, shrink: Callable[[Tensor, Any], Tensor]) -> Any:
    weights = masks.to(features.dtype)
    small = shrink(weights.flatten(0, -4), features.shape[-2:])
    return _pool(features, small.view(*masks.shape[:-2], *features.shape[-2:]))


def _per_position(features: Tensor, masks: Tensor) -> Any:
    means = networks._position_prototypes(features, masks)
    return means, masks.flatten(-2).any(-1).any(-2)


def _mean_over_all(features: Tensor, masks: Tensor) -> Any:
    large, weights = _large(features, masks)
    sums = torch.einsum("...skhw,...sdhw->...kd", weights, large)
    n_pixels = masks.shape[-4] * masks.shape[-2] * masks.shape[-1]
    return sums / n_pixels, _pool(large, weights)[1]


def _summed(features: Tensor, masks: Tensor) -> Any:
    large, weights = _large(features, masks)
    return torch.einsum("...skhw,...sdhw->...kd", weights, large), _pool(large, weights)[1]


def _unmasked(features: Tensor, masks: Tensor) -> Any:
    large, weights = _large(features, masks)
    mean = large.mean((-4, -2, -1))[..., None, :]
    valid = _pool(large, weights)[1]
    return mean.expand(*valid.shape, mean.shape[-1]), valid


def _empty_is_nan(features: Tensor, masks: Tensor) -> Any:
    large, weights = _large(features, masks)
    sums = torch.einsum("...skhw,...sdhw->...kd", weights, large)
    mass = weights.sum((-4, -2, -1))
    return sums / mass[..., None], mass > 0


def _always_valid(features: Tensor, masks: Tensor) -> Any:
    means, valid = _pool(*_large(features, masks))
    return means, torch.ones_like(valid)


def _seen_everywhere(features: Tensor, masks: Tensor) -> Any:
    means, _ = _pool(*_large(features, masks))
    return means, (masks.flatten(-2).sum(-1) > 0).all(-2)


def _last_shot(features: Tensor, masks: Tensor) -> Any:
    return _pool(*_large(features[..., -1:, :, :, :], masks[..., -1:, :, :, :]))


def _large_organs_only(features: Tensor, masks: Tensor) -> Any:
    large, weights = _large(features, masks)
    means, _ = _pool(large, weights)
    enough = weights.sum((-4, -2, -1)) > 1
    return torch.where(enough[..., None], means, 0.0), enough


def _whole_pixels(features: Tensor, masks: Tensor) -> Any:
    large, weights = _large(features, masks)
    means, _ = _pool(large, weights)
    enough = weights.sum((-4, -2, -1)) >= 1
    return torch.where(enough[..., None], means, 0.0), enough


def _at_least_one(features: Tensor, masks: Tensor) -> Any:
    large, weights = _large(features, masks)
    sums = torch.einsum("...skhw,...sdhw->...kd", weights, large)
    mass = weights.sum((-4, -2, -1))
    return sums / mass.clamp_min(1)[..., None], mass > 0


def _whole_pixels_divided(features: Tensor, masks: Tensor) -> Any:
    means, _ = _at_least_one(features, masks)
    return means, _whole_pixels(features, masks)[1]


def _all_episodes(features: Tensor, masks: Tensor) -> Any:
    large, weights = _large(features, masks)
    means, valid = _pool(large.flatten(0, -4), weights.flatten(0, -4))
    leading = features.shape[:-4]
    return means.expand(*leading, *means.shape), valid.expand(*leading, *valid.shape)


def _pool_by_loop(features: Tensor, masks: Tensor) -> Any:
    if features.ndim > 4:
        found = [_pool_by_loop(f, m) for f, m in zip(features, masks, strict=True)]
        return torch.stack([p for p, _ in found]), torch.stack([v for _, v in found])
    large = F.interpolate(features, size=masks.shape[-2:], mode="bilinear")
    means, valid = [], []
    for k in range(masks.shape[1]):
        total, mass = torch.zeros(features.shape[1], dtype=features.dtype), 0.0
        for f, m in zip(large, masks[:, k].to(features.dtype), strict=True):
            total, mass = total + (f * m).sum((-2, -1)), mass + m.sum().item()
        means.append(total / mass if mass else total)
        valid.append(mass > 0)
    return torch.stack(means), torch.tensor(valid)


def _pool_by_matmul(features: Tensor, masks: Tensor) -> Any:
    large, weights = _large(features, masks)
    inside = weights.movedim(-3, -4).flatten(-3)  # (…, K, S·H·W)
    values = large.movedim(-3, -1).flatten(-4, -2)  # (…, S·H·W, D)
    mass = inside.sum(-1, keepdim=True)
    return ((inside @ values) / mass).nan_to_num(0.0), mass[..., 0] != 0


def _pool_epsilon(features: Tensor, masks: Tensor) -> Any:
    large, weights = _large(features, masks)
    weights, large = weights[..., None, :, :], large[..., None, :, :, :]
    total = (weights * large).sum((-5, -2, -1))
    mass = weights.sum((-5, -2, -1))
    return total / (mass + 1e-6), mass[..., 0] > 0


def _pool_numpy(features: Tensor, masks: Tensor) -> Any:
    large, weights = (array.numpy() for array in _large(features, masks))
    mass = weights.sum(axis=(-4, -2, -1))
    with np.errstate(invalid="ignore"):
        means = np.einsum("...skhw,...sdhw->...kd", weights, large) / mass[..., None]
    return np.where(mass[..., None] > 0, means, 0), mass > 0


POOLING = "notebook 05, «What a prototype should be: masked average pooling»"
SMALL = "notebook 05, «Small organs lost on the way»"
EMPTY = "notebook 05, «A class that nobody showed»"

COMPUTE_PROTOTYPES = Answer(
    name="compute_prototypes",
    reference=compute_prototypes,
    section=POOLING,
    returns=("prototypes", "valid"),
    checks=[
        Check("one vector a class: the mean over its pixels", _pooled, points=2),
        Check("every pixel counts the same, whichever image it is in", _unequal),
        Check("features come up to the masks, so that small organs stay", _strided, points=2),
        Check("a class without pixels is said to be invalid", _absent, pointer=EMPTY),
        Check("several episodes at once", _pooled_episodes, pointer=POOLING),
    ],
    mistakes=[
        Mistake(
            "one prototype a position",
            _per_position,
            "You kept H′ × W′: a prototype for each position, as in the note. It can only compare "
            "a query pixel with the support pixel at the same place, which is what the shift test "
            "exposed. Sum over the positions, too.",
            POOLING,
        ),
        Mistake(
            "masks shrunk by nearest",
            lambda f, m: _by_size(f, m, lambda x, size: F.interpolate(x, size, mode="nearest")),
            "You shrank the masks to the features with `nearest`: one pixel of each cell decides, "
            "and an organ between those pixels vanishes. Bring the features up to the masks.",
            SMALL,
        ),
        Mistake(
            "masks shrunk by area",
            lambda f, m: _by_size(f, m, F.adaptive_avg_pool2d),
            "You averaged the masks down to the feature cells. No organ vanishes, but a pixel at "
            "a cell's edge gets that cell's feature alone, where interpolated features would be a "
            "mixture. Asked is the mean over pixels of the upsampled features.",
            SMALL,
        ),
        Mistake(
            "masks shrunk bilinearly",
            lambda f, m: _by_size(
                f, m, lambda x, size: F.interpolate(x, size, mode="bilinear", align_corners=False)
            ),
            "You shrank the masks bilinearly. From a cell of 4 by 4 pixels that looks at the inner "
            "four only; an organ at its edge vanishes. Bring the features up to the masks.",
            SMALL,
        ),
        Mistake(
            "features by nearest",
            lambda f, m: _pool(*_large(f, m, "nearest")),
            "Your features were brought up by `nearest` (the default of `interpolate`): pixels of "
            "one cell all have the same feature. Asked is bilinear.",
            SMALL,
        ),
        Mistake(
            "corners aligned",
            lambda f, m: _pool(*_large(f, m, corners=True)),
            "With `align_corners=True` the features are stretched so that corner pixels meet; a "
            "cell then no longer lies over its own pixels. The note and this course use False.",
            SMALL,
        ),
        Mistake(
            "mean of the images' means",
            lambda f, m: library.masked_prototypes(f, m, pooling="images"),
            "You averaged each image first and then the images. That is PANet's pooling, in which "
            "an image with one organ pixel counts as much as one with a thousand; here every "
            "pixel counts the same.",
            POOLING,
        ),
        Mistake(
            "divided by all pixels",
            _mean_over_all,
            "You divided by all pixels, not by those of the class: prototypes of small organs "
            "shrink toward zero.",
            POOLING,
        ),
        Mistake(
            "sum, not mean",
            _summed,
            "You summed over the class's pixels and did not divide by their number: large organs "
            "get long prototypes.",
            POOLING,
        ),
        Mistake(
            "masks not applied",
            _unmasked,
            "Every class has the same prototype: the mean over all pixels. The masks do not enter.",
            POOLING,
        ),
        Mistake(
            "empty class is NaN",
            _empty_is_nan,
            "For a class without pixels you divide 0 by 0. The flag is right, but NaN in the "
            "prototypes makes the gradient NaN even where the flag takes the class out; make the "
            "placeholder zeros.",
            EMPTY,
        ),
        Mistake(
            "always valid",
            _always_valid,
            "You call every class valid. A class without pixels has no prototype; its zeros would "
            "have cosine 0 with everything and win against every negative cosine.",
            EMPTY,
        ),
        Mistake(
            "valid in every image only",
            _seen_everywhere,
            "You call a class valid only if every support image shows it. One pixel in one of them "
            "is enough for a mean.",
            EMPTY,
        ),
        Mistake(
            "last shot only",
            _last_shot,
            "You used one support image, the last; the others do not enter.",
            POOLING,
        ),
        Mistake(
            "small organs thrown out",
            _large_organs_only,
            "A class with a single pixel came out as invalid. Any mass above zero makes a mean; "
            "whether it is a good one is for the caller to say.",
            EMPTY,
        ),
        Mistake(
            "less than a pixel thrown out",
            _whole_pixels,
            "You call a class valid from a whole pixel on. The weights of a soft mask may add up "
            "to less than 1 and still say where the class is: any mass above zero makes a mean.",
            EMPTY,
        ),
        Mistake(
            "divided by at least 1",
            _at_least_one,
            "You divide by the mass or by 1, whichever is larger. A class whose soft weights add "
            "up to less than 1 gets a prototype that is too short; only a mass of zero needs "
            "another denominator.",
            EMPTY,
        ),
        Mistake(
            "less than a pixel, twice",
            _whole_pixels_divided,
            "Soft weights that add up to less than 1 count as nothing: the class is called "
            "invalid, and its sum is divided by 1 instead of its mass. Any mass above zero makes "
            "a mean.",
            EMPTY,
        ),
        Mistake(
            "masks made hard",
            lambda f, m: _pool(*_large(f, (m > 0.5).to(f.dtype))),
            "You rounded the masks to 0 and 1. Soft masks are weights: a pixel of 0.3 counts 0.3.",
            POOLING,
        ),
        Mistake(
            "features normalised first",
            lambda f, m: _pool(*_large(F.normalize(f, dim=-3), m)),
            "You scaled every feature vector to length 1 before averaging. That is the mean "
            "direction, another model; here the plain mean is asked.",
            "notebook 04, «Cosine, and where its mean lies»",
        ),
        Mistake(
            "episodes merged",
            _all_episodes,
            "With leading dimensions you averaged over all episodes together. Each has prototypes "
            "of its own: count the axes from the end.",
            POOLING,
        ),
    ],
    variants=[
        V("loop over episodes, classes and shots", _pool_by_loop),
        V("matrix product", _pool_by_matmul),
        V("a tiny ε and broadcasting", _pool_epsilon),
        V("numpy", _pool_numpy),
        V("pull the masks down by the transpose", library.masked_prototypes),
    ],
    hints=[
        "§2.2 has one vector a class, and its sum runs over labelled examples. In segmentation "
        "what is one labelled example, and over which axes of (…, S, D, H, W) do you sum?",
        "Upsample the features to the masks (flatten the leading dimensions for `interpolate`, "
        "then restore them). One einsum gives all sums; the masks' own sum is the number of "
        "pixels. A class with no pixels needs a denominator that is not 0, and a flag.",
        "In words: interpolate `features.flatten(0, -4)` bilinearly to `masks.shape[-2:]` and view "
        "it back; einsum «…skhw, …sdhw → …kd»; mass = masks summed over S, H, W; valid = mass > 0; "
        "divide by mass where valid, by 1 elsewhere.",
    ],
    equivalent={
        "return (sums / torch.where(valid, mass, 1.0)[..., None], valid) → "
        "return (sums / torch.where(valid, mass, 2.0)[..., None], valid)": (
            "where a class has no mass its sum is 0, and 0 divided by any number but 0 is 0"
        ),
        "return (sums / torch.where(valid, mass, 1.0)[..., None], valid) → "
        "return (sums / torch.where(valid, mass, 0.5)[..., None], valid)": (
            "where a class has no mass its sum is 0, and 0 divided by any number but 0 is 0"
        ),
    },
    picture=lambda case, expected, got: pictures.matrix(case, expected[0], got[0]),
    withhold=GIVEN_AWAY,
    difficulty=3,
    importance=5,
    minutes=20,
)

# --------------------------------------------------------------------------------- match_features


def match_features(
    queries: Tensor, prototypes: Tensor, valid: Tensor, scale: float = 20.0
) -> Tensor:
    """Return scale · cos(q(p), c_k) at every position of every query; −inf where not valid."""
    cosine = torch.einsum(
        "...qdhw,...kd->...qkhw", F.normalize(queries, dim=-3), F.normalize(prototypes, dim=-1)
    )
    return (scale * cosine).masked_fill(~valid[..., None, :, None, None], -math.inf)


def _episode(
    g: Generator, q: int, k: int, d: int, *leading: int, size: tuple[int, int] = (3, 4)
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(*leading, q, d, *size, generator=g) * 3,
        torch.randn(*leading, k, d, generator=g) * 3,
        torch.ones(*leading, k, dtype=torch.bool),
    )


def _cosines(g: Generator) -> Iterator[Case]:
    yield Case("4 queries, 3 classes", _episode(g, 4, 3, 5))
    yield Case("2 queries, 4 classes, 3 features", _episode(g, 2, 4, 3, size=(2, 5)))


def _as_many(g: Generator) -> Iterator[Case]:
    yield Case("3 queries, 3 classes", _episode(g, 3, 3, 4))
    yield Case("2 queries, 2 classes, 2 features, 2 by 2", _episode(g, 2, 2, 2, size=(2, 2)))
    yield Case("one query, one class", _episode(g, 1, 1, 3))
    yield Case("one query, 3 classes", _episode(g, 1, 3, 4))


def _scales(g: Generator) -> Iterator[Case]:
    for scale in (1.0, 0.25):
        yield Case(f"scale {scale:g}", _episode(g, 2, 3, 4), {"scale": scale})


def _invalid(g: Generator) -> Iterator[Case]:
    queries, prototypes, valid = _episode(g, 2, 3, 4)
    valid[1] = False
    yield Case("class 1 is invalid", (queries, prototypes, valid))
    zero = prototypes.clone()
    zero[1] = 0
    yield Case("class 1 is invalid, its placeholder zeros", (queries, zero, valid))
    queries, prototypes, valid = _episode(g, 3, 3, 4)
    valid[0] = False
    queries[1, :, 2, 1] = 0
    yield Case("class 0 is invalid, a feature is zero", (queries, prototypes, valid))


def _match_episodes(g: Generator) -> Iterator[Case]:
    queries, prototypes, valid = _episode(g, 2, 3, 4, 2)
    valid[0, 1] = valid[1, 2] = False
    yield Case("2 episodes with other classes invalid", (queries, prototypes, valid))
    yield Case("2 × 3 episodes", _episode(g, 4, 2, 3, 2, 3, size=(2, 2)))


def _matched(
    queries: Tensor,
    prototypes: Tensor,
    valid: Tensor | None,
    fill: float = -math.inf,
    how: str = "...qdhw,...kd->...qkhw",
) -> Tensor:
    """Multiply queries and prototypes, as they are, and fill what is not valid."""
    alike = torch.einsum(how, queries, prototypes)
    return alike if valid is None else alike.masked_fill(~valid[..., None, :, None, None], fill)


def _units(queries: Tensor, prototypes: Tensor, axis: int = -3) -> tuple[Tensor, Tensor]:
    return F.normalize(queries, dim=axis), F.normalize(prototypes, dim=-1)


def _paired(queries: Tensor, prototypes: Tensor, valid: Tensor, scale: float = 20.0) -> Tensor:
    q, c = _units(queries, prototypes)
    alike = scale * (q * c[..., None, None]).sum(-3)
    return alike.masked_fill(~valid[..., None, None], -math.inf)


def _paired_and_spread(
    queries: Tensor, prototypes: Tensor, valid: Tensor, scale: float = 20.0
) -> Tensor:
    right = match_features(queries, prototypes, valid, scale)
    if queries.shape[-4] != prototypes.shape[-2]:
        return right
    return _paired(queries, prototypes, valid, scale)[..., None, :, :, :].expand(right.shape)


def _standardised(queries: Tensor) -> Tensor:
    """Give each feature of each query mean 0 and spread 1 over its positions."""
    mean, spread = queries.mean((-2, -1), keepdim=True), queries.std((-2, -1), keepdim=True)
    return (queries - mean) / spread


def _axis_from_the_front(
    queries: Tensor, prototypes: Tensor, valid: Tensor, scale: float = 20.0
) -> Tensor:
    q, c = F.normalize(queries, dim=1), F.normalize(prototypes, dim=1)
    return _matched(scale * q, c, valid)


def _match_loop(queries: Tensor, prototypes: Tensor, valid: Tensor, scale: float = 20.0) -> Tensor:
    if queries.ndim > 4:
        parts = zip(queries, prototypes, valid, strict=True)
        return torch.stack([_match_loop(*part, scale) for part in parts])
    rows = []
    for query in queries:
        for prototype, known in zip(prototypes, valid, strict=True):
            alike = F.cosine_similarity(query, prototype[:, None, None].expand_as(query), dim=0)
            rows.append(scale * alike if known else torch.full_like(alike, -math.inf))
    return torch.stack(rows).view(len(queries), len(prototypes), *queries.shape[-2:])


def _match_matmul(
    queries: Tensor, prototypes: Tensor, valid: Tensor, scale: float = 20.0
) -> Tensor:
    q, c = _units(queries, prototypes)
    alike = c[..., None, :, :] @ q.flatten(-2)  # (…, Q, K, H'·W')
    alike = torch.where(valid[..., None, :, None], scale * alike, -math.inf)
    return alike.view(*alike.shape[:-1], *queries.shape[-2:])


def _match_broadcast(
    queries: Tensor, prototypes: Tensor, valid: Tensor, scale: float = 20.0
) -> Tensor:
    alike = F.cosine_similarity(
        queries[..., :, None, :, :, :], prototypes[..., None, :, :, None, None], dim=-3
    )
    bias = torch.zeros(valid.shape).masked_fill(~valid, -math.inf)
    return scale * alike + bias[..., None, :, None, None]


def _match_library(
    queries: Tensor, prototypes: Tensor, valid: Tensor, scale: float = 20.0
) -> Tensor:
    flat = queries.movedim(-3, -1).flatten(-4, -2)  # (…, Q·H'·W', D)
    alike = scale * library.cosine_similarity(flat, prototypes)
    alike = alike.masked_fill(~valid[..., None, :], -math.inf)
    shape = (*queries.shape[:-3], *queries.shape[-2:], prototypes.shape[-2])
    return alike.view(shape).movedim(-1, -3)


def _match_numpy(queries: Tensor, prototypes: Tensor, valid: Tensor, scale: float = 20.0) -> Any:
    q, c = queries.numpy(), prototypes.numpy()
    lengths = np.linalg.norm(q, axis=-3, keepdims=True)
    alike = np.einsum(
        "...qdhw,...kd->...qkhw",
        q / np.where(lengths == 0, 1, lengths),
        c / np.maximum(np.linalg.norm(c, axis=-1, keepdims=True), 1e-9),
    )
    return np.where(valid.numpy()[..., None, :, None, None], scale * alike, -np.inf)


MATCHING = "notebook 05, «One query, many queries»; note §3.1, `match_features`"
TEMPERATURE = "notebook 05, «The missing factor before the cosine»"

MATCH_FEATURES = Answer(
    name="match_features",
    reference=match_features,
    section=MATCHING,
    checks=[
        Check("each query with each class: scaled cosines", _cosines, points=2),
        Check("also when there are as many queries as classes", _as_many, pointer=MATCHING),
        Check("scale multiplies the cosine", _scales, pointer=TEMPERATURE),
        Check("−inf where a class is not valid, and nowhere else", _invalid, pointer=EMPTY),
        Check("several episodes at once", _match_episodes, pointer=MATCHING),
    ],
    mistakes=[
        Mistake(
            "query k with class k",
            _paired,
            "You multiplied (Q, D, …) with (K, D, …) as they stand, as the note does. That raises "
            "an error for most Q, takes one query for all, and where Q = K pairs query k with "
            "class k in silence. Give each its own axis: (…, Q, K, H′, W′).",
            MATCHING,
        ),
        Mistake(
            "paired when Q = K",
            _paired_and_spread,
            "All is well until there are as many queries as classes: then your query k meets class "
            "k only. Broadcasting lined up two axes that mean different things.",
            MATCHING,
        ),
        Mistake(
            "scale forgotten",
            lambda q, p, v, scale=20.0: _matched(*_units(q, p), v),
            "Your result does not depend on the scale. A cosine lies between −1 and 1, so that "
            "without it no softmax of two classes gets beyond 0.88.",
            TEMPERATURE,
        ),
        Mistake(
            "divided by the scale",
            lambda q, p, v, scale=20.0: _matched(*_units(q, p), v) / scale,
            "You divided by the scale. It multiplies the cosine; its reciprocal is the "
            "temperature.",
            TEMPERATURE,
        ),
        Mistake(
            "minus the cosine",
            lambda q, p, v, scale=20.0: scale * _matched(*_units(-q, p), v),
            "The sign is turned: your largest logit goes to the class that points away. A cosine "
            "is a similarity; only a distance gets a minus.",
            MATCHING,
        ),
        Mistake(
            "dot product",
            lambda q, p, v, scale=20.0: _matched(scale * q, p, v),
            "You took the dot product without normalising: long prototypes and long features win, "
            "whatever their direction.",
            MATCHING,
        ),
        Mistake(
            "queries not normalised",
            lambda q, p, v, scale=20.0: _matched(scale * q, F.normalize(p, dim=-1), v),
            "The prototypes have length 1, the query features do not: the logits grow with the "
            "length of the feature. The winner is the same, the probabilities are not.",
            MATCHING,
        ),
        Mistake(
            "prototypes not normalised",
            lambda q, p, v, scale=20.0: _matched(scale * F.normalize(q, dim=-3), p, v),
            "The query features have length 1, the prototypes do not: a class with long features "
            "wins more than its share.",
            MATCHING,
        ),
        Mistake(
            "axis from the front",
            _axis_from_the_front,
            "`dim=1` (the default of `normalize`) is the feature axis only while nothing leads; "
            "with episodes in front it is another. Count from the end: −3 in the maps, −1 in the "
            "prototypes.",
            MATCHING,
        ),
        Mistake(
            "normalised over a row",
            lambda q, p, v, scale=20.0: scale * _matched(*_units(q, p, axis=-1), v),
            "You normalised the query maps over their last axis, the columns of the image. What "
            "has length 1 is the feature vector of one position, axis −3.",
            MATCHING,
        ),
        Mistake(
            "validity not used",
            lambda q, p, v, scale=20.0: scale * _matched(*_units(q, p), None),
            "You did not use `valid`. A class without support has a placeholder for a prototype; "
            "zeros have cosine 0 and beat every negative one.",
            EMPTY,
        ),
        Mistake(
            "invalid is 0",
            lambda q, p, v, scale=20.0: scale * _matched(*_units(q, p), v, 0.0),
            "You gave an invalid class the logit 0. That is in the middle of a cosine's range, and "
            "the class will win pixels that nobody has shown it. −inf means «never».",
            EMPTY,
        ),
        Mistake(
            "invalid is the smallest cosine",
            lambda q, p, v, scale=20.0: scale * _matched(*_units(q, p), v, -1.0),
            "You gave an invalid class the smallest logit a cosine can have. A softmax still gives "
            "it a share; −inf gives none.",
            EMPTY,
        ),
        Mistake(
            "a large number for −∞",
            lambda q, p, v, scale=20.0: match_features(q, p, v, scale).clamp_min(-1e9),
            "You filled invalid classes with a large negative number. A softmax rounds their share "
            "to 0, but whoever looks for −∞ (the loss, to leave such pixels out) does not find it, "
            "and where no class is valid all of them tie.",
            EMPTY,
        ),
        Mistake(
            "flag turned round",
            lambda q, p, v, scale=20.0: scale * _matched(*_units(q, p), ~v),
            "You filled the valid classes with −inf and left the others: `masked_fill` fills where "
            "its mask is True.",
            EMPTY,
        ),
        Mistake(
            "classes before queries",
            lambda q, p, v, scale=20.0: match_features(q, p, v, scale).transpose(-4, -3),
            "Your classes come before the queries. The order is (…, Q, K, H′, W′), so that one "
            "query's logits lie together.",
            MATCHING,
        ),
        Mistake(
            "axes squeezed out",
            lambda q, p, v, scale=20.0: match_features(q, p, v, scale).squeeze(),
            "You squeezed: with one query (or one class) its axis is gone, and what comes next "
            "takes another for it. Keep axes of length 1.",
            MATCHING,
        ),
        Mistake(
            "probabilities",
            lambda q, p, v, scale=20.0: match_features(q, p, v, scale).softmax(-3),
            "You returned probabilities. Asked are the logits, scaled cosines; the loss takes the "
            "softmax, in logs.",
            MATCHING,
        ),
        Mistake(
            "log-probabilities",
            lambda q, p, v, scale=20.0: match_features(q, p, v, scale).log_softmax(-3),
            "You returned log-probabilities: the logits after a log_softmax over the classes. "
            "Asked are the logits themselves; the loss normalises them once.",
            MATCHING,
        ),
        Mistake(
            "queries standardised",
            lambda q, p, v, scale=20.0: match_features(_standardised(q), p, v, scale),
            "You standardised each query's features over its positions before the cosine. The "
            "prototypes come from features as they are, so the two no longer fit each other.",
            MATCHING,
        ),
        Mistake(
            "squared distance",
            lambda q, p, v, scale=20.0: scale * (2 * _matched(*_units(q, p), v) - 2),
            "You used minus the squared distance of unit vectors, 2 cos − 2. The same classes win "
            "and the softmax is that of twice the scale; asked is the cosine itself.",
            "notebook 04, «Cosine, and where its mean lies»",
        ),
    ],
    variants=[
        V("loop over queries and classes", _match_loop),
        V("matrix product", _match_matmul),
        V("broadcast cosine_similarity", _match_broadcast),
        V("the library's cosine on a list of pixels", _match_library),
        V("numpy", _match_numpy),
    ],
    hints=[
        "The result has an axis for the queries and one for the classes. In which of the two "
        "inputs is each missing, and what does the note's product do in its absence?",
        "Make both of length 1 along the feature axis, which is −3 in the maps and −1 in the "
        "prototypes; then one einsum sums over it and keeps all others. What is not valid is "
        "filled afterwards.",
        "In words: normalise both; einsum «…qdhw, …kd → …qkhw»; multiply by scale; `masked_fill` "
        "with −inf where `~valid[..., None, :, None, None]`.",
    ],
    tolerance=Tolerance(rtol=1e-4, atol=1e-4),
    picture=pictures.matrix,
    withhold=GIVEN_AWAY,
    difficulty=3,
    importance=4,
    minutes=15,
)

# ---------------------------------------------------------------------------------------- predict


def predict(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Label every pixel: upsample logits (…, Q, K, H′, W′) to ``size``, take the largest."""
    never = logits[..., :1, :1].isneginf()  # (…, Q, K, 1, 1)
    return _up(logits, size).masked_fill(never, -math.inf).argmax(dim=-3)


def _up(logits: Tensor, size: Sequence[int], mode: str = "bilinear", corners: bool = False) -> Any:
    how: dict[str, Any] = {"align_corners": corners} if mode == "bilinear" else {}
    flat = F.interpolate(logits.flatten(0, -4), size=tuple(size), mode=mode, **how)
    return flat.view(*logits.shape[:-2], *size)


def _logit_maps(g: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g) * 5 - 5


def _all_classes(g: Generator) -> Iterator[Case]:
    yield Case("2 queries, 3 classes", (_logit_maps(g, 2, 3, 3, 4), (9, 8)))
    yield Case("3 queries, 3 classes, already of that size", (_logit_maps(g, 3, 3, 5, 4), (5, 4)))


def _single(g: Generator) -> Iterator[Case]:
    yield Case("one query, 2 classes", (_logit_maps(g, 1, 2, 3, 3), (6, 6)))
    yield Case("2 queries of one row", (_logit_maps(g, 2, 3, 1, 4), (1, 8)))


def _some_never(g: Generator) -> Iterator[Case]:
    logits = _logit_maps(g, 2, 3, 4, 4)
    logits[:, 1] = -math.inf
    yield Case("class 1 is never predicted", (logits, (12, 10)))
    logits = _logit_maps(g, 2, 4, 3, 3)
    logits[0, 2] = logits[1, 3] = -math.inf
    yield Case("another class in each query, already of that size", (logits, (3, 3)))


def _predicted_episodes(g: Generator) -> Iterator[Case]:
    logits = _logit_maps(g, 2, 3, 2, 3, 3)
    yield Case("2 episodes of 3 queries", (logits, (6, 7)))
    logits = _logit_maps(g, 2, 1, 3, 4, 4)
    logits[1, :, 0] = -math.inf
    yield Case("2 episodes of one query, one without class 0", (logits, (8, 8)))


def _as_found(logits: Tensor, size: Sequence[int]) -> Tensor:
    large = F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)
    return large.argmax(dim=1).squeeze()


def _one_episode(logits: Tensor, size: Sequence[int]) -> Tensor:
    large = F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)
    return large.nan_to_num(nan=-math.inf, neginf=-math.inf).argmax(dim=1)


def _finite(logits: Tensor, value: float) -> Tensor:
    return logits.masked_fill(logits.isneginf(), value)


def _predict_loop(logits: Tensor, size: Sequence[int]) -> Tensor:
    if logits.ndim > 3:
        return torch.stack([_predict_loop(part, size) for part in logits])
    maps = []
    for channel in logits:
        if channel.isinf().any():
            maps.append(torch.full(tuple(size), -math.inf, dtype=logits.dtype))
        else:
            maps.append(_up(channel[None, None], size)[0, 0])
    return torch.stack(maps).argmax(0)


def _predict_chosen(logits: Tensor, size: Sequence[int]) -> Any:
    """Upsample only the classes that can be predicted, query by query."""
    flat = logits.flatten(0, -4)
    maps = []
    for query in flat:
        kept = torch.tensor([k for k, one in enumerate(query) if bool(one.isfinite().all())])
        maps.append(kept[_up(query[kept][None], size)[0].argmax(0)])
    return torch.stack(maps).view(*logits.shape[:-3], *size).numpy()


def _predict_nan(logits: Tensor, size: Sequence[int]) -> Tensor:
    return _up(logits, size).nan_to_num(nan=-math.inf, neginf=-math.inf).argmax(-3)


WHOLE = "notebook 05, «The note's network, cell by cell»"

PREDICT = Answer(
    name="predict",
    reference=predict,
    section=WHOLE,
    kind="repair",
    checks=[
        Check("the class of the largest upsampled logit", _all_classes),
        Check("one query keeps its axis", _single, pointer=WHOLE),
        Check("a class of −inf is never predicted", _some_never, points=2, pointer=EMPTY),
        Check("several episodes at once", _predicted_episodes, pointer=WHOLE),
    ],
    mistakes=[
        Mistake(
            "as it was found",
            _as_found,
            "This still does what the function you found does. It has three faults: try it with "
            "one query, with a class of −inf, and with episodes in front.",
            WHOLE,
        ),
        Mistake(
            "the squeeze alone repaired",
            lambda logits, size: _as_found(logits, size).view(len(logits), *size),
            "The squeeze is gone; two faults are left. Try it with a class of −inf, looking at the "
            "edges, and with episodes in front of the queries.",
            WHOLE,
        ),
        Mistake(
            "episodes not thought of",
            _one_episode,
            "One fault is left: `interpolate` knows one axis in front of the classes, and episodes "
            "bring more. Flatten them before, restore them after.",
            WHOLE,
        ),
        Mistake(
            "still squeezed",
            lambda logits, size: predict(logits, size).squeeze(),
            "The other faults are gone, but `squeeze()` still removes every axis of length 1, also "
            "that of a single query: nothing later can tell it from a picture's row.",
            WHOLE,
        ),
        Mistake(
            "the query axis alone squeezed",
            lambda logits, size: (
                predict(logits, size)[..., 0, :, :]
                if logits.shape[-4] == 1
                else predict(logits, size)
            ),
            "You take the query axis away when there is one query. The shape must not depend on "
            "the number.",
            WHOLE,
        ),
        Mistake(
            "−inf interpolated",
            lambda logits, size: _up(logits, size).argmax(-3),
            "You still interpolate −inf. At the edges its weight is 0, and 0 · (−∞) is NaN, which "
            "`argmax` takes for the largest: the class that cannot be there wins there.",
            EMPTY,
        ),
        Mistake(
            "−inf made 0",
            lambda logits, size: _up(_finite(logits, 0.0), size).argmax(-3),
            "You replaced −inf by 0 and left it so. Where all other logits are negative that class "
            "wins now; after interpolating it has to be −inf again.",
            EMPTY,
        ),
        Mistake(
            "−inf made −1",
            lambda logits, size: _up(_finite(logits, -1.0), size).argmax(-3),
            "You replaced −inf by −1, the smallest cosine. Logits are scaled cosines and can be "
            "far below; only −inf is below all.",
            EMPTY,
        ),
        Mistake(
            "softmax before upsampling",
            lambda logits, size: _up(logits.softmax(-3), size).argmax(-3),
            "You took the softmax first and upsampled probabilities. Between two positions the "
            "class that is surer then wins more ground than its logits give it; upsample the "
            "logits.",
            WHOLE,
        ),
        Mistake(
            "labels upsampled",
            lambda logits, size: (
                F.interpolate(logits.argmax(-3).flatten(0, -3)[:, None].double(), tuple(size))[:, 0]
                .long()
                .view(*logits.shape[:-3], *size)
            ),
            "You upsampled the labels (or the logits by `nearest`, the default of `interpolate`, "
            "which comes to the same). Edges between classes then follow the feature cells like "
            "stairs; asked is the largest of bilinearly upsampled logits.",
            WHOLE,
        ),
        Mistake(
            "corners aligned",
            lambda logits, size: _up(_finite(logits, -1e6), size, corners=True).argmax(-3),
            "With `align_corners=True` corner pixels meet and everything between is stretched. "
            "Keep it False, as the note has it.",
            WHOLE,
        ),
        Mistake(
            "largest over the queries",
            lambda logits, size: _up(_finite(logits, -1e6), size).argmax(-4),
            "Your `argmax` runs over the queries. The classes compete: axis −3.",
            WHOLE,
        ),
        Mistake(
            "smallest logit",
            lambda logits, size: _up(logits, size).nan_to_num(-math.inf).argmin(-3),
            "You took the smallest logit. Similarities are largest for the class that fits.",
            WHOLE,
        ),
    ],
    variants=[
        V("class by class", _predict_loop),
        V("only classes that can be", _predict_chosen),
        V("a very negative number", lambda s, size: _up(_finite(s, -1e6), size).argmax(-3)),
        V("NaN back to −inf", _predict_nan),
    ],
    hints=[
        "Call the function as found with logits of one query; then with one class at −inf and look "
        "at the first row and column; then with a leading axis for episodes.",
        "`squeeze()` without a number, 0 · (−∞) in the interpolation, and an `interpolate` that "
        "knows one batch axis only: remove the first, keep −inf out of the second, flatten the "
        "leading axes for the third.",
        "In words: reshape to (N, K, H′, W′); remember which classes are −inf; interpolate; fill "
        "those with −inf again; argmax over axis 1; view as the leading axes and the size.",
    ],
    withhold=GIVEN_AWAY,
    difficulty=3,
    importance=3,
    minutes=15,
)

ALIGNED = Prose(
    name="aligned",
    points=3,
    rubric=[
        "says that at each position the note's prototypes are the support feature for the class "
        "labelled there and zero for the others, so that the arg-max is the support's label",
        "names the condition: features that are not negative, or else ties and «same or not same»",
        "says that copying is a good prediction where query and support are aligned, so that a "
        "high Dice does not show that the network looks at the query",
        "says how to tell: the copied support mask beside every Dice, and the shift test",
        "says what a prototype without a place does instead, and what it gives up (where organs "
        "usually lie)",
    ],
    model=(
        "With one support image the note's prototype of class k at position p is the support "
        "feature f(p) if p is labelled k, and zero otherwise. The cosine with the query is "
        "therefore cos(q(p), f(p)) for the class that the support has at p, and 0 for the others. "
        "If the features are not negative (a ReLU), that cosine is not negative either and the "
        "support's label wins, whatever the query shows; with signed features the network can "
        "still say no more than «like the support here» or «unlike it». Scans of one region are "
        "roughly aligned: organs lie where they lay in the other patient. So the copied mask "
        "overlaps well, and its Dice looks like that of a network that has learnt something. It "
        "shows that the anatomy is aligned, not that the query was read. Two things tell the "
        "difference: the Dice of the plain copied mask beside every result, and a test that moves "
        "the object. Averaging over the positions gives prototypes that follow the object; they "
        "know nothing of where organs lie, which is knowledge worth having, as a soft prior."
    ),
)

EXERCISE = Exercise(
    number=5,
    name="segmentation",
    title="From images to pixels",
    answers=[NOTE_PROTOTYPES, SHIFT_TEST, COMPUTE_PROTOTYPES, MATCH_FEATURES, PREDICT],
    prose=[ALIGNED],
)
