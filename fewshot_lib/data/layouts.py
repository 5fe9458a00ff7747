"""Find the pairs of image and mask in a folder, in the layouts that data sets come in.

| data | layout |
|---|---|
| this course | ``anna_image.nii.gz`` beside ``anna_mask.nii.gz`` |
| this course | ``anna/image.nii.gz`` (or ``anna/image/`` of DICOM files) and ``anna/mask.nii.gz`` |
| nnU-Net, Decathlon | ``imagesTr/anna_0000.nii.gz`` or ``anna.nii.gz``, ``labelsTr/anna.nii.gz`` |
| BTCV | ``img/img0001.nii.gz`` and ``label/label0001.nii.gz`` |
| CHAOS | ``1/T2SPIR/DICOM_anon/`` and ``1/T2SPIR/Ground/`` of PNG; CT: ``1/DICOM_anon/`` |
| TotalSegmentator | ``s0001/ct.nii.gz`` (``mri.nii.gz``), ``s0001/segmentations/liver.nii.gz``, … |
| BIDS | ``sub-01/anat/sub-01_T1w.nii.gz``, a ``*_dseg.nii.gz`` or ``*_mask.nii.gz`` for it |

Any format that `fewshot_lib.data.formats` reads may stand for ``.nii.gz``, and the mask may be a
DICOM segmentation or structure set (``.dcm``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from fewshot_lib.data.formats import NIFTI, stem, suffix_of
from fewshot_lib.data.report import Report, VolumeError

SECOND_FILES = (".img", ".img.gz")  # of a pair; the .hdr speaks for both
NEIGHBOURS = (("imagesTr", "labelsTr"), ("img", "label"), ("images", "labels"), ("images", "masks"))
#: CHAOS numbers its MR organs so that they can be seen in a picture.
CHAOS_NAMES = {1: "liver", 2: "kidney_right", 3: "kidney_left", 4: "spleen"}


@dataclass(frozen=True)
class Pair:
    """Where one subject's image and mask lie.

    Arguments:
        subject: the person's name.
        image, mask: files or folders.
        organs: name → file, where every organ has a mask of its own.
        names: what the layout says about label numbers.
    """

    subject: str
    image: Path
    mask: Path
    organs: dict[str, Path] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)


def find_pairs(folder: Path, report: Report | None = None) -> list[Pair]:
    """Match images with masks by name.

    Arguments:
        folder: in one of the layouts of this module's page.
        report: takes what was left out.

    Returns:
        Pairs, sorted by subject.

    Raises:
        VolumeError: nothing to read, or a file without its partner.
    """
    report = Report() if report is None else report
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    if not entries:
        raise VolumeError(f"{folder} is empty; put images and masks into it")
    for layout in (_chaos, _totalsegmentator, _bids):
        found = layout(folder, report)
        if found:
            return found
    images, masks = _neighbours(folder, report)
    if not images and not masks:
        images, masks = _own(folder, entries, report)
    if not images and not masks:
        inside = next((p for p in entries if p.is_dir() and _holds_pairs(p)), None)
        what = (
            f"the folder {inside} in it does: name that"
            if inside
            else "name files <subject>_image.nii.gz and <subject>_mask.nii.gz"
        )
        raise VolumeError(
            f"{folder} holds no pair that this course understands (it has {entries[0].name!r}, …); "
            f"{what}"
        )
    lonely = sorted(set(images) ^ set(masks))
    if lonely:
        what = "has an image but no mask" if lonely[0] in images else "has a mask but no image"
        raise VolumeError(
            f"{lonely[0]} {what} in {folder}; add what it lacks or move the file away"
        )
    return [Pair(subject, images[subject], masks[subject]) for subject in sorted(images)]


def _holds_pairs(folder: Path) -> bool:
    try:
        return bool(find_pairs(folder))
    except VolumeError:
        return False


def files(folder: Path) -> dict[str, Path]:
    """Give a folder's scans by their stem.

    Raises:
        VolumeError: two files of one stem.
    """
    found: dict[str, Path] = {}
    if not folder.is_dir():
        return found
    for path in sorted(folder.iterdir()):
        suffix = suffix_of(path) or (".dcm" if path.suffix.lower() == ".dcm" else "")
        header = path.parent / path.name.lower().replace(".img", ".hdr")
        if path.name[0] == "." or not path.is_file() or not suffix:
            continue
        if suffix in SECOND_FILES and any(p.name.lower() == header.name for p in folder.iterdir()):
            continue
        key = stem(path) if suffix != ".dcm" else path.stem
        if key in found:
            raise VolumeError(f"{found[key]} and {path} have one name; move one of them away")
        found[key] = path
    return found


def _own(
    folder: Path, entries: list[Path], report: Report
) -> tuple[dict[str, Path], dict[str, Path]]:
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for name, path in files(folder).items():
        for ending, found in (("_image", images), ("_mask", masks)):
            if name.lower().endswith(ending):
                found[name[: -len(ending)]] = path
        if not name.lower().endswith(("_image", "_mask")):
            report.add("ignored", path, "no image or mask by its name, left out")
    for sub in (p for p in entries if p.is_dir()):
        inside = {name.lower(): path for name, path in files(sub).items()}
        inside |= {p.name.lower(): p for p in sub.iterdir() if p.is_dir()}
        if "mask" in inside:
            masks[sub.name] = inside["mask"]
        if "image" in inside:
            images[sub.name] = inside["image"]
    return images, masks


def _neighbours(folder: Path, report: Report) -> tuple[dict[str, Path], dict[str, Path]]:
    """nnU-Net, Decathlon, BTCV: a folder of images beside one of labels, matched by name."""
    below = {p.name.lower(): p for p in folder.iterdir() if p.is_dir()}
    for first, second in NEIGHBOURS:
        one, two = below.get(first.lower()), below.get(second.lower())
        if (one is None and two is None) or (first != "imagesTr" and not (one and two)):
            continue
        images: dict[str, Path] = {}
        masks = {_subject(name): path for name, path in files(two).items()} if two else {}
        for name, path in files(one).items() if one else ():
            channel = re.search(r"_(\d{4})$", name)
            if name in masks:  # AMOS numbers its subjects like channels
                images[name] = path
            elif first == "imagesTr" and channel and channel[1] != "0000":
                report.add("ignored", path, "a further channel; channel 0000 is read")
            else:
                images[_subject(name)] = path
        for name in sorted(masks.keys() - images.keys()):
            plain = re.sub("[_-](mask|seg|segmentation|labels?|gt)$", "", name, flags=re.I)
            masks[plain if plain in images.keys() - masks.keys() else name] = masks.pop(name)
        return images, masks
    return {}, {}


def _subject(name: str) -> str:
    """Take away what BTCV and nnU-Net add to a subject's number."""
    plain = re.fullmatch(r"(?:img|label)_?(\d+)", name, re.I)
    return plain[1] if plain else name.removesuffix("_0000")


