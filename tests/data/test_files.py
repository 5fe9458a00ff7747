"""Odd but common files of scans: each is read right, or refused in a sentence; nothing silent."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import slice_file
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from fewshot_lib.data.dicom import read_series
from fewshot_lib.data.report import Report, VolumeError
from fewshot_lib.data.volumes import load_image, read_image

SHAPE = (6, 5, 4)
AFFINE = np.array([[2.0, 0, 0, -10], [0, 2.0, 0, 5], [0, 0, 3.0, 7], [0, 0, 0, 1]])


def picture() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


def truth(tmp_path: Path) -> np.ndarray:
    nib.save(nib.Nifti1Image(picture(), AFFINE), tmp_path / "truth.nii")
    return read_image(tmp_path / "truth.nii", report=Report()).images.numpy()


def read(path: Path) -> tuple[np.ndarray, Report]:
    report = Report()
    return read_image(path, report=report).images.numpy(), report


def refused(path: Path, sentence: str) -> None:
    with pytest.raises(VolumeError, match=sentence):
        read(path)


def series(folder: Path, n: int = 4, **changes: object) -> Path:
    """Write n slices of 5 × 6 whose values differ everywhere; a callable is asked per slice."""
    for i in range(n):
        values = 100 * i + 10 * np.arange(5)[:, None] + np.arange(6)
        own = {k: v(i) if callable(v) else v for k, v in changes.items()}
        slice_file(folder / f"{i:02d}.dcm", own.pop("z", 3.0 * i), own.pop("pixels", values), **own)
    return folder


# --- formats


@pytest.mark.parametrize(
    "name",
    ["a.nii", "a.nii.gz", "a.NII.GZ", "a.Nii", "a.hdr", "a.img", "a.HDR",
     "a.mgz", "a.MGZ", "a.mgh"],
)  # fmt: skip
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_nifti_of_both_versions_pairs_and_mgh_are_the_same_volume(
    tmp_path: Path, name: str, kind: type
) -> None:
    image = kind(picture(), AFFINE)
    if name.lower().endswith(("hdr", "img")):
        pair = {nib.Nifti1Image: nib.Nifti1Pair, nib.Nifti2Image: nib.Nifti2Pair}[kind]
        image = pair(picture(), AFFINE)
    elif name.lower().endswith(("mgz", "mgh")):
        image = nib.MGHImage(picture(), AFFINE)
    nib.save(image, tmp_path / name.lower())
    for path in list(tmp_path.glob("a.*")):  # both files of a pair
        partner = path.name.upper().replace("A.", "a.") if "HDR" in name else path.name
        path.rename(path.with_name(name if path.name == name.lower() else partner))
    got, report = read(tmp_path / name)
    assert np.array_equal(got, truth(tmp_path))
    assert not report.remarks


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr", ".MHA", ".NRRD"])
def test_metaimage_and_nrrd_are_the_same_volume(tmp_path: Path, suffix: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(picture().transpose(2, 1, 0))
    image.SetSpacing((2.0, 2.0, 3.0))
    image.SetOrigin((10.0, -5.0, 7.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # RAS in ITK's left-posterior
    sitk.WriteImage(image, str(tmp_path / f"a{suffix.lower()}"))
    (tmp_path / f"a{suffix.lower()}").rename(tmp_path / f"a{suffix}")
    got, report = read(tmp_path / f"a{suffix}")
    assert np.array_equal(got, truth(tmp_path))
    assert np.allclose(load_image(tmp_path / f"a{suffix}", report).affine, AFFINE)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.nrrd", b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n\n01234567"),
        (
            "a.mha",
            b"NDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n",
        ),
    ],
)
def test_a_direction_that_the_file_lacks_is_not_made_up(
    tmp_path: Path, name: str, content: bytes
) -> None:
    pytest.importorskip("SimpleITK")
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, "does not say how the patient lies")


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
def test_a_header_without_its_data_file_is_named(tmp_path: Path, name: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    sitk.WriteImage(sitk.GetImageFromArray(picture()), str(tmp_path / name))
    [data] = tmp_path.glob("a.raw*")
    data.unlink()
    refused(tmp_path / name, f"{name} names the file {data.name} with its data")


def test_without_the_extra_the_sentence_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mha").write_bytes(b"NDims = 3")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(tmp_path / "a.mha", r"needs one more package; pip install 'fewshot-course\[scans\]'")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("names", [("a.nii", "a.nii.gz"), ("a.mgh", "a.mgz")])
def test_a_name_that_belies_the_compression_is_noticed(
    tmp_path: Path, zipped: bool, names: tuple[str, str]
) -> None:
    kind = nib.MGHImage if "mg" in names[0] else nib.Nifti1Image
    raw = kind(picture(), AFFINE).to_bytes()
    path = tmp_path / names[not zipped]
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    got, report = read(path)
    assert np.array_equal(got, truth(tmp_path))
    assert report.kinds() == {"ignored"}


@pytest.mark.parametrize("where", [20, 200, 400, -5])
def test_a_damaged_compressed_file_is_one_sentence(tmp_path: Path, where: int) -> None:
    rng = np.random.default_rng(0)
    nib.save(nib.Nifti1Image(rng.random((20, 20, 20)), AFFINE), tmp_path / "a.nii.gz")
    raw = bytearray((tmp_path / "a.nii.gz").read_bytes())
    raw[where : where + 4] = bytes(b ^ 0xFF for b in raw[where : where + 4])
    (tmp_path / "a.nii.gz").write_bytes(raw)
    refused(tmp_path / "a.nii.gz", "a.nii.gz cannot be read")


NRRD = (
    "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n"
    "{}\nspace directions: (2,0,0) (0,2,0) (0,0,3)\n\n01234567"
)
META = (
    "NDims = 3\nDimSize = 2 2 2\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n{}"
    "ElementType = MET_UCHAR\nElementDataFile = LOCAL\n01234567"
)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.nrrd", NRRD.format("space: scanner-xyz"), "does not say how the patient lies"),
        ("a.nrrd", NRRD.format("space dimension: 3"), "does not say how the patient lies"),
        ("a.nrrd", "a page that says 404, not found", "is no NRRD, whatever"),
        ("a.mha", "a page that says 404, not found", "is no MetaImage, whatever"),
        ("a.dcm", "", "is empty or no DICOM file"),
        ("a.nii.gz.download", "x", "the end of its name is none of a format"),
        ("a.img", "x", "is one half of a pair; put a.hdr beside it"),
        ("a.hdr", "x", "is one half of a pair; put a.img beside it"),
    ],
)
def test_what_a_file_is_not_or_lacks_is_said(
    tmp_path: Path, name: str, content: str, sentence: str
) -> None:
    pytest.importorskip("SimpleITK")
    (tmp_path / name).write_text(content)
    refused(tmp_path / name, sentence)


@pytest.mark.parametrize(
    ("name", "content", "side", "remark"),
    [
        ("a.nrrd", NRRD.format('space: LPS\nspace units: "cm" "cm" "cm"'), 20.0, "converted to mm"),
        ("a.nrrd", NRRD.format('space: RAS\nspace units: "in" "in" "in"'), 2.0, "mm is assumed"),
        ("a.mha", META.format(""), 1.0, "1 mm is assumed"),
        ("a.mha", META.format("ElementToIntensityFunctionSlope = 2\n"), 1.0, "stored numbers"),
    ],
)
def test_units_and_sizes_that_are_not_millimetres_are_told(
    tmp_path: Path, name: str, content: str, side: float, remark: str
) -> None:
    pytest.importorskip("SimpleITK")
    (tmp_path / name).write_text(content)
    report = Report()
    assert read_image(tmp_path / name, report=report).spacing[2] == side
    assert remark in str(report)


def test_a_file_that_may_not_be_read_and_a_name_that_is_too_long_are_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(tmp_path / ("x" * 300 + ".nii"), "cannot be read .*look at its name and rights")

    def forbidden(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "a.nii").write_bytes(b"x")
    monkeypatch.setattr("fewshot_lib.data.formats.is_dicom", forbidden)
    refused(tmp_path / "a.nii", r"a.nii cannot be read \(Permission denied\)")


def test_analyze_files_do_not_say_which_side_is_left(tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(picture(), AFFINE), tmp_path / "a.img")
    refused(tmp_path / "a.img", "does not say which side is left")


@pytest.mark.parametrize("mode", ["L", "I;16", "1", "LA", "RGB", "RGBA"])
def test_a_grey_picture_is_one_slice_as_it_is_seen(tmp_path: Path, mode: str) -> None:
    from PIL import Image

    grey = np.arange(30, dtype=np.uint8).reshape(5, 6) % 2 * 255
    image = Image.fromarray(grey)
    image = Image.fromarray(grey.astype(np.uint16)) if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "a.PNG", format="PNG")
    got, report = read(tmp_path / "a.PNG")
    assert got.shape == (1, 1, 5, 6)
    assert np.array_equal(got[0, 0] > 0, grey > 0)
    assert "assumed" in report.kinds()
    assert "neither size nor side" in str(report)


def test_colour_transparency_and_several_pictures_are_refused(tmp_path: Path) -> None:
    from PIL import Image

    colour = np.zeros((5, 6, 3), np.uint8)
    colour[0, 0] = (200, 0, 0)
    Image.fromarray(colour).save(tmp_path / "c.png")
    refused(tmp_path / "c.png", "is a colour picture")
    clear = np.full((5, 6, 4), 90, np.uint8)
    clear[0, 0, 3] = 0
    Image.fromarray(clear).save(tmp_path / "t.png")
    refused(tmp_path / "t.png", "partly transparent")
    frames = [Image.fromarray(np.full((5, 6), v, np.uint8)) for v in (1, 2)]
    frames[0].save(tmp_path / "m.tif", save_all=True, append_images=frames[1:])
    refused(tmp_path / "m.tif", "several pictures")
    (tmp_path / "x.jpg").write_bytes(b"no picture")
    refused(tmp_path / "x.jpg", "cannot be read as a picture")


def test_a_palette_and_inks_are_read_as_they_are_seen(tmp_path: Path) -> None:
    from PIL import Image

    grey = (np.arange(48 * 64).reshape(48, 64) % 251).astype(np.uint8)
    seen = Image.fromarray(grey)
    seen.convert("RGB").quantize(256).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png")[0][0, 0], grey)
    seen.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read(tmp_path / "a.jpg")[0][0, 0] - grey).mean() < 5
    seen.save(tmp_path / "a.tif", tiffinfo={0x0112: 6})
    refused(tmp_path / "a.tif", "stored turned")


def test_a_jpeg_of_grey_in_colours_is_grey_and_turned_as_it_says(tmp_path: Path) -> None:
    from PIL import Image

    grey = np.linspace(0, 255, 64 * 48).reshape(48, 64).astype(np.uint8)
    image = Image.fromarray(grey).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "a.jpeg", exif=exif, quality=95)
    got, report = read(tmp_path / "a.jpeg")
    assert np.abs(got[0, 0] - grey[::-1, ::-1]).max() < 12
    assert "EXIF" in str(report)


# --- NIfTI headers


def spoiled(tmp_path: Path, **fields: object) -> Path:
    nib.save(nib.Nifti1Image(picture(), AFFINE), tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    head = nib.Nifti1Header(bytes(raw[:348]), check=False)
    for name, value in fields.items():
        head[name] = value
    raw[:348] = head.binaryblock
    (tmp_path / "a.nii").write_bytes(raw)
    return tmp_path / "a.nii"


def two_headers(tmp_path: Path, qform: np.ndarray) -> Path:
    image = nib.Nifti1Image(picture(), AFFINE)
    image.set_sform(AFFINE, code=1)
    image.set_qform(qform, code=1)
    nib.save(image, tmp_path / "a.nii")
    return tmp_path / "a.nii"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_headers_that_exchange_sides_are_refused(tmp_path: Path, axis: int) -> None:
    flipped = AFFINE.copy()
    flipped[axis, axis] *= -1
    refused(two_headers(tmp_path, flipped), r"its header says two things, axes RAS \(sform, code 1")


def test_headers_that_exchange_axes_are_refused(tmp_path: Path) -> None:
    refused(two_headers(tmp_path, AFFINE[:, [1, 0, 2, 3]]), "its header says two things")


@pytest.mark.parametrize("change", ["translation", "scale", "rotation"])
def test_headers_that_differ_otherwise_are_told(tmp_path: Path, change: str) -> None:
    other = AFFINE.copy()
    if change == "translation":
        other[0, 3] += 12
    elif change == "scale":
        other[:3, :3] *= 1.5
    else:
        turn = nib.eulerangles.euler2mat(z=0.2)
        other[:3, :3] = turn @ other[:3, :3]
    got, report = read(two_headers(tmp_path, other))
    assert np.array_equal(got, truth(tmp_path))
    assert report.kinds() == {"header"}
    assert "sform is used" in str(report)


@pytest.mark.parametrize(("code", "factor"), [(1, 1000.0), (3, 0.001)])
def test_metres_and_micrometres_become_millimetres(
    tmp_path: Path, code: int, factor: float
) -> None:
    path = spoiled(tmp_path, xyzt_units=code)
    report = Report()
    assert np.allclose(load_image(path, report).affine[:3], factor * AFFINE[:3])
    assert "converted to mm" in str(report)


def test_bytes_after_the_image_and_mended_headers_are_told(tmp_path: Path) -> None:
    path = spoiled(tmp_path, dim=[3, 6, 5, 3, 1, 1, 1, 1])
    assert "120 bytes after the image" in str(read(path)[1])
    path = spoiled(tmp_path, bitpix=8)
    assert "faults that were mended" in str(read(path)[1])
    assert "unit of length is unknown" in str(read(spoiled(tmp_path, xyzt_units=7))[1])
    turn = nib.eulerangles.euler2mat(z=0.5) @ AFFINE[:3, :3]
    nib.save(nib.Nifti1Image(picture(), nib.affines.from_matvec(turn)), tmp_path / "a.nii")
    assert "turned by 29°" in str(read(tmp_path / "a.nii")[1])
    nib.save(nib.Nifti1Image(picture(), np.diag([2e-3, 2e-3, 3e-3, 1])), tmp_path / "a.nii")
    assert "look whether its unit is right" in str(read(tmp_path / "a.nii")[1])


def test_a_header_that_hides_sizes_or_the_image_and_a_coronal_slice_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    nothing = {"pixdim": [1, 0, 0, 0, 1, 1, 1, 1]}
    refused(spoiled(tmp_path, **nothing, sform_code=0, qform_code=1), "how large its voxels are")
    refused(spoiled(tmp_path, vox_offset=0), "would begin inside its header")
    nib.save(nib.Nifti1Image(picture()[:, :1], AFFINE), tmp_path / "a.nii")
    refused(tmp_path / "a.nii", "one slice that is not axial")
    assert capfd.readouterr().err == ""  # nibabel, too, tells what it mends


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(picture().astype(np.complex64), AFFINE), tmp_path / "a.nii")
    refused(tmp_path / "a.nii", "complex numbers; save their magnitude")


def test_a_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    refused(spoiled(tmp_path, dim=[3, 32000, 32000, 32000, 1, 1, 1, 1]), "more than this course")
    raw = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(raw))
    refused(tmp_path / "b.nii.gz", "more than this course")


# --- intensities


@pytest.mark.parametrize("hole", [np.nan, -np.inf])
def test_nan_is_padding_and_read_as_air(tmp_path: Path, hole: float) -> None:
    array = picture() + 3
    array[0] = hole
    nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / "a.nii")
    got, report = read(tmp_path / "a.nii")
    assert got.min() == (picture() + 3)[1:].min()
    assert "20 voxels are NaN or padding" in str(report)


def test_nothing_but_nan_and_one_infinity_are_refused(tmp_path: Path) -> None:
    nothing, infinite = np.full(SHAPE, np.nan), picture()
    infinite[0, 0, 0] = np.inf
    for array, sentence in ((nothing, "no intensity at all"), (infinite, "holds infinite")):
        nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / "a.nii")
        refused(tmp_path / "a.nii", sentence)


@pytest.mark.parametrize(
    ("padding", "rest", "is_padding"),
    [
        (-1024, picture(), True),  # MR
        (-32768, picture(), True),  # MR, the smallest int16
        (-2000, picture() * 17 - 1024, True),  # CT outside its circle
        (-3024, picture() * 17 - 1024, True),
        (-1024, picture() * 17 - 1023, False),  # CT: air itself
        (-1024, picture() - 60, False),  # CT without air around the head
        (-1, picture(), False),
    ],
)
def test_padding_far_below_all_else_is_air_and_hounsfield_units_stay(
    tmp_path: Path, padding: float, rest: np.ndarray, is_padding: bool
) -> None:
    array = rest.copy()
    array[0] = padding
    nib.save(nib.Nifti1Image(array.astype(np.float32), AFFINE), tmp_path / "a.nii")
    got, report = read(tmp_path / "a.nii")
    assert got.min() == (rest[1:].min() if is_padding else padding)
    assert ("padding" in str(report)) == is_padding


# --- DICOM attributes


@pytest.mark.parametrize(
    "tag",
    ["RescaleSlope", "RescaleIntercept", "NumberOfFrames", "SliceThickness", "PixelPaddingValue",
     "SpacingBetweenSlices", "InstanceNumber", "WindowCenter"],
)  # fmt: skip
def test_an_empty_number_is_as_absent(tmp_path: Path, tag: str) -> None:
    got, report = read(series(tmp_path / "s", **{tag: ""}))
    slope, intercept = (1 if tag == "RescaleSlope" else 2), (0 if "Inter" in tag else -1000)
    assert got[3, 0, 0, 0] == slope * 300 + intercept
    assert ("assumed" in report.kinds()) == tag.startswith("Rescale")


@pytest.mark.parametrize("tag", ["PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"])
@pytest.mark.parametrize("value", ["", None])
def test_an_empty_place_is_refused(tmp_path: Path, tag: str, value: str | None) -> None:
    folder = series(tmp_path / "s", **{tag: value})
    refused(folder, f"does not say where its slice lies .*{tag}")


@pytest.mark.parametrize("tag", ["RescaleSlope", "SliceThickness", "RescaleIntercept"])
def test_a_number_written_twice_is_one_and_two_numbers_are_refused(
    tmp_path: Path, tag: str
) -> None:
    read(series(tmp_path / "s", n=1, **{tag: [2, 2]}))
    folder = series(tmp_path / "t", n=1, **{tag: [2, 3]})
    refused(folder, f"{tag} holds")


def test_a_rescale_that_only_some_slices_have_is_refused(tmp_path: Path) -> None:
    refused(series(tmp_path / "s", RescaleSlope=lambda i: 2 if i else None), "some slices say how")
    refused(series(tmp_path / "t", RescaleSlope=0), "makes all pixels alike")


def test_slopes_that_differ_by_slice_are_each_applied(tmp_path: Path) -> None:
    got, _ = read(series(tmp_path / "s", Modality="PT", RescaleSlope=lambda i: i + 1))
    assert [int(v) for v in got[:, 0, 0, 1]] == [(i + 1) * (100 * i + 1) - 1000 for i in range(4)]


@pytest.mark.parametrize("modality", ["CR", "DX", "MR", "MG", "US", "CT", "PT", "NM"])
def test_white_zero_is_inverted_where_numbers_are_only_brightness(
    tmp_path: Path, modality: str
) -> None:
    plain, _ = read(series(tmp_path / "p", Modality=modality))
    got, report = read(
        series(tmp_path / "s", Modality=modality, PhotometricInterpretation="MONOCHROME1")
    )
    if modality in ("CT", "PT", "NM"):
        assert np.array_equal(got, plain)
        assert "header" in report.kinds()
    else:
        assert np.array_equal(got, plain.max() + plain.min() - plain)
        assert "changed" in report.kinds()


def test_a_modality_table_is_applied(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [400, 0, 16], "HU"
    table.LUTData = np.array([7 * v + 5 for v in range(400)], np.uint16).tobytes()
    got, report = read(
        series(tmp_path / "s", ModalityLUTSequence=Sequence([table]), RescaleSlope=None)
    )
    assert got[3, 0, 1, 2] == 7 * 312 + 5
    assert "modality table" in str(report)


@pytest.mark.parametrize("tilt", [-20.0, 5.0, 15.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_tilted_gantry_is_a_shear_in_the_affine(tmp_path: Path, tilt: float, axis: int) -> None:
    drift = 3 * np.tan(np.radians(tilt))
    place = [
        [-10 + i * drift * (axis == 0), 5 + i * drift * (axis == 1), 3.0 * i] for i in range(4)
    ]
    folder = series(tmp_path / "s", ImagePositionPatient=lambda i: [round(v, 5) for v in place[i]])
    report = Report()
    image = load_image(folder, report)
    for i in range(4):
        where = nib.affines.apply_affine(image.affine, [0, 0, i])
        assert np.allclose(where, np.array(place[i]) * (-1, -1, 1), atol=1e-3)
    assert f"tilted by {abs(tilt):.1f}°" in str(report)
    assert read_image(folder, report=report).spacing == pytest.approx((3, 2, 2))


def test_slices_shifted_to_and_fro_are_refused(tmp_path: Path) -> None:
    folder = series(tmp_path / "s", ImagePositionPatient=lambda i: [-10 + 5 * (i % 2), 5, 3 * i])
    refused(folder, "shifted sideways")


def test_a_scanners_rounding_is_tolerated_and_told(tmp_path: Path) -> None:
    jitter = [1e-4, -1e-4, 5e-5, 0]
    turned = series(tmp_path / "s", ImageOrientationPatient=lambda i: [1, jitter[i], 0, 0, 1, 0])
    assert "directions differ" in str(read(turned)[1])
    uneven = series(tmp_path / "t", z=lambda i: 3 * i + [0, 0.09, -0.04, 0.02][i])
    got, report = read(uneven)
    assert got.shape[0] == 4
    assert "read as even" in str(report)


def test_one_slice_says_what_thickness_is_assumed(tmp_path: Path) -> None:
    assert read_image(series(tmp_path / "s", n=1), report=Report()).spacing[0] == 3
    got = read(series(tmp_path / "t", n=1, SliceThickness=None))
    assert "1 mm is assumed" in str(got[1])


def test_padding_of_the_header_is_air(tmp_path: Path) -> None:
    def pixels(i: int) -> np.ndarray:
        values = 100 * i + 10 * np.arange(5)[:, None] + np.arange(6) + 50
        values[0, 0] = 0
        return values

    got, report = read(series(tmp_path / "s", pixels=pixels, PixelPaddingValue=0))
    assert got[2, 0, 0, 0] == got.min() == 2 * 51 - 1000
    assert "4 voxels are NaN or padding" in str(report)


# --- folders of DICOM


def test_what_lies_beside_the_slices_is_ignored_and_told(tmp_path: Path) -> None:
    plain, _ = read(series(tmp_path / "p"))
    folder = series(tmp_path / "s")
    for name in ("README", "Thumbs.db", "VERSION", "notes.txt", ".DS_Store"):
        (folder / name).write_text("x")
    shutil.copy(str(get_testdata_file("DICOMDIR")), folder / "DICOMDIR")
    shutil.copy(str(get_testdata_file("reportsi.dcm")), folder / "report.dcm")
    shutil.copy(str(get_testdata_file("rtstruct.dcm")), folder / "struct.dcm")
    shutil.copy(folder / "02.dcm", folder / "02 (1).dcm")
    got, report = read(folder)
    assert np.array_equal(got, plain)
    told = str(report)
    for name in ("README", "Thumbs.db", "VERSION", "DICOMDIR", "report.dcm", "02 (1).dcm"):
        assert name in told, told


def test_a_tree_of_one_series_is_read_and_of_several_is_listed(tmp_path: Path) -> None:
    series(tmp_path / "t" / "study" / "one", SeriesDescription="T2 axial")
    got, report = read(tmp_path / "t")
    assert got.shape[0] == 4
    assert "study/one is read" in str(report)
    series(tmp_path / "t" / "study" / "two", n=3, SeriesDescription="scout")
    refused(tmp_path / "t", "study/one: 'T2 axial' with 4 files; study/two: 'scout' with 3 .*name")


def test_two_series_in_one_folder_are_listed(tmp_path: Path) -> None:
    folder = series(tmp_path / "s", SeriesDescription="venous")
    slice_file(folder / "x.dcm", 50, np.ones((5, 6)), SeriesInstanceUID="9.9")
    refused(folder, "2 DICOM series lie in one folder .*'venous' with 4 files, 'CT' with 1")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"PatientID": lambda i: f"p{i // 2}"}, "differ in PatientID"),
        ({"FrameOfReferenceUID": lambda i: f"1.{i // 2 + 1}"}, "differ in FrameOfReferenceUID"),
        ({"Modality": lambda i: "CT" if i else "PT"}, "differ in Modality"),
        ({"PhotometricInterpretation": lambda i: f"MONOCHROME{1 + i // 2}"}, "differ in Photo"),
        ({"BitsStored": 12, "HighBit": 15}, "bits do not begin at 0"),
    ],
)
def test_slices_that_cannot_be_one_scan_are_refused(
    tmp_path: Path, changes: dict, sentence: str
) -> None:
    refused(series(tmp_path / "s", **changes), sentence)


def test_thin_slices_far_apart_a_discs_index_and_an_empty_file(tmp_path: Path) -> None:
    folder = series(tmp_path / "s", SliceThickness=1)
    assert "are 1 mm thick and lie 3.0 mm apart" in str(read(folder)[1])
    (folder / "05.dcm").write_bytes(b"")
    refused(folder, "05.dcm is empty or no DICOM file")
    shutil.copy(str(get_testdata_file("DICOMDIR")), tmp_path / "DICOMDIR")
    refused(tmp_path / "DICOMDIR", "is the index of a disc")


def test_a_single_slice_of_a_folder_names_the_folder(tmp_path: Path) -> None:
    folder = series(tmp_path / "s")
    refused(folder / "01.dcm", f"is one slice; its folder holds 4 DICOM files: .*{folder.name}")


def test_a_file_without_dicoms_preamble_is_dicom(tmp_path: Path) -> None:
    plain, _ = read(series(tmp_path / "p"))
    folder = series(tmp_path / "s")
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        with path.open("wb") as stream:
            pydicom.filewriter.write_dataset(
                pydicom.filebase.DicomFileLike(stream), _little(dataset)
            )
    got, _ = read(folder)
    assert np.array_equal(got, plain)


def _little(dataset: Dataset) -> Dataset:
    bare = Dataset()
    bare.update({e.tag: e for e in dataset})
    bare._read_implicit, bare._read_little = True, True
    return bare


@pytest.mark.parametrize(
    "name",
    ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm",
     "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_expb.dcm",
     "MR_small_padded.dcm"],
)  # fmt: skip
def test_every_transfer_syntax_gives_the_same_numbers(name: str) -> None:
    pytest.importorskip("gdcm")
    plain = read_series({"plain": Path(str(get_testdata_file("MR_small.dcm")))})
    other = read_series({name: Path(str(get_testdata_file(name)))})
    assert np.array_equal(np.asarray(plain.dataobj), np.asarray(other.dataobj))
    assert np.allclose(plain.affine, other.affine)


def test_without_a_decoder_one_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        is_available = False

    monkeypatch.setattr("fewshot_lib.data.dicom.get_decoder", lambda syntax: Missing)
    path = Path(str(get_testdata_file("MR_small_jpeg_ls_lossless.dcm")))
    with pytest.raises(VolumeError, match=r"is compressed \(JPEG-LS.*fewshot-course\[scans\]"):
        read_series({"x": path})


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("examples_rgb_color.dcm", "does not say where"),
        ("examples_palette.dcm", "does not say where"),
        ("rtdose.dcm", "several frames in one file"),
        ("MR_truncated.dcm", "cannot be decoded"),
        ("rtplan.dcm", "no pixel data"),
        ("liver_1frame.dcm", "is a segmentation"),
    ],
)
def test_what_is_no_slice_of_a_scan_is_refused(name: str, sentence: str) -> None:
    with pytest.raises(VolumeError, match=sentence):
        read_series({name: Path(str(get_testdata_file(name)))})


@pytest.mark.parametrize("photometric", ["RGB", "PALETTE COLOR"])
def test_colour_with_a_place_is_refused(tmp_path: Path, photometric: str) -> None:
    folder = series(tmp_path / "s", PhotometricInterpretation=photometric)
    refused(folder, "is a colour image|cannot be decoded")


# --- enhanced multi-frame


def enhanced(path: Path, edit: Callable[[Dataset], None] = lambda d: None) -> Path:
    """Write four slices in one file, out of order, a slope each, thickness shared."""
    order = [2, 0, 3, 1]
    values = [100 * i + 10 * np.arange(5)[:, None] + np.arange(6) for i in order]
    slice_file(path, 0, np.concatenate(values), NumberOfFrames=4, Rows=5,
               SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1", ImagePositionPatient=None,
               ImageOrientationPatient=None, PixelSpacing=None, RescaleSlope=None,
               RescaleIntercept=None, SliceThickness=None)  # fmt: skip
    dataset = pydicom.dcmread(path)

    def group(**sequences: Dataset) -> Dataset:
        item = Dataset()
        for name, inside in sequences.items():
            setattr(item, name, Sequence([inside]))
        return item

    def inside(**attributes: object) -> Dataset:
        item = Dataset()
        for name, value in attributes.items():
            setattr(item, name, value)
        return item

    dataset.SharedFunctionalGroupsSequence = Sequence([
        group(PlaneOrientationSequence=inside(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
              PixelMeasuresSequence=inside(PixelSpacing=[2, 2], SliceThickness=3))
    ])  # fmt: skip
    dataset.PerFrameFunctionalGroupsSequence = Sequence([
        group(PlanePositionSequence=inside(ImagePositionPatient=[-10, 5, 3 * i]),
              PixelValueTransformationSequence=inside(RescaleSlope=i + 1, RescaleIntercept=-1000))
        for i in order
    ])  # fmt: skip
    edit(dataset)
    dataset.save_as(path)
    return path


def test_frames_of_an_enhanced_file_are_slices_each_with_its_own_slope(tmp_path: Path) -> None:
    alone, report = read(enhanced(tmp_path / "e" / "a.dcm"))
    assert [int(v) for v in alone[:, 0, 1, 2]] == [
        (i + 1) * (100 * i + 12) - 1000 for i in range(4)
    ]
    assert not report.remarks
    plain = load_image(series(tmp_path / "s"), report)
    assert np.allclose(load_image(tmp_path / "e", report).affine, plain.affine)


def test_frames_in_disorder_or_of_two_times_are_refused(tmp_path: Path) -> None:
    def same_place(dataset: Dataset) -> None:
        first, second, *_ = dataset.PerFrameFunctionalGroupsSequence
        second.PlanePositionSequence = first.PlanePositionSequence

    def too_few(dataset: Dataset) -> None:
        del dataset.PerFrameFunctionalGroupsSequence[-1]

    def no_place(dataset: Dataset) -> None:
        del dataset.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence

    refused(enhanced(tmp_path / "a.dcm", same_place), "lie at the same position")
    refused(enhanced(tmp_path / "b.dcm", too_few), "says 4 frames and describes 3")
    refused(enhanced(tmp_path / "c.dcm", no_place), "frame 2 does not say where its slice lies")


def test_another_librarys_enhanced_file_is_the_same_series(tmp_path: Path) -> None:
    legacy = pytest.importorskip("highdicom.legacy")
    extra = {"FrameOfReferenceUID": "1.2.9", "StudyInstanceUID": "1.2.8", "PatientID": "x",
             "PatientName": "x", "PatientBirthDate": "", "PatientSex": "", "StudyID": "",
             "StudyDate": "20200101", "StudyTime": "000000", "AccessionNumber": "",
             "ReferringPhysicianName": "", "InstanceNumber": 1, "Manufacturer": "x",
             "PatientPosition": "HFS", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
             "ContentDate": "20200101", "ContentTime": "000000", "AcquisitionNumber": 1,
             "SeriesNumber": 1, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}  # fmt: skip
    folder = series(tmp_path / "s", **extra)
    slices = [pydicom.dcmread(p) for p in folder.iterdir()]
    one = legacy.LegacyConvertedEnhancedCTImage(
        slices, generate_uid(), 2, generate_uid(), 1
    )  # fmt: skip
    (tmp_path / "e").mkdir()
    one.save_as(tmp_path / "e" / "a.dcm")
    got, _ = read(tmp_path / "e")
    assert np.array_equal(got, read(folder)[0])
