"""Read DICOM images: single slices and multi-frame files, each frame put where it says it lies."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import apply_modality_lut, get_decoder
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from fewshot_lib.data.report import Report, VolumeError

INSTALL = "pip install 'fewshot-course[scans]'"
UNEVEN = 0.1  # of a step: how far a slice may lie from its place in the row
ROUNDING = 1e-3  # direction cosines and relative pixel sizes may differ this much
SEGMENTATION = {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"}
STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"
#: Kinds whose numbers mean something, whichever way a screen shows them.
PHYSICAL = ("CT", "PT", "NM")
#: What all slices of a scan share, where they say it.
ALIKE = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "Modality", "Units", "RescaleType",
         "PhotometricInterpretation")  # fmt: skip
INDEX = "1.2.840.10008.1.3.10"

Dataset = Any  # pydicom's, which has no types


@dataclass(frozen=True)
class Frame:
    """One slice: where it lies (DICOM's left-posterior-superior, mm) and where its pixels are.

    Arguments:
        name: for messages.
        dataset, index: the file, and which of its frames this is.
        groups: where its attributes may stand, the most particular first.
        origin: (3,) centre of the first pixel.
        directions: (2, 3) unit vectors along a row and along a column.
        spacing: (row, column), mm.
    """

    name: str
    dataset: Dataset
    index: int
    groups: tuple[Dataset, ...]
    origin: NDArray
    directions: NDArray
    spacing: NDArray


def read_series(
    files: Mapping[str, bytes | Path], report: Report | None = None, *, padding: bool = False
) -> nib.Nifti1Image:
    """Read the DICOM files of one series into a 3-D image.

    Slices are sorted by their position along the slice normal (for axial slices
    ``ImagePositionPatient[2]``), not by file name or instance number. The frames of an enhanced
    multi-frame file are slices. A tilted gantry stays in the affine as a shear.

    Arguments:
        files: name → content or path; the name is used in error messages.
        report: takes what the caller should know.
        padding: make NaN of what the header calls padding (PixelPaddingValue), where it lies below
            or above all other values.

    Returns:
        An image in rescaled units (Hounsfield for CT), float32, with its affine in RAS mm.

    Raises:
        VolumeError: not DICOM, no pixel data, no position, several series, slices of different
            shape or orientation, missing or double slices.

    Source: data card "volumes"; notebook 08.

    >>> read_series({})
    Traceback (most recent call last):
    fewshot_lib.data.report.VolumeError: there is no DICOM file to read
    """
    if not files:
        raise VolumeError("there is no DICOM file to read")
    report = Report() if report is None else report
    datasets = _images({name: open_dicom(name, file) for name, file in files.items()}, report)
    uids = {text(d, "SeriesInstanceUID") for d in datasets.values()}
    if len(uids) > 1:
        found = describe_series(list(datasets.values()))
        raise VolumeError(
            f"{_where(list(datasets))}: {len(uids)} DICOM series lie in one folder ({found}); "
            "put each series into a folder of its own"
        )
    for tag in ALIKE:
        if len({text(d, tag) for d in datasets.values()} - {""}) > 1:
            raise VolumeError(
                f"{_where(list(datasets))}: the slices differ in {tag}; they are no single scan, "
                "keep only the slices of one"
            )
    frames = [f for name, dataset in datasets.items() for f in frames_of(name, dataset)]
    frames, affine = stack(frames, report)
    slices = _rescaled(frames, report, padding)
    image = nib.Nifti1Image(np.stack([s.T for s in slices], axis=2), affine)
    image.header.set_xyzt_units("mm")
    return image


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM: by its mark, or by a first tag of an old file without one.

    >>> is_dicom(Path(__file__)) if "__file__" in globals() else False
    False
    """
    with path.open("rb") as stream:
        start = stream.read(132)
    if start[128:] == b"DICM":
        return True
    return start[:2] in (b"\x08\x00", b"\x02\x00") and start[3:4] == b"\x00" and len(start) == 132


def open_dicom(name: str, content: bytes | Path) -> Dataset:
    """Open a file, also one without DICOM's preamble.

    Raises:
        VolumeError: it is not there, or not DICOM.
    """
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    marked = True if isinstance(content, bytes) else content.is_file() and is_dicom(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, on single attributes: we look at those
            if not marked:
                raise ValueError("it has no DICOM mark")
            dataset = pydicom.dcmread(source, force=not isinstance(content, bytes))
            if "TransferSyntaxUID" not in getattr(dataset, "file_meta", {}):
                implicit = dataset.original_encoding[0]
                dataset.ensure_file_meta()
                dataset.file_meta.TransferSyntaxUID = (
                    ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
                )
    except Exception as error:  # pydicom raises all sorts on damaged files
        raise VolumeError(
            f"{name} cannot be read as DICOM ({error}); remove or replace it"
        ) from error
    return dataset


def text(dataset: Dataset, tag: str) -> str:
    """Give an attribute as text; "" if it is absent or empty."""
    value = dataset.get(tag)
    return "" if value is None else str(value).strip()


def numbers(name: str, groups: tuple[Dataset, ...], tag: str, n: int) -> NDArray | None:
    """Give n numbers of an attribute, from the first group that has it; None if it is empty.

    Raises:
        VolumeError: it holds something else.
    """
    for group in groups:
        try:
            value = group.get(tag)
            if value is None or value == "" or (hasattr(value, "__len__") and len(value) == 0):
                continue
            found = np.atleast_1d(np.array(value, float))
        except (ValueError, TypeError, OverflowError) as error:
            raise VolumeError(f"{name}: {tag} is no number ({error}); export it again") from error
        if n == 1 and len(found) > 1 and (found == found[0]).all():
            found = found[:1]
        if found.shape != (n,) or not np.isfinite(found).all():
            raise VolumeError(
                f"{name}: {tag} holds {value!s} where {n} should stand; export it again"
            )
        return found
    return None


def count(name: str, dataset: Dataset, tag: str) -> int:
    """Give an attribute that counts something, 1 or more; 1 if it is absent or empty."""
    value = numbers(name, (dataset,), tag, 1)
    if value is not None and (value[0] < 1 or value[0] != round(value[0])):
        raise VolumeError(f"{name}: {tag} is {value[0]:g}, which counts nothing; export it again")
    return 1 if value is None else int(value[0])


def describe_series(datasets: list[Dataset]) -> str:
    """Say which series there are: description and number of files, in the order of their names."""
    found: dict[str, list[str]] = {}
    for dataset in datasets:
        label = text(dataset, "SeriesDescription") or text(dataset, "Modality") or "no description"
        found.setdefault(text(dataset, "SeriesInstanceUID"), []).append(label)
    return ", ".join(f"{labels[0]!r} with {len(labels)} files" for labels in found.values())


def frames_of(name: str, dataset: Dataset) -> list[Frame]:
    """List a file's frames with their places.

    Raises:
        VolumeError: it does not say where they lie.
    """
    n = count(name, dataset, "NumberOfFrames")
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if not per_frame:
        if n > 1:
            raise VolumeError(
                f"{name} holds several frames in one file and does not say where each lies; "
                "convert it to single slices or to NIfTI"
            )
        return [_frame(name, dataset, 0, (dataset,))]
    if len(per_frame) != n:
        raise VolumeError(f"{name} says {n} frames and describes {len(per_frame)}; export it again")
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    frames = []
    for i, own in enumerate(per_frame):
        groups = [
            item
            for group in (own, *shared)
            for sequence in group
            if sequence.VR == "SQ"
            for item in sequence.value
        ]
        frames.append(_frame(f"{name}, frame {i + 1}", dataset, i, (*groups, dataset)))
    return frames


def stack(frames: list[Frame], report: Report, gaps: bool = False) -> tuple[list[Frame], NDArray]:
    """Sort frames along their normal and give the affine of their stack.

    Arguments:
        frames: at least one.
        report: takes what is uneven, tilted or assumed.
        gaps: positions may be missing (frames of a segmentation); those frames keep their places.

    Returns:
        The frames from the first to the last, and (4, 4): (column, row, slice) → RAS mm.

    Raises:
        VolumeError: they are not the slices of one volume.
    """
    where = _where(list(dict.fromkeys(f.name for f in frames)))
    directions = np.mean([f.directions for f in frames], axis=0)
    spacing = np.mean([f.spacing for f in frames], axis=0)
    turned = max(float(np.abs(f.directions - directions).max()) for f in frames)
    scaled = max(float(np.abs(f.spacing / spacing - 1).max()) for f in frames)
    if max(turned, scaled) > ROUNDING:
        what = "orientation" if turned > ROUNDING else "pixel spacing"
        raise VolumeError(
            f"{where}: the slices differ in {what}; this is a scout or a mixed series, keep only "
            "the slices of one scan"
        )
    if turned > 1e-5:
        report.add("changed", where, f"directions differ by {turned:.1e}; their mean is used")
    shapes = {
        (count(f.name, f.dataset, "Rows"), count(f.name, f.dataset, "Columns")) for f in frames
    }
    if len(shapes) > 1:
        raise VolumeError(f"{where}: the slices differ in size: {sorted(shapes)}")

    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    normal = np.cross(*directions)
    normal /= np.linalg.norm(normal)
    frames = sorted(frames, key=lambda f: float(f.origin @ normal))
    if not gaps:
        frames = _without_copies(frames, report)
    step = _step(frames, normal, directions, report, gaps)
    affine = np.eye(4)
    affine[:3, 0] = directions[0] * spacing[1]  # first array axis: columns
    affine[:3, 1] = directions[1] * spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = frames[0].origin
    affine[:2] *= -1  # DICOM's left-posterior to RAS
    return frames, affine


def pixels(name: str, dataset: Dataset) -> NDArray:
    """Decode a file: (frames, rows, columns) in stored values.

    Raises:
        VolumeError: they cannot be decoded, or are colours.
    """
    try:
        syntax = UID(dataset.file_meta.TransferSyntaxUID)
        if syntax.is_compressed and not get_decoder(syntax).is_available:
            raise VolumeError(
                f"{name} is compressed ({syntax.name}), which needs one more package; {INSTALL}"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on bytes after the pixels: padding
            stored = np.asarray(dataset.pixel_array)
    except VolumeError:
        raise
    except Exception as error:  # decoders raise all sorts
        raise VolumeError(
            f"{name}: its pixels cannot be decoded ({error}); convert the series to an "
            "uncompressed transfer syntax or to NIfTI"
        ) from error
    high, bits = (numbers(name, (dataset,), tag, 1) for tag in ("HighBit", "BitsStored"))
    if high is not None and bits is not None and high[0] >= bits[0]:
        raise VolumeError(f"{name}: its pixels' bits do not begin at 0 (HighBit); export it again")
    grey = text(dataset, "PhotometricInterpretation").startswith("MONOCHROME")
    if count(name, dataset, "SamplesPerPixel") > 1 or not grey:
        raise VolumeError(f"{name} is a colour image; scans are grey, export the original series")
    return stored[None] if stored.ndim == 2 else stored


def _where(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _images(datasets: dict[str, Dataset], report: Report) -> dict[str, Dataset]:
    """Leave out what is beside the images of a series: indexes, reports, annotations."""
    images = {}
    for name, dataset in datasets.items():
        kind = text(dataset, "SOPClassUID") or text(dataset.file_meta, "MediaStorageSOPClassUID")
        is_image = "Image Storage" in UID(kind).name
        if "PixelData" in dataset and kind not in SEGMENTATION:
            images[name] = dataset
        elif len(datasets) > 1 and kind and not is_image:
            report.add("ignored", name, f"{UID(kind).name}: no image of the series, left out")
        elif kind == INDEX:
            raise VolumeError(
                f"{name} is the index of a disc (DICOMDIR); name the folder with the series"
            )
        else:
            what = "is a segmentation" if kind in SEGMENTATION else "has no pixel data"
            raise VolumeError(
                f"{name} {what} (a report, a mask or a header only); remove it or export the "
                "series again with its images"
            )
    if not images:
        raise VolumeError(f"{_where(list(datasets))}: no image among the DICOM files; export them")
    return images


def _frame(name: str, dataset: Dataset, index: int, groups: tuple[Dataset, ...]) -> Frame:
    origin = numbers(name, groups, "ImagePositionPatient", 3)
    directions = numbers(name, groups, "ImageOrientationPatient", 6)
    spacing = numbers(name, groups, "PixelSpacing", 2)
    if origin is None or directions is None or spacing is None:
        values = {
            "ImagePositionPatient": origin,
            "ImageOrientationPatient": directions,
            "PixelSpacing": spacing,
        }
        missing = ", ".join(tag for tag, value in values.items() if value is None)
        raise VolumeError(
            f"{name} does not say where its slice lies ({missing} missing); "
            "export the original series, not screenshots of it (a radiograph: as a PNG picture)"
        )
    directions = directions.reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(directions[0] @ directions[1]) > 0.01:
        raise VolumeError(
            f"{name}: its rows and columns are not perpendicular directions "
            f"({np.round(directions, 3).tolist()}); export it again"
        )
    if spacing.min() <= 0:
        raise VolumeError(f"{name}: pixels of {spacing.min():g} mm have no size; export it again")
    for tag in ("Rows", "Columns"):
        if numbers(name, (dataset,), tag, 1) is None:
            raise VolumeError(f"{name} does not say how many {tag.lower()} it has; export it again")
    return Frame(name, dataset, index, groups, origin, directions, spacing)


def _without_copies(frames: list[Frame], report: Report) -> list[Frame]:
    """Leave out a file that lies twice in the folder."""
    kept: dict[tuple[str, int], Frame] = {}
    for i, frame in enumerate(frames):
        uid = text(frame.dataset, "SOPInstanceUID")
        key = (uid or f"no uid {i}", frame.index)
        same = kept.get(key)
        if same and same.dataset.PixelData == frame.dataset.PixelData:
            report.add("ignored", frame.name, f"a copy of {same.name}, left out")
        else:
            kept[key if same is None else (f"{uid} {i}", frame.index)] = frame
    return list(kept.values())


def _step(
    frames: list[Frame], normal: NDArray, directions: NDArray, report: Report, gaps: bool
) -> NDArray:
    """Return the way from one slice to the next, mm; complain where one is missing or double."""
    names = [f.name for f in frames]
    where = _where(list(dict.fromkeys(names)))
    heights = np.array([float(f.origin @ normal) for f in frames])
    steps = np.diff(heights)
    if gaps:
        steps = steps[steps > 1e-3]
    if len(steps) == 0:
        groups = frames[0].groups
        for tag in ("SpacingBetweenSlices", "SliceThickness"):
            value = numbers(names[0], groups, tag, 1)
            if value is not None and value[0] != 0:
                return normal * abs(value[0])
        report.add("assumed", where, "one slice of unknown thickness; 1 mm is assumed")
        return normal
    if steps.min() < 1e-3:
        double = int(steps.argmin())
        raise VolumeError(
            f"{names[double]} and {names[double + 1]} lie at the same position; "
            "two series or two time points are mixed, keep one"
        )
    if gaps:
        return normal * _stated_step(frames, float(steps.min()))
    step = float(np.sort(steps)[(len(steps) - 1) // 2])  # the lower median
    missing = np.flatnonzero(steps > 1.5 * step)
    if len(missing):
        i = int(missing[0])
        raise VolumeError(
            f"slices are missing between {names[i]} and {names[i + 1]}: {steps[i]:.1f} mm apart "
            f"where the others are {step:.1f} mm; export the whole series"
        )
    uneven = float(np.abs(steps - step).max()) / step
    if uneven > UNEVEN:
        raise VolumeError(
            f"the slices are unevenly spaced ({steps.min():.2f} to {steps.max():.2f} mm); "
            "resample the series to even spacing first"
        )
    if uneven > ROUNDING:
        step = float(heights[-1] - heights[0]) / len(steps)
        report.add(
            "changed",
            where,
            f"slices are {steps.min():.3f} to {steps.max():.3f} mm apart; read as even, "
            f"{step:.3f} mm",
        )
    stated = numbers(names[0], frames[0].groups, "SliceThickness", 1)
    if stated is not None and 0 < 1.5 * stated[0] < step:
        report.add(
            "beware",
            where,
            f"slices are {stated[0]:g} mm thick and lie {step:.1f} mm apart; look whether some are "
            "missing",
        )
    origins = np.array([f.origin for f in frames])
    drift = (origins[-1] - origins[0]) @ directions.T / len(steps)  # along a row, along a column
    line = origins[0] + np.arange(len(frames))[:, None] * (step * normal + drift @ directions)
    sideways = float(np.abs((origins - line) @ directions.T).max())
    if sideways > max(UNEVEN * step, float(frames[0].spacing.min()) / 2):
        raise VolumeError(
            f"{where}: slices are shifted sideways by up to {sideways:.1f} mm, not in a straight "
            "row; this is no single scan, or it must be resampled first"
        )
    tilt = float(np.degrees(np.arctan2(np.linalg.norm(drift), step)))
    if tilt < 0.05:
        return normal * step
    report.add("header", where, f"the gantry is tilted by {tilt:.1f}°; the shear is in the affine")
    return normal * step + drift @ directions


def _stated_step(frames: list[Frame], smallest: float) -> float:
    """Give the distance that a file with missing positions states, if its frames fit it."""
    for tag in ("SpacingBetweenSlices", "SliceThickness"):
        value = numbers(frames[0].name, frames[0].groups, tag, 1)
        if value is not None and value[0] > 0:
            times = smallest / value[0]
            if times > 0.9 and abs(times - round(times)) < UNEVEN:
                return float(smallest / round(times))
    return smallest


def _rescaled(frames: list[Frame], report: Report, padding: bool) -> list[NDArray]:
    """Decode frames in physical units: (rows, columns) float32 each."""
    where = _where(list(dict.fromkeys(f.name for f in frames)))
    decoded: dict[int, NDArray] = {}
    slices, padded, stated = [], [], set()
    for frame in frames:
        dataset, name = frame.dataset, frame.name
        if id(dataset) not in decoded:
            decoded = {id(dataset): pixels(name, dataset)}  # one file at a time
        if frame.index >= len(decoded[id(dataset)]):
            raise VolumeError(f"{name} is not in the pixel data; export it again")
        stored = decoded[id(dataset)][frame.index]
        values, how = _modality(frame, stored)
        stated.add(how)
        padded.append(_padding(frame, stored) if padding else None)
        slices.append(values)
    if len(stated) > 1:
        raise VolumeError(
            f"{where}: some slices say how their numbers become intensities and some do not; "
            "export the series again"
        )
    modality = text(frames[0].dataset, "Modality")
    how = stated.pop()
    if how == "no slope":
        report.add("assumed", where, "RescaleSlope is missing; 1 is assumed")
    elif how == "no intercept":
        report.add("assumed", where, "RescaleIntercept is missing; 0 is assumed")
    elif how == "none" and modality == "CT":
        report.add("assumed", where, "no rescale: the numbers may not be Hounsfield units")
    elif how == "table":
        report.add("header", where, "intensities come from its modality table (LUT)")
    if text(frames[0].dataset, "PhotometricInterpretation") == "MONOCHROME1":
        if modality in PHYSICAL:
            report.add(
                "header", where, f"shown inverted (MONOCHROME1), but {modality} values are measured"
            )
        else:
            top = max(float(s.max()) for s in slices) + min(float(s.min()) for s in slices)
            slices = [np.float32(top) - s for s in slices]
            report.add("changed", where, "white is 0 (MONOCHROME1); inverted, so that air is dark")
    if any(mask is not None and mask.any() for mask in padded):
        for values, mask in zip(slices, padded, strict=True):
            if mask is not None:
                values[mask] = np.nan
    return slices


def _modality(frame: Frame, stored: NDArray) -> tuple[NDArray, str]:
    """Apply the modality table or slope and intercept; tell which of them there was."""
    dataset, name = frame.dataset, frame.name
    if dataset.get("ModalityLUTSequence"):
        try:
            return apply_modality_lut(stored, dataset).astype(np.float32), "table"
        except Exception as error:  # pydicom raises all sorts
            raise VolumeError(
                f"{name}: its modality table cannot be applied ({error}); export it again"
            ) from error
    slope = numbers(name, frame.groups, "RescaleSlope", 1)
    intercept = numbers(name, frame.groups, "RescaleIntercept", 1)
    if slope is not None and slope[0] == 0:
        raise VolumeError(f"{name}: RescaleSlope 0 makes all pixels alike; export it again")
    how = {(True, True): "none", (True, False): "no slope", (False, True): "no intercept"}.get(
        (slope is None, intercept is None), "both"
    )
    m = np.float32(1 if slope is None else slope[0])
    b = np.float32(0 if intercept is None else intercept[0])
    return stored.astype(np.float32) * m + b, how


def _padding(frame: Frame, stored: NDArray) -> NDArray | None:
    """Find the pixels that the header calls padding, if they lie outside all other values."""
    ends = [
        numbers(frame.name, (frame.dataset,), tag, 1)
        for tag in ("PixelPaddingValue", "PixelPaddingRangeLimit")
    ]
    if ends[0] is None:
        return None
    low, high = sorted((ends[0][0], ends[0][0] if ends[1] is None else ends[1][0]))
    mask = (stored >= low) & (stored <= high)
    rest = stored[~mask]
    outside = rest.size == 0 or rest.min() > high or rest.max() < low
    return mask if mask.any() and outside else None