def _chaos(folder: Path, report: Report) -> list[Pair]:
    """CHAOS: DICOM_anon beside Ground; of a person's MR sequences one is read, T2SPIR first."""
    pairs, skipped = [], []
    for person in sorted((p for p in folder.iterdir() if p.is_dir()), key=lambda p: p.name):
        options = [_below(person, name) for name in ("T2SPIR", "T1DUAL")] + [person]
        options = [
            o
            for o in options
            if o.is_dir() and all(_below(o, name).is_dir() for name in ("DICOM_anon", "Ground"))
        ]
        if not options:
            skipped.append(person)
            continue
        chosen, *rest = options
        for other in rest:
            report.add("ignored", other, f"a second sequence of the person; {chosen.name} is read")
        image = _below(chosen, "DICOM_anon")
        if _below(image, "InPhase").is_dir():
            image = _below(image, "InPhase")
            report.add("ignored", image.parent / "OutPhase", "InPhase is read")
        names = {1: "liver"} if chosen == person else CHAOS_NAMES
        pairs.append(Pair(person.name, image, _below(chosen, "Ground"), names=names))
    for other in skipped if pairs else ():
        report.add("ignored", other, "neither DICOM_anon nor Ground in it, left out")
    return pairs


def _below(folder: Path, name: str) -> Path:
    """Name a folder in another one, in capitals or not."""
    found = (p for p in sorted(folder.iterdir()) if p.name.lower() == name.lower())
    return next(found, folder / name)


