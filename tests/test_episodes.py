"""Episodes: N classes, K shots, disjoint support and query, and slices they can be drawn from."""

from collections import Counter
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from fewshot_lib.episodes import (
    Episode,
    EpisodeSampler,
    SliceDataset,
    Volume,
    draw_episode,
    split_episode,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def tasks(draw):
    """Labels with gaps, in any order, and an episode that fits them."""
    counts = draw(st.lists(st.integers(2, 7), min_size=1, max_size=6))
    values = draw(
        st.lists(st.integers(-50, 50), min_size=len(counts), max_size=len(counts), unique=True)
    )
    labels = [value for value, count in zip(values, counts, strict=True) for _ in range(count)]
    order = draw(st.permutations(range(len(labels))))
    n_way = draw(st.integers(1, len(counts)))
    k_shot = draw(st.integers(1, min(counts)))
    n_query = draw(st.integers(0, min(counts) - k_shot))
    return (
        torch.tensor([labels[i] for i in order]),
        n_way,
        k_shot,
        n_query,
        draw(st.integers(0, 99)),
    )


# --- draw_episode ---------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(tasks())
def test_an_episode_is_what_was_asked_for(task):
    labels, n_way, k_shot, n_query, seed = task
    episode = draw_episode(labels, n_way, k_shot, n_query, seeded(seed))
    assert episode.support_index.shape == (n_way, k_shot)
    assert episode.query_index.shape == (n_way, n_query)
    assert episode.classes.shape == (n_way,)
    assert len(set(episode.classes.tolist())) == n_way
    for row, label in enumerate(episode.classes.tolist()):
        assert set(labels[episode.support_index[row]].tolist()) == {label}
        assert set(labels[episode.query_index[row]].tolist()) <= {label}


@settings(max_examples=80, deadline=None)
@given(tasks())
def test_support_and_query_share_no_example_and_repeat_none(task):
    labels, n_way, k_shot, n_query, seed = task
    episode = draw_episode(labels, n_way, k_shot, n_query, seeded(seed))
    assert len(set(episode.indices.tolist())) == n_way * (k_shot + n_query)


@settings(max_examples=30, deadline=None)
@given(tasks())
def test_the_same_seed_draws_the_same_episode_and_moves_the_generator_on(task):
    labels, n_way, k_shot, n_query, seed = task
    generator = seeded(seed)
    first = draw_episode(labels, n_way, k_shot, n_query, generator)
    again = draw_episode(labels, n_way, k_shot, n_query, seeded(seed))
    assert torch.equal(first.indices, again.indices)
    assert torch.equal(first.classes, again.classes)
    assert not torch.equal(generator.get_state(), seeded(seed).get_state())


def test_every_choice_of_classes_and_examples_is_equally_likely():
    labels, generator, draws = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]), seeded(1), 6000
    pairs: Counter = Counter()
    examples: Counter = Counter()
    first_class: Counter = Counter()
    for _ in range(draws):
        episode = draw_episode(labels, 2, 1, 1, generator)
        pairs[tuple(sorted(episode.classes.tolist()))] += 1
        first_class[episode.classes[0].item()] += 1
        examples[(episode.support_index[0, 0].item(), episode.query_index[0, 0].item())] += 1
    expected = {pair: draws / 6 for pair in combinations(range(4), 2)}
    # Each bound is the 1e-6 quantile of the chi-squared law with the given degrees of freedom.
    assert chi_squared(pairs, expected) < 35.9  # 5
    assert chi_squared(first_class, dict.fromkeys(range(4), draws / 4)) < 30.7  # 3
    ordered = {
        (i, j): draws / 24 for i in range(12) for j in range(12) if i // 3 == j // 3 and i != j
    }
    assert chi_squared(examples, ordered) < 72.0  # 23


def chi_squared(seen: Counter, expected: dict) -> float:
    assert set(seen) == set(expected)
    return sum((seen[key] - mean) ** 2 / mean for key, mean in expected.items())


def test_episode_labels_number_the_rows():
    episode = draw_episode(torch.tensor([5, 5, 5, 9, 9, 9]), 2, 1, 2, seeded())
    assert episode.support_labels.tolist() == [[0], [1]]
    assert episode.query_labels.tolist() == [[0, 0], [1, 1]]
    assert episode.indices.tolist() == [
        *episode.support_index.flatten().tolist(),
        *episode.query_index.flatten().tolist(),
    ]


