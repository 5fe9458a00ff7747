"""The reader's own scans: folders of NIfTI files or DICOM series with masks (notebook 08).

Nothing leaves this machine: files are read, nothing is written or sent.

Three layouts are understood, one pair (image, mask) a subject:

- ``<subject>_image.nii.gz`` beside ``<subject>_mask.nii.gz`` (``.nii`` works too);
- ``imagesTr/<subject>_0000.nii.gz`` (or without ``_0000``) and ``labelsTr/<subject>.nii.gz``;
- ``<subject>/image.nii.gz``, or ``<subject>/image/`` full of DICOM files, and
  ``<subject>/mask.nii.gz``.

Names of the labels come from ``labels.json`` or ``dataset.json`` in the folder: {"liver": 1, …},
{"1": "liver", …} or nnU-Net's {"labels": {…}}. Without one they are ``label_1``, ``label_2``, ….
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError

from fewshot_lib.data.dicom import VolumeError, is_dicom, read_series
from fewshot_lib.data.grid import axial
from fewshot_lib.data.resize import pad_square, resize_volume
from fewshot_lib.episodes import Volume

__all__ = ["VolumeError", "read_folder", "read_image", "read_pair"]

ANISOTROPY = 3.0  # warn when slices are this many times thicker than pixels are wide
TOLERANCE_MM = 0.1  # image and mask may disagree this much about where they are
SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Pair:
    """Where one subject's image and mask lie."""

    subject: str
    image: Path
    mask: Path


