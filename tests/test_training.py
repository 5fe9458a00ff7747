"""Episodes that do not leak, a loss that survives −inf, training that can stop and go on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_networks import functions_that_loop
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fewshot_lib.episodes import SliceDataset, Volume, draw_episode
from fewshot_lib.evaluation import EP2, evaluate
from fewshot_lib.networks import FewShotSegmentationNet, PixelClassifier, UNetEncoder
from fewshot_lib.training import (
    FineTuner,
    SegmentationEpisode,
    TrainingResult,
    episodic_training_epoch,
    fine_tune,
    fit_encoder,
    fit_pixel_classifier,
    gather_episodes,
    random_orientation,
    sample_episode,
    sample_slices,
    segmentation_loss,
)

ORGANS = ("liver", "spleen", "kidney", "stomach")


def make_volume(subject: int, n_slices: int = 6, size: int = 16) -> Volume:
    """Make a subject whose slice z shows organs z … z + 2 (mod 4), bright by organ.

    Pixel (0, 0) of a slice says whose it is, pixel (0, 1) which slice.
    """
    labels = torch.zeros(n_slices, size, size, dtype=torch.int64)
    for z in range(n_slices):
        for organ in range(z, z + 3):
            place = 4 * (organ % 4)
            labels[z, place : place + 3, 4:9] = organ % 4 + 1
    images = labels.float()[:, None]
    images[:, 0, 0, 0], images[:, 0, 0, 1] = subject, torch.arange(n_slices).float()
    return Volume(images, labels, ("background", *ORGANS), f"s{subject}")


def make_slices(n_subjects: int = 4, **options) -> SliceDataset:
    """Make a data set of such subjects."""
    volumes = [make_volume(subject) for subject in range(n_subjects)]
    return SliceDataset(volumes, options.pop("classes", ORGANS), **options)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Episodes of slices


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_an_episode_has_the_shapes_and_contents_it_promises(seed, n_way, k_shot, n_query):
    slices = make_slices()
    episode = sample_episode(slices, n_way, k_shot, n_query, generator(seed))
    support_images, support_masks, query_images, query_masks = episode
    assert support_images.shape == (n_way * k_shot, 1, 16, 16)
    assert support_masks.shape == (n_way * k_shot, n_way + 1, 16, 16)
    assert query_images.shape == (n_way * n_query, 1, 16, 16)
    assert query_masks.shape == (n_way * n_query, n_way + 1, 16, 16)
    for masks in (support_masks, query_masks):
        assert (masks.sum(1) == 1).all()
        assert ((masks == 0) | (masks == 1)).all()
    # Row i·k_shot + j shows class i of the episode.
    for masks, times in ((support_masks, k_shot), (query_masks, n_query)):
        own = torch.arange(n_way).repeat_interleave(times) + 1
        assert masks[torch.arange(len(masks)), own].flatten(1).any(1).all()
    people = [set(images[:, 0, 0, 0].tolist()) for images in (support_images, query_images)]
    assert not people[0] & people[1]


@given(st.integers(0, 2**31), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_every_organ_of_the_episode_is_marked_in_every_image_and_no_other(seed, n_way):
    slices = make_slices()
    drawn = sample_slices(slices, n_way, 2, 1, generator(seed))
    episode = sample_episode(slices, n_way, 2, 1, generator(seed))
    for index, images, masks in (
        (drawn.support_index, episode.support_images, episode.support_masks),
        (drawn.query_index, episode.query_images, episode.query_masks),
    ):
        assert torch.equal(images, slices.images[index.flatten()])
        labels = slices.labels[index.flatten()]
        for number, label in enumerate(drawn.classes.tolist()):
            assert torch.equal(masks[:, number + 1] == 1, labels == label)
    assert len(set(drawn.classes.tolist())) == n_way
    assert len(set(drawn.support_index[0].tolist())) == 2  # without replacement within a class


def test_a_batch_of_episodes_is_made_of_episodes_that_differ():
    slices = make_slices(6)
    batch = sample_episode(slices, 3, 1, 2, generator(1), episodes=16)
    assert [part.shape for part in batch] == [
        (16, 3, 1, 16, 16),
        (16, 3, 4, 16, 16),
        (16, 6, 1, 16, 16),
        (16, 6, 4, 16, 16),
    ]
    for episode in range(16):
        support = set(batch.support_images[episode, :, 0, 0, 0].tolist())
        assert not support & set(batch.query_images[episode, :, 0, 0, 0].tolist())
    assert len({tuple(images.flatten().tolist()) for images in batch.support_images}) > 8
    assert sample_episode(slices, 1, 1, 1, generator(), episodes=1).query_masks.ndim == 5


def test_every_class_and_every_subject_get_their_turn_on_both_sides():
    slices = make_slices(4)
    batch = sample_episode(slices, 1, 1, 1, generator(3), episodes=2000)
    for images, masks in ((batch[0], batch[1]), (batch[2], batch[3])):
        people = torch.bincount(images[:, 0, 0, 0, 0].long(), minlength=4) / 2000
        assert (people - 0.25).abs().max() < 0.04
        brightness = (images[:, 0, 0] * masks[:, 0, 1]).flatten(1).amax(1).long()
        assert (torch.bincount(brightness, minlength=5)[1:] / 2000 - 0.25).abs().max() < 0.04


def test_a_seed_fixes_the_episode_and_a_loader_gives_the_same():
    slices = make_slices()
    first = sample_episode(slices, 2, 1, 1, generator(5))
    loader = DataLoader(slices, batch_size=4)
    for again in (
        sample_episode(slices, 2, 1, 1, generator(5)),
        sample_episode(loader, n_way=2, k_shot=1, generator=generator(5)),
    ):
        assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    torch.manual_seed(0)
    one = sample_episode(slices, 2)  # without a generator torch's own seed rules
    torch.manual_seed(0)
    assert torch.equal(sample_episode(slices, 2).query_images, one.query_images)


def test_all_classes_marks_every_organ_of_the_same_slices():
    slices = make_slices()
    asked = sample_episode(slices, 1, 1, 1, generator(5), episodes=9)
    marked = sample_episode(slices, 1, 1, 1, generator(5), episodes=9, all_classes=True)
    assert torch.equal(asked.query_images, marked.query_images)
    assert marked.query_masks.shape[2] == len(ORGANS) + 1
    brightness = torch.arange(len(ORGANS) + 1).view(-1, 1, 1)  # of an organ: its number
    shown = (marked.query_masks * brightness).sum(dim=2)
    assert torch.equal(shown[..., 1:, :], marked.query_images[:, :, 0, 1:])


def test_rare_classes_find_the_one_split_that_serves_them():
    volumes = [make_volume(subject) for subject in range(8)]
    for volume in volumes[:6]:
        volume.labels[volume.labels == 4] = 0  # the stomach is on two subjects only
    slices = SliceDataset(volumes, ORGANS)
    batch = sample_episode(slices, 4, 1, 1, generator(), episodes=50)
    assert batch.support_masks[:, 3, 1:].flatten(2).any(2).any(1).all()


def test_too_few_slices_or_subjects_are_named_by_class():
    volumes = [make_volume(subject) for subject in range(3)]
    for volume in volumes[:2]:
        volume.labels[volume.labels == 2] = 0
    slices = SliceDataset(volumes, ORGANS)
    with pytest.raises(ValueError, match="spleen is on 5 slices of 1 subjects"):
        sample_episode(slices, 1, 1, 1, generator())
    assert sample_episode(slices.select(classes=["liver", "kidney"]), 2, generator=generator())
    with pytest.raises(ValueError, match=r"liver is on 12 slices of 3 subjects.*lower k_shot"):
        sample_episode(slices.select(classes=["liver"]), 1, 13, 1, generator())
    with pytest.raises(ValueError, match=r"\['liver'\].*leave the rare classes out"):
        sample_episode(slices.select(classes=["liver"]), 1, 6, 6, generator())


def test_episodes_that_cannot_be_are_refused():
    slices = make_slices()
    with pytest.raises(ValueError, match=r"n_way = 5 distinct classes.*only 4"):
        sample_episode(slices, 5)
    for options in ({"n_way": 0}, {"k_shot": 0}, {"n_query": -1}, {"episodes": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be at least"):
            sample_episode(slices, **{"n_way": 2, **options})
    with pytest.raises(TypeError, match=r"expected a SliceDataset.*got list"):
        sample_episode([make_volume(0)], 1)
    with pytest.raises(ValueError, match="on 0 slices of 0 subjects"):
        sample_episode(slices.select(subjects=["s0"], exclude=["liver", "kidney"]), 1)


# The loss


@given(st.integers(0, 2**31), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_the_loss_is_torch_s_cross_entropy_when_everything_is_possible(seed, n_classes):
    logits = torch.randn(3, n_classes, 4, 5, generator=generator(seed), dtype=torch.float64)
    labels = torch.randint(0, n_classes, (3, 4, 5), generator=generator(seed))
    masks = F.one_hot(labels, n_classes).movedim(-1, 1)
    oracle = F.cross_entropy(logits, labels)
    torch.testing.assert_close(segmentation_loss(logits, masks), oracle)
    each = segmentation_loss(logits, masks, reduction="none")
    torch.testing.assert_close(each, F.cross_entropy(logits, labels, reduction="none").mean((1, 2)))
    soft = torch.rand(3, n_classes, 4, 5, generator=generator(seed), dtype=torch.float64)
    soft = soft / soft.sum(1, keepdim=True)
    torch.testing.assert_close(segmentation_loss(logits, soft), F.cross_entropy(logits, soft))


def test_the_dice_term_agrees_with_monai():
    from monai.losses import DiceLoss

    logits = torch.randn(2, 3, 6, 5, generator=generator())
    labels = torch.randint(0, 3, (2, 6, 5), generator=generator())
    masks = F.one_hot(labels, 3).movedim(-1, 1).float()
    oracle = DiceLoss(softmax=True, smooth_nr=0.0, smooth_dr=0.0, reduction="mean")(logits, masks)
    ours = segmentation_loss(logits, masks, dice_weight=2.0) - segmentation_loss(logits, masks)
    torch.testing.assert_close(ours, 2.0 * oracle)


@pytest.mark.parametrize("dice_weight", [0.0, 1.0])
def test_a_class_that_cannot_be_predicted_is_left_out_and_gradients_are_finite(dice_weight):
    values = torch.randn(2, 3, 4, 4, generator=generator())
    values[:, 1] = -math.inf
    logits = values.requires_grad_()
    labels = torch.randint(0, 3, (2, 4, 4), generator=generator())
    masks = F.one_hot(labels, 3).movedim(-1, 1).float()
    loss = segmentation_loss(logits, masks, dice_weight)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()
    assert (gradient[:, 1] == 0).all()
    assert (gradient.movedim(1, -1)[labels == 1] == 0).all()  # nothing to be right about there
    # The same as a task without that class, on the pixels that are left.
    if not dice_weight:
        left = labels != 1
        per_pixel = F.cross_entropy(logits[:, [0, 2]], (labels == 2).long(), reduction="none")
        expected = ((per_pixel * left).sum((1, 2)) / left.sum((1, 2))).mean()
        torch.testing.assert_close(loss, expected)


def test_pixels_without_a_class_and_images_without_such_pixels_do_not_count():
    logits = torch.randn(3, 2, 4, 4, generator=generator(), requires_grad=True)
    masks = torch.zeros(3, 2, 4, 4)
    masks[:2, 1, :2] = 1
    each = segmentation_loss(logits, masks, reduction="none")
    expected = F.softplus(logits[:, 0] - logits[:, 1])[:2, :2].mean((1, 2))
    torch.testing.assert_close(each, torch.cat([expected, torch.zeros(1)]))
    torch.testing.assert_close(segmentation_loss(logits, masks), expected.mean())
    with pytest.raises(ValueError, match="nothing to learn from"):
        segmentation_loss(logits, masks * 0)
    impossible = torch.full((1, 2, 2, 2), -math.inf, requires_grad=True)
    loss = segmentation_loss(impossible, torch.ones(1, 2, 2, 2), 1.0, "none").sum()
    assert loss == 0
    assert torch.autograd.grad(loss, impossible)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_loss_has_no_nan_in_any_type_and_any_leading_dimensions(dtype):
    logits = (500 * torch.randn(2, 3, 4, 5, 6, generator=generator())).to(dtype)
    logits[..., 1, :, :] = -math.inf
    masks = torch.rand(2, 3, 4, 5, 6, generator=generator())
    logits.requires_grad_()
    each = segmentation_loss(logits, masks, 1.0, "none")
    assert each.shape == (2, 3)
    assert each.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.autograd.grad(each.mean(), logits)[0].isfinite().all()
    strided = logits.detach().mT.contiguous().mT
    torch.testing.assert_close(segmentation_loss(strided, masks, 1.0, "none"), each.detach())


def test_the_gradient_of_the_loss_is_right():
    logits = torch.randn(1, 3, 2, 2, generator=generator(), dtype=torch.float64, requires_grad=True)
    masks = torch.rand(1, 3, 2, 2, generator=generator(), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: segmentation_loss(x, masks, 0.7), (logits,))


def test_the_loss_refuses_what_it_cannot_compare():
    logits, masks = torch.zeros(1, 2, 3, 3), torch.ones(1, 2, 3, 3)
    with pytest.raises(ValueError, match=r"of one shape.*one_hot"):
        segmentation_loss(logits, masks[:, 0])
    with pytest.raises(ValueError, match="0 … 1"):
        segmentation_loss(logits, masks * 2)
    with pytest.raises(ValueError, match="NaN"):
        segmentation_loss(logits * math.nan, masks)
    with pytest.raises(ValueError, match="dice_weight"):
        segmentation_loss(logits, masks, -1.0)
    with pytest.raises(ValueError, match="reduction"):
        segmentation_loss(logits, masks, 0.0, "sum")
    with pytest.raises(TypeError, match="floating point"):
        segmentation_loss(logits.long(), masks)


# Training


class Encoder(nn.Module):
    """A small encoder with dropout: it draws from torch's own generator."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Dropout2d(0.2), nn.Conv2d(8, 6, 2, 2)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def make_training(seed: int = 0) -> tuple[FewShotSegmentationNet, torch.optim.Optimizer]:
    """Make a network and its optimizer, always the same."""
    torch.manual_seed(seed)
    net = FewShotSegmentationNet(encoder=Encoder())
    return net, torch.optim.Adam(net.parameters(), lr=1e-2)


