"""N-way K-shot tasks, and the data they are drawn from (note §2.1, notebook 02)."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from fewshot_lib._tensors import require_count, require_integer


@dataclass(frozen=True)
class Volume:
    """One subject: its image slices, its organ labels, and what the numbers mean.

    Arguments:
        images: (Z, C, H, W) float32, intensities as the scanner gave them.
        labels: (Z, H, W) int64, 0 is background; a value indexes ``names``.
        names: the class names; ``names[0]`` is ``"background"``.
        subject: identifies the person; support and query never share it.
        spacing: voxel size in mm, (slice, row, column).
        site: scanner or hospital, "" if there is only one.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    subject: str
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    site: str = ""

    def __post_init__(self) -> None:
        if self.images.ndim != 4:
            raise ValueError(
                f"images must be (Z, C, H, W), got shape {tuple(self.images.shape)}; "
                "add the channel dimension with images[:, None]"
            )
        expected = (self.images.shape[0], *self.images.shape[-2:])
        if tuple(self.labels.shape) != expected:
            raise ValueError(
                f"labels must be (Z, H, W) = {expected} like images, got {tuple(self.labels.shape)}"
            )
        if self.images.dtype != torch.float32:
            raise TypeError(f"images must be float32, got {self.images.dtype}; use images.float()")
        if self.labels.dtype != torch.int64:
            raise TypeError(f"labels must be int64 class indices, got {self.labels.dtype}")
        if not self.names or self.names[0] != "background":
            raise ValueError(f'names[0] must be "background", got {self.names[:1]}')
        repeated = sorted(name for name, n in Counter(self.names).items() if n > 1)
        if repeated:
            raise ValueError(f"each class is named once, got {repeated} more than once")
        if len(self.spacing) != 3 or not all(side > 0 for side in self.spacing):
            raise ValueError(f"spacing is three positive lengths in mm, got {self.spacing}")
        if self.labels.numel() and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(
            self.names
        ):
            raise ValueError(
                f"labels must lie in 0 … {len(self.names) - 1} (one per name), got "
                f"{int(self.labels.min())} … {int(self.labels.max())}"
            )

    def mask(self, name: str) -> Tensor:
        """Return where the organ ``name`` is: (Z, H, W) bool."""
        if name not in self.names:
            raise ValueError(f"no class {name!r} here; there are {', '.join(self.names)}")
        return self.labels == self.names.index(name)


@dataclass(frozen=True)
class Episode:
    """One N-way K-shot task, as indices into the examples it was drawn from.

    Arguments:
        support_index: (n_way, k_shot) int64, row i holds examples of ``classes[i]``.
        query_index: (n_way, n_query) int64, likewise; shares no example with the support.
        classes: (n_way,) the classes' values in the labels drawn from, in episode order.
    """

    support_index: Tensor
    query_index: Tensor
    classes: Tensor

    @property
    def support_labels(self) -> Tensor:
        """Return the episode's own labels 0 … n_way−1 of the support: (n_way, k_shot) int64."""
        return _rows_numbered(self.support_index)

    @property
    def query_labels(self) -> Tensor:
        """Return the episode's own labels 0 … n_way−1 of the queries: (n_way, n_query) int64."""
        return _rows_numbered(self.query_index)

    @property
    def indices(self) -> Tensor:
        """Return every index once, support first, class by class: (n_way·(k_shot + n_query),)."""
        return torch.cat([self.support_index.flatten(), self.query_index.flatten()])


def _rows_numbered(index: Tensor) -> Tensor:
    rows = torch.arange(index.shape[0], device=index.device)
    return rows[:, None].expand(index.shape)


