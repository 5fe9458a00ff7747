"""The reader's own scans: images with their masks, from whatever format and layout (notebook 08).

Nothing leaves this machine: files are read, nothing is written or sent. What is read: NIfTI, MGH,
MetaImage, NRRD, DICOM series, grey pictures; as masks also DICOM segmentations and structure sets.
The layouts of folders stand in `fewshot_lib.data.layouts`.

Names of the labels come from ``labels.json`` or ``dataset.json`` in the folder: {"liver": 1, …},
{"1": "liver", …} or nnU-Net's {"labels": {…}}; else from the layout, where it names them. Without
a name they are ``label_1``, ``label_2``, ….
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from fewshot_lib.data.dicom import describe_series, is_dicom, open_dicom, read_series
from fewshot_lib.data.dicom_masks import read_dicom_mask
from fewshot_lib.data.formats import PICTURES, TOLERANCE_MM, read_file, stem, suffix_of
from fewshot_lib.data.grid import axial, corners_apart
from fewshot_lib.data.layouts import CHAOS_NAMES, Pair, files, find_pairs
from fewshot_lib.data.report import Report, VolumeError, reporting
from fewshot_lib.data.resize import pad_square, resize_volume
from fewshot_lib.episodes import Volume

__all__ = ["Report", "VolumeError", "read_folder", "read_image", "read_pair"]

ANISOTROPY = 3.0  # warn when slices are this many times thicker than pixels are wide
OBLIQUE = 20.0  # degrees; slices turned by more are worth a remark
ROUNDING = 1e-3  # a label may be this far from a whole number
CHAOS_VALUES = {1: (55, 70), 2: (110, 135), 3: (175, 200), 4: (240, 255)}


def read_folder(
    path: str | Path,
    size: int | None = None,
    *,
    resample: bool = False,
    report: Report | None = None,
) -> list[Volume]:
    """Read every subject of a folder.

    Arguments:
        path: a folder in one of the layouts of `fewshot_lib.data.layouts`.
        size: None keeps each scan's grid; a number pads slices to a square and resamples them to
            size × size, so that subjects of different shapes can be used together.
        resample: bring a mask on another grid to its image's, nearest neighbour.
        report: takes what was ignored, changed or assumed; without one each is a warning.

    Returns:
        One volume per subject, sorted by name, all with the same class names: images (Z, 1, H, W)
        float32 in the file's units, labels (Z, H, W) int64; axial, slice 0 inferior, image left the
        patient's right, top anterior.

    Raises:
        VolumeError: anything that would make the result wrong, one sentence each: no such folder,
            nothing in it, a file without its partner, an unreadable file, an image that is not 3-D,
            no pixel data, unknown orientation, one intensity everywhere, image and mask of
            different shape or place, masks that are not whole numbers, negative, or empty, labels
            without a name, subjects without a common label, missing slices.

    Warns:
        UserWarning: each remark of the reading, if there is no report.

    Source: data card "volumes"; notebook 08.

    >>> read_folder("no/such/folder")
    Traceback (most recent call last):
    fewshot_lib.data.report.VolumeError: there is no folder no/such/folder
    """
    folder = Path(path).expanduser()
    if not folder.exists():
        raise VolumeError(f"there is no folder {folder}")
    if not folder.is_dir():
        raise VolumeError(f"{folder} is a file; name the folder that holds images and masks")
    with reporting(report) as found:
        pairs = find_pairs(folder, found)
        organs = sorted({name for pair in pairs for name in pair.organs})
        known = {n: name for pair in pairs for n, name in pair.names.items()}
        table = _label_names(folder) or dict(enumerate(organs, 1)) or known
        numbered = [_read_pair(pair, resample, found, table) for pair in pairs]
        common = set.intersection(*(_numbers(v) for v in numbered))
        if not common:
            raise VolumeError(
                f"the {len(pairs)} masks in {folder} have no label in common; support and query "
                "must show the same organ: check the numbering "
                f"({pairs[0].subject} has {sorted(_numbers(numbered[0]))}, "
                f"{pairs[-1].subject} has {sorted(_numbers(numbered[-1]))})"
            )
        volumes = _share_names(numbered, table, [pair.mask for pair in pairs])
        return volumes if size is None else [resize_volume(pad_square(v), size) for v in volumes]


def read_pair(
    image: str | Path,
    mask: str | Path,
    subject: str = "",
    *,
    resample: bool = False,
    report: Report | None = None,
) -> Volume:
    """Read one image with its mask.

    Arguments:
        image: a file, or a folder with one DICOM series.
        mask: a file on the image's grid (stored in whatever orientation): whole numbers, or a
            channel of 0 and 1 per class; or a folder of PNG files, one per slice;
            or a folder with one such file, or with one per organ.
        subject: the person's name; default the image's file name.
        resample: bring a mask on another grid to the image's, nearest neighbour.
        report: takes what was ignored, changed or assumed; without one each is a warning.

    Returns:
        A volume whose names are ``label_<number>``, with all numbers up to the largest.

    Raises:
        VolumeError: as `read_folder`, for this pair.

    Source: notebook 08.
    """
    with reporting(report) as found:
        return _read_pair(Pair(subject, Path(image), Path(mask)), resample, found, {})


def read_image(path: str | Path, subject: str = "", *, report: Report | None = None) -> Volume:
    """Read one image that nobody has labelled.

    Arguments:
        path: a file, or a folder with one DICOM series.
        subject: the person's name; default the file's name.
        report: takes what was ignored, changed or assumed; without one each is a warning.

    Returns:
        A volume whose labels are all 0 and whose names are ("background",).

    Raises:
        VolumeError: as `read_folder`, for this image.

    Source: notebook 08; the command ``fewshot segment``.
    """
    with reporting(report) as found:
        return _volume(load_image(Path(path), found), None, Path(path), subject, found)


def load_image(path: Path, report: Report) -> nib.Nifti1Image:
    """Read a file or a folder with one DICOM series, in the order in which it is stored."""
    return _dicom_folder(path, report) if path.is_dir() else read_file(path, report)


def mask_type(path: Path) -> np.dtype | None:
    """Give the type of whole numbers in which a mask is stored; None if it is another."""
    if path.is_dir() or is_dicom(path):
        return None
    own = np.asanyarray(read_file(path, Report(), channels=True).dataobj).dtype
    return own if own.kind in "iu" and own.itemsize <= 4 else None


def _read_pair(pair: Pair, resample: bool, report: Report, names: dict[int, str]) -> Volume:
    picture = load_image(pair.image, report)
    inside = {} if pair.organs else files(pair.mask)
    if not any(suffix_of(path) in PICTURES for path in inside.values()):
        if len(inside) == 1:  # an archive puts a DICOM mask into a folder of its own
            report.add("header", pair.mask, f"{next(iter(inside.values())).name} in it is read")
            pair = replace(pair, mask=next(iter(inside.values())))
        elif inside:
            pair = replace(pair, organs=inside)
            names = dict(enumerate(inside, 1))
            told = ", ".join(f"{number} {name}" for number, name in names.items())
            report.add("assumed", pair.mask, f"a mask per organ, numbered by name: {told}")
    if pair.organs:
        marked = _organs(pair, picture, resample, report, names)
    else:
        marked = _mask(pair.mask, pair.image, picture, report)
        marked = _on_grid(picture, marked, pair.image, pair.mask, resample, report)
    labels = axial(marked)[0].astype(np.int64)
    labels = _renumbered(labels, pair.mask, report, names)
    return _volume(picture, labels, pair.image, pair.subject, report)


def _mask(path: Path, image: Path, picture: nib.Nifti1Image, report: Report) -> nib.Nifti1Image:
    """Read a mask as whole numbers, on its own grid."""
    if path.is_dir():
        return _png_slices(path, image, picture, report)
    if suffix_of(path) in (".jpg", ".jpeg"):
        raise VolumeError(f"{path}: JPEG changes the numbers of a mask; save it as PNG")
    if path.is_file() and is_dicom(path):
        return read_dicom_mask(path, image, picture, report)
    marked = read_file(path, report, channels=True)
    array = _whole(np.asanyarray(marked.dataobj), path, report)
    if array.ndim == 4:
        array = _one_hot(array, picture, path, report)
    if array.max(initial=0) > 65535:
        raise VolumeError(f"{path} goes up to {array.max()}: is it an image instead of a mask?")
    return nib.Nifti1Image(array.astype(np.int32), marked.affine)


def _volume(
    picture: nib.Nifti1Image,
    labels: NDArray | None,
    image: Path,
    subject: str,
    report: Report,
) -> Volume:
    """Make a volume of an image and its labels (None: all 0), after a look at its intensities."""
    intensities, (slice_mm, row_mm, column_mm) = axial(picture)
    upright = float(abs(np.linalg.det(picture.affine[:3, :3]))) / (row_mm * column_mm)
    if upright < 0.999 * slice_mm:  # sheared: what counts is how thick a slice is
        slice_mm = upright
    if min(intensities.shape[1:]) == 1:
        raise VolumeError(
            f"{image} is one slice that is not axial; this course looks at axial slices, give the "
            "whole volume"
        )
    turned = float(np.degrees(np.arccos(_along_axes(picture.affine).clip(-1, 1))).max())
    if turned > OBLIQUE:
        report.add(
            "beware",
            image,
            f"its axes are turned by {turned:.0f}° against the patient's; slices follow its axes",
        )
    if not all(0.01 <= mm <= 100 for mm in (slice_mm, row_mm, column_mm)):
        report.add(
            "beware",
            image,
            f"a voxel is {slice_mm:.3g} × {row_mm:.3g} × {column_mm:.3g} mm large by its header; "
            "look whether its unit is right",
        )
    with np.errstate(over="ignore"):  # what is too large is infinite, and refused
        intensities = intensities.astype(np.float32)
    intensities = _without_padding(intensities, image, report)
    if intensities.min() == intensities.max():
        raise VolumeError(
            f"{image} has the intensity {intensities.flat[0]:g} everywhere, so there is nothing to "
            "see; it may be a mask, or an export that failed: export it again"
        )
    if labels is None:
        labels = np.zeros(intensities.shape, np.int64)
    if slice_mm > ANISOTROPY * max(row_mm, column_mm):
        report.add(
            "beware",
            image,
            f"slices are {slice_mm:.1f} mm thick and pixels {row_mm:.1f} mm wide; "
            "slice-wise lessons work, but neighbouring slices share little",
        )
    return Volume(
        images=torch.from_numpy(intensities)[:, None],
        labels=torch.from_numpy(labels),
        names=("background", *(f"label_{n}" for n in range(1, int(labels.max()) + 1))),
        subject=subject or stem(image),
        spacing=(slice_mm, row_mm, column_mm),
        site=image.parent.name,
    )


def _along_axes(affine: NDArray) -> NDArray:
    """Give the cosine between each axis of voxels and the patient's axis nearest to it."""
    sides = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return np.abs(sides[nib.io_orientation(affine)[:, 0].astype(int), range(3)])


