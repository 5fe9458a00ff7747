"""Headers removed, emptied, doubled, overwritten: a right volume, a remark, or one sentence."""

from __future__ import annotations

import io
import tempfile
import warnings
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from dicom_files import slice_file
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from fewshot_lib.data.dicom import read_series
from fewshot_lib.data.report import Report, VolumeError
from fewshot_lib.data.volumes import read_image

SHAPE = (5, 4, 3)
AFFINE = np.array([[2.0, 0, 0, -10], [0, 2.0, 0, 5], [0, 0, 3.0, 7], [0, 0, 0, 1]])
#: Fields that only repeat or decorate; the image does not depend on them.
DECORATION = {
    "descrip", "aux_file", "intent_name", "intent_code", "intent_p1", "intent_p2", "intent_p3",
    "cal_max", "cal_min", "slice_start", "slice_end", "slice_code", "slice_duration", "toffset",
    "data_type", "db_name", "extents", "session_error", "regular", "dim_info", "glmax", "glmin",
}  # fmt: skip
FIELDS = [n for n in nib.Nifti1Header().keys() if n not in DECORATION]  # noqa: SIM118
CASES = {"max_examples": 1000, "deadline": None, "derandomize": True}


@cache
def plain() -> bytes:
    array = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    image = nib.Nifti1Image(array, AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE, 1)
    return image.to_bytes()


def read_nifti(raw: bytes) -> tuple[np.ndarray, tuple, Report] | None:
    """Read bytes as a file; None: refused in one sentence."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nii"
        path.write_bytes(raw)
        report = Report()
        try:
            volume = read_image(path, report=report)
        except VolumeError as error:
            assert_is_a_sentence(str(error))
            return None
    return volume.images.numpy(), volume.spacing, report


@cache
def read_plain() -> tuple[np.ndarray, tuple, Report]:
    return read_nifti(plain())  # type: ignore[return-value]


def assert_is_a_sentence(message: str) -> None:
    assert 20 < len(message.strip()) < 900, message
    assert any(mark in message for mark in (";", ":", ",")), message


SPECIAL = [0, 1, 2, -1, 3, 4, 8, 16, 255, 32767, -32768, 352, 2**31 - 1, float("nan"), 1e30, -2.0]


@settings(**CASES)
@given(
    fields=st.lists(
        st.tuples(
            st.sampled_from(FIELDS),
            st.sampled_from(["removed", "doubled", "set", "one"]),
            st.sampled_from(SPECIAL),
            st.integers(0, 7),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_a_nifti_header_is_read_right_told_or_refused(fields: list[tuple]) -> None:
    head = nib.Nifti1Header(plain()[:348], check=False)
    before = head.copy()
    for name, how, value, place in fields:
        old = head[name]
        new = np.array(old)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                if how == "removed":
                    new[...] = np.zeros_like(new)
                elif how == "doubled" and new.dtype.kind in "iuf":
                    new[...] = new * 2
                elif how == "set":
                    new[...] = np.array(value).astype(new.dtype)
                elif new.ndim and new.dtype.kind in "iuf":
                    new[place % len(new)] = np.array(value).astype(new.dtype)
            except (ValueError, OverflowError):
                continue
        head[name] = new
    got = read_nifti(head.binaryblock + plain()[348:])
    if got is None:
        return
    images, spacing, report = got
    wanted, size, _ = read_plain()
    same = images.shape == wanted.shape and np.array_equal(images, wanted) and spacing == size
    # these decide alone what the numbers mean, so nothing else in the header contradicts them
    decides = {"scl_slope", "scl_inter", "datatype", "bitpix", "xyzt_units"}
    free = {n for n in decides if head[n] != before[n]}
    both = {"sform_code", "qform_code"}
    free |= both if all(head[n] != before[n] for n in both) else set()
    assert same or report.remarks or free, (fields, images.shape, spacing)


DICOM_TAGS = [
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "SamplesPerPixel", "PhotometricInterpretation", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope",
    "RescaleIntercept", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality",
    "PixelData", "NumberOfFrames", "PixelPaddingValue", "SpacingBetweenSlices",
    "ModalityLUTSequence", "PerFrameFunctionalGroupsSequence", "InstanceNumber",
]  # fmt: skip


@cache
def slices() -> tuple[bytes, ...]:
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for i in range(3):
            pixels = 100 * i + 10 * np.arange(5)[:, None] + np.arange(6)
            path = slice_file(Path(folder) / f"{i}.dcm", 3.0 * i, pixels, InstanceNumber=i)
            found.append(path.read_bytes())
    return tuple(found)


@cache
def mutated(raw: bytes, tag: str, how: str) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(io.BytesIO(raw))
        if how == "removed":
            if tag in dataset:
                del dataset[tag]
        elif tag == "PixelData":
            dataset.PixelData = b"" if how == "emptied" else dataset.PixelData * 2
        elif how == "emptied":
            setattr(dataset, tag, [] if tag.endswith("Sequence") else None)
        elif tag in dataset and not tag.endswith("Sequence"):
            value = dataset[tag].value
            many = list(value) if isinstance(value, pydicom.multival.MultiValue) else [value]
            if how == "doubled":
                setattr(dataset, tag, many + many)
            elif isinstance(many[0], int | float):
                twice = [type(v)(2 * v) for v in many]
                setattr(dataset, tag, twice if len(twice) > 1 else twice[0])
        target = io.BytesIO()
        dataset.save_as(target)
    return target.getvalue()


@settings(**CASES)
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(DICOM_TAGS),
            st.sampled_from(["removed", "emptied", "doubled", "twice"]),
            st.sampled_from([(0,), (1,), (2,), (0, 1, 2)]),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_a_dicom_series_is_read_right_told_or_refused(changes: list[tuple]) -> None:
    files = list(slices())
    for tag, how, which in changes:
        for i in which:
            try:
                files[i] = mutated(files[i], tag, how)
            except Exception:
                reject()  # pydicom does not write such a file
    report = Report()
    try:
        image = read_series({f"{i}.dcm": f for i, f in enumerate(files)}, report)
    except VolumeError as error:
        assert_is_a_sentence(str(error))
        return
    wanted = _wanted()
    same = image.shape == wanted.shape and np.array_equal(image.dataobj, wanted.dataobj)
    same = same and np.allclose(image.affine, wanted.affine)
    # what alone says it: another number there is another scan
    alone = {"RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImagePositionPatient"}
    free = any(how == "twice" and tag in alone for tag, how, _ in changes)
    # without either number a CT's rescale is unknown; that is told
    assert same or report.remarks or free, changes


@cache
def _wanted() -> nib.Nifti1Image:
    return read_series({f"{i}.dcm": f for i, f in enumerate(slices())}, Report())
