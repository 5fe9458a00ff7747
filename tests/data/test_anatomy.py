"""Synthetic anatomy: deterministic, labelled exactly, anatomical when aligned, unaligned at 0."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_lib.data import anatomy, scanner
from fewshot_lib.data.anatomy import make_subject, make_volumes, render
from fewshot_lib.data.scanner import LOOKS, PRESETS, TISSUES, Scanner, find_scanner
from fewshot_lib.episodes import Volume
from fewshot_lib.evaluation import volume_dice


@cache
def _twenty(alignment: float) -> tuple[Volume, ...]:
    return tuple(make_volumes(20, alignment=alignment))


def drawn(n: int, alignment: float) -> list[Volume]:
    """Give the first subjects as they come by default; drawn once, as most tests look at them."""
    return list(_twenty(alignment)[:n])


def mean_place(volumes: list[Volume], organ: str) -> tuple[float, float, float]:
    """Mean centre of an organ over subjects, in fractions of the picture: slice, row, column."""
    shape = torch.tensor(volumes[0].labels.shape)
    places = [v.mask(organ).nonzero().float().mean(0) / shape for v in volumes]
    z, y, x = torch.stack(places).mean(0).tolist()
    return z, y, x


def copied_dice(volumes: list[Volume], organ: str) -> float:
    """Mean volume Dice when each subject's mask is copied to the next subject."""
    scores = [
        volume_dice(one.mask(organ), other.mask(organ))
        for one, other in zip(volumes, volumes[1:] + volumes[:1], strict=True)
    ]
    return float(torch.stack(scores).mean())


# --- what one gets