def _without_padding(intensities: NDArray, image: Path, report: Report) -> NDArray:
    """Fill what no scanner measured with air: NaN, and one low number far below all others."""
    if np.isposinf(intensities).any():
        raise VolumeError(f"{image} holds infinite intensities; export it again")
    missing = ~np.isfinite(intensities)
    if missing.all():
        raise VolumeError(f"{image} holds no intensity at all (NaN everywhere); export it again")
    if missing.any():
        air = intensities[~missing].min()
        intensities[missing] = air
        report.add(
            "changed", image, f"{missing.sum()} voxels are NaN or padding; read as air ({air:g})"
        )
    low = intensities.min()
    if low < 0:
        padding = intensities == low
        rest = intensities[~padding]
        # CT reaches down to −1024 in steps of 1; MR does not go below 0
        is_padding = rest.size and (
            low < -1100 <= rest.min() - 1 or (low <= -100 and rest.min() >= 0)
        )
        if is_padding and padding.sum() > 1:
            intensities[padding] = rest.min()
            report.add(
                "changed",
                image,
                f"{padding.sum()} voxels are {low:g}, far below the rest (padding); read as air "
                f"({rest.min():g})",
            )
    return intensities


# --- folders of DICOM files


def _dicom_folder(folder: Path, report: Report) -> nib.Nifti1Image:
    """Read the one series of a folder, or of the tree below it."""
    here = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    if not here:
        raise VolumeError(f"{folder} is empty; put the series' DICOM files into it")
    inside = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    dicoms = [p for p in inside if is_dicom(p)]
    for other in inside:
        if dicoms and other not in dicoms and other.suffix.lower() == ".dcm":
            raise VolumeError(f"{other} is empty or no DICOM file; copy it again, or remove it")
        if other not in dicoms and dicoms:
            report.add("ignored", other, "no DICOM file, left out")
    if not dicoms:
        raise VolumeError(
            f"{folder} holds no DICOM file ({here[0].name} is none); name a file in it, "
            "or a folder with one series"
        )
    folders = sorted({p.parent for p in dicoms if p.name.upper() != "DICOMDIR"})
    if len(folders) > 1:
        listed = [(f, [p for p in dicoms if p.parent == f]) for f in folders]
        told = "; ".join(
            f"{f.relative_to(folder)}: {describe_series([open_dicom(str(p), p) for p in files])}"
            for f, files in listed[:8]
        )
        raise VolumeError(
            f"{folder} holds {len(folders)} folders of DICOM files ({told}"
            f"{'; …' if len(listed) > 8 else ''}); name one of them"
        )
    if folders and folders[0] != folder:
        report.add("header", folder, f"the series in {folders[0].relative_to(folder)} is read")
    return read_series({str(p): p for p in dicoms}, report, padding=True)