def test_labels_may_be_any_integer_type_and_non_contiguous():
    labels = torch.tensor([[4, 0], [4, 0], [8, 0], [8, 0]], dtype=torch.uint8)[:, 0]
    assert not labels.is_contiguous()
    assert sorted(draw_episode(labels, 2, 1, 1, seeded()).classes.tolist()) == [4, 8]


def test_a_class_with_too_few_examples_is_named_whether_or_not_it_is_drawn():
    labels = torch.tensor([1, 1, 1, 1, 2, 2, 2, 2, 7, 7])
    for seed in range(20):
        with pytest.raises(ValueError, match=r"class 7 has 2.*lower k_shot or n_query"):
            draw_episode(labels, 1, 2, 1, seeded(seed))


def test_more_ways_than_classes_is_refused():
    with pytest.raises(ValueError, match=r"n_way = 3 .* only 2"):
        draw_episode(torch.tensor([0, 0, 1, 1]), 3, 1, 1, seeded())


def test_no_labels_at_all_is_refused():
    with pytest.raises(ValueError, match="only 0"):
        draw_episode(torch.empty(0, dtype=torch.int64), 1, 1, 0, seeded())


@pytest.mark.parametrize(
    ("n_way", "k_shot", "n_query", "name"),
    [(0, 1, 1, "n_way"), (1, 0, 1, "k_shot"), (1, 1, -1, "n_query")],
)
def test_sizes_out_of_range_are_refused_by_name(n_way, k_shot, n_query, name):
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        draw_episode(torch.tensor([0, 0, 1, 1]), n_way, k_shot, n_query, seeded())


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.tensor([0.0, 1.0]), TypeError, "integer"),
        (torch.tensor([True, False]), TypeError, "integer"),
        ([0, 1], TypeError, "tensor"),
        (torch.zeros(2, 2, dtype=torch.int64), ValueError, r"\(N,\)"),
    ],
)
def test_labels_of_another_kind_are_refused(labels, error, message):
    with pytest.raises(error, match=message):
        draw_episode(labels, 1, 1, 0, seeded())


def test_a_size_or_generator_of_another_kind_is_refused():
    labels = torch.tensor([0, 0, 1, 1])
    with pytest.raises(TypeError, match="k_shot must be an integer, got float"):
        draw_episode(labels, 1, 1.0, 1, seeded())
    for generator in (None, 0):
        with pytest.raises(TypeError, match=r"use torch\.Generator\(\)\.manual_seed"):
            draw_episode(labels, 1, 1, 1, generator)


# --- EpisodeSampler -------------------------------------------------------------------------------

LABELS = torch.arange(40) % 5


def sampler(**changes) -> EpisodeSampler:
    settings = {"n_way": 3, "k_shot": 2, "n_query": 1, "num_episodes": 6, "seed": 4, **changes}
    return EpisodeSampler(LABELS, **settings)


def test_a_loader_serves_episodes_that_split_into_support_and_query():
    loader = DataLoader(TensorDataset(LABELS, torch.arange(40)), batch_sampler=sampler())
    assert len(loader) == 6
    for labels, index in loader:
        support, query = split_episode(labels, 3, 2, 1)
        assert support.shape == (3, 2)
        assert query.shape == (3, 1)
        assert torch.equal(support[:, :1], query)
        assert torch.equal(support[:, 0], support[:, 1])
        assert len(set(index.tolist())) == 9


def test_epochs_differ_and_seeds_differ_and_the_same_seed_repeats_both():
    one, other, third = sampler(), sampler(), sampler(seed=5)
    epochs = [list(one), list(one)]
    assert epochs == [list(other), list(other)]
    assert epochs[0] != epochs[1]
    assert list(third) not in epochs
    batches = [tuple(batch) for epoch in epochs for batch in epoch]
    assert len(set(batches)) == len(batches)


@pytest.mark.parametrize("stop", range(13))
def test_a_resumed_sampler_goes_on_where_the_saved_one_stood(stop):
    whole, broken, resumed = sampler(), sampler(), sampler()
    expected = [*whole, *whole, *whole]
    done, state = [], broken.state_dict()
    while len(done) < stop:
        for batch in broken:
            done.append(batch)
            state = broken.state_dict()
            if len(done) == stop:
                break
    resumed.load_state_dict(state)
    while len(done) < 18:
        done.extend(resumed)
    assert done == expected


def test_a_state_survives_torch_save_with_weights_only(tmp_path):
    first = sampler()
    iterator = iter(first)
    next(iterator)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = sampler()
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert list(second) == list(iterator)


