"""Exercise 06: the loss, the note's training loop repaired, two bugs to find (note §3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from fewshot_lib import training as library
from fewshot_lib.checker import pictures
from fewshot_lib.checker.spec import Answer, Case, Check, Exercise, Mistake, Prose
from fewshot_lib.checker.spec import Variant as V
from fewshot_lib.checker.values import Given


def _masks(g: Generator, *shape: int) -> Tensor:
    """Draw complementary masks (…, K, H, W) that show every class in every image."""
    *leading, n_classes, height, width = shape
    order = torch.rand(*leading, height * width, generator=g).argsort(dim=-1)
    labels = (order % n_classes).view(*leading, height, width)
    return F.one_hot(labels, n_classes).movedim(-1, -3).float()


# ----------------------------------------------------------------------------- segmentation_loss


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Compute the cross-entropy of logits and masks (…, K, H, W): the library's, without Dice."""
    return library.segmentation_loss(logits, masks)


def _logits(g: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g) * 3 - 1


def _plain_pairs(g: Generator) -> Iterator[Case]:
    yield Case("one image, 3 classes", (_logits(g, 3, 4, 5), _masks(g, 3, 4, 5)))
    yield Case("one image, 2 classes, 2 by 2", (_logits(g, 2, 2, 2), _masks(g, 2, 2, 2)))


def _many_pairs(g: Generator) -> Iterator[Case]:
    yield Case("4 queries", (_logits(g, 4, 3, 5, 2), _masks(g, 4, 3, 5, 2)))
    yield Case("2 episodes of 3 queries", (_logits(g, 2, 3, 2, 3, 4), _masks(g, 2, 3, 2, 3, 4)))


def _impossible_pairs(g: Generator) -> Iterator[Case]:
    masks = _masks(g, 2, 2, 4, 4)
    masks = torch.cat([masks, torch.zeros(2, 1, 4, 4)], dim=1)
    logits = _logits(g, 2, 3, 4, 4)
    logits[:, 2] = -math.inf
    yield Case("a class of −inf that no pixel has", (logits, masks))


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


def _large(g: Generator) -> Iterator[Case]:
    yield Case("logits of thousands", (_logits(g, 2, 3, 4, 4) * 1000, _masks(g, 2, 3, 4, 4)))
    yield Case("sure and wrong", (_logits(g, 2, 3, 3) * 30, _masks(g, 2, 3, 3)))
    yield Case("logits of millions", (_logits(g, 2, 3, 4, 4) * 1e6, _masks(g, 2, 3, 4, 4)))


_IMAGE = (-3, -2, -1)


