"""New users, each with people of their own in their own formats: one command, the right mask.

The people are the same synthetic ones throughout, so what is read must be equal to the byte, and
what is found must not depend on how a hospital keeps its scans.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import Result
from english import left_in_english
from hospital import (
    KEPT,
    ORGANS,
    Person,
    Written,
    as_dicom_and_seg,
    as_pairs,
    as_totalsegmentator,
    itk,
    nifti,
    person,
    seg,
    series,
)
from typer.testing import CliRunner

from fewshot_lib.checker.language import speaking
from fewshot_lib.cli import app
from fewshot_lib.data.report import Report
from fewshot_lib.data.volumes import read_folder
from fewshot_lib.evaluation import volume_dice
from fewshot_lib.transfer import pretrained_available

#: The numbers that a layout gives to the organs by itself, where they are others than the files'.
NUMBERS = {
    "CHAOS": {"liver": 1, "kidney_right": 2, "kidney_left": 3, "spleen": 4},
    "TotalSegmentator": {organ: n for n, organ in enumerate(sorted(ORGANS), 1)},
}
OWN = {organ: n for n, organ in enumerate(ORGANS, 1)}
#: Some layouts number the organs otherwise, and of two labels that share a pixel of the working
#: grid equally the lower one gets it: the found masks then differ in a few pixels at borders.
ALMOST = 0.08

needs_encoder = pytest.mark.skipif(
    not pretrained_available(), reason="the extra `pretrained` is not installed"
)


def fewshot(image: Path, mask: Path, query: Path, out: Path, *more: str) -> Result:
    words = ["--support", image, "--mask", mask, "--query", query, "--out", out, *more]
    return CliRunner().invoke(app, ["segment", *map(str, words)])


def dice(out: Path, who: Person, numbers: dict[str, int]) -> dict[str, float]:
    """Score a written mask by organ; the person's own grid, whatever the order of its axes."""
    stored = nib.as_closest_canonical(nib.load(out))
    got = np.asarray(stored.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1]
    return {
        organ: float(
            volume_dice(
                torch.from_numpy(got == numbers[organ]), torch.from_numpy(who.labels == OWN[organ])
            )
        )
        for organ in ORGANS
    }


@pytest.fixture(scope="module")
def expected(
    one_encoder: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, float]]:
    """Segment the second person from this course's own NIfTI pairs: modality → organ → Dice."""
    found = {}
    for kind in ("CT", "MR"):
        folder = tmp_path_factory.mktemp(kind)
        people = [person(0, kind), person(1, kind)]
        (image, mask), (query, _) = as_pairs(folder, people)
        done = fewshot(image, mask, query, folder / "out.nii.gz")
        assert done.exit_code == 0, done.output
        found[kind] = dice(folder / "out.nii.gz", people[1], OWN)
        assert all(0.5 < value < 1 for value in found[kind].values()), found
    return found


Kept = tuple[str, Path, Written, list[Person]]


