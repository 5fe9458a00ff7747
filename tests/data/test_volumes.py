"""The reader's own scans: what is read is where it belongs, and each mishap has its sentence."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from dicom_files import slice_file

from fewshot_lib.data.dicom import read_series
from fewshot_lib.data.grid import as_stored, axial
from fewshot_lib.data.volumes import VolumeError, read_folder, read_image, read_pair

SHAPE = (6, 5, 4)  # right, anterior, superior
AFFINE = np.array([[2.0, 0, 0, -10], [0, 2.0, 0, 5], [0, 0, 3.0, 7], [0, 0, 0, 1]])


def picture(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def marks(shape: tuple[int, ...] = SHAPE, label: int = 1) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[4, 3, 2] = label  # one voxel: right, anterior, upper
    return mask


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def pair(
    folder: Path,
    subject: str = "anna",
    image: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    mask_affine: np.ndarray = AFFINE,
    affine: np.ndarray = AFFINE,
) -> Path:
    save(folder / f"{subject}_image.nii.gz", picture() if image is None else image, affine)
    save(folder / f"{subject}_mask.nii.gz", marks() if mask is None else mask, mask_affine)
    return folder


def series(folder: Path, heights: tuple[float, ...] = (0, 3, 6, 9)) -> dict[str, Path]:
    """Write slices whose pixels are 100·slice + 10·row + column; file names are out of order."""
    files = {}
    for i, z in enumerate(heights):
        values = 100 * i + 10 * np.arange(5)[:, None] + np.arange(6)
        path = slice_file(folder / f"{(7 * i) % 11:02d}.dcm", z, values)
        files[path.name] = path
    return files


def stored_as(codes: str, array: np.ndarray) -> nib.Nifti1Image:
    """Store an array the other way round, with the affine that says so."""
    there = nib.orientations.axcodes2ornt(tuple(codes))
    steps = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), there)
    return nib.Nifti1Image(array, AFFINE).as_reoriented(steps)


# --- what is read


def test_a_voxel_lands_at_the_side_and_height_that_its_affine_says(tmp_path: Path) -> None:
    [volume] = read_folder(pair(tmp_path))
    assert volume.images.shape == (4, 1, 5, 6)
    assert volume.images.dtype == torch.float32
    assert volume.spacing == (3.0, 2.0, 2.0)
    assert volume.subject == "anna"
    # voxel (4 of 6 to the right, 3 of 5 to the front, 2 up): column 1 from the left, row 1, slice 2
    assert volume.labels.nonzero().tolist() == [[2, 1, 1]]
    assert volume.images[2, 0, 1, 1] == picture()[4, 3, 2]


@pytest.mark.parametrize("codes", ["LAS", "LPS", "RPI", "ASL", "SLP"])
def test_the_stored_orientation_does_not_change_what_is_read(tmp_path: Path, codes: str) -> None:
    [plain] = read_folder(pair(tmp_path / "plain"))
    turned = {"image": stored_as(codes, picture()), "mask": stored_as(codes, marks())}
    assert "".join(nib.aff2axcodes(turned["image"].affine)) == codes
    for folder, kept in (("both", ()), ("mask only", ("image",)), ("image only", ("mask",))):
        (tmp_path / folder).mkdir()
        for name, array in (("image", picture()), ("mask", marks())):
            stored = nib.Nifti1Image(array, AFFINE) if name in kept else turned[name]
            nib.save(stored, tmp_path / folder / f"anna_{name}.nii.gz")
        [volume] = read_folder(tmp_path / folder)
        assert torch.equal(volume.images, plain.images)
        assert torch.equal(volume.labels, plain.labels)
        assert volume.spacing == plain.spacing


@pytest.mark.parametrize(
    ("file", "table"),
    [
        ("labels.json", {"liver": 3, "spleen": 7}),
        ("labels.json", {"3": "liver", "7": "spleen"}),
        ("dataset.json", {"name": "x", "labels": {"background": 0, "liver": 3, "spleen": 7}}),
    ],
)
def test_label_names_come_from_the_table_and_are_shared_by_all(
    tmp_path: Path, file: str, table: dict
) -> None:
    mask = marks(label=3)
    mask[0, 0, 0] = 7
    pair(pair(tmp_path, mask=mask), "bert", mask=marks(label=3))
    (tmp_path / file).write_text(json.dumps(table))
    anna, bert = read_folder(tmp_path)
    assert anna.names == bert.names == ("background", "liver", "spleen")
    assert int(anna.mask("spleen").sum()) == int(anna.mask("liver").sum()) == 1
    assert int(bert.mask("spleen").sum()) == 0


def test_without_a_table_names_tell_the_numbers(tmp_path: Path) -> None:
    [volume] = read_folder(pair(tmp_path, mask=marks(label=42)))
    assert volume.names == ("background", "label_42")


def test_a_trailing_axis_of_one_is_still_three_dimensional(tmp_path: Path) -> None:
    [volume] = read_folder(pair(tmp_path, image=picture()[..., None]))
    assert volume.images.shape == (4, 1, 5, 6)


def test_a_size_makes_subjects_of_different_shapes_fit_together(tmp_path: Path) -> None:
    pair(pair(tmp_path), "bert", picture((8, 9, 3)), marks((8, 9, 3)))
    volumes = read_folder(tmp_path, size=16)
    assert {v.images.shape[-2:] for v in volumes} == {(16, 16)}
    assert all(v.mask("label_1").any() for v in volumes)
    assert volumes[0].spacing == pytest.approx((3.0, 12 / 16, 12 / 16))


def test_a_dicom_series_is_sorted_by_position_and_rescaled(tmp_path: Path) -> None:
    image = read_series(series(tmp_path))
    array = np.asarray(image.dataobj)  # (column, row, slice)
    column, row, z = 4, 2, 3
    assert array[column, row, z] == 2 * (100 * z + 10 * row + column) - 1000
    # DICOM (x, y, z) = (−10 + 2·4, 5 + 2·2, 9) to the left and back; RAS flips both
    place = nib.affines.apply_affine(image.affine, [column, row, z])
    assert place.tolist() == [2.0, -9.0, 9.0]


def test_a_dicom_series_with_a_nifti_mask_agrees_with_the_same_scan_as_nifti(
    tmp_path: Path,
) -> None:
    image = read_series(series(tmp_path / "d" / "anna" / "image"))
    mask = np.zeros(image.shape, np.uint8)
    mask[1, 4, 2] = 1
    canonical = nib.as_closest_canonical(nib.Nifti1Image(mask, image.affine))
    nib.save(canonical, tmp_path / "d" / "anna" / "mask.nii.gz")  # stored the other way round
    nib.save(image, tmp_path / "n_image.nii.gz")
    nib.save(nib.Nifti1Image(mask, image.affine), tmp_path / "n_mask.nii.gz")
    [from_dicom] = read_folder(tmp_path / "d")
    from_nifti = read_pair(tmp_path / "n_image.nii.gz", tmp_path / "n_mask.nii.gz")
    assert torch.equal(from_dicom.images, from_nifti.images)
    assert torch.equal(from_dicom.labels, from_nifti.labels)
    # slice 2, row 4, column 1 of the series: rows run to posterior and columns to the left already
    assert from_dicom.labels.nonzero().tolist() == [[2, 4, 1]]


# --- mishaps, each with its own sentence


def refused(folder: Path, sentence: str) -> None:
    with pytest.raises(VolumeError, match=sentence):
        read_folder(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "there is no folder .*nowhere")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "is empty; put images and masks into it")


def test_files_of_another_kind_are_refused_with_the_naming_rule(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    refused(tmp_path, "holds no pair .*holiday.jpg.*<subject>_image.nii.gz")


@pytest.mark.parametrize(("kept", "lacks"), [("image", "mask"), ("mask", "image")])
def test_a_file_without_its_partner_is_named(tmp_path: Path, kept: str, lacks: str) -> None:
    pair(tmp_path)
    save(tmp_path / f"bert_{kept}.nii.gz", marks())
    refused(tmp_path, f"bert has an? {kept} but no {lacks}")


MOVED, FLIPPED = AFFINE.copy(), AFFINE.copy()
MOVED[0, 3] += 12
FLIPPED[0, 0] *= -1
COLOUR = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
PAIRS: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "shapes that differ": ({"mask": marks((6, 5, 5))}, "6 × 5 × 4 voxels and .* 6 × 5 × 5"),
    "places that differ": ({"mask_affine": MOVED}, r"one shape but lie up to 12\.0 mm apart"),
    "sides that differ": ({"mask_affine": FLIPPED}, "axes RAS and LAS.*headers disagree"),
    "a time series": ({"image": picture((6, 5, 4, 3))}, "4-D.*time series"),
    "one slice": ({"image": picture((6, 5))}, "2-D.*a single slice"),
    "colours": ({"image": COLOUR}, "colour image"),
    "an empty mask": ({"mask": np.zeros(SHAPE, np.uint8)}, "marks nothing"),
    "one intensity": (
        {"image": np.full(SHAPE, 40.0, np.float32)},
        "has the intensity 40 everywhere.*export it again",
    ),
}


@pytest.mark.parametrize("mishap", PAIRS)
def test_a_pair_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path, mishap: str) -> None:
    given, sentence = PAIRS[mishap]
    refused(pair(tmp_path, **given), sentence)


def test_unknown_orientation_is_refused(tmp_path: Path) -> None:
    pair(tmp_path)
    image = nib.Nifti1Image(picture(), None)
    image.header["pixdim"][1:4] = 2
    assert image.header["sform_code"] == image.header["qform_code"] == 0
    nib.save(image, tmp_path / "anna_image.nii.gz")
    refused(tmp_path, "does not say how the patient lies")


@pytest.mark.parametrize(
    ("where", "content"),
    [(slice(312, 324), bytes(12)), (slice(280, 284), np.float32(np.nan).tobytes())],
    ids=["no way up", "a place that is NaN"],  # srow_z, srow_x
)
def test_a_voxel_of_no_volume_is_refused(tmp_path: Path, where: slice, content: bytes) -> None:
    pair(tmp_path)
    (tmp_path / "anna_image.nii.gz").unlink()
    path = save(tmp_path / "anna_image.nii", picture())
    header = bytearray(path.read_bytes())
    header[where] = content
    path.write_bytes(header)
    refused(tmp_path, "voxel of no volume")


def test_an_image_without_mask_is_read_as_the_pair_reads_it(tmp_path: Path) -> None:
    pair(tmp_path)
    alone = read_image(tmp_path / "anna_image.nii.gz")
    both = read_pair(tmp_path / "anna_image.nii.gz", tmp_path / "anna_mask.nii.gz")
    assert torch.equal(alone.images, both.images)
    assert alone.spacing == both.spacing
    assert alone.names == ("background",)
    assert not alone.labels.any()


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "RPI", "ASL", "SLP", "PIR"])
def test_axial_slices_go_back_to_where_they_were_stored(codes: str) -> None:
    turned = stored_as(codes, picture())
    assert np.array_equal(as_stored(axial(turned)[0], turned), np.asarray(turned.dataobj))


def test_slices_of_another_size_are_not_put_back() -> None:
    image = nib.Nifti1Image(picture(), AFFINE)
    with pytest.raises(ValueError, match="the image has"):
        as_stored(axial(image)[0][1:], image)


def test_subjects_without_a_common_label_are_refused(tmp_path: Path) -> None:
    pair(pair(tmp_path), "bert", mask=marks(label=2))
    refused(tmp_path, r"no label in common.*anna has \[1\], bert has \[2\]")


def test_labels_that_the_table_does_not_name_are_refused(tmp_path: Path) -> None:
    (pair(tmp_path, mask=marks(label=5)) / "labels.json").write_text('{"liver": 1}')
    refused(tmp_path, "anna_mask.* holds label 5, which the label table does not name")


NO_TABLES = (
    *("[1, 2]", "{", '{"liver": "one"}', '{"liver": 2.7}', '{"liver": "2.7"}'),
    *('{"liver": 1e999}', '{"liver": NaN}', '{"liver": true}', '{"liver": [1, 2]}'),
    *('{"1": "liver", "1": "spleen"}', '{"labels": {"liver": 1, "liver": 2}}'),
)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        *((content, "is no label table") for content in NO_TABLES),
        ('{"1": "liver", "2": "liver"}', "names two labels alike"),
        ('{"liver": 1, "spleen": 1}', "gives label 1 two names"),
        ('{"1": "liver", "spleen": 1.0}', "gives label 1 two names"),
    ],
)
def test_a_broken_label_table_is_refused(tmp_path: Path, content: str, sentence: str) -> None:
    (pair(tmp_path) / "labels.json").write_text(content)
    refused(tmp_path, sentence)


@pytest.mark.parametrize(
    "more", ['"1": "liver"', '"air": 0, "background": 0', '"top": 1%s' % ("0" * 400)]
)
def test_names_of_nothing_and_names_told_twice_are_no_matter(tmp_path: Path, more: str) -> None:
    (pair(tmp_path) / "labels.json").write_text(f'{{"liver": 1, {more}}}')
    assert read_folder(tmp_path)[0].names == ("background", "liver")


@pytest.mark.parametrize("content", [b"", b"not a scan", b"\x1f\x8b\x08\x00broken"])
def test_unreadable_files_are_named(tmp_path: Path, content: bytes) -> None:
    (pair(tmp_path) / "anna_image.nii.gz").write_bytes(content)
    refused(tmp_path, "anna_image.nii.gz cannot be read as NIfTI")


def test_a_file_cut_off_in_the_middle_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "anna_image.nii", picture((20, 20, 20)))
    save(tmp_path / "anna_mask.nii", marks((20, 20, 20)))
    path.write_bytes(path.read_bytes()[:3000])
    refused(tmp_path, "anna_image.nii cannot be read as NIfTI")


def test_thick_slices_are_warned_about_and_read(tmp_path: Path) -> None:
    thick = AFFINE.copy()
    thick[2, 2] = 8
    pair(tmp_path, affine=thick, mask_affine=thick)
    with pytest.warns(UserWarning, match=r"slices are 8\.0 mm thick and pixels 2\.0 mm wide"):
        [volume] = read_folder(tmp_path)
    assert volume.spacing[0] == 8.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_folder(pair(tmp_path / "even"))


# --- DICOM mishaps


def broken(files: dict[str, Path], sentence: str) -> None:
    with pytest.raises(VolumeError, match=sentence):
        read_series(files)


@pytest.mark.parametrize(
    ("heights", "sentence"),
    [
        ((0, 3, 6, 12, 15), r"missing between 03.dcm and 10.dcm: 6\.0 mm apart .* 3\.0 mm"),
        ((0, 3, 3), "lie at the same position"),
        ((0, 3, 6.4, 9), "unevenly spaced"),
    ],
)
def test_slices_at_wrong_heights_are_refused(
    tmp_path: Path, heights: tuple[float, ...], sentence: str
) -> None:
    broken(series(tmp_path, heights), sentence)


def test_a_file_without_pixels_is_named(tmp_path: Path) -> None:
    files = series(tmp_path)
    slice_file(tmp_path / "report.dcm", 12, None)
    broken({**files, "report.dcm": tmp_path / "report.dcm"}, "report.dcm has no pixel data")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"SeriesInstanceUID": "9.9"}, "2 DICOM series lie in one folder"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "differ in orientation"),
        ({"PixelSpacing": [1, 1]}, "differ in pixel spacing"),
        ({"NumberOfFrames": 3}, "several frames in one file"),
        ({"Rows": 6, "PixelData": bytes(2 * 36)}, "differ in size"),
    ],
)
def test_a_stranger_in_the_series_is_refused(tmp_path: Path, change: dict, sentence: str) -> None:
    files = series(tmp_path)
    path = slice_file(tmp_path / "x.dcm", 12, np.zeros((5, 6)), **change)
    broken({**files, "x.dcm": path}, sentence)


def test_pixels_that_cannot_be_decoded_are_refused(tmp_path: Path) -> None:
    path = slice_file(tmp_path / "x.dcm", 0, np.zeros((5, 6)), PixelData=b"\0\0")
    broken({"x.dcm": path}, "x.dcm: its pixels cannot be decoded")


def test_files_that_are_not_dicom_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(b"text")
    broken({"x.dcm": path}, "x.dcm cannot be read as DICOM")


def test_folders_of_a_series_without_dicom_files_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "anna" / "mask.nii.gz", marks())
    (tmp_path / "anna" / "image").mkdir()
    refused(tmp_path, "image is empty; put the series' DICOM files into it")
    (tmp_path / "anna" / "image" / "notes.txt").write_text("x")
    refused(tmp_path, re.escape("holds no DICOM file (notes.txt is none); name a file"))


def test_pydicom_itself_reads_what_these_tests_write(tmp_path: Path) -> None:
    path = slice_file(tmp_path / "x.dcm", 0, np.full((5, 6), 7))
    assert (pydicom.dcmread(path).pixel_array == 7).all()
