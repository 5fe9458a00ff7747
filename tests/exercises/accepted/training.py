"""Other right ways to write the answers of exercise 06."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fewshot_lib import training as library
from fewshot_lib.evaluation import dice

_IMAGE = (-3, -2, -1)


def segmentation_loss__loop_over_pixels(logits, masks):
    images = []
    size = logits.shape[-3:]
    for scores, truth in zip(logits.reshape(-1, *size), masks.reshape(-1, *size), strict=True):
        pixels = []
        for k, row, column in truth.nonzero().tolist():
            at = scores[:, row, column]
            if at[k] > -math.inf:
                pixels.append(float(at.logsumexp(0) - at[k]))
        images.append(sum(pixels) / len(pixels))
    return sum(images) / len(images)


def segmentation_loss__cross_entropy_with_ignore_index(logits, masks):
    scores = logits.reshape(-1, *logits.shape[-3:])
    truth = masks.reshape(scores.shape) * (scores > -math.inf)
    labels = truth.argmax(1).masked_fill(truth.sum(1) == 0, -100)
    pairs = zip(scores, labels, strict=True)
    return torch.stack([F.cross_entropy(one[None], label[None]) for one, label in pairs]).mean()


def segmentation_loss__numpy(logits, masks):
    z, m = logits.double().numpy(), masks.numpy()
    top = z.max(-3, keepdims=True)
    norm = np.log(np.exp(z - top).sum(-3, keepdims=True)) + top
    logs = np.where(np.isinf(z), 0.0, z - norm)
    counted = np.where(np.isinf(z), 0.0, m).sum(_IMAGE)
    return np.float32((-(m * logs).sum(_IMAGE) / counted).mean())


def segmentation_loss__a_very_negative_number(logits, masks):
    logs = logits.clamp_min(-1e9).log_softmax(-3)
    target = masks * (logits != -math.inf)
    return ((target * -logs).sum(_IMAGE) / target.sum(_IMAGE)).mean()


def episodic_training__functional_with_copies_of_the_weight(network, episodes, rate):
    name, weight = next((name, w.detach().clone()) for name, w in network.named_parameters())
    losses = []
    for support, masks, queries, targets in episodes:
        here = weight.requires_grad_()
        call = torch.func.functional_call
        each = [call(network, {name: here}, (support, masks, query)) for query in queries]
        loss = -(torch.stack(each).log_softmax(1) * targets).sum(1).mean()
        weight = (here - rate * torch.autograd.grad(loss, here)[0]).detach()
        losses.append(float(loss))
    return losses, weight


def episodic_training__backward_query_by_query_emptied_after_the_step(network, episodes, rate):
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    losses = np.zeros(len(episodes), dtype=np.float32)
    for i, (support, masks, queries, targets) in enumerate(episodes):
        for query, target in zip(queries, targets, strict=True):
            logits = network(support, masks, query)
            share = F.cross_entropy(logits[None], target[None]) / len(queries)
            share.backward()
            losses[i] += share.item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    return losses, network.weight.detach().numpy()


def episodic_training__the_librarys_epoch(network, episodes, rate):
    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network

        def forward(self, support, masks, queries):
            return torch.stack([self.inner(support, masks, query) for query in queries])

    whole = [library.SegmentationEpisode(*episode) for episode in episodes]
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    result = library.episodic_training_epoch(Many(), whole, optimizer, len(whole), progress=False)
    return torch.tensor(result.losses), network.weight.detach()


def pick_slices__lists(subjects, presence, classes, k_shot, n_query):
    people = sorted(set(subjects.tolist()))
    supporters = set(people[: len(people) // 2])
    if len(classes) != len(set(classes.tolist())):
        raise ValueError("twice")
    support, query = [], []
    for number in classes.tolist():
        shots, asked = [], []
        for i, person in enumerate(subjects.tolist()):
            if presence[i, number]:
                (shots if person in supporters else asked).append(i)
        if len(shots) < k_shot or len(asked) < n_query:
            raise ValueError("too few")
        support.append(shots[:k_shot])
        query.append(asked[:n_query])
    return support, query


def pick_slices__numpy(subjects, presence, classes, k_shot, n_query):
    who, shown, wanted = subjects.numpy(), presence.numpy(), classes.numpy()
    if len(np.unique(wanted)) < len(wanted):
        raise ValueError("twice")
    people = np.unique(who)
    supports = np.isin(who, people[: len(people) // 2])
    rows = [[np.flatnonzero(shown[:, c] & s) for c in wanted] for s in (supports, ~supports)]
    for side, n in zip(rows, (k_shot, n_query), strict=True):
        if any(len(found) < n for found in side):
            raise ValueError("too few")
    return np.stack([r[:k_shot] for r in rows[0]]), np.stack([r[:n_query] for r in rows[1]])


def pick_slices__all_classes_at_once_by_topk(subjects, presence, classes, k_shot, n_query):
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


def evaluate_unseen__counting_pixels(network, episodes, seen):
    network.eval()
    total, count = 0.0, 0
    for support, masks, queries, targets, organ in episodes:
        if organ in set(seen):
            continue
        for query, target in zip(queries, targets, strict=True):
            with torch.no_grad():
                logits = network(support, masks, query)
            inside = (logits[1] > logits[0]).flatten().tolist()
            truth = (target[1] > 0).flatten().tolist()
            both = sum(p and t for p, t in zip(inside, truth, strict=True))
            total += 2 * both / (sum(inside) + sum(truth))
            count += 1
    if not count:
        raise ValueError("none unseen")
    return total / count


@torch.inference_mode()
def evaluate_unseen__all_queries_of_an_episode_at_once(network, episodes, seen):
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


def evaluate_unseen__the_librarys_dice(network, episodes, seen):
    unseen = [episode for episode in episodes if episode[4] not in seen]
    if len(unseen) == 0:
        raise ValueError("none unseen")
    with torch.no_grad():
        network.eval()
        scores = [
            torch.as_tensor(dice(network(s, m, q).argmax(0) == 1, t[1] > 0))
            for s, m, queries, targets, _ in unseen
            for q, t in zip(queries, targets, strict=True)
        ]
    return torch.stack(scores).mean()