@pytest.fixture(scope="module", params=KEPT)
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Write two people in a layout: its name, the folder, what a command names, the people."""
    write, kind = KEPT[request.param]
    folder, people = tmp_path_factory.mktemp("kept"), [person(0, kind), person(1, kind)]
    return request.param, folder, write(folder, people), people


def test_a_folder_is_read_with_every_grey_value_and_label(kept: Kept) -> None:
    _, folder, _, people = kept
    volumes = read_folder(folder, report=Report())
    assert len(volumes) == 2
    for volume, who in zip(volumes, people, strict=True):
        assert np.array_equal(volume.images[:, 0].numpy(), who.grey)
        assert volume.spacing == pytest.approx(who.mm)
        assert set(volume.names) == {"background", *ORGANS}
        for organ, number in OWN.items():
            assert np.array_equal(volume.mask(organ).numpy(), who.labels == number), organ


@needs_encoder
def test_one_command_finds_the_same_organs_whatever_the_format(
    kept: Kept, tmp_path: Path, expected: dict[str, dict[str, float]]
) -> None:
    name, _, ((image, mask), (query, _)), people = kept
    done = fewshot(image, mask, query, tmp_path / "out.nii.gz")
    assert done.exit_code == 0, done.output
    found = dice(tmp_path / "out.nii.gz", people[1], NUMBERS.get(name, OWN))
    by_pairs = expected[KEPT[name][1]]
    if name in NUMBERS:
        assert found == pytest.approx(by_pairs, abs=ALMOST)
        for organ, number in NUMBERS[name].items():
            assert f"{number} {organ}" in done.stdout
    else:
        assert found == by_pairs


# --- what a new user gets wrong: (what is written, image, mask, query) → one sentence

SLIPS = {
    "the folder of the person for that of the series": (
        ("DICOM and SEG", "p0", "p0/mask.dcm", "p1/image"),
        "p0 holds 2 folders of DICOM files (.: 'SEG' with 1 files; image: 'abdomen' with 3 files); "
        "name one of them",
    ),
    "support and mask exchanged": (
        ("DICOM and SEG", "p0/mask.dcm", "p0/image", "p1/image"),
        "p0/mask.dcm is a segmentation",
    ),
    "the series itself for its mask": (
        ("DICOM and RTSTRUCT", "p0/image", "p0/image", "p1/image"),
        "is a DICOM image, not a mask; give a segmentation (SEG), a structure set (RTSTRUCT)",
    ),
    "all images for one": (
        ("nnU-Net in NRRD", "imagesTr", "labelsTr", "imagesTr/case_p1_0000.nrrd"),
        "imagesTr holds no DICOM file (case_p0_0000.nrrd is none); name a file in it, or a folder "
        "with one series",
    ),
    "all masks for one": (
        ("nnU-Net in NRRD", "imagesTr/case_p0_0000.nrrd", "labelsTr", "imagesTr/case_p1_0000.nrrd"),
        "labelsTr/case_p0.nrrd holds several labels, and its folder a mask per organ; name one "
        "file as the mask",
    ),
    "the data set for a scan": (
        ("BIDS", "sub-p0/anat/sub-p0_T2w.nii.gz", "derivatives/manual/sub-p0/anat", "."),
        "holds no DICOM file (derivatives is none); name a file in it",
    ),
    "the person's other folder for the mask": (
        ("CHAOS", "0/T2SPIR/DICOM_anon", "0/T2SPIR", "1/T2SPIR/DICOM_anon"),
        "0/T2SPIR holds 0 PNG masks for 3 DICOM slices",
    ),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_gets_one_sentence_that_says_what_to_name(tmp_path: Path, slip: str) -> None:
    (name, *given), sentence = SLIPS[slip]
    write, kind = KEPT[name]
    write(tmp_path, [person(0, kind), person(1, kind)])
    done = fewshot(*(tmp_path / part for part in given), tmp_path / "out.nii.gz")
    assert done.exit_code == 2, done.output
    assert sentence in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.strip()]) == 1
    assert not (tmp_path / "out.nii.gz").exists()


def remarks(image: Path, mask: Path) -> str:
    from fewshot_lib.data.volumes import read_pair

    report = Report()
    read_pair(image, mask, report=report)
    return str(report)


def test_another_persons_dicom_mask_that_fits_by_its_place_is_told(tmp_path: Path) -> None:
    (image, own), (_, other) = as_dicom_and_seg(tmp_path, [person(0), person(1)])
    assert "names another series" not in remarks(image, own)
    assert "names another series than that of" in remarks(image, other)
    own.rename(tmp_path / "p0" / "image" / "mask.dcm").rename(tmp_path / "moved.dcm")
    folder = tmp_path / "as the archive sends it"
    folder.mkdir()
    (tmp_path / "moved.dcm").rename(folder / "1.dcm")
    assert "1.dcm in it is read" in remarks(image, folder)


def test_organs_that_overlap_in_a_folder_of_masks_are_refused(tmp_path: Path) -> None:
    (image, masks), _ = as_totalsegmentator(tmp_path, [person(0), person(1)])
    (masks / "liver_copy.nii.gz").write_bytes((masks / "liver.nii.gz").read_bytes())
    done = fewshot(image, masks, image, tmp_path / "out.nii.gz")
    assert done.exit_code == 2
    assert "overlaps another organ" in done.stderr


# --- the page "From my PACS to a mask"

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "notebooks" / "own-scans.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "notebooks" / "zh" / "own-scans.md").read_text(encoding="utf-8")
LINES = [
    line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.split("\n")
]
COMMANDS = [shlex.split(line) for line in LINES if line]


@pytest.fixture(scope="module")
def said(one_encoder: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run the page's lines in a folder with the files that it names: mask → what was said."""
    folder = tmp_path_factory.mktemp("mine")
    anna, bert, carl = (person(i) for i in range(3))
    seg(folder / "anna" / "seg.dcm", series(folder / "anna" / "ct", anna), anna.labels)
    series(folder / "bert" / "ct", bert)
    few = bert.labels.copy()
    few[1] = 0
    nifti(folder / "bert_two_slices.nii.gz", few, bert)
    itk(folder / "carl.nrrd", carl.grey, carl)
    coarse = nifti(folder / "carl_coarse.nii.gz", carl.labels[:, ::2, ::2], carl)
    affine = carl.affine @ np.diag([2.0, 2, 1, 1])
    nib.save(nib.Nifti1Image(np.asarray(nib.load(coarse).dataobj), affine), coarse)
    found = {}
    with contextlib.chdir(folder):
        for program, *words in COMMANDS:
            assert program == "fewshot"
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, done.output
            found[words[words.index("--out") + 1]] = done.stdout
        with speaking("zh_CN"):  # the last one shows what it says
            found["zh_CN"] = CliRunner().invoke(app, [*words, "--overwrite"]).stdout
        yield found


