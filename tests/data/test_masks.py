"""Masks in the forms that people have: whole numbers, other grids, one-hot, SEG, RTSTRUCT, PNG."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_files import segmentation, slice_file, structures
from pydicom.data import get_testdata_file

from fewshot_lib.data.report import Report, VolumeError
from fewshot_lib.data.volumes import read_folder, read_image, read_pair

SHAPE = (8, 6, 4)
AFFINE = np.array([[2.0, 0, 0, -10], [0, 2.0, 0, 5], [0, 0, 3.0, 7], [0, 0, 0, 1]])


def picture() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


def marks(*numbers: float, dtype: object = np.int16) -> np.ndarray:
    """Mark a box of its own place and size for each number."""
    mask = np.zeros(SHAPE, dtype)
    for i, number in enumerate(numbers):
        mask[2 * i : 2 * i + 2, 1 : 3 + i, 1:3] = number
    return mask


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine, dtype=array.dtype), path)
    return path


def read(tmp_path: Path, mask: Path, **how: bool) -> tuple[np.ndarray, Report]:
    report = Report()
    image = save(tmp_path / "image.nii", picture())
    return read_pair(image, mask, report=report, **how).labels.numpy(), report


def wanted(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 1, 0)[:, ::-1, ::-1].astype(np.int64)


def refused(tmp_path: Path, mask: Path, sentence: str, **how: bool) -> None:
    with pytest.raises(VolumeError, match=sentence):
        read(tmp_path, mask, **how)


# --- numbers


@pytest.mark.parametrize(
    ("number", "dtype"),
    [(255, np.uint8), (-1, np.int8), (-1, np.int16), (255, np.float32), (65535, np.uint16)],
)
def test_255_and_minus_1_of_a_binary_mask_are_its_foreground(
    tmp_path: Path, number: int, dtype: object
) -> None:
    got, report = read(tmp_path, save(tmp_path / "m.nii", marks(number, dtype=dtype)))
    assert np.array_equal(got, wanted(marks(1)))
    assert report.kinds() == {"changed"}


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ((1, 255), "255 beside other labels"),
        ((1, 2, 255), "255 beside other labels"),
        ((1, -1), "negative label -1"),
        ((-2,), "negative label -2"),
        ((0.5,), r"fractions \(such as 0.5\)"),
        ((1.01,), "fractions"),
        ((70000,), "an image instead of a mask"),
        ((np.inf,), r"fractions \(such as inf\)"),
        ((128, 255), r"greys between 0 and 255 \(such as 128\)"),
    ],
)
def test_numbers_that_cannot_be_labels_are_refused(
    tmp_path: Path, numbers: tuple[float, ...], sentence: str
) -> None:
    refused(tmp_path, save(tmp_path / "m.nii", marks(*numbers, dtype=np.float32)), sentence)


def test_an_image_and_a_mask_without_background_are_no_mask(tmp_path: Path) -> None:
    refused(tmp_path, save(tmp_path / "m.nii", picture().astype(np.int16)), "is an image: 120|192")
    refused(tmp_path, save(tmp_path / "m.nii", marks(1) + np.int16(1)), "marks every voxel")
    _, report = read(tmp_path, save(tmp_path / "m.nii", 255 * (1 - marks(1, dtype=np.uint8))))
    assert "of the voxels; is 0 the background?" in str(report)


def test_255_is_a_label_where_a_table_or_its_neighbours_say_so(tmp_path: Path) -> None:
    got, _ = read(tmp_path, save(tmp_path / "m.nii", marks(251, 255)))
    assert np.array_equal(got, wanted(marks(251, 255)))
    save(tmp_path / "f" / "a_image.nii", picture())
    save(tmp_path / "f" / "a_mask.nii", marks(1, 255))
    (tmp_path / "f" / "labels.json").write_text('{"liver": 1, "spleen": 255}')
    [volume] = read_folder(tmp_path / "f", report=Report())
    assert volume.names == ("background", "liver", "spleen")


def test_binary_masks_of_1_and_of_255_share_their_label(tmp_path: Path) -> None:
    for subject, number in (("a", 1), ("b", 255)):
        save(tmp_path / f"{subject}_image.nii", picture())
        save(tmp_path / f"{subject}_mask.nii", marks(number))
    (tmp_path / "labels.json").write_text('{"liver": 1}')
    assert all(v.mask("liver").any() for v in read_folder(tmp_path, report=Report()))


@pytest.mark.parametrize("noise", [-1e-6, 1e-6, 9e-4])
def test_noise_of_rounding_is_rounded_and_told(tmp_path: Path, noise: float) -> None:
    array = marks(1 + noise, 2 + noise, dtype=np.float64)
    got, report = read(tmp_path, save(tmp_path / "m.nii", array))
    assert np.array_equal(got, wanted(marks(1, 2)))
    assert "rounded" in str(report)


def test_a_slope_of_the_header_gives_the_labels_back(tmp_path: Path) -> None:
    image = nib.Nifti1Image(marks(3, 6), AFFINE)
    image.header.set_slope_inter(1 / 3, 0)
    nib.save(image, tmp_path / "m.nii")
    raw = bytearray((tmp_path / "m.nii").read_bytes())
    raw[352:] = marks(3, 6).tobytes(order="F")  # stored 3 and 6, which mean 1 and 2
    raw[112:116] = np.float32(1 / 3).tobytes()
    (tmp_path / "m.nii").write_bytes(raw)
    assert np.array_equal(read(tmp_path, tmp_path / "m.nii")[0], wanted(marks(1, 2)))


def test_nan_in_a_mask_is_background_and_told(tmp_path: Path) -> None:
    array = marks(1, dtype=np.float32)
    array[-1] = np.nan
    got, report = read(tmp_path, save(tmp_path / "m.nii", array))
    assert np.array_equal(got, wanted(marks(1)))
    assert "NaN; read as background" in str(report)


# --- one-hot


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_channel_per_class_is_read_with_channels_first_or_last(
    tmp_path: Path, first: bool, background: bool, dtype: object
) -> None:
    labels = marks(1, 2)
    channels = [labels == n for n in range(0 if background else 1, 3)]
    array = np.stack(channels, 0 if first else 3).astype(dtype)
    got, report = read(tmp_path, save(tmp_path / "m.nii", array))
    assert np.array_equal(got, wanted(labels))
    assert f"channels {'first' if first else 'last'}" in str(report)
    assert ("channel 0 is the background" in str(report)) == background


def test_niftis_own_place_for_channels_is_the_fifth_axis(tmp_path: Path) -> None:
    array = np.stack([marks(1, 2) == n for n in (1, 2)], -1)[:, :, :, None].astype(np.uint8)
    assert np.array_equal(read(tmp_path, save(tmp_path / "m.nii", array))[0], wanted(marks(1, 2)))


def test_channels_that_overlap_or_hold_fractions_are_refused(tmp_path: Path) -> None:
    both = np.stack([marks(1), marks(1)], -1)
    refused(tmp_path, save(tmp_path / "m.nii", both), "several classes at once")
    refused(tmp_path, save(tmp_path / "m.nii", both * 3), "no channel of 0 and 1")
    soft = np.stack([marks(0.5, dtype=np.float32)] * 2, -1)
    refused(tmp_path, save(tmp_path / "m.nii", soft), "fractions")


# --- other grids


def test_a_mask_on_another_grid_is_resampled_when_asked(tmp_path: Path) -> None:
    coarse = AFFINE @ np.diag([2, 2, 1, 1])
    coarse[:3, 3] += [1, 1, 0]  # the centre of two voxels
    fine = np.repeat(np.repeat(marks(1, 2)[::2, ::2], 2, 0), 2, 1)
    path = save(tmp_path / "m.nii", marks(1, 2)[::2, ::2], coarse)
    refused(tmp_path, path, r"be on one grid: .*\(--resample, or resample=True\)")
    got, report = read(tmp_path, path, resample=True)
    assert np.array_equal(got, wanted(fine))
    assert report.kinds() == {"resampled"}


def test_a_moved_mask_is_resampled_and_one_of_another_scan_is_refused(tmp_path: Path) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 4  # two voxels to the right
    path = save(tmp_path / "m.nii", marks(1), moved)
    refused(tmp_path, path, "one shape but lie up to 4.0 mm apart")
    got, _ = read(tmp_path, path, resample=True)
    assert np.array_equal(got, wanted(np.roll(marks(1), 2, 0)))
    moved[0, 3] += 400
    path = save(tmp_path / "m.nii", marks(1), moved)
    refused(tmp_path, path, "belongs to another scan", resample=True)


def test_a_quarter_voxel_is_rounding_of_headers_and_told(tmp_path: Path) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 0.5
    got, report = read(tmp_path, save(tmp_path / "m.nii", marks(1), moved))
    assert np.array_equal(got, wanted(marks(1)))
    assert "lies 0.50 mm beside" in str(report)


def test_a_cut_out_is_taken_from_a_segmentation_of_slicer_only(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    box = marks(1, 2)[1:6, 1:5]
    place = AFFINE.copy()
    place[:3, 3] = nib.affines.apply_affine(AFFINE, [1, 1, 0])
    refused(tmp_path, save(tmp_path / "m.nii", box, place), "must be on one grid")
    image = sitk.GetImageFromArray(box.transpose(2, 1, 0))
    image.SetSpacing((2, 2, 3))
    image.SetOrigin((-place[0, 3], -place[1, 3], place[2, 3]))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / "m.seg.nrrd"))
    got, report = read(tmp_path, tmp_path / "m.seg.nrrd")
    inside = np.zeros(SHAPE, np.int16)
    inside[1:6, 1:5] = box
    assert np.array_equal(got, wanted(inside))
    assert "covers 5 × 4 × 4 voxels" in str(report)


def test_a_sheared_mask_fits_its_tilted_scan(tmp_path: Path) -> None:
    sheared = AFFINE.copy()
    sheared[1, 2] = 0.8
    image = save(tmp_path / "i.nii", picture(), sheared)
    got = read_pair(image, save(tmp_path / "m.nii", marks(1), sheared), report=Report())
    assert np.array_equal(got.labels.numpy(), wanted(marks(1)))
    with pytest.raises(VolumeError, match="apart"):
        read_pair(image, save(tmp_path / "n.nii", marks(1)), report=Report())


# --- DICOM


def scan(folder: Path) -> Path:
    for i in range(4):
        values = 100 * i + 10 * np.arange(6)[:, None] + np.arange(8)
        slice_file(
            folder / f"{i}.dcm", 3.0 * i, values, FrameOfReferenceUID="1.2.9", PatientID="x",
            StudyInstanceUID="1.2.8", PatientName="x^y", PatientBirthDate="", PatientSex="",
            StudyID="", StudyDate="", StudyTime="", AccessionNumber="", InstanceNumber=i + 1,
            ReferringPhysicianName="",
        )  # fmt: skip
    return folder


def axial_marks() -> np.ndarray:
    """(slice, row, column); the outer slices are empty, as a segmentation may leave them out."""
    labels = np.zeros((4, 6, 8), np.uint8)
    labels[1:3, 1:4, 1:3] = 1
    labels[2, 2:5, 5:7] = 2
    return labels


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_another_librarys_dicom_segmentation_lies_on_its_series(tmp_path: Path, kind: str) -> None:
    folder = scan(tmp_path / "s")
    array = axial_marks()
    if kind == "FRACTIONAL":
        array = np.stack([array == n for n in (1, 2)], -1).astype(np.float32)
    report = Report()
    volume = read_pair(folder, segmentation(folder, array, kind), report=report)
    assert np.array_equal(volume.labels.numpy(), axial_marks())
    assert "its segments are 1 Liver, 2 Spleen" in str(report)


def test_segments_that_overlap_or_are_probable_are_refused(tmp_path: Path) -> None:
    folder = scan(tmp_path / "s")
    both = np.stack([axial_marks() > 0] * 2, -1).astype(np.uint8)
    with pytest.raises(VolumeError, match="segments overlap"):
        read_pair(folder, segmentation(folder, both), report=Report())
    soft = np.stack([axial_marks() == n for n in (1, 2)], -1) * np.float32(0.5)
    with pytest.raises(VolumeError, match="holds fractions"):
        read_pair(folder, segmentation(folder, soft, "FRACTIONAL"), report=Report())


def box(r: tuple[float, float], c: tuple[float, float], z: float) -> list[tuple]:
    """Draw around pixels of rows r and columns c; the first pixel is centred on (−10, 5) mm."""
    x, y = [-10 + 2 * v for v in c], [5 + 2 * v for v in r]
    return [(x[0], y[0], z), (x[1], y[0], z), (x[1], y[1], z), (x[0], y[1], z)]


def test_contours_are_filled_with_holes_small_ones_on_top_and_told(tmp_path: Path) -> None:
    folder = scan(tmp_path / "s")
    path = structures(
        tmp_path / "rt.dcm",
        {
            (1, "Liver", "ORGAN"): [
                box((0.5, 5.5), (0.5, 6.5), 3.0),
                box((2.5, 3.5), (2.5, 3.5), 3.0),
            ],
            (2, "Tumour", "GTV"): [box((0.5, 1.5), (0.5, 2.5), 3.0), [(0.0, 5.0, 3.0)]],
            (9, "Body", "EXTERNAL"): [box((-0.4, 5.4), (-0.4, 7.4), 3.0)],
        },
    )
    report = Report()
    labels = read_pair(folder, path, report=report).labels.numpy()
    expected = np.zeros((4, 6, 8), int)
    expected[1, 1:6, 1:7] = 1
    expected[1, 3, 3] = 0
    expected[1, 1, 1:3] = 2
    assert np.array_equal(labels, expected)
    for words in ("Body: the body's outline", "Tumour overlaps larger ones; its 2", "kind POINT"):
        assert words in str(report)


@pytest.mark.parametrize(
    ("polygon", "sentence"),
    [
        (box((1, 3), (1, 3), 4.5), "lies between the slices"),
        (box((1, 3), (1, 3), 30.0), "outside the image"),
        (box((1, 30), (1, 3), 3.0), "outside the image"),
        ([(0.0, 5.0, 3.0)], "no closed contour"),
    ],
)
def test_contours_of_another_series_are_refused(
    tmp_path: Path, polygon: list[tuple], sentence: str
) -> None:
    folder = scan(tmp_path / "s")
    path = structures(tmp_path / "rt.dcm", {(1, "Liver", "ORGAN"): [polygon]})
    with pytest.raises(VolumeError, match=sentence):
        read_pair(folder, path, report=Report())


def test_contours_of_another_frame_and_those_that_hold_no_voxel_are_told(tmp_path: Path) -> None:
    import pydicom

    folder = scan(tmp_path / "s")
    small = [box((3.1, 3.3), (3.1, 3.3), 3.0)]
    rois = {(1, "Liver", "ORGAN"): [box((1, 3), (1, 3), 3.0)], (2, "Node", "GTV"): small}
    path = structures(tmp_path / "rt.dcm", rois)
    dataset = pydicom.dcmread(path)
    dataset.FrameOfReferenceUID = "1.2.77"
    dataset.save_as(path)
    report = Report()
    read_pair(folder, path, report=report)
    assert "another frame of reference" in str(report)
    assert "Node: holds no voxel's middle" in str(report)


def test_a_dicom_image_and_a_strangers_structures_are_no_mask(tmp_path: Path) -> None:
    folder = scan(tmp_path / "s")
    with pytest.raises(VolumeError, match="is a DICOM image, not a mask"):
        read_pair(folder, folder / "1.dcm", report=Report())
    with pytest.raises(VolumeError):
        read_pair(folder, str(get_testdata_file("rtstruct.dcm")), report=Report())


# --- pictures


@pytest.mark.parametrize("mode", ["L", "P", "P white first", "1", "I;16"])
def test_a_png_mask_lies_on_its_picture(tmp_path: Path, mode: str) -> None:
    from PIL import Image

    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    labels = np.zeros((6, 8), np.uint8)
    labels[1:3, 1:4] = 1
    if mode == "P":
        image = Image.fromarray(labels, mode="P")
        image.putpalette([0, 0, 0, 200, 30, 30])
    elif mode == "I;16":
        image = Image.fromarray(labels.astype(np.uint16))
    elif mode == "P white first":  # as a program that saves few colours does
        image = Image.fromarray(1 - labels, mode="P")
        image.putpalette([255, 255, 255, 0, 0, 0])
    else:
        image = Image.fromarray(labels * 255).convert(mode)
    image.save(tmp_path / "m.png")
    volume = read_pair(tmp_path / "a.png", tmp_path / "m.png", report=Report())
    assert np.array_equal(volume.labels[0].numpy(), labels)
    assert np.array_equal(volume.images[0, 0].numpy(), grey)


def test_a_jpeg_mask_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("a.png", "m.jpg"):
        Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(tmp_path / name)
    with pytest.raises(VolumeError, match="JPEG changes the numbers"):
        read_pair(tmp_path / "a.png", tmp_path / "m.jpg", report=Report())


def test_nifti_is_read_without_simpleitk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    save(tmp_path / "a.nii", picture())
    assert read_image(tmp_path / "a.nii", report=Report()).images.shape[0] == 4
