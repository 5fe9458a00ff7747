"""Folders as data sets come: each layout is found by itself."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_files import slice_file

from fewshot_lib.data.report import Report, VolumeError
from fewshot_lib.data.volumes import read_folder

SHAPE = (6, 5, 4)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, AFFINE), path)


def picture(path: Path) -> None:
    save(path, np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE))


def marks(path: Path, *numbers: int) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    for i, number in enumerate(numbers):
        mask[4, 3 - i, 2] = number
    save(path, mask)


def course(root: Path) -> None:
    for name in ("a", "b"):
        picture(root / f"{name}_IMAGE.NII.GZ".lower())
        marks(root / f"{name}_mask.nii.gz", 1)


def own_folders(root: Path) -> None:
    for name in ("a", "b"):
        picture(root / name / "image.nii")
        marks(root / name / "mask.nii", 1)


def nnunet(root: Path) -> None:
    for name in ("a", "b"):
        picture(root / "imagesTr" / f"{name}_0000.nii.gz")
        picture(root / "imagesTr" / f"{name}_0001.nii.gz")
        marks(root / "labelsTr" / f"{name}.nii.gz", 1)
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1}}))


def btcv(root: Path) -> None:
    for number in ("0001", "0002"):
        picture(root / "img" / f"img{number}.nii.gz")
        marks(root / "label" / f"label{number}.nii.gz", 1)


def totalsegmentator(root: Path) -> None:
    for name in ("s0001", "s0002"):
        picture(root / name / "ct.nii.gz")
        marks(root / name / "segmentations" / "liver.nii.gz", 1)
        marks(root / name / "segmentations" / "spleen.nii.gz")


def bids(root: Path) -> None:
    (root / "dataset_description.json").parent.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text("{}")
    for name in ("sub-01", "sub-02"):
        picture(root / name / "anat" / f"{name}_T1w.nii.gz")
        derived = root / "derivatives" / "manual" / name / "anat"
        marks(derived / f"{name}_desc-hand_dseg.nii.gz", 1)
        (derived / f"{name}_desc-hand_dseg.tsv").write_text("index\tname\n1\tliver\n")


def chaos(root: Path, values: tuple[int, ...] = (63, 252)) -> None:
    from PIL import Image

    for person in ("1", "2"):
        for sequence in ("T2SPIR", "T1DUAL"):
            for i in range(3):
                pixels = 100 * i + 10 * np.arange(5)[:, None] + np.arange(6)
                inner = "DICOM_anon/InPhase" if sequence == "T1DUAL" else "DICOM_anon"
                name = f"IMG-000{person}-{i}"
                # the first file lies on top
                slice_file(root / person / sequence / inner / f"{name}.dcm", -3.0 * i, pixels)
                mask = np.zeros((5, 6), np.uint8)
                for k, value in enumerate(values):
                    mask[i, 1 + k] = value
                ground = root / person / sequence / "Ground"
                ground.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(ground / f"{name}.png")


LAYOUTS = {
    "course": (course, {"a", "b"}, "label_1"),
    "folders": (own_folders, {"a", "b"}, "label_1"),
    "nnU-Net": (nnunet, {"a", "b"}, "liver"),
    "BTCV": (btcv, {"0001", "0002"}, "label_1"),
    "TotalSegmentator": (totalsegmentator, {"s0001", "s0002"}, "liver"),
    "BIDS": (bids, {"sub-01", "sub-02"}, "liver"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_found_and_its_voxel_lies_where_it_was_marked(
    tmp_path: Path, name: str
) -> None:
    write, subjects, organ = LAYOUTS[name]
    write(tmp_path / "d")
    volumes = read_folder(tmp_path / "d", report=Report())
    assert {v.subject for v in volumes} == subjects
    for volume in volumes:
        assert volume.mask(organ).nonzero().tolist() == [[2, 1, 1]]
        assert volume.images[2, 0, 1, 1] == 4 * 20 + 3 * 4 + 2  # picture()'s voxel (4, 3, 2)


@pytest.mark.parametrize("write", [course, own_folders, totalsegmentator, bids, btcv, chaos])
def test_names_in_capitals_are_the_same_layout(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path)
    for path in sorted(tmp_path.rglob("*.nii*")):
        stem, suffix = path.name.split(".", 1)
        path.rename(path.with_name(f"{stem.upper()}.{suffix.upper()}"))
    for path in sorted((p for p in tmp_path.rglob("*") if p.is_dir()), reverse=True):
        if path.name != "derivatives":
            path.rename(path.with_name(path.name.upper()))
    assert len(read_folder(tmp_path, report=Report())) == 2


def test_chaos_is_read_by_its_grey_levels_slice_by_slice(tmp_path: Path) -> None:
    chaos(tmp_path)
    report = Report()
    first, _ = read_folder(tmp_path, report=report)
    assert first.names == ("background", "liver", "spleen")
    # file i lies 3·i mm below the first one, so it is slice 2 − i; rows run to posterior already
    assert first.mask("liver").nonzero().tolist() == [[0, 2, 1], [1, 1, 1], [2, 0, 1]]
    assert first.mask("spleen").nonzero().tolist() == [[0, 2, 2], [1, 1, 2], [2, 0, 2]]
    assert "T1DUAL: a second sequence of the person; T2SPIR is read" in str(report)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("imagesTr/amos_0001", "labelsTr/amos_0001"),  # no channel 1
        ("images/a", "masks/a_mask"),
        ("images/a", "labels/a-seg"),
        ("images/a_seg", "labels/a_seg"),
    ],
)
def test_masks_are_found_by_the_names_that_people_give(
    tmp_path: Path, image: str, mask: str
) -> None:
    picture(tmp_path / f"{image}.nii.gz")
    marks(tmp_path / f"{mask}.nii.gz", 1)
    [volume] = read_folder(tmp_path, report=Report())
    assert volume.subject == Path(image).name


def test_what_has_no_partner_by_its_name_is_told_and_ignore_is_no_organ(tmp_path: Path) -> None:
    report = Report()
    course(tmp_path)
    picture(tmp_path / "bert.nii.gz")
    read_folder(tmp_path, report=report)
    assert "bert.nii.gz: no image or mask by its name" in str(report)
    totalsegmentator(tmp_path / "t")
    picture(tmp_path / "t" / "s0003" / "ct.nii.gz")
    read_folder(tmp_path / "t", report=report)
    assert "s0003: no segmentations in it" in str(report)
    (tmp_path / "labels.json").write_text('{"liver": 2, "ignore": 1}')
    with pytest.raises(VolumeError, match="holds the label 1 'ignore'"):
        read_folder(tmp_path, report=Report())


def test_a_png_mask_too_few_is_refused(tmp_path: Path) -> None:
    chaos(tmp_path)
    next((tmp_path / "1" / "T2SPIR" / "Ground").iterdir()).unlink()
    with pytest.raises(VolumeError, match="holds 2 PNG masks for 3 DICOM slices"):
        read_folder(tmp_path, report=Report())


def test_organs_that_overlap_are_refused(tmp_path: Path) -> None:
    totalsegmentator(tmp_path)
    marks(tmp_path / "s0001" / "segmentations" / "spleen.nii.gz", 1)
    with pytest.raises(VolumeError, match="overlaps another organ in 1 voxels"):
        read_folder(tmp_path, report=Report())


def test_organs_without_their_image_are_refused(tmp_path: Path) -> None:
    totalsegmentator(tmp_path)
    (tmp_path / "s0002" / "ct.nii.gz").unlink()
    with pytest.raises(VolumeError, match=r"s0002 has masks but no ct.nii.gz"):
        read_folder(tmp_path, report=Report())


def test_a_bids_folder_with_two_masks_or_none_is_refused(tmp_path: Path) -> None:
    bids(tmp_path)
    derived = tmp_path / "derivatives" / "manual" / "sub-01" / "anat"
    marks(derived / "sub-01_desc-other_dseg.nii.gz", 1)
    with pytest.raises(VolumeError, match="sub-01 has several masks"):
        read_folder(tmp_path, report=Report())
    for path in derived.glob("*_dseg.nii.gz"):
        path.unlink()
    with pytest.raises(VolumeError, match="sub-01 has an image but no mask"):
        read_folder(tmp_path, report=Report())


def test_a_folder_above_the_pairs_names_the_folder_below(tmp_path: Path) -> None:
    course(tmp_path / "above" / "data")
    with pytest.raises(VolumeError, match=r"holds no pair .*data in it does: name that"):
        read_folder(tmp_path / "above", report=Report())
    with pytest.raises(VolumeError, match="is a file; name the folder"):
        read_folder(tmp_path / "above" / "data" / "a_mask.nii.gz", report=Report())


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    course(tmp_path)
    picture(tmp_path / "a_image.nii")
    with pytest.raises(VolumeError, match="have one name; move one of them away"):
        read_folder(tmp_path, report=Report())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_label_table_is_read_in_every_encoding_of_json(tmp_path: Path, encoding: str) -> None:
    course(tmp_path)
    mark = codecs.BOM_UTF16_LE if encoding == "utf-16-le" else b""
    (tmp_path / "labels.json").write_bytes(mark + '{"肝臓": 1}'.encode(encoding))
    assert read_folder(tmp_path, report=Report())[0].names == ("background", "肝臓")


def test_without_a_report_every_remark_is_a_warning(tmp_path: Path) -> None:
    nnunet(tmp_path)
    with pytest.warns(UserWarning, match="a further channel; channel 0000 is read"):
        read_folder(tmp_path)
