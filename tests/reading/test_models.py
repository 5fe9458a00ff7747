"""The networks of notebook 06: made by a recipe, kept in the cache, trained anew when missing."""

from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from fewshot_lib.data import anatomy
from fewshot_lib.evaluation import episode_dice
from fewshot_lib.networks import FewShotSegmentationNet
from fewshot_lib.reading import models
from fewshot_lib.reading.models import Recipe
from fewshot_lib.training import SegmentationEpisode

TINY = Recipe(steps=3, subjects=3, width=4, episodes_per_step=2, n_query=1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def slices():
    return models.training_slices(3)


def weights(network):
    return torch.cat([part.flatten() for part in network.state_dict().values()])


def test_a_trained_network_comes_back_from_the_cache_without_training(slices, capsys):
    first, trained = models.train(TINY, slices=slices, progress=False)
    assert "Training a network (3 steps) …" in capsys.readouterr().err
    again, result = models.train(TINY, progress=False)
    assert torch.equal(weights(first), weights(again))
    assert result.losses == trained.losses
    assert result.resumed_at == len(result.losses) == 6
    assert not again.training
    assert capsys.readouterr().err == ""


def test_every_seed_and_every_setting_has_a_file_of_its_own(monkeypatch):
    other = {
        "prototypes": "position", "similarity": "squared_euclidean", "scale": 1.0,
        "background_grid": 2, "nonnegative": True, "all_classes": False, "turned": True,
        "learning_rate": 1e-2, "dice_weight": 0.0,
    }  # fmt: skip
    recipes = [replace(TINY, **{field.name: other.get(field.name, 7)}) for field in fields(Recipe)]
    paths = {models.checkpoint(recipe) for recipe in [*recipes, TINY]}
    paths |= {models.checkpoint(TINY, 1), models.checkpoint(TINY, kind="pixels")}
    monkeypatch.setattr(models, "VERSION", models.VERSION + 1)
    paths.add(models.checkpoint(TINY))
    assert len(paths) == len(fields(Recipe)) + 4
    assert models.checkpoint(TINY) == models.checkpoint(replace(TINY))


@pytest.mark.parametrize(
    ("train", "kind"), [(models.train, "episodes"), (models.train_pixels, "pixels")]
)
def test_an_interrupted_training_goes_on_where_it_stopped(slices, capsys, train, kind):
    recipe = replace(TINY, steps=56, episodes_per_step=1)
    whole, _ = train(recipe, slices=slices, cached=False, progress=False)
    assert not models.checkpoint(recipe, kind=kind).exists()

    def stop(losses):
        if len(losses) == 52:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, slices=slices, progress=False, on_step=stop)
    resumed, result = train(recipe, slices=slices, progress=False)
    assert "Going on with" in capsys.readouterr().err
    assert (result.resumed_at, len(result.losses)) == (50, 56)
    assert torch.equal(weights(resumed), weights(whole))
    again, _ = train(recipe, slices=slices, progress=False)
    assert torch.equal(weights(again), weights(whole))
    assert not again.training
    assert models.checkpoint(recipe, kind=kind).exists()


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "other network", "no weights"])
def test_a_damaged_checkpoint_is_set_aside_and_the_network_trained_anew(slices, capsys, damage):
    good, _ = models.train(TINY, slices=slices, progress=False)
    path = models.checkpoint(TINY)
    if damage == "other network":
        models.train(replace(TINY, width=2), slices=slices, progress=False)
        path.write_bytes(models.checkpoint(replace(TINY, width=2)).read_bytes())
    elif damage == "no weights":
        state = torch.load(path, weights_only=True)
        del state["model"]["encoder.projection.bias"]
        torch.save(state, path)
    else:
        content = {"cut": path.read_bytes()[:-500], "text": b"hello", "empty": b""}[damage]
        path.write_bytes(content)
    capsys.readouterr()
    again, result = models.train(TINY, slices=slices, progress=False)
    said = capsys.readouterr().err
    assert f"{path.name} cannot be used" in said
    assert f"{path.name}.damaged" in said
    assert "Training a network" in said
    assert path.with_name(f"{path.name}.damaged").exists()
    assert result.resumed_at == 0
    assert torch.equal(weights(again), weights(good))


def test_pixel_classification_begins_with_the_weights_of_the_episodes_encoder(slices, capsys):
    recipe = replace(TINY, steps=0)
    network, _ = models.train(recipe, seed=3, slices=slices, cached=False, progress=False)
    model, _ = models.train_pixels(recipe, seed=3, slices=slices, cached=False, progress=False)
    assert torch.equal(weights(network.encoder), weights(model.encoder))
    assert model.n_classes == len(slices.classes) + 1


def test_training_knows_no_novel_organ_and_no_person_of_the_tests():
    known, unseen = models.training_slices(4), models.unseen_slices(4)
    assert not set(known.classes) & set(anatomy.NOVEL_ORGANS)
    assert unseen.classes == anatomy.NOVEL_ORGANS
    assert not set(known.subject_names) & set(unseen.subject_names)
    volumes = anatomy.make_volumes(4, size=models.SIZE, alignment=0.0, without=anatomy.NOVEL_ORGANS)
    assert torch.equal(
        known.images, models.normalised(torch.cat([volume.images for volume in volumes]))
    )
    novel = [volumes[0].names.index(name) for name in anatomy.NOVEL_ORGANS]
    assert not any(torch.isin(volume.labels, torch.tensor(novel)).any() for volume in volumes)


def test_subjects_of_the_tests_cannot_be_drawn_for_training():
    with pytest.raises(ValueError, match=r"subjects must be 1 … 8000, got 8001"):
        models.training_slices(8001)


def test_first_weights_depend_on_the_seed_alone_and_leave_torch_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, same, other = (models.untrained(TINY, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(weights(one), weights(same))
    assert not torch.equal(weights(one), weights(other))


def test_the_best_network_is_the_best_recipe_trained(monkeypatch, slices):
    monkeypatch.setattr(models, "BEST", TINY)
    monkeypatch.setattr(models, "training_slices", lambda subjects: slices)
    network = models.novel_organ_network(seed=1, progress=False)
    assert models.checkpoint(TINY, 1).exists()
    images, masks = torch.rand(2, 1, 48, 64), torch.ones(1, 1, 48, 64)
    assert network(models.normalised(images[:1]), masks, images[1]).shape == (1, 48, 64)


def test_images_that_are_not_floating_point_are_refused():
    with pytest.raises(TypeError, match=r"use \.float\(\)"):
        models.normalised(torch.zeros(2, dtype=torch.int64))


def test_a_threshold_is_fitted_that_tells_the_organ_from_what_is_less_alike():
    organ = torch.zeros(1, 1, 8, 8)
    organ[..., 2:5, 3:6] = 1
    other = 1 - organ
    images = torch.cat([organ + 0.4 * other, other], dim=1)[:, None]  # cosine 1 or 0.37
    masks = torch.cat([other, organ], dim=1)[:, None]
    episodes = SegmentationEpisode(images, masks, images.clone(), masks.clone())
    network = FewShotSegmentationNet(encoder=nn.Identity())
    fitted = models.fit_threshold(network, episodes)
    assert 0.37 < fitted.head.threshold < 1
    assert episode_dice(fitted, episodes).item() == 1
    low = FewShotSegmentationNet(prototypes="threshold", encoder=nn.Identity(), threshold=0.3)
    assert low(*episodes[:3]).argmax(dim=2).all()
