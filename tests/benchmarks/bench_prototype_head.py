"""What the prototype head costs beside the encoder and beside its peers, and a training step.

Encoder and head are timed in turn, in one run, forward and backward: 4 episodes, 5 classes and
background, 1 shot, 1 query per class, 96×96. The head is everything between feature maps and logits
at the images' size: pooling, matching, upsampling, and their gradients. The peers get the same
feature maps and do the same work, which is compared first; ways, shots, sizes and episodes vary one
at a time. Ratios are of neighbouring timings; their median is given with the interval of an order
statistic (96 % for 15, 98 % for 7). CPU time of one thread is used where a goal hangs on it: it
does not count what other programs take.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
import types
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from test_networks import NoteNet
from torch import Tensor, nn

from fewshot_lib.episodes import SliceDataset, Volume
from fewshot_lib.networks import FewShotSegmentationNet, UNetEncoder
from fewshot_lib.prototypes import class_prototypes, similarity
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


def tell_share(
    bench: Callable[..., None], what: str, found: list[float], goal: str = "", note: str = ""
) -> None:
    """Record the median share in percent, with its interval."""
    low, median, high = (100 * found[place] for place in (LOW, REPEATS // 2, HIGH))
    bench(what, median, "%", goal=goal, interval=(low, high), note=note)


def test_the_head_costs_little_beside_the_encoder(bench, one_thread):
    torch.manual_seed(0)
    encoder = UNetEncoder()
    found, whole = shares(encoder, time.thread_time)
    bench("encoder, 40 images of 96×96, one core", whole[REPEATS // 2], "s CPU")
    tell_share(bench, "head (masked, cosine) / encoder", found, "<= 5", "one core, CPU time")


@pytest.mark.parametrize(
    "options",
    [
        {"similarity": "squared_euclidean"},
        {"background_grid": 8},
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
    tell_share(bench, f"head ({said}) / encoder", found)


def test_the_head_on_all_cores_by_the_clock_on_the_wall(bench):
    torch.manual_seed(0)
    found, _ = shares(UNetEncoder(), time.perf_counter)
    what = f"head / encoder, {torch.get_num_threads()} threads, wall clock"
    tell_share(bench, what, found, note="wants a machine that does nothing else")


# Beside peers: ways, shots, image size, episodes. Feature maps have a quarter of the size.
ROWS = [
    (1, 1, 64, 1),
    (20, 1, 64, 1),
    (1, 10, 64, 1),
    (20, 10, 32, 1),
    (10, 5, 64, 1),
    (5, 1, 32, 1),
    (5, 1, 128, 1),
    (5, 1, 256, 1),
    (5, 1, 64, 4),
    (5, 1, 64, 16),
    (1, 5, 64, 4),
]
DIMENSIONS, TIMES = 64, 7  # channels of a feature map; timings, of which all but the extremes hold


def as_in_the_note(support: Tensor, masks: Tensor, queries: Tensor) -> Tensor:
    """Call the note's code as its signature has it: for one query of one episode at a time."""
    logits = []
    for images, labels, asked in zip(support, masks, queries, strict=True):
        for query in asked:
            net = NoteNet(nn.Identity())
            known = net.compute_prototypes(images, labels)
            similarity = net.match_features(query[None], known)
            size = labels.shape[-2:]
            logits.append(F.interpolate(similarity[None], size, mode="bilinear")[0])
    return torch.stack(logits).unflatten(0, queries.shape[:2])


def as_panet(support: Tensor, masks: Tensor, queries: Tensor) -> Tensor:
    """Loop over episodes, ways and shots, with features upsampled to the masks, like PANet."""
    n_way = masks.shape[2] - 1
    shots = support.shape[1] // n_way
    logits = []
    for images, labels, asked in zip(support, masks, queries, strict=True):
        size = labels.shape[-2:]

        def pooled(image: Tensor, mask: Tensor, size: tuple[int, ...] = size) -> Tensor:
            large = F.interpolate(image[None], size, mode="bilinear")
            return (large * mask).sum(dim=(2, 3)) / (mask.sum() + 1e-5)

        organs, backgrounds = [], []
        for way in range(n_way):
            rows = range(way * shots, (way + 1) * shots)
            organs.append(sum(pooled(images[row], labels[row, way + 1]) for row in rows) / shots)
            backgrounds.append(sum(pooled(images[row], labels[row, 0]) for row in rows) / shots)
        prototypes = [sum(backgrounds) / n_way, *organs]
        alike = [20 * F.cosine_similarity(asked, c[..., None, None], dim=1) for c in prototypes]
        logits.append(F.interpolate(torch.stack(alike, dim=1), size, mode="bilinear"))
    return torch.stack(logits)


