"""Read a DICOM series: sort its slices by position, apply the rescale, build the affine."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError


class VolumeError(ValueError):
    """A volume cannot be used; the message says which file, what is wrong and what to do."""


def read_series(files: Mapping[str, bytes | Path]) -> nib.Nifti1Image:
    """Read the DICOM files of one series into a 3-D image.

    Slices are sorted by their position along the slice normal (for axial slices
    ``ImagePositionPatient[2]``), not by file name or instance number.

    Arguments:
        files: name → content or path; the name is used in error messages.

    Returns:
        An image in rescaled units (Hounsfield for CT), float32, with its affine in RAS mm.

    Raises:
        VolumeError: not DICOM, no pixel data, no position, several series, slices of different
            shape or orientation, missing or double slices.

    Source: data card "volumes"; notebook 08.

    >>> read_series({})
    Traceback (most recent call last):
    fewshot_lib.data.dicom.VolumeError: there is no DICOM file to read
    """
    if not files:
        raise VolumeError("there is no DICOM file to read")
    slices = [_read_slice(name, content) for name, content in files.items()]
    uids = {str(d.get("SeriesInstanceUID", "")) for _, d in slices}
    if len(uids) > 1:
        raise VolumeError(
            f"{_where(slices)}: {len(uids)} DICOM series lie in one folder; "
            "put each series into a folder of its own"
        )
    for tag, what in (
        ("ImageOrientationPatient", "orientation"),
        ("PixelSpacing", "pixel spacing"),
    ):
        values = {tuple(np.round(np.array(d[tag].value, float), 4).tolist()) for _, d in slices}
        if len(values) > 1:
            raise VolumeError(
                f"{_where(slices)}: the slices differ in {what}; this is a scout or a mixed "
                "series, keep only the slices of one scan"
            )
    shapes = {(int(d.Rows), int(d.Columns)) for _, d in slices}
    if len(shapes) > 1:
        raise VolumeError(f"{_where(slices)}: the slices differ in size: {sorted(shapes)}")

    first = slices[0][1]
    along_row, along_column = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(along_row, along_column)
    origin = {name: np.array(d.ImagePositionPatient, float) for name, d in slices}
    slices.sort(key=lambda item: float(origin[item[0]] @ normal))
    heights = np.array([float(origin[name] @ normal) for name, _ in slices])
    step = _regular_step(heights, [name for name, _ in slices], first)

    row_mm, column_mm = (float(v) for v in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = along_row * column_mm  # first array axis: columns
    affine[:3, 1] = along_column * row_mm
    affine[:3, 2] = normal * step
    affine[:3, 3] = origin[slices[0][0]]
    affine[:2] *= -1  # DICOM's left-posterior to RAS
    stack = np.stack([_pixels(name, d).T for name, d in slices], axis=2)
    image = nib.Nifti1Image(stack, affine)
    image.header.set_xyzt_units("mm")
    return image


def is_dicom(path: Path) -> bool:
    """Tell whether a file carries DICOM's mark.

    >>> is_dicom(Path(__file__)) if "__file__" in globals() else False
    False
    """
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _where(slices: list[tuple[str, pydicom.Dataset]]) -> str:
    name = slices[0][0]
    return name if len(slices) == 1 else f"{name} and {len(slices) - 1} more"


def _read_slice(name: str, content: bytes | Path) -> tuple[str, pydicom.Dataset]:
    try:
        dataset = pydicom.dcmread(io.BytesIO(content) if isinstance(content, bytes) else content)
    except (InvalidDicomError, OSError, EOFError, ValueError) as error:
        raise VolumeError(f"{name} cannot be read as DICOM ({error}); remove or replace it") from (
            error
        )
    if "PixelData" not in dataset:
        raise VolumeError(
            f"{name} has no pixel data (a report, or a header only); remove it or export the "
            "series again with its images"
        )
    missing = [
        tag
        for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
        if dataset.get(tag) is None
    ]
    if missing:
        raise VolumeError(
            f"{name} does not say where its slice lies ({', '.join(missing)} missing); "
            "export the original series, not screenshots of it"
        )
    if int(dataset.get("NumberOfFrames", 1)) > 1:
        raise VolumeError(
            f"{name} holds several frames in one file; convert it to single slices or to NIfTI"
        )
    return name, dataset


def _regular_step(heights: np.ndarray, names: list[str], first: pydicom.Dataset) -> float:
    """Return the distance between slices, mm; complain where one is missing or double."""
    if len(heights) == 1:
        return float(first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 1.0)
    steps = np.diff(heights)
    if steps.min() < 1e-3:
        double = int(steps.argmin())
        raise VolumeError(
            f"{names[double]} and {names[double + 1]} lie at the same position; "
            "two series or two time points are mixed, keep one"
        )
    step = float(np.median(steps))
    gaps = np.flatnonzero(steps > 1.5 * step)
    if len(gaps):
        i = int(gaps[0])
        raise VolumeError(
            f"slices are missing between {names[i]} and {names[i + 1]}: {steps[i]:.1f} mm apart "
            f"where the others are {step:.1f} mm; export the whole series"
        )
    if np.abs(steps - step).max() > 0.05 * step:
        raise VolumeError(
            f"the slices are unevenly spaced ({steps.min():.2f} to {steps.max():.2f} mm); "
            "resample the series to even spacing first"
        )
    return step


def _pixels(name: str, dataset: pydicom.Dataset) -> np.ndarray:
    """Decode one slice and apply slope and intercept: (rows, columns) float32."""
    try:
        stored = dataset.pixel_array
    except Exception as error:  # decoders raise all sorts
        raise VolumeError(
            f"{name}: its pixels cannot be decoded ({error}); convert the series to an "
            "uncompressed transfer syntax or to NIfTI"
        ) from error
    if stored.ndim != 2:
        raise VolumeError(f"{name} is a colour image; scans are grey")
    slope = float(dataset.get("RescaleSlope", 1.0))
    intercept = float(dataset.get("RescaleIntercept", 0.0))
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