def _png_slices(
    folder: Path, image: Path, picture: nib.Nifti1Image, report: Report
) -> nib.Nifti1Image:
    """Read a folder of PNG masks beside a DICOM series, matched by the order of file names."""
    masks = sorted(p for p in folder.iterdir() if suffix_of(p) == ".png" and p.name[0] != ".")
    slices = sorted(p for p in image.rglob("*") if p.is_file() and is_dicom(p))
    if not image.is_dir() or len(masks) != len(slices) or not masks:
        raise VolumeError(
            f"{folder} holds {len(masks)} PNG masks for {len(slices)} DICOM slices of {image}; "
            "give one mask per slice"
        )
    if {p.stem for p in masks} == {p.stem for p in slices}:
        report.add("header", folder, "masks are matched with slices by name")
    else:
        report.add("assumed", folder, "masks are matched with slices by the order of their names")
    to_voxels = np.linalg.inv(picture.affine)
    labels = np.zeros(picture.shape, np.int64)
    for mask, path in zip(masks, slices, strict=True):
        own = Report()  # that a picture says neither size nor side does not matter here
        array = np.asarray(read_file(mask, own, channels=True).dataobj)[..., 0]
        origin = np.array(open_dicom(str(path), path).ImagePositionPatient, float) * (-1, -1, 1)
        place = round(float((to_voxels @ [*origin, 1])[2]))
        if array.shape != labels.shape[:2]:
            raise VolumeError(f"{mask} has another size than the slices of {image}; export again")
        labels[..., place] = array
    values = set(np.unique(labels).tolist()) - {0}
    ranges = CHAOS_VALUES.items()
    if values and values != {255} and all(any(a <= v <= b for _, (a, b) in ranges) for v in values):
        grey = labels.copy()
        for number, (a, b) in ranges:
            labels[(grey >= a) & (grey <= b)] = number
        told = ", ".join(f"{n} {name}" for n, name in CHAOS_NAMES.items())
        report.add("changed", folder, f"grey levels are read as CHAOS writes them: {told}")
    return nib.Nifti1Image(labels.astype(np.int32), picture.affine)


