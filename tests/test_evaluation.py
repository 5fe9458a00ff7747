"""Dice against MONAI and SciPy, intervals against SciPy, protocols against their own words."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fewshot_lib.episodes import Volume
from fewshot_lib.evaluation import (
    EP1,
    EP2,
    Evaluation,
    Interval,
    Protocol,
    Row,
    bootstrap_interval,
    chunk_centres,
    copy_mask_baseline,
    dice,
    episode_dice,
    evaluate,
    mean_slice_dice,
    segment_volume,
    volume_dice,
)
from fewshot_lib.networks import FewShotSegmentationNet


def random_masks(seed: int, *shape: int, share: float = 0.4) -> Tensor:
    """Draw bool masks."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator) < share


def make_volume(subject: str, extent: range, n_slices: int = 12, offset: int = 0) -> Volume:
    """Make a volume with a bright liver in the slices of ``extent`` and a spleen in slice 1."""
    labels = torch.zeros(n_slices, 16, 16, dtype=torch.int64)
    labels[extent.start : extent.stop, 4 + offset : 10 + offset, 4:10] = 1
    labels[1, 0:2, 0:2] = 2
    images = (labels == 1).float()[:, None]
    return Volume(images, labels, ("background", "liver", "spleen"), subject, site="here")


# Dice


@given(st.integers(0, 2**31), st.floats(0.05, 0.95))
@settings(max_examples=30, deadline=None)
def test_dice_agrees_with_scipy_and_is_symmetric_bounded_and_blind_to_where_pixels_lie(seed, share):
    first = random_masks(seed, 3, 7, 5, share=share)
    second = random_masks(seed + 1, 3, 7, 5, share=0.5)
    found = dice(first, second)
    for slice_, value in enumerate(found.tolist()):
        a, b = (mask[slice_].flatten().numpy() for mask in (first, second))
        if a.any() or b.any():
            assert value == pytest.approx(1 - scipy.spatial.distance.dice(a, b), abs=1e-12)
    known = found[~found.isnan()]
    assert ((known >= 0) & (known <= 1)).all()
    torch.testing.assert_close(dice(second, first), found, equal_nan=True)
    shuffled = torch.randperm(35, generator=torch.Generator().manual_seed(seed))
    moved = [mask.flatten(1)[:, shuffled].view(3, 7, 5) for mask in (first, second)]
    torch.testing.assert_close(dice(*moved), found, equal_nan=True)
    assert (dice(first, first)[first.flatten(1).any(1)] == 1).all()


