"""The training-free segmenter: any grid, soft place, no copying, sentences for what cannot be."""

import dataclasses
import importlib
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewshot_lib import transfer
from fewshot_lib.data import anatomy, scans
from fewshot_lib.evaluation import volume_dice
from fewshot_lib.transfer import (
    BLOCKS,
    STRIDES,
    ImageNetEncoder,
    PretrainedMissing,
    RememberingEncoder,
    TransferSegmenter,
    calibrate,
    pretrained_available,
    view,
)

ORGANS = ("liver", "spleen")


class Patches(nn.Module):
    """Give the intensities around each pixel, 5×5: an encoder without weights."""

    def forward(self, images):
        near = F.unfold(F.pad(images, (2, 2, 2, 2), mode="replicate"), 5)
        return torch.cat([near, torch.ones_like(near[:, :1])], 1).view(
            len(images), 26, *images.shape[-2:]
        )


@pytest.fixture(scope="module")
def people():
    return anatomy.make_volumes(2, size=64, n_slices=12, alignment=1.0)


def small(**options):
    return TransferSegmenter(Patches(), size=48, smoothing_mm=0.0, **options)


def test_the_support_itself_is_segmented(people):
    person = people[0]
    found = TransferSegmenter(Patches(), size=64, smoothing_mm=0.0).fit(person, ["liver"])
    answer = found.predict(person)
    assert float(volume_dice(answer.mask("liver"), person.mask("liver"))) > 0.7


def test_a_person_who_lies_elsewhere_on_the_table_gets_the_same_answer(people):
    one, other = people
    air = float(other.images.min())
    moved = dataclasses.replace(
        other,
        images=F.pad(other.images, (30, 0), value=air),
        labels=F.pad(other.labels, (30, 0)),
    )
    segmenter = small(intensities=lambda scan: scan).fit(one, ["liver"])
    still, shifted = (segmenter.predict(scan).mask("liver") for scan in (other, moved))
    assert float(volume_dice(still, shifted[..., 30:])) > 0.99
    assert not shifted[..., :30].any()


