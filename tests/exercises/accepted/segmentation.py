"""Other right ways to write the answers of exercises 05 and 09."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from fewshot_lib import evaluation
from fewshot_lib import prototypes as library


def note_prototypes__the_notes_loop_over_classes(features, masks):
    _, _, height, width = features.shape
    down = F.interpolate(masks.float(), size=(height, width), mode="nearest")
    rows = []
    for k in range(masks.shape[1]):
        mask = down[:, k : k + 1, :, :]
        rows.append((features * mask).sum(dim=0) / (mask.sum(dim=0) + 1e-5))
    return torch.stack(rows, dim=0)


def note_prototypes__numpy_nearest_by_index(features, masks):
    f, (height, width) = features.numpy(), features.shape[-2:]
    rows = np.arange(height) * masks.shape[-2] // height
    columns = np.arange(width) * masks.shape[-1] // width
    small = masks.numpy()[..., rows[:, None], columns].astype(f.dtype)
    return np.einsum("sdhw,skhw->kdhw", f, small) / (small.sum(0)[:, None] + 1e-5)


def shift_test__numpy(segment, image, mask, shift):
    moved_image, moved_mask = (np.roll(a.numpy(), shift, axis=(0, 1)) for a in (image, mask))
    if (moved_mask == mask.numpy()).all():
        raise ValueError("nothing moved")
    found = segment(image, mask, torch.from_numpy(moved_image)).numpy()
    overlap = np.logical_and(found, moved_mask).sum()
    dice = float(2 * overlap / (found.sum() + moved_mask.sum()))
    return dice, float(np.mean(found == mask.numpy()))


def shift_test__moved_by_index(segment, image, mask, shift):
    height, width = image.shape
    rows = (torch.arange(height) - shift[0]) % height
    columns = (torch.arange(width) - shift[1]) % width
    target = mask[rows[:, None], columns]
    if not (target ^ mask).any():
        raise ValueError("nothing moved")
    found = segment(image, mask, image[rows[:, None], columns])
    both, either = (found & target).sum().item(), (found | target).sum().item()
    return 2 * both / (both + either), 1 - (found ^ mask).double().mean().item()


def shift_test__the_librarys_dice(segment, image, mask, shift):
    moved = mask.roll(tuple(shift), (0, 1))
    if moved.equal(mask):
        raise ValueError("nothing moved")
    found = segment(image, mask, image.roll(tuple(shift), (0, 1)))
    return evaluation.dice(found, moved), (found == mask).double().mean()


def compute_prototypes__loop_over_episodes_classes_and_shots(features, masks):
    if features.ndim > 4:
        pairs = zip(features, masks, strict=True)
        found = [compute_prototypes__loop_over_episodes_classes_and_shots(f, m) for f, m in pairs]
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


def _large(features, masks):
    flat = F.interpolate(features.flatten(0, -4), size=masks.shape[-2:], mode="bilinear")
    return flat.view(*features.shape[:-2], *masks.shape[-2:]), masks.to(features.dtype)


def compute_prototypes__matrix_product(features, masks):
    large, weights = _large(features, masks)
    inside = weights.movedim(-3, -4).flatten(-3)  # (…, K, S·H·W)
    values = large.movedim(-3, -1).flatten(-4, -2)  # (…, S·H·W, D)
    mass = inside.sum(-1, keepdim=True)
    return ((inside @ values) / mass).nan_to_num(0.0), mass[..., 0] != 0


def compute_prototypes__a_tiny_number_below(features, masks):
    large, weights = _large(features, masks)
    weights, large = weights[..., None, :, :], large[..., None, :, :, :]
    total = (weights * large).sum((-5, -2, -1))
    mass = weights.sum((-5, -2, -1))
    return total / (mass + 1e-6), mass[..., 0] > 0


def compute_prototypes__numpy(features, masks):
    large, weights = (array.numpy() for array in _large(features, masks))
    mass = weights.sum(axis=(-4, -2, -1))
    with np.errstate(invalid="ignore"):
        means = np.einsum("...skhw,...sdhw->...kd", weights, large) / mass[..., None]
    return np.where(mass[..., None] > 0, means, 0), mass > 0


def match_features__loop_over_queries_and_classes(queries, prototypes, valid, scale=20.0):
    if queries.ndim > 4:
        parts = zip(queries, prototypes, valid, strict=True)
        each = match_features__loop_over_queries_and_classes
        return torch.stack([each(*part, scale) for part in parts])
    rows = []
    for query in queries:
        for prototype, known in zip(prototypes, valid, strict=True):
            cosine = F.cosine_similarity(query, prototype[:, None, None].expand_as(query), dim=0)
            rows.append(scale * cosine if known else torch.full_like(cosine, -math.inf))
    return torch.stack(rows).view(len(queries), len(prototypes), *queries.shape[-2:])


def match_features__broadcast_cosine_similarity(queries, prototypes, valid, scale=20.0):
    rows, columns = queries[..., :, None, :, :, :], prototypes[..., None, :, :, None, None]
    bias = torch.zeros(valid.shape).masked_fill(~valid, -math.inf)
    return scale * F.cosine_similarity(rows, columns, dim=-3) + bias[..., None, :, None, None]


def match_features__the_librarys_cosine_on_a_list_of_pixels(queries, prototypes, valid, scale=20.0):
    flat = queries.movedim(-3, -1).flatten(-4, -2)  # (…, Q·H'·W', D)
    cosine = scale * library.cosine_similarity(flat, prototypes)
    cosine = cosine.masked_fill(~valid[..., None, :], -math.inf)
    shape = (*queries.shape[:-3], *queries.shape[-2:], prototypes.shape[-2])
    return cosine.view(shape).movedim(-1, -3)


def match_features__numpy(queries, prototypes, valid, scale=20.0):
    q, c = queries.numpy(), prototypes.numpy()
    lengths = np.linalg.norm(q, axis=-3, keepdims=True)
    cosine = np.einsum(
        "...qdhw,...kd->...qkhw",
        q / np.where(lengths == 0, 1, lengths),
        c / np.maximum(np.linalg.norm(c, axis=-1, keepdims=True), 1e-9),
    )
    return np.where(valid.numpy()[..., None, :, None, None], scale * cosine, -np.inf)


def _up(logits, size):
    flat = F.interpolate(logits.flatten(0, -4), size=tuple(size), mode="bilinear")
    return flat.view(*logits.shape[:-2], *size)


def predict__class_by_class(logits, size):
    if logits.ndim > 3:
        return torch.stack([predict__class_by_class(part, size) for part in logits])
    maps = []
    for channel in logits:
        if channel.isinf().any():
            maps.append(torch.full(tuple(size), -math.inf, dtype=logits.dtype))
        else:
            maps.append(_up(channel[None, None], size)[0, 0])
    return torch.stack(maps).argmax(0)


def predict__a_very_negative_number(logits, size):
    return _up(logits.masked_fill(logits.isneginf(), -1e6), size).argmax(-3)


def predict__nan_back_to_minus_infinity(logits, size):
    return _up(logits, size).nan_to_num(nan=-math.inf, neginf=-math.inf).argmax(-3)