def _organs(
    pair: Pair,
    picture: nib.Nifti1Image,
    resample: bool,
    report: Report,
    names: dict[int, str],
) -> nib.Nifti1Image:
    """Put the masks of single organs into one."""
    numbers = {name: number for number, name in names.items()}
    labels = np.zeros(picture.shape, np.int32)
    for organ, path in pair.organs.items():
        if organ not in numbers:
            report.add("ignored", path, "the label table does not name it")
            continue
        marked = _on_grid(
            picture, _mask(path, pair.image, picture, report), pair.image, path, resample, report
        )
        numbered = np.asarray(marked.dataobj)
        here = numbered != 0
        if here.any() and numbered[here].min() != numbered.max():
            raise VolumeError(
                f"{path} holds several labels, and its folder a mask per organ; name one file as "
                "the mask"
            )
        overlap = int((labels[here] > 0).sum())
        if overlap:
            raise VolumeError(
                f"{path} overlaps another organ in {overlap} voxels; a voxel has one label here: "
                "leave one of the two masks out"
            )
        labels[here] = numbers[organ]
    return nib.Nifti1Image(labels, picture.affine)


# --- masks


def _on_grid(
    picture: nib.Nifti1Image,
    marked: nib.Nifti1Image,
    image: Path,
    mask: Path,
    resample: bool,
    report: Report,
) -> nib.Nifti1Image:
    """Bring a mask to its image's voxels: exactly, if it lies on them, or else by resampling.

    A DICOM segmentation or one of 3D Slicer may cover a part of the image's voxels; the rest is
    background.
    """
    to_mask = np.linalg.inv(marked.affine) @ picture.affine  # the image's voxels → the mask's
    whole = np.round(to_mask)
    apart = corners_apart(marked.affine @ to_mask, marked.affine @ whole, picture.shape)
    turns = np.abs(whole[:3, :3])
    exact = (turns.sum(0) == 1).all() and (turns.sum(1) == 1).all()
    half = float(nib.affines.voxel_sizes(marked.affine).min()) / 2
    if exact and apart < half:
        back = np.linalg.inv(whole)
        ends = np.array([[0, 0, 0], [n - 1 for n in marked.shape]])
        places = nib.affines.apply_affine(back, ends)
        inside = (places >= -0.5).all() and (places < np.array(picture.shape) - 0.5).all()
        cut_out = suffix_of(mask) == ".seg.nrrd" or (
            mask.is_file() and is_dicom(mask)
        )  # those may leave out slices
        whole_grid = int(np.prod(marked.shape)) == int(np.prod(picture.shape))
        if inside and (cut_out or whole_grid):
            if apart > TOLERANCE_MM:
                report.add(
                    "header", mask, f"lies {apart:.2f} mm beside the image; its voxels are used"
                )
            if not whole_grid:
                shape = " × ".join(map(str, marked.shape))
                report.add("assumed", mask, f"covers {shape} voxels; the rest is background")
            return _nearest(picture, marked, whole)
    if resample:
        result = _nearest(picture, marked, to_mask)
        kept = int((np.asarray(result.dataobj) != 0).sum())
        if not kept:
            raise VolumeError(f"{mask} marks nothing inside {image}; it belongs to another scan")
        report.add("resampled", mask, f"to the grid of {image}, nearest neighbour; {kept} voxels")
        return result
    shapes = [nib.as_closest_canonical(i).shape for i in (picture, marked)]
    if shapes[0] != shapes[1]:
        raise VolumeError(
            f"{image} has {' × '.join(map(str, shapes[0]))} voxels and {mask} "
            f"{' × '.join(map(str, shapes[1]))} (right, anterior, superior); image and mask must "
            "be on one grid: resample the mask to the image, nearest neighbour (--resample, or "
            "resample=True)"
        )
    upright = [nib.as_closest_canonical(i).affine for i in (picture, marked)]
    apart = corners_apart(upright[0], upright[1], shapes[0])
    axes = ["".join(nib.aff2axcodes(i.affine)) for i in (picture, marked)]
    raise VolumeError(
        f"{image} and {mask} have one shape but lie up to {apart:.1f} mm apart (axes "
        f"{axes[0]} and {axes[1]}); their headers disagree: resample the mask to the image "
        "(--resample, or resample=True), or copy the header if you are sure that the voxels match"
    )