def _pixel_losses(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return what each image's pixels cost together, and how many of them count."""
    possible = logits > -math.inf
    logs = logits.log_softmax(dim=-3).masked_fill(~possible, 0.0)
    return -(masks * logs).sum(_IMAGE), (masks * possible).sum(_IMAGE)


def _mean_pairs(losses: Tensor, counted: Tensor) -> Tensor:
    return (losses / counted).mean()


def _wrong_loss(logs: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Make a loss with another log-probability."""

    def loss(logits: Tensor, masks: Tensor) -> Tensor:
        _, counted = _pixel_losses(logits, masks)
        wrong = logs(logits).masked_fill(logits == -math.inf, 0.0)
        return _mean_pairs(-(masks * wrong).sum(_IMAGE), counted)

    return loss


def _loss_loop(logits: Tensor, masks: Tensor) -> float:
    images = []
    classes = logits.shape[-3]
    for scores, truth in zip(
        logits.reshape(-1, classes, *logits.shape[-2:]),
        masks.reshape(-1, classes, *masks.shape[-2:]),
        strict=True,
    ):
        pixels = []
        for k, row, column in truth.nonzero().tolist():
            at = scores[:, row, column]
            if at[k] > -math.inf:
                pixels.append(float(at.logsumexp(0) - at[k]))
        images.append(sum(pixels) / len(pixels))
    return sum(images) / len(images)


def _loss_torch(logits: Tensor, masks: Tensor) -> Tensor:
    """Let ``F.cross_entropy`` leave out the pixels that do not count."""
    scores = logits.flatten(0, -4) if logits.ndim > 3 else logits[None]
    truth = (masks.flatten(0, -4) if masks.ndim > 3 else masks[None]) * (scores > -math.inf)
    labels = truth.argmax(1).masked_fill(truth.sum(1) == 0, -100)
    each = [
        F.cross_entropy(one[None], label[None]) for one, label in zip(scores, labels, strict=True)
    ]
    return torch.stack(each).mean()


def _loss_numpy(logits: Tensor, masks: Tensor) -> Any:
    z, m = logits.double().numpy(), masks.numpy()
    top = z.max(-3, keepdims=True)
    norm = np.log(np.exp(z - top).sum(-3, keepdims=True)) + top
    logs = np.where(np.isinf(z), 0.0, z - norm)
    counted = np.where(np.isinf(z), 0.0, m).sum(_IMAGE)
    return np.float32((-(m * logs).sum(_IMAGE) / counted).mean())


def _loss_lowest(logits: Tensor, masks: Tensor) -> Tensor:
    logs = logits.clamp_min(-1e9).log_softmax(-3)
    target = masks * (logits != -math.inf)
    return ((target * -logs).sum(_IMAGE) / target.sum(_IMAGE)).mean()


GIVEN_AWAY = ["evaluation.episode_dice", "training"]
LOSS = "notebook 06, «The loss（损失）»; note §3.2, `segmentation_loss`"
COUNTS = "notebook 06, «Pixels that do not count»"

SEGMENTATION_LOSS = Answer(
    name="segmentation_loss",
    reference=segmentation_loss,
    section=LOSS,
    checks=[
        Check("cross-entropy of one image's pixels", _plain_pairs, points=2),
        Check("queries and episodes in front", _many_pairs, pointer=LOSS),
        Check("a class of −inf costs nothing where nothing has it", _impossible_pairs),
        Check("a pixel that no class can explain does not count", _uncounted, pointer=COUNTS),
        Check("large logits neither overflow nor saturate", _large, pointer=LOSS),
    ],
    mistakes=[
        Mistake(
            "sum over the pixels",
            lambda z, m: _pixel_losses(z, m)[0].mean(),
            "You summed over an image's pixels. Then the loss, and the step with it, grows with "
            "the image's size; asked is the mean over its pixels that count.",
            LOSS,
        ),
        Mistake(
            "divided by the classes, too",
            lambda z, m: _mean_pairs(*_pixel_losses(z, m)) / z.shape[-3],
            "You divided by pixels times classes (a `mean()` over all numbers does that). Of the K "
            "products at a pixel one is not zero; the pixel counts once.",
            LOSS,
        ),
        Mistake(
            "sign",
            lambda z, m: -_mean_pairs(*_pixel_losses(z, m)),
            "The sign is the other way: a log-probability is negative, a loss positive. Trained "
            "with this, the network learns to be wrong.",
            LOSS,
        ),
        Mistake(
            "softmax over the columns",
            _wrong_loss(lambda z: z.masked_fill(z == -math.inf, -1e9).log_softmax(-1)),
            "Your softmax runs over the last axis, the image's columns. The classes compete with "
            "each other: axis −3.",
            LOSS,
        ),
        Mistake(
            "softmax twice",
            _wrong_loss(lambda z: z.softmax(-3).log_softmax(-3)),
            "The softmax was taken twice: `cross_entropy` and `log_softmax` want logits, and got "
            "probabilities. The loss then cannot come near 0, and its gradient is small.",
            LOSS,
        ),
        Mistake(
            "logits without a softmax",
            _wrong_loss(lambda z: z),
            "You took the true class's logit itself, without a softmax: nothing keeps the network "
            "from raising all logits at once.",
            LOSS,
        ),
        Mistake(
            "binary cross-entropy",
            _wrong_loss(F.logsigmoid),
            "You took a sigmoid for each class by itself. Each pixel has one class; they share a "
            "softmax.",
            LOSS,
        ),
        Mistake(
            "log of the probability",
            _wrong_loss(lambda z: (z.softmax(-3) + 1e-8).log()),
            "You took the logarithm of probabilities with a small number added. Where the network "
            "is sure and wrong the probability is 0 in float32 and the loss stops growing, and "
            "learning with it. There is a function that takes softmax and log together.",
            LOSS,
        ),
        Mistake(
            "logits clamped",
            _wrong_loss(lambda z: z.clamp_min(-1e4).log_softmax(-3)),
            "You cut logits off at a large negative number to be rid of −∞. Real logits can lie "
            "below it, and what they cost is lost, and their gradient is 0. Treat −∞ alone.",
            LOSS,
        ),
        Mistake(
            "log-probabilities clamped",
            _wrong_loss(lambda z: z.log_softmax(-3).clamp_min(-100.0)),
            "You cut log-probabilities off at a negative number. A pixel that is surely wrong then "
            "costs the same however wrong it is, and its gradient is 0. Treat −∞ alone.",
            LOSS,
        ),
        Mistake(
            "0 times −∞",
            lambda z, m: (
                -(m * z.log_softmax(-3)).sum(_IMAGE) / (m * (z > -math.inf)).sum(_IMAGE)
            ).mean(),
            "A class of −inf has the log-probability −∞, and 0 · (−∞) is NaN: one such class, and "
            "the whole loss is lost, though no pixel has it.",
            COUNTS,
        ),
        Mistake(
            "−inf made 0",
            lambda z, m: _mean_pairs(*_pixel_losses(z.nan_to_num(neginf=0.0), m)),
            "You made the logit −inf a 0. The class takes part in the softmax then, and the pixels "
            "that can be predicted pay for it.",
            COUNTS,
        ),
        Mistake(
            "hopeless pixels punished",
            lambda z, m: (
                -(m * z.masked_fill(z == -math.inf, -1e4).log_softmax(-3)).sum(_IMAGE)
                / m.sum(_IMAGE)
            ).mean(),
            "A pixel whose class cannot be predicted costs a large number here. No weight of the "
            "network can change that; leave such pixels out, above and below the line.",
            COUNTS,
        ),
        Mistake(
            "hopeless pixels counted",
            lambda z, m: (_pixel_losses(z, m)[0] / (z.shape[-1] * z.shape[-2])).mean(),
            "You divided by all pixels of the image. Those that do not count add nothing above the "
            "line; below it they make the loss look smaller than it is.",
            COUNTS,
        ),
        Mistake(
            "all images' pixels in one mean",
            lambda z, m: _pixel_losses(z, m)[0].sum() / _pixel_losses(z, m)[1].sum(),
            "You pooled the pixels of all images. An image with few pixels that count then counts "
            "for little; asked is the mean over the images of each image's mean.",
            COUNTS,
        ),
        Mistake(
            "a loss an image",
            lambda z, m: torch.divide(*_pixel_losses(z, m)).reshape(-1),
            "You returned one loss for each image. `backward` wants a single number: their mean.",
            LOSS,
        ),
    ],
    variants=[
        V("loop over pixels", _loss_loop),
        V("F.cross_entropy with ignore_index", _loss_torch),
        V("numpy", _loss_numpy),
        V("a very negative number", _loss_lowest),
        V("the library's", library.segmentation_loss),
    ],
    hints=[
        "Which axis do the classes share? And what is 0 · (−∞)?",
        "`log_softmax` over axis −3 is safe for large logits. The mask picks one class a pixel; "
        "where the logit is −inf put a 0 in the place of the logarithm, and leave the pixel out of "
        "the number you divide by.",
        "In words: log_softmax over the classes, filled with 0 where the logits are −inf; minus "
        "the sum of masks times that, over the last three axes; divided by the sum of the masks "
        "where the logits are not −inf; the mean of what is left.",
    ],
    withhold=GIVEN_AWAY,
    picture=pictures.matrix,
    difficulty=2,
    importance=4,
    minutes=15,
)

# ---------------------------------------------------------------------------- episodic_training

Network = nn.Module
Episode = tuple[Tensor, Tensor, Tensor, Tensor]


def _query_loss(network: Network, episode: Episode) -> Tensor:
    support, support_masks, queries, query_masks = episode
    logits = torch.stack([network(support, support_masks, query) for query in queries])
    return F.cross_entropy(logits, query_masks.argmax(dim=1))


def episodic_training(
    network: Network, episodes: list[Episode], learning_rate: float
) -> tuple[Tensor, Tensor]:
    """Train on episodes, one step of gradient descent each: losses (E,), then the weight."""
    weight = next(network.parameters())
    losses = []
    for episode in episodes:  # by hand: the first optimizer of a process takes seconds to load
        loss = _query_loss(network, episode)
        (gradient,) = torch.autograd.grad(loss, [weight])
        weight.data.sub_(learning_rate * gradient)
        losses.append(loss.item())
    return torch.tensor(losses), weight.detach()


def _trained(
    network: Network,
    episodes: list[Episode],
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[Network, Episode], Tensor] = _query_loss,
    empty: str = "before",
) -> tuple[Tensor, Tensor]:
    losses = []
    for episode in episodes:
        loss = loss_of(network, episode)
        if empty == "before":
            optimizer.zero_grad()
        loss.backward()
        if empty == "between":
            optimizer.zero_grad()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses), _weight(network)


def _weight(network: Network) -> Tensor:
    return next(network.parameters()).detach()


def _sgd(network: Network, learning_rate: float, **settings: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=learning_rate, **settings)


def _pictures(g: Generator, masks: Tensor, channels: int) -> Tensor:
    """Draw images in which the classes differ, with noise."""
    n, n_classes, height, width = masks.shape
    colours = torch.randn(n_classes, channels, generator=g)
    noise = 0.5 * torch.randn(n, channels, height, width, generator=g)
    return torch.einsum("nkhw,kc->nchw", masks, colours) + noise


def _episode(g: Generator, shots: int, queries: int, classes: int, channels: int = 2) -> Episode:
    masks = _masks(g, shots + queries, classes, 3, 4)
    images = _pictures(g, masks, channels)
    return images[:shots], masks[:shots], images[shots:], masks[shots:]


def _net(g: Generator, channels: int = 2, **settings: Any) -> Given:
    weight = 0.6 * torch.randn(3, channels, generator=g)
    return Given("matching_network", {"weight": weight.tolist(), **settings})


def _one_step(g: Generator) -> Iterator[Case]:
    yield Case("one episode, one query", (_net(g), [_episode(g, 1, 1, 2)], 0.5))
    yield Case("one episode, 3 queries, 2 classes", (_net(g), [_episode(g, 2, 3, 2)], 0.3))
    yield Case("one episode, 3 queries, 3 classes", (_net(g), [_episode(g, 1, 3, 3)], 0.4))


def _steps(g: Generator) -> Iterator[Case]:
    net = _net(g)
    yield Case("4 episodes of 2 queries", (net, [_episode(g, 2, 2, 2) for _ in range(4)], 0.3))
    episodes = [_episode(g, 1, 1, 3), _episode(g, 2, 3, 2), _episode(g, 1, 2, 2)]
    yield Case("3 episodes of different sizes", (_net(g), episodes, 0.4))


def _no_steps(g: Generator) -> Iterator[Case]:
    yield Case("no episode at all", (_net(g), [], 0.3))
    yield Case("a learning rate of 0", (_net(g), [_episode(g, 1, 1, 2) for _ in range(2)], 0.0))


def _first_query(network: Network, episode: Episode) -> Tensor:
    support, masks, queries, targets = episode
    return _query_loss(network, (support, masks, queries[:1], targets[:1]))


def _support_loss(network: Network, episode: Episode) -> Tensor:
    support, masks, _, _ = episode
    return _query_loss(network, (support, masks, support, masks))


def _summed_loss(network: Network, episode: Episode) -> Tensor:
    return _query_loss(network, episode) * len(episode[2])


def _twice_softmax(network: Network, episode: Episode) -> Tensor:
    support, masks, queries, targets = episode
    logits = torch.stack([network(support, masks, query) for query in queries])
    return F.cross_entropy(logits.softmax(dim=1), targets.argmax(dim=1))


def _pixel_sum(network: Network, episode: Episode) -> Tensor:
    return _query_loss(network, episode) * episode[3][:, 0].numel()


def _step_a_query(network: Network, episodes: list[Episode], rate: float) -> Any:
    losses = []
    for support, masks, queries, targets in episodes:
        parts = [(support, masks, q[None], t[None]) for q, t in zip(queries, targets, strict=True)]
        losses.append(_trained(network, parts, _sgd(network, rate))[0].mean())
    return torch.tensor(losses), _weight(network)


def _loss_after(network: Network, episodes: list[Episode], rate: float) -> Any:
    losses = []
    for episode in episodes:
        _trained(network, [episode], _sgd(network, rate))
        losses.append(_query_loss(network, episode).item())
    return torch.tensor(losses), _weight(network)


def _all_at_once(network: Network, episodes: list[Episode], rate: float) -> Any:
    optimizer = _sgd(network, rate)
    losses = [_query_loss(network, episode) for episode in episodes]
    if losses:
        torch.stack(losses).sum().backward()
        optimizer.step()
    return torch.tensor([loss.item() for loss in losses]), _weight(network)


def _running_mean(network: Network, episodes: list[Episode], rate: float) -> Any:
    losses, weight = episodic_training(network, episodes, rate)
    return losses.cumsum(0) / torch.arange(1, len(losses) + 1), weight


def _before_training(network: Network, episodes: list[Episode], rate: float) -> Any:
    weight = _weight(network).clone()
    return episodic_training(network, episodes, rate)[0], weight


def _loop_copies(network: Network, episodes: list[Episode], rate: float) -> Any:
    """Hand the weight on as a plain tensor, and put it into the network for each episode."""
    name, weight = next((name, w.detach().clone()) for name, w in network.named_parameters())
    losses = []
    for support, masks, queries, targets in episodes:
        here = weight.requires_grad_()
        logits = torch.stack(
            [
                torch.func.functional_call(network, {name: here}, (support, masks, query))
                for query in queries
            ]
        )
        loss = -(logits.log_softmax(1) * targets).sum(1).mean()
        weight = (here - rate * torch.autograd.grad(loss, here)[0]).detach()
        losses.append(float(loss))
    return losses, weight


def _loop_set_to_none(network: Network, episodes: list[Episode], rate: float) -> Any:
    """Empty the gradients after the step instead of before ``backward``."""
    optimizer, losses = _sgd(network, rate), []
    for episode in episodes:
        loss = _query_loss(network, episode)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        losses.append(loss.detach())
    return losses, _weight(network).numpy()


def _loop_query_backward(network: Network, episodes: list[Episode], rate: float) -> Any:
    """Send each query's share of the loss backward by itself, which needs less memory."""
    optimizer, losses = _sgd(network, rate), np.zeros(len(episodes), dtype=np.float32)
    for i, (support, masks, queries, targets) in enumerate(episodes):
        optimizer.zero_grad()
        for query, target in zip(queries, targets, strict=True):
            logits = network(support, masks, query)
            share = F.cross_entropy(logits[None], target[None]) / len(queries)
            share.backward()
            losses[i] += share.item()
        optimizer.step()
    return losses, _weight(network)


def _loop_library(network: Network, episodes: list[Episode], rate: float) -> Any:
    """Use the library's epoch with a network that takes many queries."""

    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, support: Tensor, masks: Tensor, queries: Tensor) -> Tensor:
            return torch.stack([self.inner(support, masks, query) for query in queries])

    whole = [library.SegmentationEpisode(*episode) for episode in episodes]
    result = library.episodic_training_epoch(
        Many(), whole, _sgd(network, rate), len(whole), progress=False
    )
    return torch.tensor(result.losses), _weight(network)


LOOP = "note §3.2, `episodic_training_epoch`; notebook 06, «The loop（训练循环）»"

EPISODIC_TRAINING = Answer(
    name="episodic_training",
    reference=episodic_training,
    section=LOOP,
    checks=[
        Check("one episode: the loss over all its queries, one step", _one_step, points=3),
        Check("each episode starts from the weight that the last one left", _steps, points=2),
        Check("nothing to learn from changes nothing", _no_steps, pointer=LOOP),
    ],
    mistakes=[
        Mistake(
            "gradients never emptied",
            lambda net, eps, lr: _trained(net, eps, _sgd(net, lr), empty="never"),
            "The first step is right, later ones are not: the gradients of earlier episodes are "
            "still there when the next are added. Somebody has to empty them once an episode.",
            LOOP,
        ),
        Mistake(
            "nothing learned",
            lambda net, eps, lr: _trained(net, eps, _sgd(net, lr), empty="between"),
            "The weight is as it was. Either the step is never taken, or the gradients are emptied "
            "between `backward` and `step`, so that there is nothing to step along.",
            LOOP,
        ),
        Mistake(
            "first query only",
            lambda net, eps, lr: _trained(net, eps, _sgd(net, lr), _first_query),
            "You used the first query of each episode only. The network takes one at a time; call "
            "it for each and put the logits together.",
            LOOP,
        ),
        Mistake(
            "trained on the support",
            lambda net, eps, lr: _trained(net, eps, _sgd(net, lr), _support_loss),
            "You asked the network for the support images, whose labels it has been given. The "
            "loss of an episode is that of its queries.",
            LOOP,
        ),
        Mistake(
            "queries summed",
            lambda net, eps, lr: _trained(net, eps, _sgd(net, lr), _summed_loss),
            "You added the losses of the queries. Asked is their mean: otherwise an episode of "
            "five queries takes a step five times as long.",
            LOOP,
        ),
        Mistake(
            "pixels summed",
            lambda net, eps, lr: _trained(net, eps, _sgd(net, lr), _pixel_sum),
            "Your loss is a sum over all pixels, not their mean; the step is too long by as many.",
            LOOP,
        ),
        Mistake(
            "softmax before the cross-entropy",
            lambda net, eps, lr: _trained(net, eps, _sgd(net, lr), _twice_softmax),
            "You took a softmax before `cross_entropy`, which takes one itself.",
            LOOP,
        ),
        Mistake(
            "a step for each query",
            _step_a_query,
            "You took a step after each query. Queries of one episode are judged by the same "
            "weight; the step comes once, after all of them.",
            LOOP,
        ),
        Mistake(
            "one step for all episodes",
            _all_at_once,
            "All episodes were judged by the first weight and one step was taken at the end. Here "
            "each episode has its step, and the next one starts from there.",
            LOOP,
        ),
        Mistake(
            "uphill",
            lambda net, eps, lr: _trained(net, eps, _sgd(net, lr, maximize=True)),
            "Your weight moved up the gradient, and the loss with it. Descent subtracts.",
            LOOP,
        ),
        Mistake(
            "Adam",
            lambda net, eps, lr: _trained(net, eps, torch.optim.Adam(net.parameters(), lr=lr)),
            "This is Adam. It is what one would take in earnest, but asked is plain gradient "
            "descent, whose step can be followed by hand.",
            LOOP,
        ),
        Mistake(
            "momentum",
            lambda net, eps, lr: _trained(net, eps, _sgd(net, lr, momentum=0.9)),
            "Your steps remember earlier ones (momentum 0.9). Asked is plain gradient descent.",
            LOOP,
        ),
        Mistake(
            "losses after the step",
            _loss_after,
            "Your losses were taken after the step, on the episode just learned from. Report the "
            "one that was sent backward: it is of a task that the weight has not met yet.",
            LOOP,
        ),
        Mistake(
            "running means",
            _running_mean,
            "You returned running means of the losses. Smooth a curve when you draw it; the record "
            "keeps each episode's own.",
            LOOP,
        ),
        Mistake(
            "weight from before",
            _before_training,
            "The losses are right, but the weight you returned is the one from before training. A "
            "copy taken too early does not follow the parameter.",
            LOOP,
        ),
    ],
    variants=[
        V("functional, with copies of the weight", _loop_copies),
        V("an optimizer, emptied after the step", _loop_set_to_none),
        V("backward query by query", _loop_query_backward),
        V("the library's epoch", _loop_library),
    ],
    hints=[
        "Read the note's loop line by line: which of its names is defined nowhere, and how many "
        "queries does the network take?",
        "`torch.stack` over a call for each query gives (Q, K, H, W); `F.cross_entropy` takes "
        "that and the masks and means over queries and pixels. Order: empty, backward, step.",
        "In words: SGD over the network's parameters; for each episode stack the logits, take the "
        "loss, empty the gradients, backward, step, note `loss.item()`; at the end the losses as "
        "a tensor, and the network's weight, detached.",
    ],
    equivalent={
        "return (torch.tensor(losses), network.weight.detach()) → "
        "return (losses, network.weight.detach())": "a list of numbers is as good as a tensor",
        "return (torch.tensor(losses), network.weight.detach()) → "
        "return (torch.tensor(losses), network.weight)": "the parameter has the same numbers",
        "losses.append(loss.item()) → losses.append(loss)": (
            "torch.tensor takes the number out of each loss; backward has freed what its graph held"
        ),
    },
    returns=("losses", "weight"),
    withhold=GIVEN_AWAY,
    difficulty=3,
    importance=5,
    minutes=20,
)

# ------------------------------------------------------------------------------------ pick_slices


def pick_slices(
    subjects: Tensor, presence: Tensor, classes: Tensor, k_shot: int, n_query: int
) -> tuple[Tensor, Tensor]:
    """Pick each class's support and query slices from different people: two arrays of indices.

    Raises:
        ValueError: a class twice, or one with too few slices on a side.
    """
    return _picked(subjects, presence, classes, k_shot, n_query)


def _sides(subjects: Tensor) -> Tensor:
    people = torch.unique(subjects)
    return torch.isin(subjects, people[: len(people) // 2])


def _picked(
    subjects: Tensor,
    presence: Tensor,
    classes: Tensor,
    k_shot: int,
    n_query: int,
    sides: Callable[[Tensor], Tensor] = _sides,
    short: bool = True,
    twice: bool = True,
) -> tuple[Tensor, Tensor]:
    if twice and len(set(classes.tolist())) < len(classes):
        raise ValueError(f"a class is drawn twice: {classes.tolist()}")
    supports = sides(subjects)
    support, query = [], []
    for number in classes.tolist():
        support.append((presence[:, number] & supports).nonzero()[:k_shot, 0])
        query.append((presence[:, number] & ~supports).nonzero()[:n_query, 0])
    if short and (min(map(len, support)) < k_shot or min(map(len, query)) < n_query):
        raise ValueError("a class is shown by too few slices")
    return torch.stack(support), torch.stack(query)


def _found_sampler(
    subjects: Tensor, presence: Tensor, classes: Tensor, k_shot: int, n_query: int
) -> tuple[Tensor, Tensor]:
    support, query = [], []
    for number in classes.tolist():
        shown = presence[:, number].nonzero()[:, 0]
        support.append(shown[:k_shot])
        query.append(shown[k_shot : k_shot + n_query])
    return torch.stack(support), torch.stack(query)


def _scans(g: Generator, people: int, each: int, n_classes: int = 4) -> tuple[Tensor, Tensor]:
    """Draw slices of several people, in no order of theirs, each class on half of the slices."""
    numbers = torch.randperm(50, generator=g)[:people]
    place = torch.randperm(people * each, generator=g)
    shown = torch.rand(people, each, n_classes, generator=g).argsort(dim=1) < (each + 1) // 2
    return numbers.repeat_interleave(each)[place], shown.flatten(0, 1)[place]


def _classes(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


def _parted(g: Generator) -> Iterator[Case]:
    yield Case("one class, 4 people", (*_scans(g, 4, 6), _classes(2), 2, 2))
    yield Case("3 classes, 6 people", (*_scans(g, 6, 4), _classes(3, 0, 2), 1, 2))
    yield Case("2 classes, 5 people, no query", (*_scans(g, 5, 4), _classes(1, 3), 3, 0))


def _all_slices(g: Generator) -> Iterator[Case]:
    yield Case("2 people, just enough slices", (*_scans(g, 2, 4), _classes(0, 1), 2, 2))
    yield Case("3 people: one supports", (*_scans(g, 3, 6), _classes(1, 0), 3, 5))


def _drawn_twice(g: Generator) -> Iterator[Case]:
    yield Case("class 1 twice", (*_scans(g, 4, 6), _classes(1, 1), 2, 1))
    yield Case("class 3 first and last", (*_scans(g, 4, 6), _classes(3, 0, 3), 2, 1))


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


def _slices_parted(subjects: Tensor) -> Tensor:
    return torch.arange(len(subjects)) < len(subjects) // 2


def _rounded_up(subjects: Tensor) -> Tensor:
    people = torch.unique(subjects)
    return torch.isin(subjects, people[: (len(people) + 1) // 2])


def _any_other_person(
    subjects: Tensor, presence: Tensor, classes: Tensor, k_shot: int, n_query: int
) -> tuple[Tensor, Tensor]:
    """Part the people class by class: the support's people are left out of that class's query."""
    _picked(subjects, presence, classes, k_shot, n_query)
    support, query = [], []
    for number in classes.tolist():
        shown = presence[:, number]
        first = shown.nonzero()[:k_shot, 0]
        others = shown & ~torch.isin(subjects, subjects[first])
        support.append(first)
        query.append(others.nonzero()[:n_query, 0])
    return torch.stack(support), torch.stack(query)


def _with_checks(*args: Any) -> Any:
    """Refuse what must be refused, and leave the slices as they were found."""
    _picked(*args)
    return _found_sampler(*args)


def _support_counted(
    subjects: Tensor, presence: Tensor, classes: Tensor, k_shot: int, n_query: int
) -> tuple[Tensor, Tensor]:
    asked = presence[~_sides(subjects)].sum(dim=0)[classes]
    fewest = int(asked.min()) if len(asked) else n_query
    return _picked(subjects, presence, classes, k_shot, min(n_query, fewest))


def _pick_lists(
    subjects: Tensor, presence: Tensor, classes: Tensor, k_shot: int, n_query: int
) -> tuple[list[list[int]], list[list[int]]]:
    people = sorted(set(subjects.tolist()))
    supporters = set(people[: len(people) // 2])
    wanted = classes.tolist()
    if len(wanted) != len(set(wanted)):
        raise ValueError("twice")
    support: list[list[int]] = []
    query: list[list[int]] = []
    for number in wanted:
        mine: list[int] = []
        asked: list[int] = []
        for i, person in enumerate(subjects.tolist()):
            if presence[i, number]:
                (mine if person in supporters else asked).append(i)
        if len(mine) < k_shot or len(asked) < n_query:
            raise ValueError("too few")
        support.append(mine[:k_shot])
        query.append(asked[:n_query])
    return support, query


def _pick_numpy(
    subjects: Tensor, presence: Tensor, classes: Tensor, k_shot: int, n_query: int
) -> tuple[Any, Any]:
    who, shown, wanted = subjects.numpy(), presence.numpy(), classes.numpy()
    if len(np.unique(wanted)) < len(wanted):
        raise ValueError("twice")
    people = np.unique(who)
    supports = np.isin(who, people[: len(people) // 2])
    rows = [[np.flatnonzero(shown[:, c] & s) for c in wanted] for s in (supports, ~supports)]
    if any(
        len(found) < n for side, n in zip(rows, (k_shot, n_query), strict=True) for found in side
    ):
        raise ValueError("too few")
    return np.stack([r[:k_shot] for r in rows[0]]), np.stack([r[:n_query] for r in rows[1]])


def _pick_topk(
    subjects: Tensor, presence: Tensor, classes: Tensor, k_shot: int, n_query: int
) -> tuple[Tensor, Tensor]:
    """Let ``topk`` find the first slices of all classes at once."""
    if bool((classes[:, None] == classes).sum() > len(classes)):
        raise ValueError("twice")
    people, number = torch.unique(subjects, return_inverse=True)
    supports = number < len(people) // 2
    shown = presence.mT[classes]
    early = -torch.arange(len(subjects)) + len(subjects)
    parts = []
    for side, n in ((supports, k_shot), (~supports, n_query)):
        there = shown & side
        if bool((there.sum(1) < n).any()):
            raise ValueError("too few")
        parts.append((there * early).topk(n, dim=1).indices)
    return parts[0], parts[1]


def _pick_median(
    subjects: Tensor, presence: Tensor, classes: Tensor, k_shot: int, n_query: int
) -> tuple[Tensor, Tensor]:
    """Find the first person who is asked, and compare numbers."""
    if classes.unique().numel() != classes.numel():
        raise ValueError("twice")
    people = subjects.unique()
    supports = subjects < people[len(people) // 2]
    parts: list[list[Tensor]] = [[], []]
    for shown in presence.T[classes]:
        for part, side, n in zip(parts, (supports, ~supports), (k_shot, n_query), strict=True):
            found = torch.where(shown & side)[0]
            if found.numel() < n:
                raise ValueError("too few")
            part.append(found[:n])
    return torch.stack(parts[0]), torch.stack(parts[1])


LEAK = "notebook 02, «Leaks, and how to see them»; notebook 06, «Episodes of slices»"

PICK_SLICES = Answer(
    name="pick_slices",
    reference=pick_slices,
    section=LEAK,
    kind="repair",
    checks=[
        Check("support and query show different people", _parted, points=2, pointer=LEAK),
        Check("the people are parted in halves, ⌊P/2⌋ support", _all_slices),
        Check("a class drawn twice is refused", _drawn_twice, pointer=LEAK),
        Check("a class with too few slices on a side is refused", _too_few, pointer=LEAK),
    ],
    mistakes=[
        Mistake(
            "as it was found",
            _found_sampler,
            "This still does what the function you found does. Compare `subjects[support]` with "
            "`subjects[query]`; then give it a class twice, and more shots than there are slices.",
            LEAK,
        ),
        Mistake(
            "people still mixed",
            _with_checks,
            "What must be refused is refused, but neighbouring slices of one person still stand on "
            "both sides: the network is asked about a person whose labels it has been shown.",
            LEAK,
        ),
        Mistake(
            "slices parted, not people",
            partial(_picked, sides=_slices_parted),
            "You parted the slices in halves, not the people: a person with slices in both halves "
            "supports and is asked.",
            LEAK,
        ),
        Mistake(
            "parted class by class",
            _any_other_person,
            "Within a class support and query show different people, but a person who supports one "
            "class may be asked about another. Part the people once an episode.",
            LEAK,
        ),
        Mistake(
            "sides exchanged",
            partial(_picked, sides=lambda s: ~_sides(s)),
            "Your sides are exchanged: the people with the smaller numbers support.",
            LEAK,
        ),
        Mistake(
            "half rounded up",
            partial(_picked, sides=_rounded_up),
            "With an odd number of people you let the larger part support; ⌊P/2⌋ do.",
            LEAK,
        ),
        Mistake(
            "class twice accepted",
            partial(_picked, twice=False),
            "People are parted, but a class may still be drawn twice. Two channels then mean the "
            "same organ, and no network can tell them apart.",
            LEAK,
        ),
        Mistake(
            "short episodes accepted",
            partial(_picked, short=False),
            "A class with too few slices still gives a shorter row, in silence or with an error "
            "from `stack` that says nothing of the cause. Refuse it with ValueError.",
            LEAK,
        ),
        Mistake(
            "only the support counted",
            _support_counted,
            "You refuse too few support slices, but too few query slices pass, and the query is "
            "shorter than was asked for.",
            LEAK,
        ),
    ],
    variants=[
        V("lists", _pick_lists),
        V("numpy", _pick_numpy),
        V("all classes at once by topk", _pick_topk),
        V("by the middle person's number", _pick_median),
    ],
    hints=[
        "Print `subjects[support]` and `subjects[query]` of an episode of the function as found. "
        "Then try `classes = [1, 1]`, and a `k_shot` larger than what is there.",
        "Part the people before you look at any class: `torch.unique(subjects)` is sorted. Then "
        "each side has its own slices, for all classes.",
        "In words: refuse classes that repeat; people = unique subjects; a slice supports if its "
        "subject is among the first ⌊P/2⌋; for each class the first k_shot slices that show it and "
        "support, the first n_query that show it and do not; refuse if either is too short.",
    ],
    equivalent={
        "return (torch.stack(shots), torch.stack(asked)) → "
        "return (shots, torch.stack(asked))": "a list of rows is as good as an array",
        "return (torch.stack(shots), torch.stack(asked)) → "
        "return (torch.stack(shots), asked)": "a list of rows is as good as an array",
        "shots.append((shown & supports).nonzero()[:k_shot, 0]) → "
        "shots.append((shown & supports).nonzero()[:k_shot, -1])": (
            "nonzero of one dimension has one column, which is first and last"
        ),
        "asked.append((shown & ~supports).nonzero()[:n_query, 0]) → "
        "asked.append((shown & ~supports).nonzero()[:n_query, -1])": (
            "nonzero of one dimension has one column, which is first and last"
        ),
    },
    returns=("support", "query"),
    withhold=GIVEN_AWAY,
    difficulty=2,
    importance=5,
    minutes=15,
)

# ---------------------------------------------------------------------------------- evaluate_unseen

Labelled = tuple[Tensor, Tensor, Tensor, Tensor, int]


def evaluate_unseen(network: Network, episodes: list[Labelled], seen: list[int]) -> Tensor:
    """Average the Dice over all queries of organs that training did not see.

    Raises:
        ValueError: there is no such episode.
    """
    return _evaluated(network, episodes, seen)


def _organ_dice(prediction: Tensor, target: Tensor) -> Tensor:
    return 2 * (prediction & target).sum() / (prediction.sum() + target.sum())


def _background_too(labels: Tensor, masks: Tensor) -> Tensor:
    return (_organ_dice(labels == 0, masks[0] > 0) + _organ_dice(labels == 1, masks[1] > 0)) / 2


def _organ(labels: Tensor, masks: Tensor) -> Tensor:
    return _organ_dice(labels == 1, masks[1] > 0)


def _evaluated(
    network: Network,
    episodes: list[Labelled],
    seen: list[int],
    use: Callable[[int, list[int]], bool] = lambda organ, seen: organ not in seen,
    train: bool = False,
    grad: bool = False,
    measure: Callable[[Tensor, Tensor], Tensor] = _organ,
    by_episode: bool = False,
    empty: float | None = None,
    queries_used: int | None = None,
) -> Tensor:
    network.train(train)
    scores: list[Tensor] = []
    with torch.set_grad_enabled(grad):
        for support, masks, queries, targets, organ in episodes:
            if not use(organ, seen):
                continue
            part = []
            for query, target in zip(queries[:queries_used], targets, strict=False):
                labels = network(support, masks, query).argmax(dim=0)
                part.append(measure(labels, target))
            scores.extend([torch.stack(part).mean()] if by_episode else part)
    if not scores:
        if empty is not None:
            return torch.tensor(empty)
        raise ValueError("every episode asks for an organ that training has seen")
    return torch.stack(scores).mean()


def _asked(g: Generator, organs: list[int], queries: list[int]) -> list[Labelled]:
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


def _unseen_only(g: Generator) -> Iterator[Case]:
    episodes = _asked(g, [1, 4, 2, 5, 4], [2, 3, 2, 2, 1])
    yield Case("organs 1 and 2 seen", (_net(g), episodes, [1, 2]))
    yield Case("none seen", (_net(g), _asked(g, [3, 6], [4, 4]), []))


def _as_trained(g: Generator) -> Iterator[Case]:
    # the first feature, which is dropped, decides; what the others leave is not one class alone
    weight = [[3.0, -2.0], [1.0, 2.2], [0.6, 2.0]]
    net = Given("matching_network", {"weight": weight, "drops": True})
    for organs, queries, seen in (([1, 2, 3], [6, 5, 7], [2]), ([4, 5], [5, 6], [])):
        name = f"a network with dropout, {sum(queries)} queries"
        yield Case(name, (net, _asked(g, organs, queries), seen))


def _much(g: Generator) -> Iterator[Case]:
    episodes = _asked(g, [1, 2, 1, 3], [3, 4, 4, 4])
    yield Case("15 queries, memory for 5 graphs", (_net(g, memory=5), episodes, [9]))


def _all_seen(g: Generator) -> Iterator[Case]:
    yield Case("every organ seen", (_net(g), _asked(g, [1, 2], [1, 2]), [1, 2, 3]))
    yield Case("no episodes", (_net(g), [], [1]))


def _accuracy(labels: Tensor, masks: Tensor) -> Tensor:
    return (labels == masks.argmax(dim=0)).float().mean()


def _jaccard(labels: Tensor, masks: Tensor) -> Tensor:
    dice = _organ(labels, masks)
    return dice / (2 - dice)


def _found_evaluation(network: Network, episodes: list[Labelled], seen: list[int]) -> Tensor:
    return _evaluated(
        network, episodes, seen, use=lambda *_: True, train=True, grad=True, measure=_background_too
    )


def _evaluate_loop(network: Network, episodes: list[Labelled], seen: list[int]) -> float:
    network.eval()
    total, count = 0.0, 0
    for support, masks, queries, targets, organ in episodes:
        if organ in set(seen):
            continue
        for query, target in zip(queries, targets, strict=True):
            with torch.no_grad():
                logits = network(support, masks, query)
            inside = (logits[1] > logits[0]).tolist()
            truth = target[1].tolist()
            pairs = [
                (bool(p), bool(t))
                for row, other in zip(inside, truth, strict=True)
                for p, t in zip(row, other, strict=True)
            ]
            both = sum(p and t for p, t in pairs)
            total += 2 * both / (sum(p for p, _ in pairs) + sum(t for _, t in pairs))
            count += 1
    if not count:
        raise ValueError("none unseen")
    return total / count


@torch.inference_mode()
def _evaluate_batch(network: Network, episodes: list[Labelled], seen: list[int]) -> Tensor:
    network = network.eval()
    scores = []
    for support, masks, queries, targets, organ in episodes:
        if organ not in seen:
            logits = torch.stack([network(support, masks, query) for query in queries])
            found, truth = logits.argmax(1).float(), targets[:, 1].float()
            sizes = found.sum((1, 2)) + truth.sum((1, 2))
            scores.append(2 * (found * truth).sum((1, 2)) / sizes)
    if not scores:
        raise ValueError("none unseen")
    return torch.cat(scores).mean()


def _evaluate_detached(network: Network, episodes: list[Labelled], seen: list[int]) -> Any:
    """Freeze the weight, which leaves no graph either, in NumPy from there on."""
    network.train(False)
    scores = []
    with torch.no_grad():
        for *tensors, organ in episodes:
            support, masks, queries, targets = tensors
            for query, target in zip(queries, targets, strict=True):
                if organ in seen:
                    continue
                found = network(support, masks, query).numpy().argmax(0) == 1
                truth = target[1].numpy() > 0.5
                wrong = np.logical_xor(found, truth).sum()
                scores.append(1 - wrong / (found.sum() + truth.sum()))
    if scores == []:
        raise ValueError("none unseen")
    return np.mean(scores)


def _evaluate_library(network: Network, episodes: list[Labelled], seen: list[int]) -> Any:
    from fewshot_lib.evaluation import dice

    unseen = [episode for episode in episodes if episode[4] not in seen]
    if len(unseen) == 0:
        raise ValueError("none unseen")
    with torch.no_grad():
        network.eval()
        return torch.stack(
            [
                torch.as_tensor(dice(network(s, m, q).argmax(0) == 1, t[1] > 0))
                for s, m, queries, targets, _ in unseen
                for q, t in zip(queries, targets, strict=True)
            ]
        ).mean()


UNSEEN = "notebook 06, «What was seen, and what was not»; note §3.2"
MODE = "notebook 06, «Evaluation: the network's mode»"

EVALUATE_UNSEEN = Answer(
    name="evaluate_unseen",
    reference=evaluate_unseen,
    section=UNSEEN,
    withhold=GIVEN_AWAY,
    kind="repair",
    checks=[
        Check("the organ's Dice, over organs that training did not see", _unseen_only, points=2),
        Check("the network is evaluated, not trained", _as_trained, pointer=MODE),
        Check("no graph of a query is kept", _much, pointer=MODE),
        Check("nothing unseen is refused", _all_seen, pointer=UNSEEN),
    ],
    mistakes=[
        Mistake(
            "as it was found",
            _found_evaluation,
            "This still does what the function you found does. Four things are to be looked for: "
            "which organs it counts, which channels, the network's mode, and what it keeps.",
            UNSEEN,
        ),
        Mistake(
            "seen organs counted",
            partial(_evaluated, use=lambda *_: True, empty=0.0),
            "Organs from training are in your mean. A few-shot network is judged by organs it has "
            "never been trained on; on the others it may simply remember.",
            UNSEEN,
        ),
        Mistake(
            "seen organs only",
            partial(_evaluated, use=lambda organ, seen: organ in seen),
            "Your condition is turned round: you count the organs of training and leave out the "
            "others.",
            UNSEEN,
        ),
        Mistake(
            "background counted",
            partial(_evaluated, measure=_background_too),
            "The background's Dice is in your mean. It is large and easy, and lifts every number.",
            UNSEEN,
        ),
        Mistake(
            "background alone",
            partial(_evaluated, measure=lambda p, t: _organ_dice(p == 0, t[0] > 0)),
            "You measured channel 0, the background. The organ is channel 1.",
            UNSEEN,
        ),
        Mistake(
            "share of equal pixels",
            partial(_evaluated, measure=_accuracy),
            "You measured the share of pixels that agree. Background is most of them; an empty "
            "prediction would do well. Asked is the organ's Dice.",
            "notebook 01",
        ),
        Mistake(
            "intersection over union",
            partial(_evaluated, measure=_jaccard),
            "You measured intersection over union. The Dice has twice the intersection above and "
            "the sum of the two sizes below.",
            "notebook 01",
        ),
        Mistake(
            "training mode",
            partial(_evaluated, train=True),
            "The network is still in training mode: its dropout works while you measure (and a "
            "batch norm would learn from the test). A module has a method for this.",
            MODE,
        ),
        Mistake(
            "graphs kept",
            partial(_evaluated, grad=True),
            "Each pass still builds a graph for gradients that nobody will ask for, and the list "
            "of scores keeps them all. It works until memory ends.",
            MODE,
        ),
        Mistake(
            "mean of episodes' means",
            partial(_evaluated, by_episode=True),
            "You averaged within each episode first. Asked is the mean over all queries, so that "
            "each counts the same.",
            UNSEEN,
        ),
        Mistake(
            "first query only",
            partial(_evaluated, queries_used=1),
            "You measured the first query of each episode only.",
            UNSEEN,
        ),
        Mistake(
            "nothing is zero",
            partial(_evaluated, empty=0.0),
            "With no unseen organ you returned 0, which reads like a network that fails. Nothing "
            "was measured; say so with ValueError.",
            UNSEEN,
        ),
        Mistake(
            "nothing is NaN",
            partial(_evaluated, empty=math.nan),
            "With no unseen organ you returned NaN, which travels into every mean that it meets. "
            "Refuse it with ValueError.",
            UNSEEN,
        ),
    ],
    variants=[
        V("counting pixels", _evaluate_loop),
        V("all queries of an episode at once", _evaluate_batch),
        V("numpy", _evaluate_detached),
        V("the library's Dice", _evaluate_library),
    ],
    hints=[
        "Ask the function as found for the Dice of a network that answers «background» everywhere. "
        "Then ask for it with `seen` changed.",
        "Four faults: `seen` is not used; two channels are averaged; the network is in training "
        "mode; gradients are recorded. And an empty mean is no result.",
        "In words: `network.eval()`; under `torch.no_grad()` pass over the episodes whose organ is "
        "not in `seen`; for each query the Dice of «arg-max is 1» with «channel 1 of its mask»; "
        "ValueError if there was none; the mean of all.",
    ],
    equivalent={
        "for query, target in zip(queries, targets, strict=True): → "
        "for query, target in zip(queries, targets):": "an episode has as many masks as queries",
        "for query, target in zip(queries, targets, strict=True): → "
        "for query, target in zip(queries, targets, strict=False):": (
            "an episode has as many masks as queries"
        ),
        "predicted = network(shots, shot_masks, query).argmax(dim=0) == 1 → "
        "predicted = network(shots, shot_masks, query).argmax(dim=0) >= 1": (
            "of two channels no arg-max is above 1"
        ),
    },
    difficulty=2,
    importance=5,
    minutes=15,
)

EPISODES_NEEDED = Prose(
    name="episodes_needed",
    points=3,
    rubric=[
        "says what an episode imitates: a task with new classes and a few labelled examples, so "
        "that training optimises what the test measures",
        "says that episodes are from Vinyals et al. 2016, and so not a contribution of the note's "
        "paper",
        "names an argument against: an episode uses each batch's examples only in the pairs of "
        "support and query, ordinary training or losses over all pairs use more of them",
        "says that training and test tasks need not have the same ways (Snell et al. train with "
        "more), so that the imitation cannot be the whole reason",
        "concludes that it is a question to be measured: same encoder, data and compute, organs "
        "that neither has seen, several seeds, the copied support mask beside it",
    ],
    model=(
        "An episode imitates the test: a few labelled support images of some classes and queries "
        "to be segmented with them, so that the loss is that of the task one wants to be good at. "
        "The idea is from Vinyals et al. 2016; the note counts it as a contribution of its paper. "
        "Whether it is needed is contested. Laenen and Bertinetto (2020) argue that for methods "
        "like prototypical networks, which learn nothing at test time, splitting a batch in "
        "support and query only throws pairs of examples away, and that training on all pairs does "
        "at least as well. Snell et al. themselves train with more ways than they test with, so "
        "that a literal imitation of the test cannot be what matters. An encoder trained as an "
        "ordinary classifier of pixels, with prototypes computed at test time, is therefore the "
        "baseline that an episodic network has to beat: same encoder, data and number of images, "
        "organs that neither has seen, several seeds, with the copied support mask beside both. "
        "Until that is measured, «simulates the few-shot scene» is a description and no reason."
    ),
)

EXERCISE = Exercise(
    number=6,
    name="training",
    title="Training on episodes",
    answers=[SEGMENTATION_LOSS, EPISODIC_TRAINING, PICK_SLICES, EVALUATE_UNSEEN],
    prose=[EPISODES_NEEDED],
)