def _totalsegmentator(folder: Path, report: Report) -> list[Pair]:
    """TotalSegmentator: a mask per organ in ``segmentations``."""
    pairs = []
    people = sorted(p for p in folder.iterdir() if p.is_dir())
    if not any(_below(p, "segmentations").is_dir() for p in people):
        return []
    for person in people:
        if not _below(person, "segmentations").is_dir():
            report.add("ignored", person, "no segmentations in it, left out")
            continue
        inside = {name.lower(): path for name, path in files(person).items()}
        image = next(
            (inside[name] for name in ("ct", "mri", "mr", "image") if name in inside), None
        )
        if image is None:
            raise VolumeError(f"{person.name} has masks but no ct.nii.gz or mri.nii.gz; add it")
        masks = _below(person, "segmentations")
        organs = files(masks)
        if not organs:
            raise VolumeError(f"{masks} is empty; put its masks into it")
        pairs.append(Pair(person.name, image, masks, organs))
    return pairs


def _bids(folder: Path, report: Report) -> list[Pair]:
    """BIDS: the mask (``dseg``, else ``mask``) lies beside the image or under ``derivatives``."""
    pairs = []
    people = (p for p in folder.iterdir() if p.is_dir() and p.name.lower().startswith("sub-"))
    for person in sorted(people):
        roots = [person, *sorted(folder.glob(f"derivatives/**/{person.name}"))]
        scans = [
            path
            for root in roots
            for path in sorted(root.rglob("*"))
            if path.is_file() and suffix_of(path) in NIFTI and path.name.startswith(person.name)
        ]
        masks = [p for p in scans if stem(p).lower().endswith("_dseg")] or [
            p for p in scans if stem(p).lower().endswith("_mask")
        ]
        images = [
            p
            for p in scans
            if p.is_relative_to(person) and not stem(p).lower().endswith(("_dseg", "_mask"))
        ]
        for mask in masks:
            own = (
                [p for p in images if _entities(p) <= _entities(mask)]
                if len(images) > 1
                else images
            )
            named = [p for p in own if stem(p).rsplit("_", 1)[-1] in stem(mask)]
            own = named or own
            if len(own) != 1:
                told = ", ".join(p.name for p in own or images) or "none"
                raise VolumeError(f"{mask} fits not just one image ({told}); keep one of them")
            parts = stem(own[0]).split("_")
            session = "_".join(p for p in parts if p.lower().startswith(("sub-", "ses-")))
            pairs.append(Pair(session, own[0], mask, names=_dseg_table(mask)))
        if images and not masks:
            raise VolumeError(f"{person.name} has an image but no mask in {folder}; add the mask")
    subjects = [p.subject for p in pairs]
    double = next((s for s in subjects if subjects.count(s) > 1), None)
    if double:
        told = ", ".join(str(p.mask.name) for p in pairs if p.subject == double)
        raise VolumeError(f"{double} has several masks ({told}); keep one of them")
    return pairs


def _entities(path: Path) -> set[str]:
    parts = stem(path).split("_")
    return {p for p in parts if p.lower().startswith(("sub-", "ses-", "run-", "acq-"))}


def _dseg_table(mask: Path) -> dict[int, str]:
    """Read the names beside a BIDS segmentation: ``dseg.tsv`` with the columns index and name."""
    above = [path for parent in list(mask.parents)[:4] for path in sorted(parent.glob("*dseg.tsv"))]
    for path in (mask.with_name(stem(mask) + ".tsv"), *above):
        if path.is_file():
            head, *rows = [
                line.split("\t")
                for line in path.read_text(encoding="utf-8-sig").splitlines()
                if line
            ]
            try:
                i, n = head.index("index"), head.index("name")
                return {int(row[i]): row[n] for row in rows if int(row[i]) != 0}
            except (ValueError, IndexError) as error:
                raise VolumeError(f"{path} lacks the columns index and name ({error})") from error
    return {}
