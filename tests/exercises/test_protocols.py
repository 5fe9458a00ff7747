"""Exercise 07's references against the library's own protocols, which work on volumes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_lib.episodes import Volume
from fewshot_lib.evaluation import Protocol, evaluate, segment_volume
from fewshot_lib.exercises.protocols import ep1, ep2


def numbered(mask, subject):
    """Make a volume whose slices show their own number, so that a model can look itself up."""
    images = torch.arange(len(mask)).float().view(-1, 1, 1, 1).expand(-1, 1, *mask.shape[1:])
    return Volume(images.clone(), mask.long(), ("background", "organ"), subject)


def looking_up(predictions):
    """Give a model that answers from a table of predictions (S, Z, H, W)."""

    def model(images, masks, queries):
        assert len(images) == 1
        found = predictions[int(images[0, 0, 0, 0]), queries[:, 0, 0, 0].long()]
        return torch.stack([~found, found], dim=1).float()

    return model


@st.composite
def tasks(draw):
    """Draw predictions, two masks and a number of chunks that the support can serve."""
    chunks = draw(st.integers(1, 4))
    n, length = draw(st.integers(chunks, 9)), draw(st.integers(1, 9))
    first, start = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    g = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    support = torch.rand(first + n + 2, 3, 4, generator=g) < 0.4
    query = torch.rand(start + length + 2, 3, 4, generator=g) < 0.4
    support[:first] = support[first + n :] = False
    query[:start] = query[start + length :] = False
    support[[first, first + n - 1], 1, 1] = True
    query[[start, start + length - 1], 1, 1] = True
    predictions = torch.rand(len(support), *query.shape, generator=g) < 0.5
    return predictions, support, query, chunks


@settings(max_examples=60, deadline=None)
@given(tasks())
def test_both_protocols_of_the_exercise_are_the_librarys(task):
    predictions, support, query, chunks = task
    model, one, other = looking_up(predictions), numbered(support, "a"), numbered(query, "b")
    for protocol, (volume, dice) in (
        (Protocol("EP1", chunks, "a"), ep1(predictions, support, query, chunks)),
        (Protocol("EP2", 1, "a"), ep2(predictions, support, query)),
    ):
        made, _ = segment_volume(model, one, other, "organ", protocol)
        assert torch.equal(made, volume)
        [row] = evaluate(model, [one, other], protocol).rows
        assert row.dice == pytest.approx(float(dice), nan_ok=True)