@given(
    size=st.sampled_from([16, 33, 64, (48, 64), (65, 40)]),
    n_slices=st.integers(1, 6),
    alignment=st.floats(0, 1),
    name=st.sampled_from(sorted(PRESETS)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_any_setting_gives_finite_images_and_labels_in_range(
    size: int | tuple[int, int], n_slices: int, alignment: float, name: str, seed: int
) -> None:
    [volume] = make_volumes(
        1, n_slices=n_slices, size=size, alignment=alignment, scanner=name, seed=seed
    )
    height, width = (size, size) if isinstance(size, int) else size
    assert volume.images.shape == (n_slices, 1, height, width)
    assert volume.images.dtype == torch.float32
    assert torch.isfinite(volume.images).all()
    assert volume.labels.shape == (n_slices, height, width)
    assert volume.labels.dtype == torch.int64
    assert volume.names == anatomy.NAMES
    assert volume.site == name
    assert volume.spacing[1] == volume.spacing[2]  # pixels are square whatever the grid


def test_base_and_novel_organs_are_disjoint_and_named() -> None:
    assert not set(anatomy.BASE_ORGANS) & set(anatomy.NOVEL_ORGANS)
    named = {*anatomy.BASE_ORGANS, *anatomy.NOVEL_ORGANS, *anatomy.TOO_SMALL, "background"}
    assert named == set(anatomy.NAMES)
    assert len(anatomy.NAMES) == len(set(anatomy.NAMES))


@pytest.mark.parametrize("alignment", [0.0, 1.0])
def test_every_organ_is_shown_large_enough_by_most_subjects(alignment: float) -> None:
    volumes = drawn(12, alignment)
    for organ in (*anatomy.BASE_ORGANS, *anatomy.NOVEL_ORGANS):
        shown = [int((v.mask(organ).sum((1, 2)) >= 12).sum()) for v in volumes]
        assert sum(n >= 1 for n in shown) >= 10, (organ, shown)


# --- the same from the same seed


def test_the_same_seed_gives_the_same_subjects_and_another_seed_others() -> None:
    one, again, other = (make_volumes(2, n_slices=3, size=32, seed=s) for s in (5, 5, 6))
    for a, b, c in zip(one, again, other, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        assert a.subject == b.subject != c.subject
        assert not torch.equal(a.labels, c.labels)


def test_a_subject_does_not_depend_on_how_many_are_asked_for() -> None:
    many = make_volumes(4, n_slices=2, size=32)
    few = make_volumes(2, n_slices=2, size=32, first_subject=2)
    for a, b in zip(many[2:], few, strict=True):
        assert a.subject == b.subject
        assert torch.equal(a.images, b.images)
    assert len({v.subject for v in many}) == 4


def test_the_global_random_state_is_neither_used_nor_changed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  (the state that must not matter)
    before = make_volumes(1, n_slices=2, size=32)[0].images
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    state = torch.random.get_rng_state()
    after = make_volumes(1, n_slices=2, size=32)[0].images
    assert torch.equal(before, after)
    assert torch.equal(state, torch.random.get_rng_state())


def test_one_subject_can_visit_two_scanners() -> None:
    subject = make_subject(3, n_slices=4, size=48)
    a, b, mr = (render(subject, name) for name in ("ct_a", "ct_b", "mr"))
    assert torch.equal(a.labels, b.labels)
    assert torch.equal(a.labels, mr.labels)
    assert a.subject == b.subject == mr.subject
    assert not torch.equal(a.images, b.images)
    # fat is dark on CT and bright on MR; bone the other way round
    fat = torch.from_numpy(subject.tissue == TISSUES.index("fat"))
    bone = a.mask("vertebrae")

    def contrast(v: Volume) -> float:
        return float(v.images[:, 0][bone].mean() - v.images[:, 0][fat].mean())

    assert contrast(a) > 0.3
    assert contrast(mr) < -0.1


# --- anatomy


def test_aligned_organs_lie_where_anatomy_has_them() -> None:
    volumes = make_volumes(8, alignment=1.0, split_kidneys=True)
    place = {organ: mean_place(volumes, organ) for organ in volumes[0].names[1:]}
    column = {organ: p[2] for organ, p in place.items()}
    row = {organ: p[1] for organ, p in place.items()}
    height = {organ: p[0] for organ, p in place.items()}
    assert column["liver"] < 0.45 < 0.55 < column["stomach"] < column["spleen"]
    assert column["kidney_right"] < 0.45 < 0.55 < column["kidney_left"]
    assert column["inferior_vena_cava"] < column["aorta"]
    assert abs(column["vertebrae"] - 0.5) < 0.02
    assert row["colon"] < row["kidney_left"] < row["autochthon"]
    assert row["stomach"] < row["vertebrae"] < row["autochthon"]
    assert height["urinary_bladder"] < height["small_bowel"] < height["kidney_left"]
    assert height["kidney_left"] < height["liver"] < height["heart"]
    assert height["hips"] < height["ribs"]
    assert height["kidney_right"] < height["kidney_left"]  # the liver pushes it down


def test_the_liver_is_the_largest_organ_and_the_spinal_canal_lies_in_the_spine() -> None:
    volumes = drawn(6, 1.0)
    sizes = {
        organ: sum(int(v.mask(organ).sum()) for v in volumes)
        for organ in (*anatomy.NOVEL_ORGANS, "pancreas", "gallbladder", "heart", "urinary_bladder")
    }
    assert max(sizes, key=lambda organ: sizes[organ]) == "liver"
    for volume in volumes:
        for z, y, x in volume.mask("spinal_cord").nonzero()[::7].tolist():
            beside = volume.mask("vertebrae")[z, y]
            assert beside[:x].any()
            assert beside[x:].any()


@pytest.mark.parametrize("alignment", [0.0, 0.5, 1.0])
def test_all_organs_lie_inside_the_body_and_the_body_inside_the_picture(alignment: float) -> None:
    for index in range(6):
        subject = make_subject(index, alignment=alignment)
        assert (subject.body | (subject.labels == 0)).all()
        edge = np.ones_like(subject.body)
        edge[:, 1:-1, 1:-1] = False
        assert (subject.body & edge).mean() < 0.002
        assert 0.25 < subject.body.mean() < 0.75


def test_kidneys_are_two_and_splitting_them_changes_nothing_else() -> None:
    [together] = make_volumes(1, alignment=1.0)
    [split] = make_volumes(1, alignment=1.0, split_kidneys=True)
    assert torch.equal(together.images, split.images)
    right, left = split.mask("kidney_right"), split.mask("kidney_left")
    assert right.any()
    assert left.any()
    assert torch.equal(together.mask("kidneys"), right | left)
    assert torch.equal(together.mask("liver"), split.mask("liver"))


# --- the controls


def test_alignment_decides_whether_copying_a_mask_works() -> None:
    scores = {}
    for alignment in (0.0, 0.5, 1.0):
        volumes = drawn(16, alignment)
        scores[alignment] = [copied_dice(volumes, organ) for organ in anatomy.NOVEL_ORGANS]
    means = [float(np.mean(scores[a])) for a in (0.0, 0.5, 1.0)]
    assert means[0] < 0.2 < 0.5 < means[2]
    assert means[0] < means[1] < means[2]
    assert max(scores[0.0]) < 0.35


def test_at_alignment_0_organs_move_by_a_large_part_of_the_body_and_at_1_hardly() -> None:
    for alignment, low, high in ((0.0, 0.12, 1.0), (1.0, 0.0, 0.06)):
        volumes = drawn(20, alignment)
        for organ in ("spleen", "stomach", "pancreas"):
            centres = torch.stack([v.mask(organ).nonzero().float().mean(0) for v in volumes])
            spread = centres[:, 2].std() / volumes[0].labels.shape[2]
            assert low < float(spread) < high, (organ, alignment)


def test_organs_do_not_cover_each_other_at_alignment_0() -> None:
    """Compare each organ with the same organ when all organs painted after it are left out."""
    kept, whole = 0, 0
    for index in range(8):
        full = make_subject(index, alignment=0.0)
        for organ in ("liver", "stomach", "spleen"):
            others = tuple({o.name for o in anatomy.ORGANS} - {organ})
            others = (*(o for o in others if not o.startswith("kidney")), "kidneys")
            alone = make_subject(index, alignment=0.0, without=others)
            number = anatomy.NAMES.index(organ)
            kept += int((full.labels == number).sum())
            whole += int((alone.labels == number).sum())
    assert kept > 0.85 * whole


def test_organ_size_scales_areas() -> None:
    small, usual, large = (
        sum(int(v.mask("spleen").sum()) for v in make_volumes(6, alignment=1.0, organ_size=s))
        for s in (0.6, 1.0, 1.3)
    )
    assert small < 0.6 * usual < usual < large


def test_leaving_organs_out_leaves_the_other_organs_in_their_place() -> None:
    [full] = make_volumes(1, alignment=0.0)
    [without] = make_volumes(1, alignment=0.0, without=anatomy.NOVEL_ORGANS)
    for organ in anatomy.NOVEL_ORGANS:
        assert full.mask(organ).any()
        assert not without.mask(organ).any()
    for organ in anatomy.BASE_ORGANS:  # nothing lost; some regain what was covered
        assert bool((~full.mask(organ) | without.mask(organ)).all()), organ
    assert torch.equal(full.mask("vertebrae"), without.mask("vertebrae"))


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"alignment": 1.1}, "alignment must lie in 0 … 1"),
        ({"organ_size": 3.0}, "organ_size in 0.2 … 2"),
        ({"size": 8}, "size ≥ 16"),
        ({"n_slices": 0}, "n_slices ≥ 1"),
        ({"first_subject": -1}, "index ≥ 0"),
        ({"without": ("livr",)}, "no organ 'livr'"),
        ({"without": ("vertebrae",)}, "no organ 'vertebrae'"),
    ],
)
def test_settings_out_of_range_are_refused(settings_: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_volumes(1, **settings_)
    with pytest.raises(ValueError, match="n_subjects must be ≥ 0"):
        make_volumes(-1)


# --- scanners


def quiet(**changes: object) -> Scanner:
    """Make a scanner that adds nothing of its own."""
    still = Scanner("still", person_spread=0, level_spread=0, texture=0, noise=0, blur_mm=0)
    return replace(still, **changes)


def test_a_scanner_without_faults_shows_each_tissues_level() -> None:
    subject = make_subject(0, n_slices=4)
    images = render(subject, quiet()).images[:, 0].numpy()
    for tissue in ("air", "fat", "liver", "vertebrae", "spleen"):
        seen = images[subject.tissue == TISSUES.index(tissue)]
        assert np.allclose(seen, LOOKS[tissue].level, atol=1e-5), tissue
    brighter = render(subject, quiet(contrast={"liver": 0.99})).images[:, 0].numpy()
    assert np.allclose(brighter[subject.tissue == TISSUES.index("liver")], 0.99)


def test_each_fault_does_what_it_says() -> None:
    subject = make_subject(0, n_slices=4)
    clean = render(subject, quiet()).images
    noisy = render(subject, quiet(noise=0.1)).images - clean
    assert float(noisy.std()) == pytest.approx(0.1, rel=0.05)
    assert torch.allclose(render(subject, quiet(gain=2.0, offset=0.5)).images, 2 * clean + 0.5)
    shaded = render(subject, quiet(bias=0.3)).images / clean.clamp(min=1e-6)
    inside = clean > 0.1
    assert float(shaded[inside].std()) > 0.1
    blurred = render(subject, quiet(blur_mm=8.0)).images
    coarse = render(subject, quiet(pixel_mm=20.0)).images
    for softer in (blurred, coarse):
        assert float(softer.diff(dim=-1).abs().mean()) < 0.8 * float(
            clean.diff(dim=-1).abs().mean()
        )
        assert float(softer.mean()) == pytest.approx(float(clean.mean()), rel=0.02)


def test_textures_have_the_amplitude_and_direction_they_are_given() -> None:
    subject = make_subject(0, n_slices=8, size=128)
    images = render(subject, quiet(texture=1.0)).images[:, 0]
    for organ, steps_across in (("spleen", -1), ("liver", -2)):
        mask = torch.from_numpy(subject.tissue == TISSUES.index(organ))
        assert float(images[mask].std()) == pytest.approx(LOOKS[organ].amplitude, rel=0.35)
        rough = {}
        for axis in (-1, -2):
            both = mask & mask.roll(1, axis)
            rough[axis] = float((images - images.roll(1, axis))[both].abs().mean())
        assert rough[steps_across] == max(rough.values())  # varies across its stripes


def test_a_texture_is_as_wide_in_millimetres_whatever_the_pixel() -> None:
    period = {}
    for size in (64, 128):
        bank = scanner._texture_bank(np.random.default_rng(0), (6, size, size), 365.0 / size)
        assert torch.allclose(bank.flatten(1).std(1), torch.ones(len(bank)), atol=0.15)
        spectrum = torch.fft.rfft(bank[4]).abs().pow(2).mean((0, 1))  # 27 mm, left to right
        period[size] = 365.0 / int(spectrum.argmax())
    assert period[64] == pytest.approx(27.0, rel=0.25)
    assert period[128] == pytest.approx(27.0, rel=0.25)


def test_brightness_alone_does_not_tell_organs_apart() -> None:
    """A threshold between an organ's mean and the rest's, the raw-intensity prototype, fails."""
    volumes = drawn(12, 0.0)
    for organ in anatomy.NOVEL_ORGANS:
        scores = []
        for support, query in pairwise(volumes):
            inside = support.mask(organ)
            picture = support.images[:, 0]
            ours, theirs = picture[inside].mean(), picture[~inside].mean()
            asked = query.images[:, 0]
            scores.append(
                float(volume_dice((asked - ours).abs() < (asked - theirs).abs(), query.mask(organ)))
            )
        assert np.mean(scores) < 0.4, organ


def test_unknown_scanners_are_refused_and_own_ones_accepted() -> None:
    with pytest.raises(ValueError, match="no scanner 'pet'; presets are ct_a, ct_b, mr"):
        make_volumes(1, scanner="pet")
    own = Scanner("mine")
    assert find_scanner(own) is own
    assert make_volumes(1, n_slices=1, size=32, scanner=own)[0].site == "mine"
    known = set(TISSUES)
    assert all(set(preset.contrast) <= known for preset in PRESETS.values())