def test_one_episode_can_be_asked_for_by_number():
    epoch = list(sampler())
    assert sampler().episode(0, 3).indices.tolist() == epoch[3]
    assert isinstance(sampler().episode(0, 3), Episode)


def test_a_state_of_other_settings_is_refused():
    with pytest.raises(ValueError, match="seed = 4 there, 5 here"):
        sampler(seed=5).load_state_dict(sampler().state_dict())
    with pytest.raises(ValueError, match="n_way = 3 there, 2 here"):
        sampler(n_way=2).load_state_dict(sampler().state_dict())
    with pytest.raises(ValueError, match="position must be"):
        sampler().load_state_dict({**sampler().state_dict(), "position": 7})


def test_a_sampler_refuses_at_construction_what_an_episode_would_refuse():
    with pytest.raises(ValueError, match="k_shot"):
        sampler(k_shot=8)
    with pytest.raises(ValueError, match="num_episodes"):
        sampler(num_episodes=0)
    with pytest.raises(ValueError, match="seed"):
        sampler(seed=-1)


def test_a_batch_of_another_size_does_not_split():
    with pytest.raises(ValueError, match=r"has 9 rows.*\(8,\)"):
        split_episode(torch.zeros(8), 3, 2, 1)


# --- Volume and SliceDataset ----------------------------------------------------------------------

NAMES = ("background", "liver", "spleen", "kidney")


def volume(subject: str, seed: int, names=NAMES, depth=5, size=(6, 7), channels=2) -> Volume:
    generator = seeded(seed)
    images = torch.rand(depth, channels, *size, generator=generator)
    labels = torch.randint(0, len(names), (depth, *size), generator=generator)
    labels[0] = 0
    return Volume(images, labels, names, subject)


def test_a_slice_dataset_relabels_its_classes_and_forgets_the_others():
    volumes = [volume("ada", 0), volume("bo", 1, names=("background", "kidney", "liver"), depth=3)]
    dataset = SliceDataset(volumes, ["kidney", "liver"])
    assert dataset.images.shape == (8, 2, 6, 7)
    assert dataset.labels.dtype == torch.int64
    assert dataset.subjects.tolist() == [0] * 5 + [1] * 3
    assert dataset.slice_index.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert dataset.subject_names == ("ada", "bo")
    whole = [torch.cat([v.mask(name) for v in volumes]) for name in ("kidney", "liver")]
    expected = whole[0].long() + 2 * whole[1].long()
    assert torch.equal(dataset.labels, expected)
    assert torch.equal(dataset.presence, torch.stack([m.flatten(1).any(1) for m in whole], dim=1))
    assert len(dataset) == 8
    image, labels = dataset[6]
    assert torch.equal(image, volumes[1].images[1])
    assert torch.equal(labels, expected[6])


def test_presence_counts_pixels():
    labels = torch.zeros(3, 4, 4, dtype=torch.int64)
    labels[1, 0, :3] = 1
    labels[2, 0, :] = 1
    dataset = SliceDataset([Volume(torch.zeros(3, 1, 4, 4), labels, NAMES, "a")], ["liver"], 4)
    assert dataset.presence[:, 0].tolist() == [False, False, True]


def test_volumes_of_one_subject_share_its_number():
    dataset = SliceDataset([volume("a", 0), volume("b", 1), volume("a", 2)], ["liver"])
    assert dataset.subjects.tolist() == [0] * 5 + [1] * 5 + [0] * 5


def test_excluded_organs_take_their_slices_with_them_however_small():
    labels = torch.ones(3, 4, 4, dtype=torch.int64)
    labels[1, 0, 0] = 2
    one = Volume(torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 4, 4), labels, NAMES, "a")
    dataset = SliceDataset([one], ["liver"], min_pixels=5, exclude=["spleen"])
    assert dataset.images[:, 0, 0, 0].tolist() == [0.0, 2.0]
    assert dataset.slice_index.tolist() == [0, 2]
    assert dataset.presence.shape == (2, 1)
    both = SliceDataset([one], ["liver", "spleen"]).select(classes=["liver"], exclude=["spleen"])
    assert torch.equal(both.images, dataset.images)
    assert both.classes == ("liver",)


