"""Segment a reader's scan by another one's labels, from file to file (``fewshot segment``).

Nothing leaves this machine: two scans and a mask are read, one mask is written, whole or not at
all. The work itself is notebook 08's: no training, exemplars of a borrowed encoder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from fewshot_lib.checker.language import translate_message
from fewshot_lib.data.cache import atomic_file
from fewshot_lib.data.formats import NIFTI, PICTURES, suffix_of
from fewshot_lib.data.grid import as_stored
from fewshot_lib.data.prepare import modality, scale_intensities
from fewshot_lib.data.report import Report, VolumeError, reading
from fewshot_lib.data.volumes import load_image, mask_type, read_image, read_pair
from fewshot_lib.episodes import Volume

#: Exemplars of all classes together, so that a mask of sixty organs does not fill the memory.
MAX_EXEMPLARS = 32_768
WRITTEN = (".nii.gz", ".nii")
FAR = 1.5  # two lengths that differ by this factor are worth a remark
TILES = 12  # slices of the overlay picture


class CannotSegment(RuntimeError):
    """Something is missing on this machine; the message says what, and the way out."""

    def __str__(self) -> str:
        return translate_message(super().__str__(), "scans")


@dataclass(frozen=True)
class Outcome:
    """What was written.

    Arguments:
        out: the file.
        voxels: label number → voxels that got it, for every label of the supports' masks.
        labelled, slices: the supports' slices with a label, and those of them that were used.
        remarks: what the reader should know, a sentence each.
    """

    out: Path
    voxels: dict[int, int]
    labelled: int
    slices: int
    remarks: tuple[str, ...]

    def __str__(self) -> str:
        found = ", ".join(f"{label}: {n}" for label, n in self.voxels.items())
        lines = [f"{self.out}: voxels of each label {found}; from {self.labelled} labelled slices"]
        if self.slices < self.labelled:
            lines = [f"{lines[0]} ({self.slices} used)"]
        return "\n".join(translate_message(line, "scans") for line in (*lines, *self.remarks))


@reading()
def segment_files(
    support: Path | Sequence[Path],
    mask: Path | Sequence[Path],
    query: Path,
    out: Path,
    *,
    overwrite: bool = False,
    resample: bool = False,
    overlay: Path | None = None,
    probability: Path | None = None,
    reject: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Write a mask for ``query``, made from ``support`` and its ``mask``.

    Slices of the mask without any label count as not labelled; in a labelled slice, what is 0 is
    background.

    Arguments:
        support: a grey volume in a file, or a folder with one DICOM series; or several.
        mask: on the support's grid, whole numbers, 0 background; one per support.
        query: as a support; its grid, spacing and orientation may be others.
        out: where the mask goes (.nii or .nii.gz; .png for a query that is a picture): the query's
            grid, affine, header and order of voxels, the mask's numbers and its type (of a mask of
            floats: the smallest that fits).
        overwrite: replace files that are there.
        resample: bring a mask on another grid to its support's, nearest neighbour.
        overlay: a PNG file for a picture of the mask on the query's slices.
        probability: a NIfTI file for the probability of each voxel's label, float32 in 0 … 1,
            calibrated on labelled slices of the supports, each left out in turn.
        reject: in 0 … 1; voxels whose probability is below it are written as undecided, with the
            number after the mask's largest.
        progress: called with the slices done and all slices.

    Returns:
        What was found.

    Raises:
        VolumeError: a file that cannot be used, or an ``out`` that cannot be written to; one
            sentence that names it.
        CannotSegment: the extra ``pretrained`` is not installed, or the disk is full.

    Source: notebook 08.
    """
    supports, masks = (
        [Path(p).expanduser() for p in ([given] if isinstance(given, str | Path) else given)]
        for given in (support, mask)
    )
    query, out = Path(query).expanduser(), Path(out).expanduser()
    if len(supports) != len(masks):
        raise VolumeError(
            f"there are {len(supports)} supports and {len(masks)} masks; give --support and "
            "--mask equally often, in the same order"
        )
    endings = (".png", *WRITTEN) if suffix_of(query) in PICTURES else WRITTEN
    inputs = [*(("--support", p) for p in supports), *(("--mask", p) for p in masks)]
    inputs.append(("--query", query))
    _require_writable(out, inputs, overwrite, endings)
    inputs.append(("--out", out))
    if overlay is not None:
        overlay = Path(overlay).expanduser()
        _require_writable(overlay, inputs, overwrite, (".png",))
    if probability is not None:
        probability = Path(probability).expanduser()
        _require_writable(probability, inputs, overwrite, WRITTEN)
    if reject is not None and not 0 <= reject <= 1:
        raise VolumeError(f"--reject is a probability from 0 to 1, got {reject:g}")
    for path in (*supports, *masks, query):
        if not path.exists():
            raise VolumeError(f"there is no file {path}; look at its name and folder")
    report = Report()
    known = [
        read_pair(image, marks, subject=f"support {i}", resample=resample, report=report)
        for i, (image, marks) in enumerate(zip(supports, masks, strict=True), 1)
    ]
    asked = read_image(query, report=report)
    remarks = list(map(str, report.remarks))
    picture = load_image(query, Report())
    for path, volume in zip(supports, known, strict=True):
        axes = [_axes(image) for image in (load_image(path, Report()), picture)]
        told = _distance(path, volume, query, asked, axes)
        remarks += told or [f"{path} and {query} agree in modality, field of view and slicing."]
    numbers = sorted({n for v in known for n in v.labels.unique().tolist() if n})
    calibrated = probability is not None or reject is not None
    found, sure, used, said = _predict(known, asked, len(numbers), calibrated, progress)
    remarks += said
    if reject is not None:
        undecided = sure < reject
        numbers.append(numbers[-1] + 1)
        found = torch.where(undecided, numbers[-1], found)
        remarks.append(
            f"Undecided: {int(undecided.sum())} voxels have a probability below {reject:g}; they "
            f"are written as {numbers[-1]}."
        )
    kinds = [mask_type(path) for path in masks]
    dtype = kinds[0] if len(set(kinds)) == 1 and kinds[0] is not None else None
    if dtype is None or not np.can_cast(np.min_scalar_type(max(numbers)), dtype):
        dtype = np.min_scalar_type(max(numbers))
    _write(as_stored(found.numpy(), picture).astype(dtype), picture, query, out)
    if probability is not None:
        _write(as_stored(sure.numpy(), picture), picture, query, probability)
    if overlay is not None:
        _write_overlay(asked, found, overlay)
    return Outcome(
        out=out,
        voxels={n: int((found == n).sum()) for n in numbers},
        labelled=sum(int(v.labels.flatten(1).any(1).sum()) for v in known),
        slices=used,
        remarks=tuple(remarks),
    )