def feature_episode(n_way: int, k_shot: int, size: int, episodes: int) -> tuple[Tensor, ...]:
    """Draw feature maps of support and query, and masks of one organ per support image."""
    chance, cells = torch.Generator().manual_seed(0), size // 4
    images, n_support = [], n_way * k_shot
    for number in (n_support, n_way):
        maps = torch.randn(episodes, number, DIMENSIONS, cells, cells, generator=chance)
        images.append(maps.requires_grad_())
    masks = torch.zeros(episodes, n_support, n_way + 1, size, size)
    organ = torch.arange(n_way).repeat_interleave(k_shot) + 1
    masks[:, torch.arange(n_support), organ, size // 4 : size // 2, size // 4 : size // 2] = 1
    masks[:, :, 0] = 1 - masks[:, :, 1:].sum(dim=2)
    return images[0], masks, images[1]


def network(**options: object) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Give what a network does behind its encoder, as one function."""
    net = FewShotSegmentationNet(encoder=nn.Identity(), **options)

    def head(support: Tensor, masks: Tensor, queries: Tensor) -> Tensor:
        net.encoder = Given(support.flatten(0, 1), queries.flatten(0, 1))  # whatever the images
        pictures = (torch.empty(*x.shape[:2], 1, *masks.shape[-2:]) for x in (support, queries))
        images, asked = pictures
        return net(images, masks, asked)

    return head


def ratios(
    peer: Callable[..., Tensor], ours: Callable[..., Tensor], given: tuple[Tensor, ...]
) -> list[float]:
    """Time both in turn, forward and backward; return how many times ours is faster, sorted."""
    trained = [tensor for tensor in given if tensor.requires_grad]

    def seconds(run: Callable[..., Tensor]) -> float:
        start, times = time.thread_time(), 0
        while times == 0 or time.thread_time() - start < 0.02:
            answer = run(*given)
            torch.autograd.grad(answer, trained, torch.ones_like(answer))
            times += 1
        return (time.thread_time() - start) / times

    seconds(peer), seconds(ours)  # the first of each warms up
    return sorted(seconds(peer) / seconds(ours) for _ in range(TIMES))


def report(
    bench: Callable[..., None], what: str, found: list[float], goal: str, why: str = ""
) -> None:
    """Record the median ratio; where the peer wins, with the reason."""
    ratio = found[TIMES // 2]
    note = why if ratio < 1 else ""
    bench(what, ratio, "×", goal=goal, interval=(found[0], found[-1]), note=note)


def named(row: tuple[int, ...]) -> str:
    return "{}-way {}-shot, {}², {} episode(s)".format(*row)


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_the_note_s_head_beside_the_note_s_loop(bench, one_thread, row):
    given = feature_episode(*row)
    ours = network(prototypes="position", scale=1.0)
    torch.testing.assert_close(ours(*given), as_in_the_note(*given), rtol=1e-4, atol=1e-5)
    goal = ">= 10" if row[:2] == (10, 5) else ""
    found = ratios(as_in_the_note, ours, given)
    why = "one query: nothing repeats, and the batched product rearranges the features first"
    report(bench, f"the note's loop / ours, {named(row)}", found, goal, why)


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_masked_prototypes_beside_a_loop_like_panet_s(bench, one_thread, row):
    given = feature_episode(*row)
    ours = network(pooling="images")
    torch.testing.assert_close(ours(*given), as_panet(*given), rtol=1e-3, atol=1e-3)
    goal = ">= 3" if row == (1, 5, 64, 4) else ""
    report(bench, f"PANet's loop / ours, {named(row)}", ratios(as_panet, ours, given), goal)


@pytest.fixture(scope="module")
def easyfsl(tmp_path_factory):
    """Give easyfsl's PrototypicalNetworks, from a folder of its own.

    Its package imports torchvision for its backbones, which this network does not use: the module
    is imported past them.
    """
    folder = tmp_path_factory.mktemp("easyfsl")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
    subprocess.run([*install, "easyfsl==1.5.0"], check=True)
    for name in ("easyfsl", "easyfsl.methods"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(folder.joinpath(*name.split(".")))]
    return importlib.import_module("easyfsl.methods.prototypical_networks").PrototypicalNetworks


@pytest.mark.parametrize("episodes", [1, 4, 16])
@pytest.mark.parametrize(("n_way", "k_shot"), [(1, 1), (5, 1), (5, 5), (20, 1), (20, 10)])
def test_classification_beside_easyfsl(bench, one_thread, easyfsl, n_way, k_shot, episodes):
    chance = torch.Generator().manual_seed(0)
    labels = torch.arange(n_way).repeat_interleave(k_shot).expand(episodes, -1)
    given = [
        torch.randn(episodes, n_way * number, 256, generator=chance).requires_grad_()
        for number in (k_shot, 5)
    ]

    def theirs(support: Tensor, queries: Tensor) -> Tensor:
        network, scores = easyfsl(), []
        for own, numbers, asked in zip(support, labels, queries, strict=True):
            network.process_support_set(own, numbers)
            scores.append(network(asked))
        return torch.stack(scores)

    def ours(support: Tensor, queries: Tensor) -> Tensor:
        return similarity(queries, class_prototypes(support, labels, n_way), "euclidean")

    torch.testing.assert_close(ours(*given), theirs(*given), rtol=1e-4, atol=1e-4)
    found = ratios(theirs, ours, tuple(given))
    report(
        bench, f"easyfsl / ours, {n_way}-way {k_shot}-shot, {episodes} episode(s)", found, ">= 1"
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