def draw_episode(
    labels: Tensor, n_way: int, k_shot: int, n_query: int, generator: torch.Generator
) -> Episode:
    """Draw one N-way K-shot episode: classes first, then their examples, without replacement.

    S = ⋃_k S_k with |S_k| = k_shot, Q = ⋃_k Q_k with |Q_k| = n_query, S ∩ Q = ∅; every set of
    n_way classes is equally likely, and within a class every choice of examples.

    Arguments:
        labels: (N,) integer, the class of each example; any values, not only 0 … n−1.
        n_way: how many distinct classes, ≥ 1.
        k_shot: support examples of each class, ≥ 1.
        n_query: query examples of each class, ≥ 0.
        generator: the source of randomness; its state moves on.

    Returns:
        ``Episode`` with indices into ``labels``, on the labels' device.

    Raises:
        ValueError: fewer than n_way classes, or a class with fewer than k_shot + n_query examples
            (named, and raised whether or not this draw would have met it).
        TypeError: labels that are not an integer tensor, sizes that are not integers, a generator
            that is none.

    Source: Vinyals et al. 2016; Snell et al. 2017, Algorithm 1. Notebook 02.

    >>> labels = torch.tensor([7, 7, 7, 3, 3, 3])
    >>> draw_episode(labels, 2, 1, 2, torch.Generator().manual_seed(0)).query_index.shape
    torch.Size([2, 2])
    """
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator, got {type(generator).__name__}; "
            "use torch.Generator().manual_seed(seed)"
        )
    return _draw(_class_table(labels, n_way, k_shot, n_query), n_way, k_shot, n_query, generator)


@dataclass(frozen=True)
class _ClassTable:
    classes: Tensor  # (C,) the distinct labels, ascending
    inverse: Tensor  # (N,) each example's place in ``classes``
    counts: Tensor  # (C,)


def _class_table(labels: Tensor, n_way: int, k_shot: int, n_query: int) -> _ClassTable:
    require_integer("labels", labels)
    if labels.ndim != 1:
        raise ValueError(
            f"labels must be (N,), one class an example, got shape {tuple(labels.shape)}"
        )
    for name, value, least in (("n_way", n_way, 1), ("k_shot", k_shot, 1), ("n_query", n_query, 0)):
        require_count(name, value, least)
    classes, inverse, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    if n_way > len(classes):
        raise ValueError(
            f"n_way = {n_way} distinct classes were asked for, but the labels hold only "
            f"{len(classes)}: lower n_way or add classes"
        )
    short = counts < k_shot + n_query
    if bool(short.any()):
        found = ", ".join(
            f"class {label} has {count}"
            for label, count in zip(classes[short].tolist(), counts[short].tolist(), strict=True)
        )
        raise ValueError(
            f"each class needs k_shot + n_query = {k_shot} + {n_query} = {k_shot + n_query} "
            f"examples, but {found}: lower k_shot or n_query, or leave the class out"
        )
    return _ClassTable(classes, inverse, counts)


def _draw(
    table: _ClassTable, n_way: int, k_shot: int, n_query: int, generator: torch.Generator
) -> Episode:
    device, source = table.classes.device, generator.device
    chosen = torch.randperm(len(table.classes), generator=generator, device=source)[:n_way]
    shuffled = torch.randperm(len(table.inverse), generator=generator, device=source)
    chosen, shuffled = chosen.to(device), shuffled.to(device)
    # A stable sort of shuffled examples by class: class by class, each in random order.
    grouped = shuffled[torch.argsort(table.inverse[shuffled], stable=True)]
    first = table.counts.cumsum(0) - table.counts
    place = first[chosen][:, None] + torch.arange(k_shot + n_query, device=device)
    index = grouped[place]  # (n_way, k_shot + n_query)
    return Episode(index[:, :k_shot], index[:, k_shot:], table.classes[chosen])