def _nearest(
    picture: nib.Nifti1Image, marked: nib.Nifti1Image, to_mask: NDArray
) -> nib.Nifti1Image:
    array = np.pad(np.asarray(marked.dataobj), 1)  # the outer half of the outer voxels counts, too
    there = affine_transform(
        array, to_mask[:3, :3], to_mask[:3, 3] + 1, picture.shape, order=0, mode="constant", cval=0
    )
    return nib.Nifti1Image(there, picture.affine, dtype=there.dtype)


def _whole(mask: NDArray, path: Path, report: Report) -> NDArray[np.int64]:
    """Give a mask's whole numbers: NaN is background, rounding noise is rounded."""
    if mask.dtype.kind in "iu":
        return mask.astype(np.int64)
    empty = np.isnan(mask)
    if empty.any():
        report.add("changed", path, f"{empty.sum()} voxels are NaN; read as background")
        mask = np.where(empty, 0, mask)
    whole = np.round(mask)
    with np.errstate(invalid="ignore"):  # of infinities
        off = ~(np.abs(mask - whole) <= ROUNDING)
    if off.any() or np.abs(whole).max() > 2**31:
        such = float(mask[off].flat[0]) if off.any() else float(np.abs(whole).max())
        raise VolumeError(
            f"{path} holds fractions (such as {such:.3g}); "
            "a mask holds whole label numbers: threshold probabilities first"
        )
    noise = float(np.abs(mask - whole).max())
    if noise:
        report.add("changed", path, f"labels are up to {noise:.1e} off whole numbers; rounded")
    return whole.astype(np.int64)


