"""Synthetic people as hospitals and data sets keep them: the same voxels in many formats.

`person` makes one; each function of `KEPT` writes two or more of them into a folder, in a layout
and in formats of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
from dicom_files import segmentation, slice_file, structures
from skimage.measure import find_contours

from fewshot_lib.data.anatomy import make_subject, render

ORGANS = ("liver", "spleen", "kidney_right", "kidney_left")
SLAB = slice(37, 46, 3)  # three slices of the upper abdomen, all organs in some of them
ORIGIN = (-160.0, -150.0, 40.0)  # the first voxel's middle, left-posterior mm


@dataclass(frozen=True)
class Person:
    """One scan with its labels, axial: top anterior, image left the patient's right.

    Arguments:
        name: of the person.
        grey: (Z, H, W) int16; CT in Hounsfield units, MR from 0 up.
        labels: (Z, H, W) uint8, 1 … 4 as in ORGANS.
        mm: size of a voxel, (slice, row, column).
        modality: as DICOM calls it.
    """

    name: str
    grey: np.ndarray
    labels: np.ndarray
    mm: tuple[float, float, float]
    modality: str

    @property
    def affine(self) -> np.ndarray:
        """Voxel (column, row, slice) to RAS mm."""
        z, y, x = self.mm
        return np.array([[-x, 0, 0, -ORIGIN[0]], [0, -y, 0, -ORIGIN[1]], [0, 0, z, ORIGIN[2]],
                         [0, 0, 0, 1]])  # fmt: skip


@cache
def person(index: int, modality: str = "CT") -> Person:
    """Make a person; the same index is the same anatomy in CT and MR."""
    subject = make_subject(index, n_slices=64, size=64, alignment=0.95, split_kidneys=True, seed=3)
    volume = render(subject, "ct_a" if modality == "CT" else "mr")
    grey = volume.images[SLAB, 0].numpy()
    if modality == "CT":  # the abdominal window, and air
        grey = np.where(subject.body[SLAB], 400 * grey - 160, -1000).clip(-1000, 1000)
    else:
        grey = (800 * grey).clip(0, 2000)
    labels = np.zeros(grey.shape, np.uint8)
    for number, organ in enumerate(ORGANS, 1):
        labels[volume.mask(organ).numpy()[SLAB]] = number
    z, y, x = volume.spacing
    mm = (SLAB.step * z, y, x)
    return Person(f"p{index}", np.round(grey).astype(np.int16), labels, mm, modality)


def nifti(path: Path, array: np.ndarray, who: Person) -> Path:
    """Write (Z, H, W) as NIfTI, its axes left, posterior, superior."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), who.affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def itk(path: Path, array: np.ndarray, who: Person, first: Sequence[int] = (0, 0, 0)) -> Path:
    """Write (Z, H, W) as MetaImage or NRRD; `first` is the voxel at which the array begins."""
    import SimpleITK as sitk

    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(who.mm[::-1])
    image.SetOrigin([o + n * mm for o, n, mm in zip(ORIGIN, first, who.mm[::-1], strict=True)])
    sitk.WriteImage(image, str(path))
    return path


def series(folder: Path, who: Person) -> Path:
    """Write a DICOM series, its files in another order than its slices."""
    z, y, x = who.mm
    for i, pixels in enumerate(who.grey):
        slice_file(
            folder / f"IM{(7 * i) % len(who.grey):04d}.dcm", ORIGIN[2] + z * i,
            pixels.astype(np.int32) + 1024, ImagePositionPatient=[*ORIGIN[:2], ORIGIN[2] + z * i],
            PixelSpacing=[y, x], SliceThickness=z, RescaleSlope=1, RescaleIntercept=-1024,
            Modality=who.modality, SeriesInstanceUID=f"1.2.3.{who.name[1:]}",
            FrameOfReferenceUID=f"1.2.9.{who.name[1:]}", StudyInstanceUID=f"1.2.8.{who.name[1:]}",
            SeriesDescription="abdomen", PatientID=who.name, PatientName="anonymous^",
            PatientBirthDate="", PatientSex="", StudyID="", StudyDate="", StudyTime="",
            AccessionNumber="", InstanceNumber=i + 1, ReferringPhysicianName="",
        )  # fmt: skip
    return folder


def seg(path: Path, folder: Path, labels: np.ndarray) -> Path:
    """Write labels as a DICOM segmentation of the series in a folder."""
    import pydicom

    places = [float(pydicom.dcmread(p).ImagePositionPatient[2]) for p in sorted(folder.iterdir())]
    order = np.argsort(np.argsort(places))  # highdicom wants the labels in the files' order
    return segmentation(folder, labels[order], organs=ORGANS).rename(path)


def rtstruct(path: Path, labels: np.ndarray, who: Person) -> Path:
    """Write labels as contours half-way between the voxels inside and those outside."""
    z, y, x = who.mm
    drawn: dict[tuple[int, str, str], list[list[tuple]]] = {}
    for number, organ in enumerate(ORGANS, 1):
        polygons = drawn.setdefault((number, organ, "ORGAN"), [])
        for i in np.flatnonzero((labels == number).any((1, 2))):
            for line in find_contours(labels[i] == number, 0.5):
                at = [(ORIGIN[0] + x * c, ORIGIN[1] + y * r, ORIGIN[2] + z * i) for r, c in line]
                polygons.append([tuple(round(float(v), 3) for v in p) for p in at[:-1]])
    return structures(path, drawn)