@needs_encoder
def test_every_line_of_the_page_runs_and_finds_the_organs(said: dict[str, str]) -> None:
    for name in said.keys() - {"zh_CN"}:
        assert all(value > 0.4 for value in dice(Path(name), person(1), OWN).values()), name
    assert Path("bert.png").stat().st_size
    assert nib.load("bert_p.nii.gz").shape == nib.load("bert_sure.nii.gz").shape
    assert "carl_coarse.nii.gz" in said["bert_two.nii.gz"]  # what was resampled


@needs_encoder
@pytest.mark.parametrize(("page", "key"), [(PAGE, "bert_sure.nii.gz"), (CHINESE, "zh_CN")])
def test_the_page_shows_what_the_command_says(said: dict[str, str], page: str, key: str) -> None:
    """Word for word; a number may differ by a twentieth, as processors round differently."""
    number = r"\d+(?:\.\d+)?"
    shown, real = re.search(r"```text\n(.*?)```", page, re.S)[1], said[key]
    assert re.sub(number, "#", shown) == re.sub(number, "#", real)
    one, other = ([float(n) for n in re.findall(number, text)] for text in (shown, real))
    assert one == pytest.approx(other, rel=0.05)


def test_the_chinese_page_holds_no_sentence_that_is_still_english() -> None:
    assert left_in_english(re.sub(r"```bash.*?```", "", CHINESE, flags=re.S)) == []


def test_the_pages_dice_values_are_those_of_the_notebook() -> None:
    notebook = json.loads((ROOT / "notebooks" / "08_transfer.ipynb").read_text(encoding="utf-8"))
    printed = "".join(
        "".join(output.get("text", ""))
        for cell in notebook["cells"]
        if cell["id"] == "t060"
        for output in cell["outputs"]
    )
    rows = re.findall(r"^\| (.*?) \| (\d\.\d\d) \| (\d\.\d\d) \|$", PAGE, re.M)
    assert len(rows) == 6
    for name, liver, mean in rows:
        assert re.search(rf"^{re.escape(name)} +liver {liver} .* mean {mean}$", printed, re.M), name


def test_the_page_names_every_layout_that_is_found_and_every_option_of_the_command() -> None:
    from fewshot_lib.data import layouts

    table = re.findall(r"^\| ([\w -]+)(?:,[^|]*)? \|", layouts.__doc__ or "", re.M)
    assert len(table) == 8
    for name in table[1:]:
        assert f"| {name} |" in PAGE, name
    for option in ("--resample", "--overlay", "--probability", "--reject"):
        assert any(option in words for words in COMMANDS), option