def test_logits_match_a_specification_of_best_exemplars_with_place_and_size_correction(people):
    one, other = people
    settings = {"scale": 30.0, "top_k": 5, "size_correction": 0.3, "location_weight": 7.0}
    segmenter = small(max_exemplars=None, dimensions=None, **settings)
    segmenter.fit(one, ORGANS, slices=torch.tensor([6, 7]))
    answer = segmenter.predict(other).log_posterior
    seen, asked = segmenter.view(one), segmenter.view(other)
    numbers = torch.tensor([ORGANS.index(n) + 1 if n in ORGANS else 0 for n in one.names])
    masks = F.one_hot(numbers[seen.labels[6:8]], 3).movedim(-1, 1).bool()
    masks[:, 0] &= seen.body[6:8]
    known, asked_maps = (F.normalize(Patches()(x.images), dim=1) for x in (seen, asked))
    logits = torch.full((len(asked.images), 3, 48, 48), torch.nan)
    for z in range(len(logits)):
        for k in range(3):  # the mean of the five largest 30·cos − 7·‖x − e‖², pixel by pixel
            exemplars, places = (
                maps[6:8].movedim(1, -1)[masks[:, k]] for maps in (known, seen.coordinates)
            )
            cosine = torch.einsum("dhw,nd->hwn", asked_maps[z], exemplars)
            apart = torch.cdist(asked.coordinates[z].movedim(0, -1).flatten(0, 1), places)
            alike = 30 * cosine.flatten(0, 1) - 7 * apart.square()
            logits[z, k] = alike.topk(5, dim=1).values.mean(dim=1).view(48, 48)
    logits = logits - 0.3 * masks.sum((0, 2, 3)).log()[:, None, None]
    expected = logits.log_softmax(1).clamp_min(-8.0).movedim(1, -1)[asked.body]
    torch.testing.assert_close(answer.movedim(1, -1)[asked.body], expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("weight", [0.0, 7.0])
def test_with_the_mean_each_class_has_one_direction_and_keeps_its_places(people, weight):
    one, other = people
    settings = {"dimensions": None, "max_exemplars": None, "size_correction": 0.0}
    settings |= {"scale": 30.0, "top_k": 5}
    segmenter = small(prototypes="mean", location_weight=weight, **settings)
    answer = segmenter.fit(one, ["liver"], slices=torch.tensor([6, 7])).predict(other).log_posterior
    seen, asked = segmenter.view(one), segmenter.view(other)
    features = F.normalize(Patches()(seen.images[6:8]).movedim(1, -1), dim=-1)  # (2, N, N, D)
    liver = seen.labels[6:8] == one.names.index("liver")
    query = F.normalize(Patches()(asked.images).movedim(1, -1), dim=-1)[asked.body]
    logits = []
    for mask in (seen.body[6:8] & ~liver, liver):
        alike = 30.0 * query @ F.normalize(features[mask].sum(0), dim=0)  # (P,)
        places = seen.coordinates[6:8].movedim(1, -1)[mask]
        away = torch.cdist(asked.coordinates.movedim(1, -1)[asked.body], places).square()
        logits.append(alike - weight * away.topk(5, largest=False).values.mean(1))
    expected = torch.stack(logits, 1).log_softmax(1).clamp_min(-8.0)
    torch.testing.assert_close(answer.movedim(1, -1)[asked.body], expected, atol=2e-3, rtol=1e-3)


def test_the_answer_lies_on_the_scans_own_grid_whatever_its_shape_and_spacing(people):
    segmenter = small().fit(people[0], ["liver"])
    for size in ((40, 64), (64, 40), (96, 96)):
        scan = anatomy.make_volumes(1, size=size, n_slices=3, first_subject=5)[0]
        answer = segmenter.predict(scan)
        assert answer.labels.shape == scan.labels.shape == answer.confidence.shape
        assert 0 <= float(answer.confidence.min()) <= float(answer.confidence.max()) <= 1


def test_a_finer_copy_of_a_scan_gets_the_same_answer(people):
    one, other = people
    fine = dataclasses.replace(
        other,
        images=other.images.repeat_interleave(2, -1).repeat_interleave(2, -2),
        labels=other.labels.repeat_interleave(2, -1).repeat_interleave(2, -2),
        spacing=(other.spacing[0], other.spacing[1] / 2, other.spacing[2] / 2),
    )
    segmenter = small().fit(one, ["liver"])
    coarse, finer = (segmenter.predict(scan).mask("liver") for scan in (other, fine))
    again = finer[:, ::2, ::2]
    assert float(volume_dice(coarse, again)) > 0.9


def test_labels_of_the_query_are_not_looked_at(people):
    one, other = people
    segmenter = small().fit(one, ORGANS)
    blank = dataclasses.replace(other, labels=torch.zeros_like(other.labels))
    assert torch.equal(segmenter.predict(other).labels, segmenter.predict(blank).labels)


def test_the_number_of_slices_at_once_does_not_matter(people):
    one, other = people
    answers = [small(batch_size=n).fit(one, ["liver"]).predict(other).log_posterior for n in (1, 5)]
    torch.testing.assert_close(*answers, atol=1e-4, rtol=1e-4)


def test_smoothing_keeps_a_posterior_and_removes_specks(people):
    one, other = people
    rough = small().fit(one, ["liver"]).predict(other)
    smooth = TransferSegmenter(Patches(), size=48, smoothing_mm=12.0).fit(one, ["liver"])
    smooth = smooth.predict(other)
    total = smooth.log_posterior.exp().sum(1)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-4, rtol=0)

    def edges(mask):
        return int((mask[:, 1:] != mask[:, :-1]).sum() + (mask[..., 1:] != mask[..., :-1]).sum())

    assert edges(smooth.mask("liver")) < edges(rough.mask("liver"))