class EpisodeSampler(Sampler[list[int]]):
    """Yield episodes as batches of indices, for ``DataLoader(dataset, batch_sampler=…)``.

    A batch is ``Episode.indices`` as a list: first the support, class by class, then the queries;
    ``split_episode`` takes a loaded batch apart again. Episode i of epoch e depends on
    (seed, e, i) alone, so a run can stop anywhere and go on: ``state_dict`` is a few integers.
    Each ``iter`` begins a new epoch, except the first one after ``load_state_dict``, which goes on
    where the saved one stood. With loader workers the sampler runs ahead of the training loop:
    set ``position`` in the saved state to the number of episodes really used.

    Arguments:
        labels: (N,) integer, the class of each example of the data set.
        n_way: classes in each episode, ≥ 1.
        k_shot: support examples of each class, ≥ 1.
        n_query: query examples of each class, ≥ 0.
        num_episodes: episodes in an epoch, ≥ 1.
        seed: ≥ 0; the same seed gives the same episodes.

    Raises:
        ValueError, TypeError: as ``draw_episode``, at construction.

    Source: Vinyals et al. 2016. Notebook 02.

    >>> sampler = EpisodeSampler(torch.arange(12) // 4, 2, 1, 3, num_episodes=5, seed=0)
    >>> [len(batch) for batch in sampler]
    [8, 8, 8, 8, 8]
    """

    def __init__(
        self,
        labels: Tensor,
        n_way: int,
        k_shot: int,
        n_query: int,
        num_episodes: int,
        seed: int = 0,
    ) -> None:
        if num_episodes < 1:
            raise ValueError(f"num_episodes must be at least 1, got {num_episodes}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        self._table = _class_table(labels, n_way, k_shot, n_query)
        self.n_way, self.k_shot, self.n_query = n_way, k_shot, n_query
        self.num_episodes, self.seed = num_episodes, seed
        self._epoch, self._position, self._unfinished = -1, num_episodes, False

    def __len__(self) -> int:
        """Return how many episodes an epoch has."""
        return self.num_episodes

    def episode(self, epoch: int, position: int) -> Episode:
        """Return episode number ``position`` of ``epoch``, whatever has been drawn before."""
        seed = _mixed_seed(self.seed, epoch, position)
        generator = torch.Generator().manual_seed(seed)
        return _draw(self._table, self.n_way, self.k_shot, self.n_query, generator)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the episodes of the next epoch, or the rest of a loaded one."""
        if not self._unfinished:
            self._epoch, self._position = self._epoch + 1, 0
        self._unfinished = False
        while self._position < self.num_episodes:
            episode = self.episode(self._epoch, self._position)
            self._position += 1
            yield episode.indices.tolist()

    def state_dict(self) -> dict[str, int]:
        """Return where the sampler stands, as plain integers that any checkpoint can hold."""
        return {"epoch": self._epoch, "position": self._position, **self._settings()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where ``state`` was saved; ValueError if it was saved by other settings."""
        differing = {
            name: (state.get(name), value)
            for name, value in self._settings().items()
            if state.get(name) != value
        }
        if differing:
            found = ", ".join(
                f"{name} = {old} there, {new} here" for name, (old, new) in differing.items()
            )
            raise ValueError(f"this state belongs to another sampler: {found}")
        epoch, position = state["epoch"], state["position"]
        if epoch < -1 or not 0 <= position <= self.num_episodes:
            raise ValueError(
                f"position must be 0 … {self.num_episodes} in an epoch ≥ −1, "
                f"got position {position} in epoch {epoch}"
            )
        self._epoch, self._position = epoch, position
        self._unfinished = epoch >= 0 and position < self.num_episodes

    def _settings(self) -> dict[str, int]:
        return {
            "seed": self.seed,
            "num_episodes": self.num_episodes,
            "n_way": self.n_way,
            "k_shot": self.k_shot,
            "n_query": self.n_query,
            "n_examples": len(self._table.inverse),
        }


def _mixed_seed(*numbers: int) -> int:
    # Neighbouring seeds must not give related streams: SplitMix64's finaliser over each number.
    word = 0
    for number in numbers:
        word = (word + number + 0x9E3779B97F4A7C15) % 2**64
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % 2**64
        word ^= word >> 31
    return word >> 1


def split_episode(batch: Tensor, n_way: int, k_shot: int, n_query: int) -> tuple[Tensor, Tensor]:
    """Take a batch loaded in ``EpisodeSampler`` order apart into support and query.

    Arguments:
        batch: (n_way·(k_shot + n_query), …), any dtype: the support first, class by class.
        n_way: classes in the episode.
        k_shot: support examples of each class.
        n_query: query examples of each class.

    Returns:
        support (n_way, k_shot, …) and query (n_way, n_query, …), views of ``batch``.

    Raises:
        ValueError: a batch of another length.

    Source: notebook 02.

    >>> [part.tolist() for part in split_episode(torch.arange(6), 2, 1, 2)]
    [[[0], [1]], [[2, 3], [4, 5]]]
    """
    expected = n_way * (k_shot + n_query)
    if batch.ndim < 1 or batch.shape[0] != expected:
        raise ValueError(
            f"a {n_way}-way {k_shot}-shot batch with {n_query} queries per class has {expected} "
            f"rows, got shape {tuple(batch.shape)}"
        )
    support, query = batch[: n_way * k_shot], batch[n_way * k_shot :]
    rest = batch.shape[1:]
    return support.view(n_way, k_shot, *rest), query.view(n_way, n_query, *rest)


class SliceDataset(Dataset[tuple[Tensor, Tensor]]):
    """Show volumes as single slices with the labels of some classes only, for episodes.

    Arguments:
        volumes: subjects with slices of one shape; each must name every class asked for.
        classes: the organs that episodes may ask for, in the order of the new labels.
        min_pixels: pixels of a class that a slice must show to count as showing it, ≥ 1.
        exclude: organs whose slices are left out altogether, however few their pixels ("setting 2"
            of the field: a test organ must not appear, unlabelled, in training slices). Empty, the
            default, is "setting 1".

    Attributes:
        images: (N, C, H, W) float32.
        labels: (N, H, W) int64; i + 1 where ``classes[i]`` is, else 0: other organs are background.
        presence: (N, n_classes) bool, whether the slice shows ``min_pixels`` of the class.
        subjects: (N,) int64, indexes ``subject_names``; volumes of one subject share it.
        slice_index: (N,) int64, the slice's place in its volume.
        classes: the class names, without background.
        subject_names: every subject's name, of all the volumes.
        min_pixels: as given.

    Raises:
        ValueError: no volumes, no classes, an unknown or repeated class, slices of other shapes.

    Source: settings 1 and 2 as in Roy et al. 2020 and Ouyang et al. 2020. Notebooks 02 and 06.

    >>> labels = torch.ones(3, 4, 5, dtype=torch.int64)
    >>> volume = Volume(torch.zeros(3, 1, 4, 5), labels, ("background", "liver"), "subject 1")
    >>> SliceDataset([volume], ["liver"]).presence.sum().item()
    3
    """

    def __init__(
        self,
        volumes: Sequence[Volume],
        classes: Sequence[str],
        min_pixels: int = 1,
        exclude: Sequence[str] = (),
    ) -> None:
        if not volumes:
            raise ValueError("a SliceDataset needs at least one volume, got none")
        if min_pixels < 1:
            raise ValueError(f"min_pixels must be at least 1, got {min_pixels}")
        _require_names("classes", classes)
        _require_volumes_fit(volumes, (*classes, *exclude))
        names = list(dict.fromkeys(volume.subject for volume in volumes))
        depths = [len(volume.images) for volume in volumes]
        numbers = torch.tensor([names.index(volume.subject) for volume in volumes])
        self.images = torch.cat([volume.images for volume in volumes])
        self.labels = torch.cat([_remapped(v.labels, v.names, classes) for v in volumes])
        self.subjects = numbers.repeat_interleave(torch.tensor(depths))
        self.slice_index = torch.cat([torch.arange(depth) for depth in depths])
        self.subject_names = tuple(names)
        self.classes = tuple(classes)
        self.min_pixels = min_pixels
        self.presence = _presence(self.labels, len(self.classes), min_pixels)
        if exclude:
            shown = torch.cat([_remapped(v.labels, v.names, exclude) for v in volumes])
            self._keep((shown == 0).flatten(1).all(dim=1))

    def __len__(self) -> int:
        """Return the number of slices N."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return slice ``index``: image (C, H, W) and labels (H, W)."""
        return self.images[index], self.labels[index]

    def select(
        self,
        classes: Sequence[str] | None = None,
        subjects: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
    ) -> SliceDataset:
        """Return the part with these classes and subjects, without slices that show ``exclude``.

        Arguments:
            classes: names among ``self.classes``, in the new order; None keeps them.
            subjects: names among ``self.subject_names``; None keeps all. Numbers in ``subjects``
                stay what they were.
            exclude: names among ``self.classes``; see the class.

        Returns:
            A new ``SliceDataset``; labels of classes left out become 0.

        Raises:
            ValueError: an unknown or repeated name.

        Source: notebook 06.

        >>> names = ("background", "liver", "spleen")
        >>> volume = Volume(torch.zeros(1, 1, 2, 2), torch.full((1, 2, 2), 2), names, "subject 1")
        >>> SliceDataset([volume], names[1:]).select(classes=["spleen"]).labels.max().item()
        1
        """
        kept = self.classes if classes is None else tuple(classes)
        _require_names("classes", kept, self.classes)
        _require_names("exclude", exclude, self.classes, some=False)
        part = copy.copy(self)
        keep = torch.ones(len(self), dtype=torch.bool)
        if exclude:
            unwanted = torch.tensor([self.classes.index(name) + 1 for name in exclude])
            keep &= ~torch.isin(self.labels, unwanted).flatten(1).any(dim=1)
        if subjects is not None:
            _require_names("subjects", subjects, self.subject_names)
            keep &= torch.isin(
                self.subjects, torch.tensor([self.subject_names.index(name) for name in subjects])
            )
        part._keep(keep)
        if kept != self.classes:
            part.labels = _remapped(part.labels, ("background", *self.classes), kept)
            part.presence = part.presence[:, [self.classes.index(name) for name in kept]]
            part.classes = kept
        return part

    def _keep(self, keep: Tensor) -> None:
        self.images, self.labels = self.images[keep], self.labels[keep]
        self.subjects, self.slice_index = self.subjects[keep], self.slice_index[keep]
        self.presence = self.presence[keep]


def _remapped(labels: Tensor, names: Sequence[str], classes: Sequence[str]) -> Tensor:
    table = torch.zeros(len(names), dtype=torch.int64)
    table[[names.index(name) for name in classes]] = torch.arange(1, len(classes) + 1)
    return table[labels]  # (Z, H, W), classes[i] ↦ i + 1, everything else ↦ 0


def _presence(labels: Tensor, n_classes: int, min_pixels: int) -> Tensor:
    slices = torch.arange(len(labels))[:, None, None]
    flat = (slices * (n_classes + 1) + labels).flatten()
    counts = torch.bincount(flat, minlength=len(labels) * (n_classes + 1))
    return counts.view(len(labels), n_classes + 1)[:, 1:] >= min_pixels


def _require_names(
    what: str, names: Sequence[str], known: Sequence[str] | None = None, some: bool = True
) -> None:
    if isinstance(names, str):
        raise TypeError(f"{what} must be a list of names, got the one string {names!r}")
    if some and not names:
        raise ValueError(f"{what} must name at least one, got none")
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    if repeated:
        raise ValueError(f"{what} must not repeat a name, got {repeated} more than once")
    unknown = [] if known is None else [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"{what} {unknown} unknown here; there are {', '.join(known or ())}")


def _require_volumes_fit(volumes: Sequence[Volume], names: Sequence[str]) -> None:
    if "background" in names:
        raise ValueError('"background" is always label 0: leave it out of classes and exclude')
    shape = tuple(volumes[0].images.shape[1:])
    for volume in volumes:
        if tuple(volume.images.shape[1:]) != shape:
            raise ValueError(
                f"all slices must have one shape (C, H, W): subject {volumes[0].subject!r} has "
                f"{shape}, {volume.subject!r} has {tuple(volume.images.shape[1:])}; resample first"
            )
        missing = [name for name in names if name not in volume.names]
        if missing:
            raise ValueError(
                f"subject {volume.subject!r} has no label for {missing}: the organ may be there, "
                "unlabelled, and would count as background; leave the class or the subject out"
            )