def _axes(image: nib.Nifti1Image) -> str:
    """Name the direction of each stored axis: "RAS"."""
    return "".join(map(str, nib.aff2axcodes(image.affine)))


def _sliced(volume: Volume) -> str:
    """Name the plane in which a scan was sliced, by its coarsest axis; "" where it has none."""
    longest = max(volume.spacing)
    if longest < FAR * sorted(volume.spacing)[1]:
        return ""
    planes = ["axially", "coronally", "sagittally"]
    return planes[volume.spacing.index(longest)]


def _distance(
    support: Path, known: Volume, query: Path, asked: Volume, axes: Sequence[str]
) -> list[str]:
    """Say in a line each how far support and query differ, and what that usually costs."""
    said = []
    if axes[0] != axes[1]:
        said.append(
            f"{support} is stored as {axes[0]}, {query} as {axes[1]}: both are turned the same way "
            "when they are read, which costs nothing."
        )
    planes = [_sliced(known), _sliced(asked)]
    if planes[0] != planes[1] and all(planes):
        said.append(
            f"{support} is sliced {planes[0]}, {query} {planes[1]}. The method works on axial "
            "slices, which are coarse in one of them; that usually costs accuracy."
        )
    kinds = modality(known), modality(asked)
    if kinds[0] != kinds[1]:
        says = ["a CT" if kind == "CT" else "no CT" for kind in kinds]
        said.append(
            f"Beware: {support} is {says[0]}, {query} is {says[1]} (by the intensity of air). "
            "Across modalities this method collapses (notebook 08); label slices of the query's."
        )
    shown = [
        [n * mm for n, mm in zip((len(v.images), *v.images.shape[-2:]), v.spacing, strict=True)]
        for v in (known, asked)
    ]
    if any(max(a, b) > FAR * min(a, b) for a, b in zip(*shown, strict=True)):
        told = [" × ".join(f"{mm:.0f}" for mm in sides) for sides in shown]
        said.append(
            f"{support} shows {told[0]} mm (up × back × across), {query} {told[1]} mm. The place "
            "in the body is a hint for this method, so another field of view usually costs "
            "accuracy; crop one to the other's."
        )
    return said


