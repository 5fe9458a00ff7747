"""What the prototype head costs beside the encoder, and what a training step costs.

Encoder and head are timed in turn, in one run, forward and backward, on the issue's episodes: 4
episodes, 5 classes and background, 1 shot, 1 query a class, 96×96. The head is everything between
feature maps and logits at the images' size: pooling, matching, upsampling, and their gradients.
Shares are ratios of neighbouring timings; their median is given with a 96 % interval (the 4th and
12th of 15). CPU time of one thread is used where a goal hangs on it: it does not count what other
programs take.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fewshot_lib.episodes import SliceDataset, Volume
from fewshot_lib.networks import FewShotSegmentationNet, UNetEncoder
from fewshot_lib.training import episodic_training_epoch, sample_episode

EPISODES, N_WAY, SIZE = 4, 5, 96
REPEATS, LOW, HIGH = 15, 3, 11  # of 15 sorted values the 4th and 12th hold the median with 96.5 %


class Given(nn.Module):
    """An encoder that hands out feature maps made before, so that the head alone is timed."""

    def __init__(self, support: Tensor, query: Tensor) -> None:
        super().__init__()
        self.maps = (support, query)
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.maps[(self.calls - 1) % 2]


def blocks(subject: int, size: int = SIZE, slices: int = 12, organs: int = 7) -> Volume:
    """Make a subject of noise whose organs are blocks, for speed only."""
    generator = torch.Generator().manual_seed(subject)
    coarse = torch.randint(0, organs + 1, (slices, 8, 8), generator=generator)
    labels = coarse.repeat_interleave(size // 8, 1).repeat_interleave(size // 8, 2)
    names = ("background", *(f"organ {number}" for number in range(organs)))
    images = torch.rand(slices, 1, size, size, generator=generator)
    return Volume(images, labels, names, f"subject {subject}")


def slices_of(size: int) -> SliceDataset:
    """Make slices of eight such subjects."""
    volumes = [blocks(subject, size) for subject in range(8)]
    return SliceDataset(volumes, volumes[0].names[1:])


def shares(
    encoder: nn.Module, clock: Callable[[], float], **options: object
) -> tuple[list[float], list[float]]:
    """Time encoder and head in turn; return the head's shares and the encoder's seconds."""
    generator = torch.Generator().manual_seed(0)
    episode = sample_episode(slices_of(SIZE), N_WAY, 1, 1, generator, episodes=EPISODES)
    images = torch.cat([episode.support_images, episode.query_images], dim=1).flatten(0, 1)
    with torch.no_grad():
        maps = encoder(images)
    half = len(images) // 2
    support, query = (part.detach().clone().requires_grad_() for part in maps.split(half))
    head = FewShotSegmentationNet(encoder=Given(support, query), **options)
    gradient = torch.randn_like(maps)
    upstream = torch.randn(EPISODES, N_WAY, N_WAY + 1, SIZE, SIZE)

    def run_encoder() -> None:
        torch.autograd.grad(encoder(images), list(encoder.parameters()), gradient)

    def run_head() -> None:
        torch.autograd.grad(head(*episode[:3]), [support, query], upstream)

    def seconds(run: Callable[[], None]) -> float:
        start = clock()
        run()
        return clock() - start

    seconds(run_encoder), seconds(run_head)  # the first of each warms up
    pairs = [(seconds(run_encoder), seconds(run_head)) for _ in range(REPEATS)]
    return sorted(own / whole for whole, own in pairs), sorted(whole for whole, _ in pairs)


@pytest.fixture
def one_thread():
    """Compute on one core for the time of a benchmark."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_head_costs_little_beside_the_encoder(bench, one_thread):
    torch.manual_seed(0)
    encoder = UNetEncoder()
    found, whole = shares(encoder, time.thread_time)
    bench("encoder, 40 images of 96×96, one core", whole[REPEATS // 2], "s CPU")
    bench(
        "head (masked, cosine) / encoder",
        100 * found[REPEATS // 2],
        "%",
        goal="<= 5",
        interval=(100 * found[LOW], 100 * found[HIGH]),
        note="one core, CPU time",
    )


@pytest.mark.parametrize(
    "options",
    [
        {"similarity": "squared_euclidean"},
        {"location_weight": 100.0},
        {"prototypes": "grid"},
        {"prototypes": "position"},
        {"prototypes": "exemplars", "max_exemplars": 64},
    ],
    ids=lambda options: ", ".join(f"{name} {value}" for name, value in options.items()),
)
def test_the_other_heads_beside_the_encoder(bench, one_thread, options):
    torch.manual_seed(0)
    found, _ = shares(UNetEncoder(), time.thread_time, **options)
    said = ", ".join(f"{name} {value}" for name, value in options.items())
    bench(
        f"head ({said}) / encoder",
        100 * found[REPEATS // 2],
        "%",
        interval=(100 * found[LOW], 100 * found[HIGH]),
    )


def test_the_head_on_all_cores_by_the_clock_on_the_wall(bench):
    torch.manual_seed(0)
    found, _ = shares(UNetEncoder(), time.perf_counter)
    bench(
        f"head / encoder, {torch.get_num_threads()} threads, wall clock",
        100 * found[REPEATS // 2],
        "%",
        interval=(100 * found[LOW], 100 * found[HIGH]),
        note="wants a machine that does nothing else",
    )


@pytest.mark.parametrize(("episodes", "n_way"), [(4, 1), (4, 2), (1, 5)])
def test_a_training_step_of_notebook_06(bench, episodes, n_way):
    torch.manual_seed(0)
    encoder = UNetEncoder(1, 32, width=16, depth=3, stride=2)
    net = FewShotSegmentationNet(encoder=encoder)
    optimizer = torch.optim.Adam(net.parameters())
    slices, steps = slices_of(64), 10
    options = {"n_way": n_way, "episodes_per_step": episodes, "progress": False}
    episodic_training_epoch(net, slices, optimizer, 2 * episodes, **options)
    start, cpu = time.perf_counter(), time.process_time()
    episodic_training_epoch(net, slices, optimizer, steps * episodes, **options)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    bench(
        f"training step, {episodes} × {n_way}-way 1-shot, 64×64, width 16",
        1000 * wall / steps,
        "ms",
        note=f"{torch.get_num_threads()} threads, {1000 * cpu / steps:.0f} ms of CPU",
    )
