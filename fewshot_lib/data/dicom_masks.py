"""Masks that hospitals keep as DICOM: segmentation objects and contours of radiotherapy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from skimage.draw import polygon

from fewshot_lib.data.dicom import (
    SEGMENTATION,
    STRUCTURES,
    frames_of,
    is_dicom,
    numbers,
    open_dicom,
    pixels,
    stack,
    text,
)
from fewshot_lib.data.report import Report, VolumeError

OFF_SLICE = 0.25  # of a slice's thickness: how far a contour may lie from the slice's middle


def read_dicom_mask(
    path: Path, image: Path, picture: nib.Nifti1Image, report: Report
) -> nib.Nifti1Image:
    """Read a DICOM segmentation (SEG) or structure set (RTSTRUCT) as label numbers.

    Arguments:
        path: the file.
        image: where the image it belongs to was read from.
        picture: that image; contours are drawn on its grid.
        report: takes the segments' names, what was left out, and whether the mask names another
            series than the image's.

    Returns:
        An image of numbers: a SEG's on its own grid, an RTSTRUCT's on the picture's.

    Raises:
        VolumeError: another kind of DICOM file, fractions, overlapping segments, contours between
            the slices.
    """
    dataset = open_dicom(str(path), path)
    kind = text(dataset, "SOPClassUID") or text(dataset.file_meta, "MediaStorageSOPClassUID")
    first = _first_of(image)
    meant, own = _series_meant(dataset), text(first, "SeriesInstanceUID")
    frames, frame = _frames_meant(dataset), text(first, "FrameOfReferenceUID")
    if meant and own and own not in meant:
        report.add(
            "beware",
            path,
            f"it names another series than that of {image} and lies on it by its place alone; make "
            "sure that both show one person at one time",
        )
    elif frames and frame and frame not in frames:
        report.add(
            "beware",
            path,
            f"it names another frame of reference than that of {image}, so their places may not be "
            "comparable; make sure that both show one person at one time",
        )
    if kind in SEGMENTATION:
        return _segmentation(path, dataset, report)
    if kind == STRUCTURES:
        return _structures(path, dataset, picture, report)
    raise VolumeError(
        f"{path} is a DICOM image, not a mask; give a segmentation (SEG), a structure set "
        "(RTSTRUCT) or a NIfTI mask"
    )


def _series_meant(dataset: Any) -> set[str]:
    """Give the series for which a mask was drawn, as far as it says."""
    groups = list(dataset.get("ReferencedSeriesSequence") or [])
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []:
        for study in frame.get("RTReferencedStudySequence") or []:
            groups += study.get("RTReferencedSeriesSequence") or []
    return {text(group, "SeriesInstanceUID") for group in groups} - {""}


def _frames_meant(dataset: Any) -> set[str]:
    """Give the frames of reference in which a mask was drawn, as far as it says."""
    groups = [dataset, *(dataset.get("ReferencedFrameOfReferenceSequence") or [])]
    rois = dataset.get("StructureSetROISequence") or []
    found = {text(group, "FrameOfReferenceUID") for group in groups}
    return (found | {text(roi, "ReferencedFrameOfReferenceUID") for roi in rois}) - {""}


def _first_of(image: Path) -> Any:
    """Give a slice of an image; an empty data set if it is no DICOM."""
    inside = sorted(image.rglob("*")) if image.is_dir() else [image]
    slices = (p for p in inside if p.is_file() and p.name.upper() != "DICOMDIR")
    first = next((p for p in slices if is_dicom(p)), None)
    return Dataset() if first is None else open_dicom(str(first), first)


def _segmentation(path: Path, dataset: Any, report: Report) -> nib.Nifti1Image:
    stored = pixels(str(path), dataset)
    kind = text(dataset, "SegmentationType")
    if kind == "FRACTIONAL":
        whole = numbers(str(path), (dataset,), "MaximumFractionalValue", 1)
        full = 255 if whole is None else whole[0]
        if not np.isin(stored, (0, full)).all():
            raise VolumeError(
                f"{path} holds fractions; a mask holds whole label numbers: threshold them first"
            )
        stored = stored // int(full)
    frames = frames_of(str(path), dataset)
    if len(frames) != len(stored):
        raise VolumeError(f"{path} describes {len(frames)} frames, has {len(stored)}; export again")
    ordered, affine = stack(frames, report, gaps=True)
    normal = affine[:3, 2] * (-1, -1, 1)
    at = [float((f.origin - ordered[0].origin) @ normal / (normal @ normal)) for f in ordered]
    places = np.round(at).astype(int)
    if np.abs(np.array(at) - places).max() > OFF_SLICE:
        raise VolumeError(f"{path}: its slices are unevenly spaced; export it again")
    rows, columns = stored.shape[1:]
    labels = np.zeros((columns, rows, int(places.max()) + 1), np.int32)
    for place, frame in zip(places, ordered, strict=True):
        here = stored[frame.index].T
        if kind == "LABELMAP":
            number = here.astype(np.int32)
        else:
            segment = numbers(frame.name, frame.groups, "ReferencedSegmentNumber", 1)
            if segment is None:
                raise VolumeError(f"{frame.name} does not say its segment; export it again")
            number = (here > 0) * np.int32(segment[0])
        layer = labels[..., place]
        if ((layer > 0) & (number > 0) & (layer != number)).any():
            raise VolumeError(
                f"{path}: segments overlap; a voxel has one label here: export them one by one"
            )
        layer[number > 0] = number[number > 0]
    names = {
        text(s, "SegmentNumber"): text(s, "SegmentLabel")
        for s in dataset.get("SegmentSequence") or []
    }
    told = ", ".join(f"{number} {name}" for number, name in names.items() if number != "0")
    report.add("header", path, f"DICOM segmentation; its segments are {told or 'not named'}")
    return nib.Nifti1Image(labels, affine)


def _structures(
    path: Path, dataset: Any, picture: nib.Nifti1Image, report: Report
) -> nib.Nifti1Image:
    outline = {
        text(o, "ReferencedROINumber")
        for o in dataset.get("RTROIObservationsSequence") or []
        if text(o, "RTROIInterpretedType").upper() == "EXTERNAL"
    }
    names = {
        text(r, "ROINumber"): text(r, "ROIName")
        for r in dataset.get("StructureSetROISequence") or []
    }
    drawn: dict[int, NDArray] = {}
    for roi in dataset.get("ROIContourSequence") or []:
        key = text(roi, "ReferencedROINumber")
        name = names.get(key) or f"ROI {key}"
        if key in outline:
            report.add("ignored", path, f"{name}: the body's outline, left out")
            continue
        where = numbers(str(path), (roi,), "ReferencedROINumber", 1)
        if where is None or where[0] < 1:
            raise VolumeError(f"{path}: a structure without a number 1, 2, …; export it again")
        mask = _filled(path, name, roi, picture, report)
        if mask.any():
            drawn[int(where[0])] = mask
        else:
            report.add("ignored", path, f"{name}: holds no voxel's middle, left out")
    if not drawn:
        raise VolumeError(f"{path} has no closed contour; export the structures with contours")
    labels = np.zeros(picture.shape, np.int32)
    for number in sorted(drawn, key=lambda n: -int(drawn[n].sum())):  # small ones last, on top
        covered = int((labels[drawn[number]] > 0).sum())
        if covered:
            name = names.get(str(number), str(number))
            report.add("changed", path, f"{name} overlaps larger ones; its {covered} voxels win")
        labels[drawn[number]] = number
    told = ", ".join(f"{n} {names.get(str(n), '')}".strip() for n in sorted(drawn))
    report.add("header", path, f"DICOM structure set; its contours are {told}")
    return nib.Nifti1Image(labels, picture.affine)


def _filled(
    path: Path, name: str, roi: Any, picture: nib.Nifti1Image, report: Report
) -> NDArray[np.bool_]:
    """Fill one structure's contours; a contour inside another one is a hole."""
    mask = np.zeros(picture.shape, bool)
    to_voxels = np.linalg.inv(picture.affine)
    for contour in roi.get("ContourSequence") or []:
        shape = text(contour, "ContourGeometricType")
        if shape not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
            report.add("ignored", path, f"{name}: a contour of the kind {shape or '?'}, left out")
            continue
        n = len(contour.get("ContourData") or [])
        data = numbers(f"{path}, {name}", (contour,), "ContourData", n) if n else None
        if data is None or n % 3 or n < 9:
            raise VolumeError(f"{path}: a contour of {name} has {n} numbers; export it again")
        points = apply_affine(to_voxels, data.reshape(-1, 3) * (-1, -1, 1))
        axis = int(np.ptp(points, axis=0).argmin())
        depth = float(points[:, axis].mean())
        place = round(depth)
        if np.ptp(points[:, axis]) > OFF_SLICE or abs(depth - place) > OFF_SLICE:
            raise VolumeError(
                f"{path}: a contour of {name} lies between the slices of the image; it was drawn "
                "on another series, give that one"
            )
        others = [a for a in range(3) if a != axis]
        sides = [picture.shape[a] for a in others]
        low, high = points[:, others].min(0), points[:, others].max(0)
        if not 0 <= place < picture.shape[axis] or (low < -1).any() or (high > sides).any():
            raise VolumeError(
                f"{path}: a contour of {name} lies outside the image; it belongs to another series"
            )
        inside = polygon(points[:, others[0]], points[:, others[1]], sides)
        layer = np.moveaxis(mask, axis, 0)[place]
        layer[inside] ^= True
    return mask