def test_progress_counts_the_slices(people):
    heard = []
    small(batch_size=5).fit(people[0]).predict(people[1], lambda *n: heard.append(n))
    assert heard == [(5, 12), (10, 12), (12, 12)]


def test_few_dimensions_nearly_keep_the_answer(people):
    one, other = people
    whole, part = (small(dimensions=n).fit(one, ["liver"]).predict(other) for n in (None, 12))
    assert (whole.labels == part.labels).float().mean() > 0.98


def test_several_volumes_are_remembered_together(people):
    one, other = people
    both = small().fit([one, other], ["liver"], [torch.tensor([5]), torch.tensor([6])])
    assert both.names == ("background", "liver")
    assert not torch.equal(
        both.predict(other).log_posterior,
        small().fit(one, ["liver"], torch.tensor([5])).predict(other).log_posterior,
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"organs": ["tail"]}, "no labelled slice shows tail"),
        ({"organs": []}, "no labelled slice shows an organ"),
        ({"slices": torch.tensor([99])}, "slices must lie in 0 … 11"),
        ({"slices": [None, None]}, "1 volumes and 2 lists"),
    ],
)
def test_what_cannot_be_fitted_is_said(people, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        small().fit(people[0], **arguments)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_slices": 0}, "at least"),
        ({"batch_size": 0}, "at least"),
        ({"smoothing_mm": -1.0}, "at least"),
        ({"size_correction": -0.1}, "at least"),
        ({"dimensions": 0}, "at least"),
        ({"prototypes": "median"}, '"exemplars" or "mean", got \'median\''),
    ],
)
def test_settings_without_meaning_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        TransferSegmenter(nn.Identity(), **options)


def test_nothing_is_predicted_before_something_is_known(people):
    with pytest.raises(RuntimeError, match="call fit"):
        small().predict(people[0])


def test_a_scan_without_a_body_is_refused(people):
    noise = dataclasses.replace(people[0], spacing=(3.0, 0.01, 0.01))
    with pytest.raises(ValueError, match="no body was found"):
        view(dataclasses.replace(noise, images=torch.zeros_like(noise.images)))


def test_a_scan_is_looked_at_once_unless_its_tensors_change(people):
    scan = dataclasses.replace(people[0], labels=people[0].labels.clone())
    assert view(scan, 32) is view(scan, 32)
    before = view(scan, 32)
    scan.labels[:] = 0
    assert before.labels.any()
    assert not view(scan, 32).labels.any()


def test_an_image_is_encoded_once(people):
    class Counting(nn.Module):
        calls = 0

        def forward(self, images):
            self.calls += len(images)
            return images

    counting = Counting()
    encoder = RememberingEncoder(counting)
    images = people[0].images[:3]
    assert torch.equal(encoder(images), images)
    assert torch.equal(encoder(images.flip(0)), images.flip(0))
    assert counting.calls == 3


def test_without_the_extra_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    module = importlib.import_module("fewshot_lib.transfer")
    assert not module.pretrained_available()
    with pytest.raises(PretrainedMissing, match="pretrained"):
        ImageNetEncoder()


pretrained = pytest.mark.skipif(
    not pretrained_available(), reason="needs the extra pretrained (ImageNet encoder)"
)


@pretrained
def test_borrowed_features_follow_what_the_image_shows():
    image = torch.zeros(1, 1, 48, 48)
    image[..., 16:32, 16:32] = 1.0
    encoder = ImageNetEncoder(blocks=(4, 10))
    features = encoder(image)
    assert features.shape == (1, 152, 48, 48)
    lengths = features[:, :40].norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