def _one_hot(
    array: NDArray, picture: nib.Nifti1Image, path: Path, report: Report
) -> NDArray[np.int64]:
    """Turn a channel of 0 and 1 per class into label numbers."""
    sizes = sorted(picture.shape)
    axes = [axis for axis in (3, 0) if sorted(np.delete(array.shape, axis).tolist()) == sizes]
    if not axes or not np.isin(array, (0, 1)).all():
        raise VolumeError(
            f"{path} is 4-D, shape {array.shape}, but no channel of 0 and 1 per class on the "
            "image's grid; save one 3-D volume of label numbers"
        )
    if len(axes) == 2:
        raise VolumeError(
            f"{path}, shape {array.shape}: its channels may be the first or the last axis; save "
            "one 3-D volume of label numbers"
        )
    array = np.moveaxis(array, axes[0], 0)
    at_once = array.sum(0)
    if at_once.max() > 1:
        raise VolumeError(
            f"{path}: {(at_once > 1).sum()} voxels belong to several classes at once; a voxel has "
            "one label here: save the classes one by one"
        )
    where = "last" if axes[0] == 3 else "first"
    if at_once.min() == 1:
        report.add("changed", path, f"one-hot, channels {where}; channel 0 is the background")
        return array.argmax(0)
    report.add("changed", path, f"one-hot, channels {where}; the first channel is label 1")
    return (array * np.arange(1, len(array) + 1)[:, None, None, None]).sum(0)