def _predict(
    known: list[Volume],
    asked: Volume,
    n_labels: int,
    calibrated: bool,
    progress: Callable[[int, int], None] | None,
) -> tuple[torch.Tensor, torch.Tensor, int, list[str]]:
    """Return the query's labels (Z, H, W) in the mask's numbers, their probabilities, remarks.

    The third value is how many labelled slices were used.
    """
    from fewshot_lib.transfer import (
        CannotCalibrate,
        NoBody,
        PretrainedMissing,
        TransferSegmenter,
        calibrate,
    )

    said: list[str] = []
    temperature = 1.0
    labelled = [int(v.labels.flatten(1).any(1).sum()) for v in known]

    try:
        segmenter = TransferSegmenter(max_exemplars=min(2048, MAX_EXEMPLARS // (1 + n_labels)))
    except PretrainedMissing as error:
        raise CannotSegment(str(error)) from error
    try:
        if calibrated:
            measured = calibrate(segmenter, known)
            temperature = measured.temperature
            said.append(
                f"Calibrated on {measured.n_slices} labelled slices, each left out in turn: "
                f"{measured.accuracy:.2f} of their pixels were right, the mean probability was "
                f"{measured.before:.2f} and is {measured.after:.2f} now (temperature "
                f"{temperature:.2f}). It holds for scans like the support."
            )
    except CannotCalibrate as error:
        said.append(f"Beware: {error}. The probabilities are not calibrated; label one more slice.")
    except NoBody as error:
        raise VolumeError(str(error)) from error
    try:
        segmenter.fit(known if len(known) > 1 else known[0])
        result = segmenter.predict(asked, progress, temperature)
    except NoBody as error:
        raise VolumeError(str(error)) from error
    names = max((v.names for v in known), key=len)  # label_1, label_2, … up to the largest
    numbers = torch.tensor([names.index(name) for name in segmenter.names])
    used = sum(min(n, segmenter.max_slices) for n in labelled)
    return numbers[result.labels], result.confidence, used, said


def _require_writable(
    out: Path, inputs: list[tuple[str, Path]], overwrite: bool, endings: tuple[str, ...]
) -> None:
    if not out.name.endswith(endings) or out.name in endings:
        told = " / ".join(sorted(endings, key=len, reverse=True))
        raise VolumeError(f"{out} must end in {told}; that says how it is written")
    for name, path in inputs:
        if out == path or (out.exists() and path.exists() and out.samefile(path)):
            raise VolumeError(f"{out} is the file of {name} itself; write it somewhere else")
    if out.is_dir():
        raise VolumeError(f"{out} is a folder; name the file to write")
    if out.exists() and not overwrite:
        raise VolumeError(f"{out} exists already; choose another name, or add --overwrite")
    if not out.parent.is_dir():
        raise VolumeError(f"there is no folder {out.parent} for {out.name}; make it first")
    try:
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise VolumeError(
            f"the folder {out.parent} cannot be written to ({error.strerror}); choose another one "
            "for --out"
        ) from error


def _write(array: NDArray, picture: nib.Nifti1Image, query: Path, out: Path) -> None:
    """Write labels, or probabilities, with the query's geometry."""
    if out.name.endswith(".png"):
        from PIL import Image

        flat = array[..., 0].T.astype(np.min_scalar_type(int(array.max())))  # PNG has no int16
        _replace(out, Image.fromarray(flat).save)
        return
    image: Any = picture
    if suffix_of(query) in NIFTI:
        try:
            image = nib.load(query)  # its header, and a fourth axis of 1, are kept
        except Exception:  # a name that belies the file: its numbers were read all the same
            image = picture
    kind = nib.Nifti2Image if isinstance(image, nib.Nifti2Pair) else nib.Nifti1Image
    header = None
    if isinstance(image, nib.Nifti1Pair):
        header = kind.header_class.from_header(image.header)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
    mask = kind(array.reshape(image.shape), image.affine, header, dtype=array.dtype)
    mask.header.set_data_dtype(array.dtype)
    mask.header.set_intent("label" if array.dtype.kind in "iu" else "estimate")
    _replace(out, lambda path: nib.save(mask, path))


def _write_overlay(asked: Volume, found: torch.Tensor, out: Path) -> None:
    """Draw the labels on slices of the query, evenly spread over those that got one."""
    from matplotlib import colormaps
    from PIL import Image

    shown = found.flatten(1).any(1).nonzero().flatten().tolist() or list(range(len(found)))
    places = np.linspace(0, len(shown) - 1, min(TILES, len(shown))).round().astype(int)
    shown = [shown[i] for i in places]
    grey = scale_intensities(asked).images[shown, 0].clamp(0, 1).numpy()
    tiles = np.repeat(grey[..., None], 3, axis=-1)
    colours = colormaps["tab10"](range(10))[:, :3]
    labels = found[shown].numpy()
    for i, number in enumerate(n for n in np.unique(found.numpy()) if n):
        here = labels == number
        tiles[here] = 0.5 * tiles[here] + 0.5 * colours[i % len(colours)]
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    empty = np.zeros((rows * columns - len(shown), *tiles.shape[1:]))
    grid = np.concatenate([tiles, empty]).reshape(rows, columns, *tiles.shape[1:])
    sheet = np.concatenate(np.concatenate(list(grid), axis=1), axis=1)
    sheet = sheet.reshape(rows * tiles.shape[1], columns * tiles.shape[2], 3)
    image = Image.fromarray((255 * sheet).round().astype(np.uint8))
    _replace(out, image.save)


def _replace(out: Path, save: Callable[[Path], object]) -> None:
    """Write beside ``out`` first, then in its place: whole or not at all."""
    try:
        with atomic_file(out) as beside:
            save(beside)
            beside.chmod(0o666 & ~_umask())  # a new file is for its owner alone
    except OSError as error:
        raise CannotSegment(f"{out} could not be written ({error}); free the disk") from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