@pretrained
@pytest.mark.scans
@pytest.mark.parametrize("block", BLOCKS)
def test_a_mirrored_scan_has_mirrored_features_and_more_so_than_by_the_padding(block, monkeypatch):
    """The places of the cells are the better ones of the two that a cell could have."""
    seen = view(scans.load("B"), size=64)
    images, body = seen.images[::5], seen.body[::5]
    encoder, sampling = ImageNetEncoder(blocks=(block,)), transfer._sampling

    def agreement() -> float:
        there = encoder(images)
        mirrored = [encoder(images.flip(side)).flip(side) for side in (-1, -2)]
        alike = [F.cosine_similarity(there, one, dim=1)[body].mean() for one in mirrored]
        return float(sum(alike)) / 2

    ours = agreement()
    first = {"padding": STRIDES[block] - 1, "middle": (STRIDES[block] - 1) / 2}
    others = {}
    for name, place in first.items():

        def shifted(cells, pixels, stride, zoom, like, place=place):
            enlarged = (torch.arange(pixels) + 0.5) * zoom - 0.5
            cell = ((enlarged - place) / stride).clamp(0, cells - 1).to(like.dtype)
            return (1 - (cell[:, None] - torch.arange(cells)).abs()).clamp_min(0)

        monkeypatch.setattr(transfer, "_sampling", shifted)
        others[name] = agreement()
        monkeypatch.setattr(transfer, "_sampling", sampling)
    best = max(others, key=others.__getitem__)
    assert best == ("padding" if STRIDES[block] == 4 else "middle")
    assert ours == pytest.approx(others[best], abs=1e-4)
    assert others[best] > min(others.values()) + 0.03


@pretrained
def test_borrowed_weights_stay_as_they_are():
    encoder = ImageNetEncoder(blocks=(2,)).train()
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())
    image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoder(image)[:1], encoder(image[:1]), atol=1e-4, rtol=1e-4)


@pretrained
@pytest.mark.parametrize("blocks", [(), (4, 2), (16,), (2, 2)])
def test_blocks_that_are_not_there_are_refused(blocks):
    with pytest.raises(ValueError, match="ascending"):
        ImageNetEncoder(blocks=blocks)


def test_a_temperature_makes_a_confidence_as_high_as_the_share_that_is_right() -> None:
    support = anatomy.make_volumes(1, n_slices=10, size=32, seed=2)[0]
    surer = TransferSegmenter(Patches(), size=32, scale=1000.0, smoothing_mm=5.0)
    found = calibrate(surer, support)
    assert found.n_slices == 8
    assert found.temperature > 1.5
    assert found.before - found.accuracy > 0.1  # too sure
    assert abs(found.after - found.accuracy) < found.before - found.accuracy
    surer.fit(support)
    plain, scaled = (surer.predict(support, temperature=t) for t in (1.0, found.temperature))
    assert torch.equal(plain.labels, scaled.labels)
    assert bool((scaled.confidence <= plain.confidence + 1e-6).all())
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        surer.predict(support, temperature=0.0)


def test_a_slice_that_alone_shows_an_organ_is_not_asked_for_it() -> None:
    support = anatomy.make_volumes(1, n_slices=4, size=32, seed=2)[0]
    only = support.labels.clone()
    only[0][support.mask("spleen")[0]] = 0
    keep = torch.tensor([True, True, False, False])
    only[~keep] = 0
    liver, spleen = (support.names.index(name) for name in ("liver", "spleen"))
    alone = torch.where(torch.arange(4)[:, None, None] == 0, only, 0)
    with pytest.raises(ValueError, match="takes two of them, got 1"):
        calibrate(TransferSegmenter(Patches(), size=32), dataclasses.replace(support, labels=alone))
    only[0], only[1] = liver * (only[0] > 0), torch.where(only[1] > 0, liver, 0)
    only[1, :2, :2] = spleen
    known = dataclasses.replace(support, labels=only)
    found = calibrate(TransferSegmenter(Patches(), size=32), known)
    assert found.n_slices == 2