def table(folder: Path) -> None:
    """Write labels.json."""
    numbers = {organ: n for n, organ in enumerate(ORGANS, 1)}
    (folder / "labels.json").write_text(json.dumps(numbers))


# --- layouts: each writes one person, and gives what a command names, (image, mask)

Written = list[tuple[Path, Path]]
Layout = Callable[[Path, Sequence[Person]], Written]


def layout(finish: Callable[[Path], None] | None = table) -> Callable[..., Layout]:
    """Make a layout of what writes one person; `finish` writes what the folder has once."""

    def make(one: Callable[[Path, Person], tuple[Path, Path]]) -> Layout:
        def write(folder: Path, people: Sequence[Person]) -> Written:
            written = [one(folder, person_) for person_ in people]
            if finish is not None:
                finish(folder)
            return written

        return write

    return make


@layout()
def as_pairs(folder: Path, p: Person) -> tuple[Path, Path]:
    """Write this course's pairs."""
    image = nifti(folder / f"{p.name}_image.nii.gz", p.grey, p)
    return image, nifti(folder / f"{p.name}_mask.nii.gz", p.labels, p)


@layout()
def as_dicom_and_seg(folder: Path, p: Person) -> tuple[Path, Path]:
    """Write a DICOM series and a DICOM segmentation per person."""
    images = series(folder / p.name / "image", p)
    return images, seg(folder / p.name / "mask.dcm", images, p.labels)


@layout()
def as_dicom_and_contours(folder: Path, p: Person) -> tuple[Path, Path]:
    """Write a DICOM series and the contours of radiotherapy per person."""
    images = series(folder / p.name / "image", p)
    return images, rtstruct(folder / p.name / "mask.dcm", p.labels, p)


@layout()
def as_slicer_saves(folder: Path, p: Person) -> tuple[Path, Path]:
    """Write MetaImage, and a segmentation cut to its labels, as 3D Slicer saves it."""
    image = itk(folder / f"{p.name}_image.mha", p.grey, p)
    low, high = (f(np.nonzero(p.labels), 1) for f in (np.min, np.max))
    cut = p.labels[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))]
    first = tuple(int(n) for n in low[::-1])
    return image, itk(folder / f"{p.name}_mask.seg.nrrd", cut, p, first)


def _dataset(folder: Path) -> None:
    """Write nnU-Net's dataset.json."""
    names = {"background": 0} | {organ: n for n, organ in enumerate(ORGANS, 1)}
    (folder / "dataset.json").write_text(json.dumps({"labels": names, "file_ending": ".nrrd"}))


@layout(_dataset)
def as_nnunet(folder: Path, p: Person) -> tuple[Path, Path]:
    """Write nnU-Net's folders, in NRRD."""
    image = itk(folder / "imagesTr" / f"case_{p.name}_0000.nrrd", p.grey, p)
    return image, itk(folder / "labelsTr" / f"case_{p.name}.nrrd", p.labels, p)


@layout(None)
def as_bids(folder: Path, p: Person) -> tuple[Path, Path]:
    """Write a BIDS tree, the masks under derivatives, each with its table."""
    derived = folder / "derivatives" / "manual" / f"sub-{p.name}" / "anat"
    mask = nifti(derived / f"sub-{p.name}_dseg.nii.gz", p.labels, p)
    rows = "".join(f"{n}\t{organ}\n" for n, organ in enumerate(ORGANS, 1))
    (derived / f"sub-{p.name}_dseg.tsv").write_text(f"index\tname\n{rows}")
    image = folder / f"sub-{p.name}" / "anat" / f"sub-{p.name}_T2w.nii.gz"
    return nifti(image, p.grey, p), mask


@layout(None)
def as_chaos(folder: Path, p: Person) -> tuple[Path, Path]:
    """Write CHAOS's MR: DICOM beside grey levels in PNG."""
    from PIL import Image

    images = series(folder / p.name[1:] / "T2SPIR" / "DICOM_anon", p)
    ground = images.parent / "Ground"
    ground.mkdir()
    for i, marks in enumerate(np.array([0, 63, 252, 126, 189], np.uint8)[p.labels]):
        Image.fromarray(marks).save(ground / f"IM{(7 * i) % len(p.labels):04d}.png")
    return images, ground


@layout(None)
def as_totalsegmentator(folder: Path, p: Person) -> tuple[Path, Path]:
    """Write a mask per organ; a command gets the folder of masks."""
    masks = folder / p.name / "segmentations"
    for number, organ in enumerate(ORGANS, 1):
        nifti(masks / f"{organ}.nii.gz", (p.labels == number).astype(np.uint8), p)
    image = "ct" if p.modality == "CT" else "mri"
    return nifti(folder / p.name / f"{image}.nii.gz", p.grey, p), masks


KEPT: dict[str, tuple[Layout, str]] = {
    "DICOM and SEG": (as_dicom_and_seg, "CT"),
    "DICOM and RTSTRUCT": (as_dicom_and_contours, "CT"),
    "MetaImage and seg.nrrd": (as_slicer_saves, "CT"),
    "nnU-Net in NRRD": (as_nnunet, "CT"),
    "BIDS": (as_bids, "MR"),
    "CHAOS": (as_chaos, "MR"),
    "TotalSegmentator": (as_totalsegmentator, "CT"),
}