def _renumbered(
    labels: NDArray[np.int64], path: Path, report: Report, names: dict[int, str]
) -> NDArray[np.int64]:
    """Read 255 or −1 of a binary mask as its foreground; refuse what cannot be a label."""
    found, counts = np.unique(labels, return_counts=True)
    values = set(found.tolist()) - {0}
    if not values:
        raise VolumeError(f"{path} marks nothing (all 0); label at least one organ")
    common = found[counts.argmax()]
    beside = (labels[..., 1:] != common) & (labels[..., :-1] != common)
    if len(found) > 20 and (labels[..., 1:] != labels[..., :-1])[beside].mean() > 0.5:
        raise VolumeError(f"{path} is an image: {len(found)} numbers in no patches; give the mask")
    ignored = next((n for n in values if names.get(n) == "ignore"), None)
    if ignored is not None:
        raise VolumeError(
            f"{path} holds the label {ignored} 'ignore', of what nobody labelled; set it to 0, or "
            "leave the subject out"
        )
    if 0 not in found:
        raise VolumeError(f"{path} marks every voxel; 0 must be the background, set it there")
    marked = 1 - counts[found == 0].sum() / counts.sum()
    if marked > 0.5:
        report.add("beware", path, f"it marks {marked:.0%} of the voxels; is 0 the background?")
    if values in ({255}, {65535}, {-1}) and not values & set(names):
        report.add("changed", path, f"{values.pop()} is the foreground of a binary mask, label 1")
        return (labels != 0).astype(np.int64)
    if min(values) < 0:
        raise VolumeError(
            f"{path} holds the negative label {min(values)}, which often means 'do not look "
            "here'; use 0, 1, 2, …"
        )
    between = counts[(found > 0) & (found < 255)].sum()
    smooth = len(values) > 8 or 20 < min(values) < 200
    if smooth and max(values) == 255 and 255 not in names and between < counts[found == 255]:
        raise VolumeError(
            f"{path} holds greys between 0 and 255 (such as {min(values)}), as smoothing does; set "
            "them to 0 or 255, or name the labels in labels.json"
        )
    if 255 in values and 255 not in names and max(values - {255}) < 200:
        raise VolumeError(
            f"{path} holds 255 beside other labels, which often means 'do not look here'; set it "
            "to 0, or name it in labels.json"
        )
    return labels


def _numbers(volume: Volume) -> set[int]:
    return set(volume.labels.unique().tolist()) - {0}


def _label_names(folder: Path) -> dict[int, str]:
    """Read the label table, number → name; {} if there is none."""
    for name in ("labels.json", "dataset.json"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            # UTF-8 or -16, with or without its mark
            content = json.loads(path.read_bytes(), object_pairs_hook=_once)
            content = content.get("labels", content)
            pairs = [
                (int(k), str(v)) if str(k).lstrip("-").isdigit() else (_label_number(v), str(k))
                for k, v in content.items()
            ]
        except (ValueError, TypeError, AttributeError) as error:
            raise VolumeError(
                f'{path} is no label table ({error}); write {{"liver": 1, "spleen": 2}} in UTF-8'
            ) from error
        table = {number: label for number, label in pairs if number != 0}
        for twice, label in pairs:
            if label != table.get(twice, label):
                raise VolumeError(f"{path} gives label {twice} two names; keep one of them")
        if len(set(table.values())) < len(table) or "background" in table.values():
            raise VolumeError(f"{path} names two labels alike, or one of them background")
        return table
    return {}


def _label_number(number: Any) -> int:
    """Read a label's number; 2.7 and true are none."""
    if isinstance(number, bool) or (isinstance(number, float) and not number.is_integer()):
        raise ValueError(f"{number!r} is no whole number")
    return int(number)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dictionary of a JSON object, in which no key may stand twice."""
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError(f"{max(keys, key=keys.count)!r} stands there twice")
    return dict(pairs)


def _share_names(volumes: list[Volume], table: dict[int, str], masks: list[Path]) -> list[Volume]:
    """Give all volumes the same dense labels and names."""
    used = sorted(set.union(*(_numbers(v) for v in volumes)))
    table = table or {n: f"label_{n}" for n in used}
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
    return [replace(v, labels=dense[v.labels], names=names) for v in volumes]