def test_selecting_is_the_same_as_building_with_less():
    volumes = [volume(name, seed) for seed, name in enumerate(("a", "b", "c"))]
    chosen = SliceDataset(volumes, NAMES[1:], min_pixels=9).select(["kidney", "liver"], ["a", "c"])
    direct = SliceDataset([volumes[0], volumes[2]], ["kidney", "liver"], min_pixels=9)
    assert torch.equal(chosen.images, direct.images)
    assert torch.equal(chosen.labels, direct.labels)
    assert torch.equal(chosen.presence, direct.presence)
    assert torch.equal(chosen.slice_index, direct.slice_index)
    assert chosen.subjects.unique().tolist() == [0, 2]


def test_selecting_leaves_the_whole_as_it_was():
    whole = SliceDataset([volume("a", 0), volume("b", 1)], NAMES[1:])
    labels, n_slices = whole.labels.clone(), len(whole)
    assert len(whole.select(["spleen"], ["b"])) == 5
    assert torch.equal(whole.labels, labels)
    assert len(whole) == len(whole.images) == n_slices
    assert torch.equal(whole.select().labels, labels)


def test_a_slice_dataset_serves_a_loader():
    images, labels = next(iter(DataLoader(SliceDataset([volume("a", 0)], ["liver"]), batch_size=3)))
    assert images.shape == (3, 2, 6, 7)
    assert labels.shape == (3, 6, 7)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([], ["liver"]), ValueError, "at least one volume"),
        (([volume("a", 0)], []), ValueError, "at least one, got none"),
        (([volume("a", 0)], ["lung"]), ValueError, r"subject 'a' has no label for \['lung'\]"),
        (([volume("a", 0)], "liver"), TypeError, "list of names"),
        (([volume("a", 0)], ["liver", "liver"]), ValueError, "repeat"),
        (([volume("a", 0)], ["background"]), ValueError, "always label 0"),
        (([volume("a", 0)], ["liver"], 0), ValueError, "min_pixels"),
        (([volume("a", 0)], ["liver"], 1, ["lung"]), ValueError, "lung"),
        (([volume("a", 0), volume("b", 0, size=(7, 7))], ["liver"]), ValueError, "one shape"),
    ],
)
def test_a_slice_dataset_refuses_what_it_cannot_show(arguments, error, message):
    with pytest.raises(error, match=message):
        SliceDataset(*arguments)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"classes": ["lung"]}, r"classes \['lung'\] unknown here; there are liver"),
        ({"subjects": ["nobody"]}, "subjects"),
        ({"exclude": ["spleen"]}, "exclude"),
        ({"classes": []}, "at least one"),
    ],
)
def test_selecting_what_is_not_there_is_refused(choice, message):
    with pytest.raises(ValueError, match=message):
        SliceDataset([volume("a", 0)], ["liver"]).select(**choice)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": torch.zeros(2, 4, 4)}, ValueError, r"images\[:, None\]"),
        ({"images": torch.zeros(2, 1, 4, 4, dtype=torch.float64)}, TypeError, "float32"),
        ({"labels": torch.zeros(2, 4, 5, dtype=torch.int64)}, ValueError, r"\(2, 4, 4\)"),
        ({"labels": torch.zeros(2, 4, 4)}, TypeError, "int64"),
        ({"labels": torch.full((2, 4, 4), 4)}, ValueError, "0 … 3"),
        ({"labels": torch.full((2, 4, 4), -1)}, ValueError, "-1"),
        ({"names": ("liver",)}, ValueError, "background"),
        ({"names": ("background", "liver", "liver", "spleen")}, ValueError, "more than once"),
        ({"spacing": (1.0, 0.0, 1.0)}, ValueError, "spacing"),
    ],
)
def test_a_volume_refuses_what_is_not_a_labelled_scan(changes, error, message):
    whole = {
        "images": torch.zeros(2, 1, 4, 4),
        "labels": torch.zeros(2, 4, 4, dtype=torch.int64),
        "names": NAMES,
        "subject": "a",
    }
    assert Volume(**whole).images.shape == (2, 1, 4, 4)
    with pytest.raises(error, match=message):
        Volume(**{**whole, **changes})


def test_a_volume_gives_the_mask_of_an_organ_by_name():
    labels = torch.tensor([[[0, 2], [3, 2]]])
    one = Volume(torch.zeros(1, 1, 2, 2), labels, NAMES, "a")
    assert one.mask("spleen").tolist() == [[[False, True], [False, True]]]
    with pytest.raises(ValueError, match="no class 'lung' here; there are background, liver"):
        one.mask("lung")
