"""Segment a reader's scan by another one's labels, from file to file (``fewshot segment``).

Nothing leaves this machine: two scans and a mask are read, one mask is written, whole or not at
all. The work itself is notebook 08's: no training, exemplars of a borrowed encoder.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from fewshot_lib.data.grid import as_stored
from fewshot_lib.data.prepare import modality
from fewshot_lib.data.volumes import SUFFIXES, VolumeError, read_image, read_nifti, read_pair
from fewshot_lib.episodes import Volume

#: Exemplars of all classes together, so that a mask of sixty organs does not fill the memory.
MAX_EXEMPLARS = 32_768
LARGEST = 2**28  # voxels; beyond that a header lies more often than a scan is so large


class CannotSegment(RuntimeError):
    """Something is missing on this machine; the message says what, and the way out."""


@dataclass(frozen=True)
class Outcome:
    """What was written.

    Arguments:
        out: the file.
        voxels: label number → voxels that got it, for every label of the support's mask.
        labelled, slices: the support's slices with a label, and those of them that were used.
        remarks: what the reader should know, a sentence each.
    """

    out: Path
    voxels: dict[int, int]
    labelled: int
    slices: int
    remarks: tuple[str, ...]

    def __str__(self) -> str:
        found = ", ".join(f"{label}: {n}" for label, n in self.voxels.items())
        used = f" ({self.slices} used)" if self.slices < self.labelled else ""
        lines = [f"{self.out}: voxels of each label {found}; from {self.labelled} labelled slices"]
        return "\n".join([lines[0] + used, *self.remarks])


def segment_files(
    support: Path,
    mask: Path,
    query: Path,
    out: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Write a mask for ``query``, made from ``support`` and its ``mask``.

    Slices of the mask without any label count as not labelled; in a labelled slice, what is 0 is
    background.

    Arguments:
        support: NIfTI, 3-D, grey.
        mask: NIfTI on the support's grid, whole numbers, 0 background.
        query: NIfTI, 3-D, grey; its grid, spacing and orientation may be others.
        out: where the mask goes (.nii or .nii.gz): the query's grid, affine, header and order of
            voxels, the mask's numbers and its type (of a mask of floats: the smallest that fits).
        overwrite: replace a file that is there.
        progress: called with the slices done and all slices.

    Returns:
        What was found.

    Raises:
        VolumeError: a file that cannot be used, or an ``out`` that cannot be written to; one
            sentence that names it.
        CannotSegment: the extra ``pretrained`` is not installed, or the disk is full.

    Source: notebook 08.
    """
    support, mask, query, out = (Path(p).expanduser() for p in (support, mask, query, out))
    _require_writable(out, {"support": support, "mask": mask, "query": query}, overwrite)
    for path in (support, mask, query):  # a folder of DICOM files has no header to keep
        _require_file(path)
    with warnings.catch_warnings(record=True) as thick:
        warnings.simplefilter("always", UserWarning)
        known, asked = read_pair(support, mask), read_image(query)
        remarks = [str(w.message) for w in thick if w.category is UserWarning]
    for path, volume in ((support, known), (query, asked)):
        if volume.images.numel() > LARGEST:
            raise VolumeError(
                f"{path} has {volume.images.numel():,} voxels, more than this course can hold "
                f"({LARGEST:,}); crop or resample it"
            )
    kinds = modality(known), modality(asked)
    if kinds[0] != kinds[1]:
        says = ["a CT" if kind == "CT" else "no CT" for kind in kinds]
        remarks.append(
            f"Beware: {support} is {says[0]}, {query} is {says[1]} (by the intensity of air). "
            "Across modalities this method collapses (notebook 08); label slices of the query's."
        )
    numbers = [n for n in known.labels.unique().tolist() if n]
    found, used = _predict(known, asked, len(numbers), progress)
    image = nib.Nifti1Image.from_filename(query)  # with its last axis, if that is a fourth of 1
    array = as_stored(found.numpy(), read_nifti(query)).reshape(image.shape)
    _write(array.astype(_type_of(mask, max(numbers))), image, out)
    return Outcome(
        out=out,
        voxels={n: int((found == n).sum()) for n in numbers},
        labelled=int(known.labels.flatten(1).any(1).sum()),
        slices=used,
        remarks=tuple(remarks),
    )


def _predict(
    known: Volume, asked: Volume, n_labels: int, progress: Callable[[int, int], None] | None
) -> tuple[torch.Tensor, int]:
    """Return the query's labels (Z, H, W) in the mask's numbers, and how many slices were used."""
    from fewshot_lib.transfer import PretrainedMissing, TransferSegmenter

    try:
        segmenter = TransferSegmenter(max_exemplars=min(6144, MAX_EXEMPLARS // (1 + n_labels)))
    except PretrainedMissing as error:
        raise CannotSegment(str(error)) from error
    try:
        segmenter.fit(known)
        result = segmenter.predict(asked, progress)
    except ValueError as error:  # no body to be found
        raise VolumeError(str(error)) from error
    numbers = torch.tensor([known.names.index(name) for name in segmenter.names])
    labelled = int(known.labels.flatten(1).any(1).sum())
    return numbers[result.labels], min(labelled, segmenter.max_slices)


def _require_file(path: Path) -> None:
    if not path.exists():
        raise VolumeError(f"there is no file {path}; look at its name and folder")
    if path.is_dir():
        raise VolumeError(
            f"{path} is a folder; this command takes NIfTI files: name one, or convert a DICOM "
            "series first (notebook 08 reads such folders itself)"
        )


def _require_writable(out: Path, inputs: dict[str, Path], overwrite: bool) -> None:
    if not out.name.endswith(SUFFIXES) or out.name in SUFFIXES:
        raise VolumeError(f"{out} must end in .nii.gz or .nii; that says how the mask is written")
    for name, path in inputs.items():
        if out.exists() and path.exists() and out.samefile(path):
            raise VolumeError(f"{out} is the {name} itself; write the new mask somewhere else")
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


def _type_of(mask: Path, largest: int) -> np.dtype:
    """Give the mask's own type of whole numbers; for one of floats the smallest that fits."""
    own = np.dtype(read_nifti(mask).get_data_dtype())
    fits = own.kind in "iu" and np.can_cast(np.min_scalar_type(largest), own)
    return own if fits and own.itemsize <= 4 else np.min_scalar_type(largest)


def _write(array: np.ndarray, image: nib.Nifti1Image, out: Path) -> None:
    """Write labels with the query's geometry: beside ``out`` first, then in its place."""
    header = image.header.copy()
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    header.set_intent("label")
    mask = type(image)(array, image.affine, header)  # an equal affine keeps both codes
    suffix = next(s for s in SUFFIXES if out.name.endswith(s))
    handle, name = tempfile.mkstemp(suffix=suffix, prefix=".fewshot-", dir=out.parent)
    os.close(handle)
    try:
        nib.save(mask, name)
        Path(name).chmod(0o666 & ~_umask())  # mkstemp's files are for their owner alone
        Path(name).replace(out)
    except OSError as error:
        raise CannotSegment(f"{out} could not be written ({error}); free the disk") from error
    finally:
        Path(name).unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