def train(net, optimizer, num_episodes, **options) -> TrainingResult:
    """Train quietly on two-way episodes."""
    options = {"n_way": 2, "seed": 7, "progress": False, **options}
    return episodic_training_epoch(net, make_slices(), optimizer, num_episodes, **options)


def weights(net: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in net.state_dict().values()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_training_lowers_the_loss_and_reports_one_loss_an_episode():
    net, optimizer = make_training()
    seen = []
    result = train(
        net, optimizer, 62, episodes_per_step=4, on_step=lambda all_: seen.append(len(all_))
    )
    assert len(set(result.losses)) == len(result.losses) == 62  # none is trained on twice
    assert seen == [*range(4, 61, 4), 62]  # the last step takes what is left
    assert sum(result.losses[-12:]) < 0.7 * sum(result.losses[:12])
    assert result.resumed_at == 0
    assert result.seconds > 0
    assert net.training
    with pytest.raises(AttributeError):
        result.losses = ()


def test_the_note_s_loop_is_what_one_episode_a_step_does():
    slices = make_slices()
    net, optimizer = make_training()
    source, expected = generator(7), []
    for _ in range(5):
        support_images, support_masks, query_images, query_masks = sample_episode(
            slices, n_way=2, k_shot=1, generator=source
        )
        pred_masks = net(support_images, support_masks, query_images)
        loss = segmentation_loss(pred_masks, query_masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    written = weights(net)
    net, optimizer = make_training()
    result = train(net, optimizer, 5)
    assert list(result.losses) == pytest.approx(expected, rel=1e-5)
    for ours, theirs in zip(weights(net), written, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_training_and_another_another():
    runs = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        net, optimizer = make_training()
        runs[name] = (train(net, optimizer, 6, seed=seed).losses, weights(net))
    assert runs["a"][0] == runs["b"][0]
    assert same(runs["a"][1], runs["b"][1])
    assert runs["a"][0] != runs["c"][0]


@pytest.mark.parametrize("with_scheduler", [False, True])
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(tmp_path, with_scheduler):
    def scheduled(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5) if with_scheduler else None

    net, optimizer = make_training()
    whole = train(net, optimizer, 24, episodes_per_step=2, scheduler=scheduled(optimizer))
    expected = weights(net)

    class Stop(Exception):
        """Something comes between."""

    def stop(losses):
        if len(losses) == 14:
            raise Stop

    path = tmp_path / "deep" / "run.pt"
    options = {"episodes_per_step": 2, "checkpoint": path, "checkpoint_every": 6}
    net, optimizer = make_training()
    with pytest.raises(Stop):
        train(net, optimizer, 24, scheduler=scheduled(optimizer), on_step=stop, **options)
    net, optimizer = make_training(seed=99)  # other weights, other global random state
    torch.randn(1000)
    resumed = train(net, optimizer, 24, scheduler=scheduled(optimizer), **options)
    assert resumed.resumed_at == 12
    assert resumed.losses == whole.losses
    assert same(weights(net), expected)


def test_a_checkpoint_loads_with_weights_only_and_holds_everything(tmp_path):
    net, optimizer = make_training()
    path = tmp_path / "run.pt"
    result = train(net, optimizer, 4, checkpoint=str(path))
    state = torch.load(path, weights_only=True)
    assert same(list(state["model"].values()), weights(net))
    assert state["optimizer"]["state"]
    assert state["generator"].dtype == torch.uint8
    assert tuple(state["losses"].tolist()) == result.losses
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]  # nothing half-written is left


def test_a_finished_run_returns_at_once_and_a_longer_one_goes_on(tmp_path):
    path = tmp_path / "run.pt"
    net, optimizer = make_training()
    first = train(net, optimizer, 6, checkpoint=path)
    trained = weights(net)
    net, optimizer = make_training(seed=5)
    again = train(net, optimizer, 6, checkpoint=path)
    assert again.losses == first.losses
    assert again.resumed_at == 6
    assert again.seconds == pytest.approx(first.seconds, abs=0.05)
    assert same(weights(net), trained)
    longer = train(net, optimizer, 9, checkpoint=path)
    assert longer.losses[:6] == first.losses
    net, optimizer = make_training()
    assert longer.losses == train(net, optimizer, 9).losses


def test_a_crash_while_saving_leaves_the_old_checkpoint_whole(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    net, optimizer = make_training()
    train(net, optimizer, 4, checkpoint=path)
    before = path.read_bytes()

    def half(state, file):
        file.write(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="no space left"):
        train(net, optimizer, 8, checkpoint=path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_way": 3}, r"n_way \(2, here 3\)"),
        ({"seed": 8}, r"seed \(7, here 8\)"),
        ({"episodes_per_step": 2}, r"episodes_per_step \(1, here 2\)"),
        ({"loss": segmentation_loss}, r"loss \(NoneType, here segmentation_loss\)"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_what_differs(tmp_path, change, said):
    path = tmp_path / "run.pt"
    net, optimizer = make_training()
    train(net, optimizer, 2, checkpoint=path)
    with pytest.raises(ValueError, match=said):
        train(net, optimizer, 4, checkpoint=path, **change)


def test_a_checkpoint_of_another_network_or_optimizer_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    net, optimizer = make_training()
    train(net, optimizer, 2, checkpoint=path)
    for other in (
        FewShotSegmentationNet(encoder=Encoder(), scale=1.0),
        FewShotSegmentationNet(encoder=Encoder(), prototypes="grid"),
        FewShotSegmentationNet(encoder=UNetEncoder(1, 6, width=4)),
    ):
        with pytest.raises(ValueError, match="differs in the model"):
            train(other, torch.optim.Adam(other.parameters(), lr=1e-2), 4, checkpoint=path)
    with pytest.raises(ValueError, match="learning_rate"):
        train(net, torch.optim.Adam(net.parameters(), lr=1e-3), 4, checkpoint=path)
    with pytest.raises(ValueError, match=r"optimizer \(Adam, here SGD\)"):
        train(net, torch.optim.SGD(net.parameters(), lr=1e-2), 4, checkpoint=path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"cannot be read as a checkpoint \(\w+\); delete it"):
        train(net, optimizer, 4, checkpoint=path)


def test_episodes_made_elsewhere_are_used_once_each_also_after_resuming(tmp_path):
    slices = make_slices()
    given_ = [sample_episode(slices, 2, generator=generator(seed)) for seed in range(6)]
    batches = [sample_episode(slices, 2, generator=generator(9), episodes=3)]
    net, optimizer = make_training()
    whole = episodic_training_epoch(net, given_, optimizer, 6, progress=False)
    expected = weights(net)
    path = tmp_path / "run.pt"
    net, optimizer = make_training()
    episodic_training_epoch(net, iter(given_), optimizer, 4, progress=False, checkpoint=path)
    net, optimizer = make_training(3)
    result = episodic_training_epoch(
        net, iter(given_), optimizer, 6, progress=False, checkpoint=path
    )
    assert result.losses == whole.losses
    assert same(weights(net), expected)
    assert len(episodic_training_epoch(net, batches, optimizer, 3, progress=False).losses) == 3
    with pytest.raises(ValueError, match="ran out before num_episodes = 9"):
        episodic_training_epoch(net, given_, optimizer, 9, progress=False)
    with pytest.raises(TypeError, match="episodes must be a SliceDataset"):
        episodic_training_epoch(net, 3, optimizer, 9, progress=False)


def test_a_loss_and_an_augmentation_of_one_s_own_are_used():
    def brighter(episode, source):
        shift = torch.rand(1, generator=source)
        return episode._replace(query_images=episode.query_images + shift)

    def squared(logits, masks):
        return (logits.softmax(-3) - masks).square().mean()

    net, optimizer = make_training()
    plain = train(net, optimizer, 4)
    net, optimizer = make_training()
    assert train(net, optimizer, 4, augment=brighter).losses != plain.losses
    net, optimizer = make_training()
    result = train(net, optimizer, 4, loss=squared, episodes_per_step=2)
    assert len(result.losses) == 4
    assert result.losses[0] == result.losses[1] <= 1  # a scalar stands for its whole step


def test_a_loss_that_is_not_finite_stops_before_it_spoils_the_weights():
    net, optimizer = make_training()
    before = weights(net)
    with pytest.raises(FloatingPointError, match="loss of step 0 is nan"):
        train(net, optimizer, 2, loss=lambda logits, masks: logits.sum() * math.nan)
    assert same(weights(net), before)


def test_the_note_s_network_trains_too_and_absent_classes_do_no_harm():
    torch.manual_seed(0)
    net = FewShotSegmentationNet(prototypes="position", scale=1.0, encoder=Encoder())
    result = train(net, torch.optim.Adam(net.parameters()), 3)
    assert all(math.isfinite(loss) for loss in result.losses)
    masked = FewShotSegmentationNet(encoder=Encoder())
    episode = sample_episode(make_slices(), 2, generator=generator())
    episode.support_masks[:, 2] = 0
    optimizer = torch.optim.Adam(masked.parameters())
    result = episodic_training_epoch(masked, [episode], optimizer, 1, progress=False)
    assert math.isfinite(result.losses[0])
    assert all(weight.isfinite().all() for weight in weights(masked))


def test_training_trains_where_a_notebook_has_switched_gradients_off():
    net, optimizer = make_training()
    with torch.no_grad():
        quiet = train(net, optimizer, 4)
        assert not torch.is_grad_enabled()
    net, optimizer = make_training()
    assert train(net, optimizer, 4).losses == quiet.losses


@pytest.mark.parametrize("name", ["episodes_per_step", "checkpoint_every", "n_way"])
def test_training_refuses_settings_out_of_range(name):
    net, optimizer = make_training()
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        train(net, optimizer, 2, **{name: 0})
    with pytest.raises(ValueError, match="num_episodes must be at least 0"):
        train(net, optimizer, -1)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        train(net, optimizer, 1, seed=-1)


def test_a_running_mean_smooths_the_curve():
    result = TrainingResult((1.0, 3.0, 5.0, 7.0), 0.0)
    assert result.smoothed(2).tolist() == [1, 2, 4, 6]
    assert result.smoothed().tolist() == [1, 2, 3, 4]
    assert TrainingResult((), 0.0).smoothed().shape == (0,)


# The supervised rows


def test_a_pixel_classifier_learns_and_resumes_bit_for_bit(tmp_path):
    def make():
        torch.manual_seed(0)
        model = PixelClassifier(Encoder(), 6, 5)
        return model, torch.optim.Adam(model.parameters(), lr=2e-2)

    model, optimizer = make()
    options = {"batch_size": 4, "progress": False, "seed": 3}
    whole = fit_pixel_classifier(model, make_slices(), optimizer, 40, **options)
    expected = weights(model)
    assert sum(whole.losses[-5:]) < 0.4 * sum(whole.losses[:5])
    model, optimizer = make()
    path = tmp_path / "pixels.pt"
    fit_pixel_classifier(model, make_slices(), optimizer, 25, checkpoint=path, **options)
    model, optimizer = make()
    resumed = fit_pixel_classifier(model, make_slices(), optimizer, 40, checkpoint=path, **options)
    assert resumed.losses == whole.losses
    assert same(weights(model), expected)


def test_a_pixel_classifier_must_fit_its_data_set():
    model = PixelClassifier(Encoder(), 6, 3)
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(ValueError, match="5 classes with background, the model 3"):
        fit_pixel_classifier(model, make_slices(), optimizer, 1)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        fit_pixel_classifier(model, make_slices(), optimizer, 1, batch_size=0)


@pytest.mark.parametrize("freeze", [False, True])
def test_fine_tuning_fits_the_support_leaves_the_encoder_alone_and_never_says_an_absent_class(
    freeze,
):
    episode = sample_episode(make_slices(), 2, 2, 1, generator(2))
    masks = torch.cat([episode.support_masks, torch.zeros(4, 1, 16, 16)], dim=1)
    torch.manual_seed(0)
    encoder = UNetEncoder(1, 8, width=4, depth=2, stride=1)
    before = weights(encoder)
    shown = (encoder, 8, episode.support_images, masks)
    options = {"steps": 80, "learning_rate": 2e-2, "freeze_encoder": freeze}
    with torch.no_grad():  # as evaluate calls it
        model = fine_tune(*shown, **options)
    assert same(weights(encoder), before)
    assert all(parameter.grad is None for parameter in encoder.parameters())
    logits = model(episode.support_images)
    assert (logits[:, 3] == -math.inf).all()
    # Zero weights guess evenly among three classes: log 3. A frozen encoder learns less.
    loss = segmentation_loss(logits, masks).item()
    assert loss < (0.35 if freeze else 0.15) * math.log(3)
    again = fine_tune(*shown, **options)
    assert torch.equal(again(episode.query_images), model(episode.query_images))


def test_a_fine_tuner_tunes_once_a_support_set_and_can_be_evaluated(monkeypatch):
    from fewshot_lib import training

    calls = []
    monkeypatch.setattr(
        training,
        "fine_tune",
        lambda *args, **options: calls.append(1) or fine_tune(*args, **options),
    )
    tuner = FineTuner(UNetEncoder(1, 4, width=4, depth=1, stride=1), 4, steps=2)
    result = evaluate(tuner, [make_volume(s) for s in range(2)], EP2, ["liver"], batch_size=2)
    assert len(result.rows) == 2
    assert len(calls) == 2


def test_fine_tuning_refuses_wrong_shapes_and_empty_masks():
    images = torch.zeros(2, 1, 8, 8)
    with pytest.raises(ValueError, match="support_masks"):
        fine_tune(nn.Identity(), 1, images, torch.zeros(2, 8, 8))
    with pytest.raises(ValueError, match="nothing to learn from"):
        fine_tune(nn.Identity(), 1, images, torch.zeros(2, 2, 8, 8))
    with pytest.raises(ValueError, match="steps must be at least 0"):
        fine_tune(nn.Identity(), 1, images, torch.zeros(2, 2, 8, 8), steps=-1)


# How it is written


def test_training_loops_over_steps_only(root: Path):
    looping = functions_that_loop((root / "fewshot_lib" / "training.py").read_text("utf-8"))
    assert looping == {
        ("sample_episode", "sample_episode"),  # the four parts of an episode
        ("gather_episodes", "gather_episodes"),  # indices drawn elsewhere, stacked into one tensor
        ("random_orientation", "random_orientation"),  # rows, columns: which of the two to mirror
        ("_draw", "_draw"),  # tries at a split, names in the error
        ("_class_counts", "_class_counts"),  # names of arguments and classes in errors
        ("_gathered", "_gathered"),  # support and queries
        ("episodic_training_epoch", "episodic_training_epoch"),  # the four parts of an episode
        ("fine_tune", "fine_tune"),  # steps, parameters
        ("_Run", "train"),  # steps
        ("_Run", "_require_something_to_train"),  # parameters
        ("_Run", "_all_settings"),  # parameter groups
        ("_Run", "_resume"),  # names of settings
    }


# --- episodes that know their slices


def test_gathered_episodes_are_those_that_were_sampled_and_name_their_subjects():
    slices = make_slices(5)
    drawn = [sample_slices(slices, 2, 1, 1, generator(seed)) for seed in range(4)]
    gathered = gather_episodes(slices, drawn)
    for number, one in enumerate(drawn):
        alone = sample_episode(slices, 2, 1, 1, generator(number))
        for there, here in zip(gathered, alone, strict=True):
            assert torch.equal(there[number], here)
        written = gathered.query_images[number, :, 0, 0, 0].long()
        assert torch.equal(slices.subjects[one.query_index.flatten()], written)


def test_episodes_of_different_sizes_or_none_cannot_be_gathered():
    slices = make_slices(5)
    drawn = [sample_slices(slices, ways, 1, 1, generator()) for ways in (1, 2)]
    with pytest.raises(ValueError, match="of one size"):
        gather_episodes(slices, drawn)
    with pytest.raises(ValueError, match="at least one"):
        gather_episodes(slices, [])


def test_an_orientation_is_one_of_eight_and_the_same_for_images_and_masks():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    task = SegmentationEpisode(image, image, image, image)
    found = [random_orientation(task, generator(seed)) for seed in range(60)]
    for one in found:
        assert all(torch.equal(one[0], part) for part in one)
    assert len({tuple(one[0].flatten().tolist()) for one in found}) == 8
    assert {tuple(one[0].shape[2:]) for one in found} == {(3, 4), (4, 3)}


def three_ways_to_train(freeze: bool = False, strange: bool = False):
    """Give a training of each kind, whose model is frozen or whose optimizer holds another's."""

    def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
        own = list(model.parameters())
        model.requires_grad_(not freeze)
        return torch.optim.SGD([nn.Parameter(torch.zeros(1))] if strange else own, lr=0.1)

    slices = make_slices()
    net, _ = make_training()
    pixels = PixelClassifier(nn.Conv2d(1, 4, 2, stride=2), 4, len(slices.classes) + 1)
    encoder, images, labels = nn.Linear(4, 2), torch.rand(12, 4), torch.arange(12) % 3
    quiet = {"progress": False}
    return {
        "episodes": lambda: episodic_training_epoch(
            net, slices, optimizer_of(net), 2, n_way=1, **quiet
        ),
        "pixels": lambda: fit_pixel_classifier(pixels, slices, optimizer_of(pixels), 2, **quiet),
        "encoder": lambda: fit_encoder(
            encoder, images, labels, optimizer_of(encoder), 2, n_way=2, n_query=1, **quiet
        ),
    }


@pytest.mark.parametrize("kind", ["episodes", "pixels", "encoder"])
def test_a_frozen_model_and_a_strange_optimizer_are_refused_in_a_sentence(kind):
    assert len(three_ways_to_train()[kind]().losses) == 2
    with pytest.raises(ValueError, match="no parameter that can be trained"):
        three_ways_to_train(freeze=True)[kind]()
    with pytest.raises(ValueError, match="holds none of the model's trainable parameters"):
        three_ways_to_train(strange=True)[kind]()


def test_an_optimizer_of_a_part_of_the_model_is_no_mistake():
    encoder = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    encoder[0].requires_grad_(False)
    optimizer = torch.optim.SGD(encoder[1].parameters(), lr=0.1)
    images, labels = torch.rand(12, 4), torch.arange(12) % 3
    fit_encoder(encoder, images, labels, optimizer, 2, n_way=2, n_query=1, progress=False)


def test_numpys_integers_count_as_integers_also_in_a_checkpoint(tmp_path):
    one, two = np.int64(1), np.int32(2)
    file = tmp_path / "run.pt"
    for _ in range(2):  # the second call reads what the first has saved
        net, optimizer = make_training()
        result = episodic_training_epoch(
            net, make_slices(), optimizer, two, n_way=one, k_shot=one, n_query=one,
            episodes_per_step=one, seed=two, checkpoint=file, checkpoint_every=one, progress=False,
        )  # fmt: skip
        assert len(result.losses) == 2
    encoder, images, labels = nn.Linear(4, 2), torch.rand(12, 4), torch.arange(12) % 3
    sgd = torch.optim.SGD(encoder.parameters(), lr=0.1)
    fit_encoder(encoder, images, labels, sgd, two, n_way=two, n_query=one, progress=False)
    assert len(draw_episode(labels, two, one, one, torch.Generator()).classes) == 2