def test_dice_agrees_with_monai_and_leaves_the_empty_slice_out_likewise():
    from monai.metrics import DiceMetric

    first, second = random_masks(1, 4, 9, 6), random_masks(2, 4, 9, 6)
    first[2], second[2] = False, False
    metric = DiceMetric(include_background=True, reduction="none", ignore_empty=True)
    oracle = metric(first[:, None].float(), second[:, None].float())[:, 0].double()
    torch.testing.assert_close(dice(first, second), oracle, equal_nan=True, rtol=1e-6, atol=1e-7)
    metric = DiceMetric(include_background=True, reduction="none", ignore_empty=True)
    whole = metric(first[None, None].float(), second[None, None].float())[0, 0].double()
    torch.testing.assert_close(volume_dice(first, second), whole, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("empty", [0.0, 1.0, math.nan])
def test_two_empty_masks_have_the_dice_that_was_asked_for(empty):
    nothing, something = torch.zeros(2, 4, 4), torch.ones(2, 4, 4)
    for value in dice(nothing, nothing, empty).tolist():
        assert value == empty or (math.isnan(value) and math.isnan(empty))
    assert dice(nothing, something, empty).tolist() == [0, 0]
    assert volume_dice(nothing, something, empty).item() == 0


def test_one_prediction_has_a_mean_slice_dice_of_a_third_and_a_volume_dice_above_nine_tenths():
    target = torch.zeros(6, 40, 40, dtype=torch.bool)
    target[0] = True  # one large slice, and five that show a few pixels
    target[1:, 0, :3] = True
    prediction = torch.zeros_like(target)
    prediction[0, 2:] = True
    prediction[1:, 0, 2:8] = True
    assert volume_dice(prediction, target).item() > 0.9
    assert mean_slice_dice(prediction, target).item() < 0.4


def test_the_rule_for_empty_slices_changes_the_mean_but_not_the_volume_dice():
    target, prediction = torch.zeros(2, 5, 4, 4)
    target[0], prediction[0, :2] = 1, 1
    by_rule = [mean_slice_dice(prediction, target, empty).item() for empty in (math.nan, 0.0, 1.0)]
    assert by_rule == pytest.approx([2 / 3, 2 / 15, 14 / 15])
    assert volume_dice(prediction, target).item() == pytest.approx(2 / 3)
    assert math.isnan(mean_slice_dice(torch.zeros(2, 3, 3), torch.zeros(2, 3, 3)).item())


def test_dice_takes_any_leading_dimensions_any_binary_type_and_any_layout():
    prediction, target = random_masks(1, 2, 3, 5, 4), random_masks(2, 5, 4)
    expected = torch.stack([torch.stack([dice(m, target) for m in row]) for row in prediction])
    for kind in (torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64):
        torch.testing.assert_close(dice(prediction.to(kind), target), expected)
    strided = prediction.mT.contiguous().mT
    assert not strided.is_contiguous()
    torch.testing.assert_close(dice(strided, target), expected)
    assert dice(torch.ones(1, 1), torch.ones(1, 1)).item() == 1
    assert dice(torch.ones(0, 4, 4), torch.ones(0, 4, 4)).shape == (0,)


def test_dice_refuses_what_is_no_pair_of_masks():
    mask = torch.ones(3, 4, 4)
    with pytest.raises(ValueError, match=r"prediction must hold 0 and 1 only.*thresholded"):
        dice(mask * 0.5, mask)
    with pytest.raises(ValueError, match="target must hold 0 and 1 only"):
        dice(mask, mask.long() * 2)
    with pytest.raises(ValueError, match="must hold 0 and 1 only"):
        dice(mask * math.nan, mask)
    with pytest.raises(ValueError, match="of one size"):
        dice(mask, torch.ones(3, 4, 1))
    with pytest.raises(ValueError, match=r"must be \(…, H, W\)"):
        dice(torch.ones(4), torch.ones(4))
    with pytest.raises(ValueError, match=r"must be \(…, Z, H, W\)"):
        volume_dice(mask[0], mask[0])


# The baseline


def test_the_copied_mask_of_one_support_image_is_that_mask():
    labels = torch.randint(0, 4, (1, 6, 5), generator=torch.Generator().manual_seed(0))
    masks = nn.functional.one_hot(labels, 4).movedim(-1, -3)
    assert (copy_mask_baseline(masks).argmax(-3) == labels[0]).all()


def test_several_support_masks_vote():
    labels = torch.tensor([[[0, 1, 2]], [[0, 1, 1]], [[2, 1, 1]]])
    masks = nn.functional.one_hot(labels, 3).movedim(-1, -3).bool()
    assert copy_mask_baseline(masks).argmax(-3).tolist() == [[0, 1, 1]]
    episodes = copy_mask_baseline(masks.expand(2, -1, -1, -1, -1))
    assert episodes.shape == (2, 3, 1, 3)
    torch.testing.assert_close(episodes.sum(-3), torch.ones(2, 1, 3))
    with pytest.raises(ValueError, match="S ≥ 1"):
        copy_mask_baseline(masks[:0])


# Intervals


@pytest.mark.parametrize(("method", "theirs"), [("percentile", "percentile"), ("bca", "BCa")])
def test_intervals_agree_with_scipy(method, theirs):
    values = torch.rand(25, generator=torch.Generator().manual_seed(3)).square()
    ours = bootstrap_interval(values, 0.9, method, n_resamples=20_000)
    oracle = scipy.stats.bootstrap(
        (values.double().numpy(),),
        np.mean,
        confidence_level=0.9,
        method=theirs,
        n_resamples=20_000,
        rng=0,
    ).confidence_interval
    width = float(oracle.high - oracle.low)
    assert ours.estimate == pytest.approx(values.mean().item())
    assert ours.low == pytest.approx(float(oracle.low), abs=0.03 * width)
    assert ours.high == pytest.approx(float(oracle.high), abs=0.03 * width)
    assert ours.n == ours.n_groups == 25


@given(st.integers(0, 2**31), st.sampled_from(["percentile", "bca"]))
@settings(max_examples=20, deadline=None)
def test_an_interval_moves_and_stretches_with_its_values(seed, method):
    values = torch.randn(12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    base = bootstrap_interval(values, method=method, n_resamples=400)
    assert values.min() <= base.low <= base.high <= values.max()
    moved = bootstrap_interval(3 * values + 5, method=method, n_resamples=400)
    for name in ("estimate", "low", "high"):
        assert getattr(moved, name) == pytest.approx(3 * getattr(base, name) + 5)


def test_the_same_seed_gives_the_same_interval_and_another_another():
    values = torch.rand(9, generator=torch.Generator().manual_seed(0))
    assert bootstrap_interval(values, seed=4) == bootstrap_interval(values, seed=4)
    assert bootstrap_interval(values, seed=4) != bootstrap_interval(values, seed=5)


def test_nans_are_left_out_and_counted():
    with_gaps = [0.2, math.nan, 0.4, 0.9, math.nan]
    found = bootstrap_interval(with_gaps)
    assert found == bootstrap_interval([0.2, 0.4, 0.9])
    assert found.n == 3
    nothing = bootstrap_interval([math.nan])
    assert math.isnan(nothing.estimate)
    assert nothing.n == 0


def test_values_of_one_group_are_drawn_together():
    # Ten equal slices of each of four subjects say no more than four values.
    subjects = torch.tensor([0.1, 0.5, 0.6, 0.9])
    slices, groups = subjects.repeat_interleave(10), torch.arange(4).repeat_interleave(10)
    clustered = bootstrap_interval(slices, groups=groups)
    four = bootstrap_interval(subjects)
    assert (clustered.low, clustered.high) == pytest.approx((four.low, four.high))
    assert (clustered.n, clustered.n_groups) == (40, 4)
    alone = bootstrap_interval(slices)
    assert alone.high - alone.low < 0.6 * (four.high - four.low)  # pretending they are forty
    named = bootstrap_interval(slices, groups=[f"s{number}" for number in groups.tolist()])
    assert named == clustered


def pairs_of_people(n: int, seed: int, per_pair: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Simulate y_ij = a_i + 0.8 a_j + noise of all pairs i ≠ j of n people; its mean is 0."""
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.cartesian_prod(torch.arange(n), torch.arange(n)).unbind(1)
    apart = (first != second).repeat_interleave(per_pair)
    first, second = (role.repeat_interleave(per_pair)[apart] for role in (first, second))
    person = torch.randn(n, generator=generator)
    noise = 0.5 * torch.randn(len(first), generator=generator)
    return person[first] + 0.8 * person[second] + noise, first, second


def test_pairs_are_resampled_as_a_loop_over_drawn_people_does_it():
    values, first, second = pairs_of_people(6, seed=1, per_pair=2)
    found = bootstrap_interval(values, groups=first, second_groups=second, n_resamples=20_000)
    table = {
        (i, j): values[(first == i) & (second == j)].tolist() for i in range(6) for j in range(6)
    }
    rng, means = np.random.default_rng(0), []
    for _ in range(8000):
        drawn = rng.integers(6, size=6).tolist()
        means.append(np.mean([y for i in drawn for j in drawn for y in table[i, j]] or np.nan))
    low, high = np.nanquantile(means, [0.025, 0.975])
    assert found.estimate == pytest.approx(values.mean().item())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))
    assert (found.n, found.n_groups) == (60, 6)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_over_pairs_cover_the_truth_where_those_over_one_role_do_not(method):
    covered = {"one role": 0, "both roles": 0}
    for seed in range(200):
        values, first, second = pairs_of_people(12, seed)
        for name, roles in (("one role", {}), ("both roles", {"second_groups": second})):
            found = bootstrap_interval(
                values, method=method, groups=first, n_resamples=400, seed=seed, **roles
            )
            covered[name] += found.low <= 0 <= found.high
    assert covered["one role"] < 0.75 * 200
    assert covered["both roles"] > 0.85 * 200


def test_the_two_roles_of_a_pair_may_be_exchanged():
    values, first, second = pairs_of_people(5, seed=0)
    names = [f"p{i}" for i in first.tolist()], [f"p{i}" for i in second.tolist()]
    one = bootstrap_interval(values, groups=names[0], second_groups=names[1])
    other = bootstrap_interval(values, groups=names[1], second_groups=names[0])
    assert one.n_groups == 5
    width = one.high - one.low
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.1 * width)
    few = second < 2
    for pair in (few & (first < 2), first < 0):  # two people, nobody
        assert math.isnan(
            bootstrap_interval(values[pair], groups=first[pair], second_groups=second[pair]).low
        )


def test_one_subject_has_no_interval():
    found = bootstrap_interval([0.3, 0.5], groups=["a", "a"])
    assert found.estimate == pytest.approx(0.4)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_equal_values_have_an_interval_of_no_width_by_both_methods():
    for method in ("percentile", "bca"):
        found = bootstrap_interval([0.25] * 6, method=method)
        assert (found.low, found.estimate, found.high) == (0.25, 0.25, 0.25)
    assert str(Interval(0.712, 0.65, 0.77, 5, 5, 0.95)) == "0.71 [0.65, 0.77]"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "normal"}, '"percentile" or "bca"'),
        ({"confidence": 95}, "95 % is 0.95"),
        ({"n_resamples": 0}, "n_resamples"),
        ({"groups": ["a"]}, "2 values, 1 labels"),
        ({"groups": "ab", "second_groups": "a"}, "second_groups .* 2 values, 1 labels"),
        ({"second_groups": "ab"}, "second_groups needs groups"),
    ],
)
def test_intervals_refuse_settings_without_meaning(options, said):
    with pytest.raises(ValueError, match=said):
        bootstrap_interval([0.1, 0.2], **options)
    with pytest.raises(ValueError, match=r"must be \(N,\)"):
        bootstrap_interval(torch.zeros(2, 2))


# Protocols


@given(st.integers(0, 30), st.integers(0, 40), st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_chunk_centres_lie_in_the_middle_of_their_own_chunk(first, more, chunks):
    last = first + more
    centres = chunk_centres(first, last, chunks)
    n = last - first + 1
    assert len(centres) == chunks
    if chunks <= n:
        for chunk, centre in enumerate(centres):
            members = [z for z in range(first, last + 1) if (z - first) * chunks // n == chunk]
            assert centre in members
            assert abs(centre - (members[0] + members[-1]) / 2) <= 1
    with pytest.raises(ValueError, match="first ≤ last"):
        chunk_centres(first, first - 1, chunks)


class Recorder:
    """A segmenter that remembers what it was asked, and thresholds the query."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, images: Tensor, masks: Tensor, queries: Tensor) -> Tensor:
        self.calls.append((images, masks, queries))
        return torch.cat([torch.full_like(queries, 0.5), queries], dim=1)


def number_slices(volume: Volume) -> Volume:
    """Write each slice's number into a corner pixel."""
    images = volume.images.clone()
    images[:, 0, 15, 15] = -torch.arange(len(images)).float()
    return Volume(images, volume.labels, volume.names, volume.subject)


def slices_of(images: Tensor) -> list[int]:
    """Read the slices' numbers."""
    return (-images[:, 0, 15, 15]).int().tolist()


def test_ep1_asks_within_the_query_s_extent_chunk_by_chunk():
    support = number_slices(make_volume("a", range(2, 11)))  # 9 slices: chunks 2-4, 5-7, 8-10
    query = number_slices(make_volume("b", range(3, 9)))  # 6 slices: chunks 3-4, 5-6, 7-8
    recorder = Recorder()
    predicted, asked = segment_volume(recorder, support, query, "liver", EP1)
    assert [slices_of(images) for images, _, _ in recorder.calls] == [[3], [6], [9]]
    assert [slices_of(queries) for _, _, queries in recorder.calls] == [[3, 4], [5, 6], [7, 8]]
    assert asked.nonzero()[:, 0].tolist() == [3, 4, 5, 6, 7, 8]
    assert (predicted == query.mask("liver")).all()
    for images, masks, _ in recorder.calls:
        assert (masks[:, 1] == (images[:, 0] == 1)).all()
        assert (masks.sum(1) == 1).all()


def test_ep2_shows_the_middle_slice_and_asks_for_all_slices():
    support, query = (number_slices(make_volume(s, range(2, 11))) for s in "ab")
    recorder = Recorder()
    _, asked = segment_volume(recorder, support, query, "liver", EP2, batch_size=5)
    assert {tuple(slices_of(images)) for images, _, _ in recorder.calls} == {(6,)}
    assert [slices_of(q) for _, _, q in recorder.calls] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
        [10, 11],
    ]
    assert asked.all()
    segment_volume(recorder, support, query, "liver", Protocol("EP2", 3))
    assert slices_of(recorder.calls[-1][0]) == [3, 6, 9]


def test_ep2_never_looks_at_the_query_s_labels():
    support, query = (make_volume(s, range(2, 11)) for s in "ab")
    blank = Volume(query.images, torch.zeros_like(query.labels), query.names, "b")
    with_labels, without = (
        segment_volume(Recorder(), support, volume, "liver", EP2)[0] for volume in (query, blank)
    )
    assert (with_labels == without).all()
    assert not segment_volume(Recorder(), support, blank, "liver", EP1)[1].any()  # EP1 leaks


def test_each_subject_is_queried_once_with_the_next_and_never_with_itself():
    volumes = [make_volume(s, range(2, 9), offset=o) for o, s in enumerate("abcd")]
    rows = evaluate(Recorder(), volumes, EP2, ["liver"]).rows
    assert [(row.subject, row.support_subject) for row in rows] == list(
        zip("abcd", "bcda", strict=True)
    )
    assert all(row.dice == 1 for row in rows)
    assert all(row.copied < 1 and row.slices == 12 and row.site == "here" for row in rows)
    everyone = evaluate(Recorder(), volumes, Protocol("EP2", support="all"), ["liver"]).rows
    assert len(everyone) == 12
    assert all(row.subject != row.support_subject for row in everyone)
    by_one = evaluate(Recorder(), volumes, Protocol("EP1", 3, "c"), ["liver"]).rows
    assert [(row.subject, row.support_subject) for row in by_one] == list(
        zip("abd", "ccc", strict=True)
    )


def test_the_copied_mask_beside_each_row_is_the_baseline_itself():
    volumes = [make_volume("a", range(2, 9)), make_volume("b", range(3, 10), offset=3)]

    def copying(images: Tensor, masks: Tensor, queries: Tensor) -> Tensor:
        return copy_mask_baseline(masks).expand(len(queries), -1, -1, -1)

    for protocol in (EP1, EP2):
        for row in evaluate(copying, volumes, protocol).rows:
            assert row.dice == row.copied
    # By hand, EP2: the 6×6 square of the middle slice, moved by 3, over all 12 slices of b.
    row = evaluate(copying, volumes, EP2, ["liver"]).rows[1]
    assert row.copied == pytest.approx(2 * (7 * 3 * 6) / (12 * 36 + 7 * 36))


def test_the_note_s_network_scores_what_the_copied_mask_scores():
    volumes = [make_volume("a", range(2, 9)), make_volume("b", range(3, 10), offset=3)]
    net = FewShotSegmentationNet(
        prototypes="position", scale=1.0, encoder=nn.ConstantPad2d(0, 0.0), similarity="cosine"
    )
    bright = [
        Volume(volume.images + 1, volume.labels, volume.names, volume.subject) for volume in volumes
    ]
    for row in evaluate(net, bright, EP1, ["liver"]).rows:
        assert row.dice == row.copied


def test_a_query_without_the_organ_scores_zero_when_anything_is_marked():
    with_spleen = make_volume("a", range(2, 9))
    labels = with_spleen.labels.clone()
    labels[labels == 2] = 0
    without = Volume(with_spleen.images, labels, with_spleen.names, "b")
    marking = evaluate(Recorder(), [with_spleen, without], EP2, ["spleen"])
    assert [(row.subject, row.support_subject) for row in marking.rows] == [("b", "a")]
    assert marking.rows[0].dice == 0
    (row,) = evaluate(Recorder(), [with_spleen, without], EP1, ["spleen"]).rows
    assert math.isnan(row.dice)
    assert row.slices == 0


def test_next_looks_on_for_a_subject_that_shows_the_organ():
    volumes = [make_volume(s, range(2, 9)) for s in "abc"]
    labels = volumes[1].labels * (volumes[1].labels != 2)
    volumes[1] = Volume(volumes[1].images, labels, volumes[1].names, "b")
    rows = evaluate(Recorder(), volumes, EP2, ["spleen"]).rows
    assert [(row.subject, row.support_subject) for row in rows] == list(
        zip("abc", "cca", strict=True)
    )


def test_volumes_of_different_sizes_have_their_copied_mask_rescaled():
    small = make_volume("a", range(2, 9))
    large = Volume(
        small.images.repeat_interleave(2, -1).repeat_interleave(2, -2),
        small.labels.repeat_interleave(2, -1).repeat_interleave(2, -2),
        small.names,
        "b",
    )
    rows = evaluate(Recorder(), [small, large], EP1, ["liver"]).rows
    assert [(row.dice, row.copied) for row in rows] == [(1, 1), (1, 1)]


def test_intervals_over_subjects_do_not_count_pairs_as_evidence():
    rows = tuple(
        Row("liver", subject, support, score, 0.25, 3)
        for subject, score in (("a", 0.5), ("b", 0.75), ("c", 1.0))
        for support in "xyz"
    )
    evaluation = Evaluation(EP2, rows)
    found = evaluation.interval("liver")
    assert (found.n, found.n_groups) == (9, 3)
    assert found == bootstrap_interval(
        [row.dice for row in rows], groups=[row.subject for row in rows]
    )
    assert evaluation.interval(score="gain").estimate == pytest.approx(0.5)
    assert evaluation.interval(score="copied").estimate == pytest.approx(0.25)
    assert evaluation.organs == ("liver",)
    with pytest.raises(ValueError, match="no rows for 'spleen'; there are liver"):
        evaluation.interval("spleen")


def test_a_module_is_evaluated_in_evaluation_mode_without_gradients_and_given_back():
    class Watched(nn.Module):
        modes: tuple[tuple[bool, bool], ...] = ()

        def forward(self, images: Tensor, masks: Tensor, queries: Tensor) -> Tensor:
            self.modes += ((self.training, torch.is_grad_enabled()),)
            return torch.zeros(len(queries), 2, 16, 16)

    model = Watched()
    evaluate(model, [make_volume(s, range(2, 9)) for s in "ab"], EP2, ["liver"])
    assert set(model.modes) == {(False, False)}
    assert model.training


def test_evaluation_refuses_what_leaks_or_cannot_be_paired():
    volumes = [make_volume(s, range(2, 9)) for s in "ab"]
    with pytest.raises(ValueError, match="never the same person"):
        evaluate(Recorder(), [volumes[0], volumes[0]])
    with pytest.raises(ValueError, match="two or more"):
        evaluate(Recorder(), volumes[:1])
    with pytest.raises(ValueError, match='"next", "all" or one of a, b'):
        evaluate(Recorder(), volumes, Protocol("EP2", support="z"))
    with pytest.raises(ValueError, match="no class 'heart'"):
        evaluate(Recorder(), volumes, organs=["heart"])
    nobody = [Volume(v.images, v.labels * (v.labels != 2), v.names, v.subject) for v in volumes]
    with pytest.raises(ValueError, match="no two subjects can be paired for 'spleen'"):
        evaluate(Recorder(), nobody, organs=["spleen"])
    with pytest.raises(ValueError, match="shows no 'spleen'"):
        segment_volume(Recorder(), nobody[0], volumes[1], "spleen")
    with pytest.raises(ValueError, match=r"must return logits \(Q, 2, H, W\) = \(12, 2, 16, 16\)"):
        segment_volume(lambda i, m, q: q, volumes[0], volumes[1], "liver")
    with pytest.raises(ValueError, match="batch_size"):
        segment_volume(Recorder(), volumes[0], volumes[1], "liver", batch_size=0)
    with pytest.raises(ValueError, match='"EP1" or "EP2"'):
        Protocol("EP3")
    with pytest.raises(ValueError, match="chunks must be at least 1"):
        Protocol("EP1", 0)


def test_the_measures_raise_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean_slice_dice(torch.zeros(2, 3, 3), torch.zeros(2, 3, 3))
        bootstrap_interval([0.5, 0.5], method="bca")


# --- many episodes at once


def test_episode_dice_is_the_dice_of_each_class_of_each_query():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (5, 2, 9, 9), generator=generator)
    targets = torch.nn.functional.one_hot(labels, 3).movedim(-1, 2).float()
    supports = torch.zeros(5, 1, 1, 9, 9), torch.ones(5, 1, 3, 9, 9)
    logits = torch.randn(5, 2, 3, 9, 9, generator=generator)

    def given_logits(images, masks, queries):
        return logits[queries[:, 0, 0, 0, 0].long()]

    queries = torch.arange(5.0)[:, None, None, None, None].expand(5, 2, 1, 9, 9)
    found = episode_dice(given_logits, (*supports, queries, targets), batch_size=2)
    for e, q, k in np.ndindex(5, 2, 2):
        a, b = logits[e, q].argmax(0) == k + 1, labels[e, q] == k + 1
        assert found[e, q, k] == pytest.approx(float(2 * (a & b).sum() / (a.sum() + b.sum())))


def test_episode_dice_says_what_it_needs_and_leaves_the_model_as_it_was():
    net = FewShotSegmentationNet(encoder=nn.Conv2d(1, 2, 1)).train()
    images, masks = torch.rand(2, 1, 1, 8, 8), torch.ones(2, 1, 2, 8, 8)
    episode_dice(net, (images, masks, images, masks))
    assert net.training
    with pytest.raises(ValueError, match="expected support images"):
        episode_dice(net, (images[0], masks[0], images[0], masks[0]))
    with pytest.raises(ValueError, match="must return logits"):
        episode_dice(lambda *given: masks, (images, masks, images, masks[:, :, :1]))