def read_folder(path: str | Path, size: int | None = None) -> list[Volume]:
    """Read every subject of a folder: NIfTI pairs or DICOM series with a NIfTI mask.

    Arguments:
        path: a folder in one of the layouts of this module's page.
        size: None keeps each scan's grid; a number pads slices to a square and resamples them to
            size × size, so that subjects of different shapes can be used together.

    Returns:
        One volume a subject, sorted by name, all with the same class names: images (Z, 1, H, W)
        float32 in the file's units, labels (Z, H, W) int64; axial, slice 0 inferior, image left the
        patient's right, top anterior.

    Raises:
        VolumeError: anything that would make the result wrong, one sentence each: no such folder,
            nothing in it, a file without its partner, an unreadable file, an image that is not 3-D,
            no pixel data, unknown orientation, NaN or one intensity everywhere, image and mask of
            different shape or place, masks that are not whole numbers, negative, or empty, labels
            without a name, subjects without a common label, missing slices.

    Warns:
        UserWarning: slices more than three times thicker than pixels are wide.

    Source: data card "volumes"; notebook 08.

    >>> read_folder("no/such/folder")
    Traceback (most recent call last):
    fewshot_lib.data.dicom.VolumeError: there is no folder no/such/folder
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise VolumeError(f"there is no folder {folder}")
    pairs = find_pairs(folder)
    table = _label_names(folder)
    numbered = [read_pair(pair.image, pair.mask, subject=pair.subject) for pair in pairs]
    common = set.intersection(*(_numbers(v) for v in numbered))
    if not common:
        raise VolumeError(
            f"the {len(pairs)} masks in {folder} have no label in common; support and query must "
            "show the same organ: check the numbering "
            f"({pairs[0].subject} has {sorted(_numbers(numbered[0]))}, "
            f"{pairs[-1].subject} has {sorted(_numbers(numbered[-1]))})"
        )
    return [
        _square(volume, size)
        for volume in _share_names(numbered, table, [pair.mask for pair in pairs])
    ]


def find_pairs(folder: Path) -> list[Pair]:
    """Match images with masks by name.

    Arguments:
        folder: in one of the layouts of this module's page.

    Returns:
        Pairs, sorted by subject.

    Raises:
        VolumeError: nothing to read, or a file without its partner.
    """
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    if not entries:
        raise VolumeError(f"{folder} is empty; put images and masks into it")
    if (folder / "imagesTr").is_dir() or (folder / "labelsTr").is_dir():
        images = {stem.removesuffix("_0000"): p for stem, p in _niftis(folder / "imagesTr").items()}
        masks = _niftis(folder / "labelsTr")
    else:
        images, masks = {}, {}
        for stem, p in _niftis(folder).items():
            for ending, found in (("_image", images), ("_mask", masks)):
                if stem.endswith(ending):
                    found[stem.removesuffix(ending)] = p
        for sub in (p for p in entries if p.is_dir()):
            inside = _niftis(sub)
            if "mask" in inside:
                masks[sub.name] = inside["mask"]
            if "image" in inside:
                images[sub.name] = inside["image"]
            elif (sub / "image").is_dir():
                images[sub.name] = sub / "image"
    if not images and not masks:
        raise VolumeError(
            f"{folder} holds no pair that this course understands (it has {entries[0].name!r}, …); "
            "name files <subject>_image.nii.gz and <subject>_mask.nii.gz"
        )
    lonely = sorted(set(images) ^ set(masks))
    if lonely:
        has, lacks = ("an image", "mask") if lonely[0] in images else ("a mask", "image")
        raise VolumeError(
            f"{lonely[0]} has {has} but no {lacks} in {folder}; add the {lacks} or move the file "
            "away"
        )
    return [Pair(subject, images[subject], masks[subject]) for subject in sorted(images)]


def read_pair(image: str | Path, mask: str | Path, subject: str = "") -> Volume:
    """Read one image with its mask.

    Arguments:
        image: a NIfTI file or a folder with one DICOM series.
        mask: a NIfTI file on the image's grid (stored in whatever orientation).
        subject: the person's name; default the image's file name.

    Returns:
        A volume whose names are ``label_<number>``, with all numbers up to the largest.

    Raises:
        VolumeError: as `read_folder`, for this pair.

    Source: notebook 08.
    """
    image, mask = Path(image), Path(mask)
    picture = _read_dicom_folder(image) if image.is_dir() else read_nifti(image)
    marked = read_nifti(mask)
    _require_same_grid(picture, marked, image, mask)
    labels = _whole_numbers(axial(marked)[0], mask)
    return _volume(picture, labels, image, subject)


def read_image(path: str | Path, subject: str = "") -> Volume:
    """Read one image that nobody has labelled.

    Arguments:
        path: a NIfTI file or a folder with one DICOM series.
        subject: the person's name; default the file's name.

    Returns:
        A volume whose labels are all 0 and whose names are ("background",).

    Raises:
        VolumeError: as `read_folder`, for this image.

    Source: notebook 08; the command ``fewshot segment``.
    """
    path = Path(path)
    picture = _read_dicom_folder(path) if path.is_dir() else read_nifti(path)
    return _volume(picture, None, path, subject)


def _volume(
    picture: nib.Nifti1Image, labels: np.ndarray | None, image: Path, subject: str
) -> Volume:
    """Make a volume of an image and its labels (None: all 0), after a look at its intensities."""
    intensities, spacing = axial(picture)
    intensities = intensities.astype(np.float32)
    if not np.isfinite(intensities).all():
        raise VolumeError(f"{image} holds NaN or infinite intensities; replace them by air first")
    if intensities.min() == intensities.max():
        raise VolumeError(
            f"{image} has the intensity {intensities.flat[0]:g} everywhere, so there is nothing to "
            "see; it may be a mask, or an export that failed: export it again"
        )
    if labels is None:
        labels = np.zeros(intensities.shape, np.int64)
    slice_mm, row_mm, column_mm = spacing
    if slice_mm > ANISOTROPY * max(row_mm, column_mm):
        warnings.warn(
            f"{image}: slices are {slice_mm:.1f} mm thick and pixels {row_mm:.1f} mm wide; "
            "slice-wise lessons work, but neighbouring slices share little",
            UserWarning,
            stacklevel=3,
        )
    return Volume(
        images=torch.from_numpy(intensities)[:, None],
        labels=torch.from_numpy(labels),
        names=("background", *(f"label_{n}" for n in range(1, int(labels.max()) + 1))),
        subject=subject or _stem(image),
        spacing=spacing,
        site=image.parent.name,
    )


def _stem(path: Path) -> str:
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.name


def _niftis(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    files = (p for p in folder.iterdir() if p.name.endswith(SUFFIXES) and p.name[0] != ".")
    return {_stem(p): p for p in sorted(files)}


def read_nifti(path: Path) -> nib.Nifti1Image:
    """Read a NIfTI file that holds one grey 3-D volume and says how the patient lies.

    Raises:
        VolumeError: it is not there, not readable, or not such a volume.
    """
    if not path.exists():
        raise VolumeError(f"there is no file {path}; look at its name and folder")
    if path.is_dir():
        raise VolumeError(f"{path} is a folder, not a NIfTI file; name one file in it")
    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):
            raise VolumeError(f"{path} is not NIfTI but {type(image).__name__}; convert it")
        if image.ndim == 4 and image.shape[3] == 1:
            image = image.slicer[..., 0]  # one "time point": still a 3-D scan
        array = np.asanyarray(image.dataobj)
    except VolumeError:
        raise
    except (ImageFileError, OSError, EOFError, ValueError, KeyError) as error:
        raise VolumeError(
            f"{path} cannot be read as NIfTI ({type(error).__name__}: {error}); it may be cut off "
            "or another format, copy or convert it again"
        ) from error
    if array.dtype.names:
        raise VolumeError(f"{path} is a colour image; scans are grey, masks are numbers")
    if array.ndim != 3:
        what = "a time series or several channels" if array.ndim > 3 else "a single slice"
        raise VolumeError(
            f"{path} is {array.ndim}-D, shape {array.shape} ({what}); save one 3-D volume"
        )
    header = image.header
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        raise VolumeError(
            f"{path} does not say how the patient lies (sform and qform codes are 0), so left and "
            "right are unknown; export it again with its orientation"
        )
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-6:
        raise VolumeError(f"{path} has a voxel of no volume in its header; export it again")
    return image


def _read_dicom_folder(folder: Path) -> nib.Nifti1Image:
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    if not files:
        raise VolumeError(f"{folder} is empty; put the series' DICOM files into it")
    dicoms = [p for p in files if is_dicom(p)]
    if not dicoms:
        raise VolumeError(f"{folder} holds no DICOM file ({files[0].name} is none)")
    return read_series({str(p): p for p in dicoms})


def _require_same_grid(
    picture: nib.Nifti1Image, marked: nib.Nifti1Image, image: Path, mask: Path
) -> None:
    one, other = nib.as_closest_canonical(picture), nib.as_closest_canonical(marked)
    if one.shape != other.shape:
        raise VolumeError(
            f"{image} has {' × '.join(map(str, one.shape))} voxels and {mask} "
            f"{' × '.join(map(str, other.shape))} (right, anterior, superior); image and mask must "
            "be on one grid: resample the mask to the image, nearest neighbour"
        )
    corners = np.array(np.meshgrid(*((0, n - 1) for n in one.shape))).reshape(3, -1)
    places = [nib.affines.apply_affine(i.affine, corners.T) for i in (one, other)]
    apart = float(np.linalg.norm(places[0] - places[1], axis=1).max())
    if apart > TOLERANCE_MM:
        axes = ["".join(nib.aff2axcodes(i.affine)) for i in (picture, marked)]
        raise VolumeError(
            f"{image} and {mask} have one shape but lie up to {apart:.1f} mm apart (axes "
            f"{axes[0]} and {axes[1]}); their headers disagree: resample the mask to the image, or "
            "copy the header if you are sure that the voxels match"
        )


def _whole_numbers(mask: np.ndarray, path: Path) -> np.ndarray:
    if not np.isfinite(mask).all() or not np.array_equal(mask, np.round(mask)):
        raise VolumeError(
            f"{path} holds fractions (such as {float(mask[mask != np.round(mask)].flat[0]):.3g}); "
            "a mask holds whole label numbers: threshold probabilities first"
        )
    labels = mask.astype(np.int64)
    if labels.min() < 0:
        raise VolumeError(f"{path} holds the negative label {labels.min()}; use 0, 1, 2, …")
    if labels.max() == 0:
        raise VolumeError(f"{path} marks nothing (all 0); label at least one organ")
    if labels.max() > 65535:
        raise VolumeError(f"{path} goes up to {labels.max()}: is it an image instead of a mask?")
    return labels


def _numbers(volume: Volume) -> set[int]:
    return set(volume.labels.unique().tolist()) - {0}


def _label_names(folder: Path) -> dict[int, str] | None:
    """Read the label table, if there is one: number → name."""
    for name in ("labels.json", "dataset.json"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            content = content.get("labels", content)
            pairs = [
                (int(k), str(v)) if str(k).lstrip("-").isdigit() else (int(v), str(k))
                for k, v in content.items()
            ]
        except (ValueError, TypeError, AttributeError) as error:
            raise VolumeError(
                f'{path} is no label table ({error}); write {{"liver": 1, "spleen": 2}}'
            ) from error
        table = {number: label for number, label in pairs if number != 0}
        if len(set(table.values())) < len(table) or "background" in table.values():
            raise VolumeError(f"{path} names two labels alike, or one of them background")
        return table
    return None


def _share_names(
    volumes: list[Volume], table: dict[int, str] | None, masks: list[Path]
) -> list[Volume]:
    """Give all volumes the same dense labels and names."""
    used = sorted(set.union(*(_numbers(v) for v in volumes)))
    if table is None:
        table = {n: f"label_{n}" for n in used}
    for volume, mask in zip(volumes, masks, strict=True):
        unnamed = sorted(_numbers(volume) - set(table))
        if unnamed:
            raise VolumeError(
                f"{mask} holds label {unnamed[0]}, which the label table does not name "
                f"(it has {sorted(table)}); add it"
            )
    dense = torch.zeros(max(used) + 1, dtype=torch.int64)
    dense[used] = torch.arange(1, len(used) + 1)
    names = ("background", *(table[n] for n in used))
    return [Volume(v.images, dense[v.labels], names, v.subject, v.spacing, v.site) for v in volumes]


def _square(volume: Volume, size: int | None) -> Volume:
    return volume if size is None else resize_volume(pad_square(volume), size)
