"""Exercise 06: the loss, the note's training loop repaired, two bugs to find (note §3.2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from fewshot_lib import training as library
from fewshot_lib.checker import pictures
from fewshot_lib.checker.spec import Case
from fewshot_lib.checker.specification import answer, exercise
from fewshot_lib.checker.values import Fixture

GIVEN_AWAY = ["evaluation.episode_dice", "training"]
LOSS = "notebook 06, «The loss (损失)»; note §3.2, `segmentation_loss`"
LEAK = "notebook 02, «Leaks, and how to see them»; notebook 06, «Episodes of slices»"
MODE = "notebook 06, «Evaluation: the network's mode»"


def _masks(g: Generator, *shape: int) -> Tensor:
    """Draw complementary masks (…, K, H, W) that show every class in every image."""
    *leading, n_classes, height, width = shape
    order = torch.rand(*leading, height * width, generator=g).argsort(dim=-1)
    labels = (order % n_classes).view(*leading, height, width)
    return F.one_hot(labels, n_classes).movedim(-1, -3).float()


# ------------------------------------------------------------------------------- segmentation_loss


@answer(reference=library.segmentation_loss, picture=pictures.matrix, strip=GIVEN_AWAY)
def segmentation_loss(logits, masks):
    """Average the cross-entropy of logits and masks over pixels, then images.

    Arguments:
        logits: (…, K, H, W) float; −inf for a class that cannot be predicted.
        masks: (…, K, H, W) float of 0 and 1, at most one 1 a pixel.

    Returns:
        A scalar ≥ 0. Pairs of pixel and class with logit −inf count neither
        above nor below.
    """
    ### BEGIN SOLUTION: minus the masked log-softmax over the pixels that count
    possible = logits > -math.inf
    logs = logits.log_softmax(dim=-3).masked_fill(~possible, 0.0)
    entropy = -(masks * logs).sum(dim=(-3, -2, -1))  # (…)
    counted = (masks * possible).sum(dim=(-3, -2, -1))
    return (entropy / counted).mean()
    ### END SOLUTION


def _logits(g: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g) * 3 - 1


@segmentation_loss.check("cross-entropy of one image's pixels", points=2)
def _plain_pairs(g: Generator) -> Iterator[Case]:
    yield Case("one image, 3 classes", (_logits(g, 3, 4, 5), _masks(g, 3, 4, 5)))
    yield Case("one image, 2 classes, 2 by 2", (_logits(g, 2, 2, 2), _masks(g, 2, 2, 2)))


@segmentation_loss.check("queries and episodes in front", pointer=LOSS)
def _many_pairs(g: Generator) -> Iterator[Case]:
    yield Case("4 queries", (_logits(g, 4, 3, 5, 2), _masks(g, 4, 3, 5, 2)))
    yield Case("2 episodes of 3 queries", (_logits(g, 2, 3, 2, 3, 4), _masks(g, 2, 3, 2, 3, 4)))


@segmentation_loss.check("a class of −inf costs nothing where nothing has it")
def _impossible_pairs(g: Generator) -> Iterator[Case]:
    masks = _masks(g, 2, 2, 4, 4)
    masks = torch.cat([masks, torch.zeros(2, 1, 4, 4)], dim=1)
    logits = _logits(g, 2, 3, 4, 4)
    logits[:, 2] = -math.inf
    yield Case("a class of −inf that no pixel has", (logits, masks))


@segmentation_loss.check(
    "a pixel that no class can explain does not count",
    pointer="notebook 06, «Pixels that do not count»",
)
def _uncounted(g: Generator) -> Iterator[Case]:
    logits, masks = _logits(g, 3, 4, 4), _masks(g, 3, 4, 4)
    logits[1] = -math.inf
    yield Case("pixels of a class of −inf", (logits, masks))
    logits, masks = _logits(g, 2, 3, 4, 4), _masks(g, 2, 3, 4, 4)
    logits[0, 2] = -math.inf
    yield Case("two images, in one of them", (logits, masks))
    logits, masks = _logits(g, 2, 2, 4, 4), _masks(g, 2, 2, 4, 4)
    masks[1, :, :3] = 0
    yield Case("pixels without a class, in one image", (logits, masks))


@segmentation_loss.check("large logits neither overflow nor saturate", pointer=LOSS)
def _large(g: Generator) -> Iterator[Case]:
    yield Case("logits of thousands", (_logits(g, 2, 3, 4, 4) * 1000, _masks(g, 2, 3, 4, 4)))
    yield Case("sure and wrong", (_logits(g, 2, 3, 3) * 30, _masks(g, 2, 3, 3)))
    yield Case("logits of millions", (_logits(g, 2, 3, 4, 4) * 1e6, _masks(g, 2, 3, 4, 4)))


# ------------------------------------------------------------------------------- episodic_training


Episode = tuple[Tensor, Tensor, Tensor, Tensor]


def _by_hand(
    network: nn.Module, episodes: list[Episode], learning_rate: float
) -> tuple[Tensor, Tensor]:
    """Descend without an optimizer: the first one of a process takes seconds to load."""
    weight = next(network.parameters())
    losses = []
    for support, support_masks, queries, query_masks in episodes:
        logits = torch.stack([network(support, support_masks, query) for query in queries])
        loss = F.cross_entropy(logits, query_masks.argmax(dim=1))
        (gradient,) = torch.autograd.grad(loss, [weight])
        weight.data.sub_(learning_rate * gradient)
        losses.append(loss.item())
    return torch.tensor(losses), weight.detach()


@answer(reference=_by_hand, strip=GIVEN_AWAY)
def episodic_training(network, episodes, learning_rate):
    """Train the network: a step of plain gradient descent for each episode.

    Arguments:
        network: (support (S, C, H, W), masks (S, K, H, W), one query
            (C, H, W)) → logits (K, H, W).
        episodes: list of (support, support_masks, queries (Q, C, H, W),
            query_masks (Q, K, H, W)); K and Q may differ from one to the next;
            all logits are finite.
        learning_rate: of the step W ← W − learning_rate · ∂L/∂W; no momentum.

    Returns:
        losses: (E,), the cross-entropy of each episode before its step, mean
            of queries and pixels.
        weight: (D, C), the network's one parameter after the last step.
    """
    ### BEGIN SOLUTION: per episode the logits, the loss, one step; keep losses
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate)
    losses = []
    for support, support_masks, queries, query_masks in episodes:
        answers = [network(support, support_masks, one) for one in queries]
        logits = torch.stack(answers)  # (Q, K, H, W)
        loss = F.cross_entropy(logits, query_masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses), network.weight.detach()
    ### END SOLUTION


def _episode(g: Generator, shots: int, queries: int, classes: int) -> Episode:
    """Draw images in which the classes differ, with noise."""
    masks = _masks(g, shots + queries, classes, 3, 4)
    colours = torch.randn(classes, 2, generator=g)
    noise = 0.5 * torch.randn(shots + queries, 2, 3, 4, generator=g)
    images = torch.einsum("nkhw,kc->nchw", masks, colours) + noise
    return images[:shots], masks[:shots], images[shots:], masks[shots:]


def _net(g: Generator, **settings: Any) -> Fixture:
    weight = 0.6 * torch.randn(3, 2, generator=g)
    return Fixture("matching_network", {"weight": weight.tolist(), **settings})


@episodic_training.check("one episode: the loss over all its queries, one step", points=3)
def _one_step(g: Generator) -> Iterator[Case]:
    yield Case("one episode, one query", (_net(g), [_episode(g, 1, 1, 2)], 0.5))
    yield Case("one episode, 3 queries, 2 classes", (_net(g), [_episode(g, 2, 3, 2)], 0.3))
    yield Case("one episode, 3 queries, 3 classes", (_net(g), [_episode(g, 1, 3, 3)], 0.4))


@episodic_training.check("each episode starts from the weight that the last one left", points=2)
def _steps(g: Generator) -> Iterator[Case]:
    net = _net(g)
    yield Case("4 episodes of 2 queries", (net, [_episode(g, 2, 2, 2) for _ in range(4)], 0.3))
    episodes = [_episode(g, 1, 1, 3), _episode(g, 2, 3, 2), _episode(g, 1, 2, 2)]
    yield Case("3 episodes of different sizes", (_net(g), episodes, 0.4))


@episodic_training.check(
    "nothing to learn from changes nothing",
    pointer="note §3.2, `episodic_training_epoch`; notebook 06, «The loop (训练循环)»",
)
def _no_steps(g: Generator) -> Iterator[Case]:
    yield Case("no episode at all", (_net(g), [], 0.3))
    yield Case("a learning rate of 0", (_net(g), [_episode(g, 1, 1, 2) for _ in range(2)], 0.0))


# ------------------------------------------------------------------------------------- pick_slices


@answer(strip=GIVEN_AWAY)
def pick_slices(subjects, presence, classes, k_shot, n_query):
    """Pick, of different people, the first slices that show each class.

    Arguments:
        subjects: (N,) int64, whose slice it is; in any order.
        presence: (N, n_classes) bool, whether the slice shows the class.
        classes: (n_way,) int64, columns of presence.
        k_shot, n_query: slices of each class in support (≥ 1) and query (≥ 0).

    Returns:
        support: (n_way, k_shot) int64, indices of slices, ascending in each
            row.
        query: (n_way, n_query) int64, likewise.

    Raises:
        ValueError: a class appears twice, or has fewer slices than asked on
            one of the sides.
    """
    ### BEGIN SOLUTION: refuse repeats, part the people, pick, refuse too few
    if len(classes.unique()) < len(classes):
        raise ValueError(f"classes must differ, got {classes.tolist()}")
    people = subjects.unique()  # sorted
    supports = torch.isin(subjects, people[: len(people) // 2])  # (N,)
    shots, asked = [], []
    for shown in presence.mT[classes]:
        shots.append((shown & supports).nonzero()[:k_shot, 0])
        asked.append((shown & ~supports).nonzero()[:n_query, 0])
        if len(shots[-1]) < k_shot or len(asked[-1]) < n_query:
            raise ValueError("a class has too few slices on one side")
    return torch.stack(shots), torch.stack(asked)
    ### END SOLUTION


def _as_found(presence: Tensor, classes: Tensor, k_shot: int, n_query: int) -> Any:
    """Pick as the function that is to be repaired does."""
    shown = [column.nonzero()[:, 0] for column in presence.mT[classes]]
    support = torch.stack([slices[:k_shot] for slices in shown])
    return support, torch.stack([slices[k_shot : k_shot + n_query] for slices in shown])


def _scans(g: Generator, people: int, each: int, n_classes: int = 4) -> tuple[Tensor, Tensor]:
    """Draw slices of several people, in no order of theirs, each class on half of the slices."""
    numbers = torch.randperm(50, generator=g)[:people]
    place = torch.randperm(people * each, generator=g)
    shown = torch.rand(people, each, n_classes, generator=g).argsort(dim=1) < (each + 1) // 2
    return numbers.repeat_interleave(each)[place], shown.flatten(0, 1)[place]


def _classes(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


@pick_slices.check("support and query show different people", points=2, pointer=LEAK)
def _parted(g: Generator) -> Iterator[Case]:
    yield Case("one class, 4 people", (*_scans(g, 4, 6), _classes(2), 2, 2))
    yield Case("3 classes, 6 people", (*_scans(g, 6, 4), _classes(3, 0, 2), 1, 2))
    yield Case("2 classes, 5 people, no query", (*_scans(g, 5, 4), _classes(1, 3), 3, 0))


@pick_slices.check("the people are parted in halves, ⌊P/2⌋ support")
def _all_slices(g: Generator) -> Iterator[Case]:
    yield Case("2 people, just enough slices", (*_scans(g, 2, 4), _classes(0, 1), 2, 2))
    yield Case("3 people: one supports", (*_scans(g, 3, 6), _classes(1, 0), 3, 5))


@pick_slices.check("a class drawn twice is refused", pointer=LEAK)
def _drawn_twice(g: Generator) -> Iterator[Case]:
    yield Case("class 1 twice", (*_scans(g, 4, 6), _classes(1, 1), 2, 1))
    yield Case("class 3 first and last", (*_scans(g, 4, 6), _classes(3, 0, 3), 2, 1))


def _sides(subjects: Tensor) -> Tensor:
    people = torch.unique(subjects)
    return torch.isin(subjects, people[: len(people) // 2])


@pick_slices.check("a class with too few slices on a side is refused", pointer=LEAK)
def _too_few(g: Generator) -> Iterator[Case]:
    yield Case("too few to support", (*_scans(g, 2, 4), _classes(0, 1), 3, 1))
    yield Case("too few to ask", (*_scans(g, 2, 4), _classes(0, 1), 1, 3))
    subjects, presence = _scans(g, 4, 4)
    presence[:, 2] = False
    yield Case("a class that nobody shows", (subjects, presence, _classes(2), 1, 1))
    subjects, presence = _scans(g, 4, 4)
    presence[_sides(subjects), 2] = False
    yield Case("the second class has no support", (subjects, presence, _classes(0, 2), 1, 1))
    subjects, presence = _scans(g, 4, 4)
    presence[~_sides(subjects), 1] = False
    yield Case("the second class has no query", (subjects, presence, _classes(3, 1), 1, 1))
    yield Case("one person only", (*_scans(g, 1, 8), _classes(0), 1, 1))


# --------------------------------------------------------------------------------- evaluate_unseen


@answer(strip=GIVEN_AWAY)
def evaluate_unseen(network, episodes, seen):
    """Average the Dice over all queries of organs that training has not seen.

    Arguments:
        network: a module, (support, support_masks, one query (C, H, W)) →
            logits (2, H, W).
        episodes: list of (support, support_masks, queries (Q, C, H, W),
            query_masks (Q, 2, H, W), organ: int); the organ, channel 1, is
            somewhere in every query.
        seen: list of int, the organs of training.

    Returns:
        A scalar in 0 … 1; each query counts the same.

    Raises:
        ValueError: no episode asks for an unseen organ.
    """
    ### BEGIN SOLUTION: evaluate_as_found without what it should not do
    network.eval()
    dices = []
    with torch.no_grad():
        for shots, masks, queries, targets, organ in episodes:
            if organ in seen:
                continue
            for query, target in zip(queries, targets, strict=True):
                predicted = network(shots, masks, query).argmax(dim=0) == 1
                true = target[1] > 0
                overlap = (predicted & true).sum()
                sizes = predicted.sum() + true.sum()
                dices.append(2 * overlap / sizes)
    if not dices:
        raise ValueError(f"every organ of the episodes was trained on: {seen}")
    return torch.stack(dices).mean()
    ### END SOLUTION


def _both(predicted: Tensor, true: Tensor) -> Tensor:
    """Average the Dice of the organ and that of the background."""
    pairs = [(predicted, true), (~predicted, ~true)]
    return torch.stack([2 * (p & t).sum() / (p.sum() + t.sum()) for p, t in pairs]).mean()


def _asked(g: Generator, organs: list[int], queries: list[int]) -> list[tuple[Any, ...]]:
    """Draw 1-way episodes of several organs, hard enough that no Dice is 0 or 1 throughout."""
    drawn = []
    for organ, n in zip(organs, queries, strict=True):
        masks = torch.rand(1 + n, 3, 4, generator=g).flatten(1).argsort(dim=1).view(-1, 3, 4) < 4
        both = torch.stack([~masks, masks], dim=1).float()
        colours = torch.tensor([[0.6, -0.3], [-0.6, 0.4]])
        noise = 0.9 * torch.randn(1 + n, 2, 3, 4, generator=g)
        images = torch.einsum("nkhw,kc->nchw", both, colours) + noise
        drawn.append((images[:1], both[:1], images[1:], both[1:], organ))
    return drawn


@evaluate_unseen.check("the organ's Dice, over organs that training did not see", points=2)
def _unseen_only(g: Generator) -> Iterator[Case]:
    episodes = _asked(g, [1, 4, 2, 5, 4], [2, 3, 2, 2, 1])
    yield Case("organs 1 and 2 seen", (_net(g), episodes, [1, 2]))
    yield Case("none seen", (_net(g), _asked(g, [3, 6], [4, 4]), []))


@evaluate_unseen.check("the network is evaluated, not trained", pointer=MODE)
def _as_trained(g: Generator) -> Iterator[Case]:
    # the first feature, which is dropped, decides; what the others leave is not one class alone
    weight = [[3.0, -2.0], [1.0, 2.2], [0.6, 2.0]]
    net = Fixture("matching_network", {"weight": weight, "drops": True})
    for organs, queries, seen in (([1, 2, 3], [6, 5, 7], [2]), ([4, 5], [5, 6], [])):
        name = f"a network with dropout, {sum(queries)} queries"
        yield Case(name, (net, _asked(g, organs, queries), seen))


@evaluate_unseen.check("no graph of a query is kept", pointer=MODE)
def _much(g: Generator) -> Iterator[Case]:
    episodes = _asked(g, [1, 2, 1, 3], [3, 4, 4, 4])
    yield Case("15 queries, memory for 5 graphs", (_net(g, memory=5), episodes, [9]))


@evaluate_unseen.check(
    "nothing unseen is refused",
    pointer="notebook 06, «What was seen, and what was not»; note §3.2",
)
def _all_seen(g: Generator) -> Iterator[Case]:
    yield Case("every organ seen", (_net(g), _asked(g, [1, 2], [1, 2]), [1, 2, 3]))
    yield Case("no episodes", (_net(g), [], [1]))


EXERCISE = exercise(__name__)
