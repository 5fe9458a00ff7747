"""Read a file of whatever format as numbers and an affine; say what its header leaves open."""

from __future__ import annotations

import gzip
import importlib.util
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from fewshot_lib.data.dicom import INSTALL, is_dicom, read_series
from fewshot_lib.data.grid import corners_apart
from fewshot_lib.data.report import Report, VolumeError

PAIRS = (".hdr", ".img", ".hdr.gz", ".img.gz")
ITK = (".mha", ".mhd", ".seg.nrrd", ".nrrd", ".nhdr")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
NIFTI = (".nii.gz", ".nii", *PAIRS, ".mgz", ".mgh")
SUFFIXES = (*NIFTI, *ITK, *PICTURES)
LARGEST = 2**28  # voxels; beyond that a header lies more often than a scan is so large
#: NIfTI's codes of lengths (0: not said), and NRRD's words for them.
UNITS = {0: ("mm", 1.0), 1: ("meter", 1000.0), 2: ("mm", 1.0), 3: ("micron", 0.001)}
WORDS = {"m": UNITS[1], "cm": ("centimeter", 10.0), "um": UNITS[3], "µm": UNITS[3]}
#: NRRD's spaces that say where the patient's left is.
SIDES = r"[RL][AP]S(T|-TIME)?|(left|right)-(anterior|posterior)-superior(-time)?"
TOLERANCE_MM = 0.1  # two statements of one place may differ this much


def suffix_of(path: Path) -> str:
    """Give the part of a name that says its format, in small letters; "" if none does.

    >>> suffix_of(Path("ANNA.NII.GZ"))
    '.nii.gz'
    """
    return next((s for s in SUFFIXES if path.name.lower().endswith(s)), "")


def stem(path: Path) -> str:
    """Give a name without the part that says its format.

    >>> stem(Path("anna_image.nii.gz"))
    'anna_image'
    """
    return path.name[: len(path.name) - len(suffix_of(path))]


def read_file(path: Path, report: Report, channels: bool = False) -> nib.Nifti1Image:
    """Read a file that holds one grey volume (or a picture) and says how the patient lies.

    Arguments:
        path: NIfTI-1 or -2, also as a pair; MGH; MetaImage or NRRD; a grey picture; one DICOM file.
        report: takes what the file leaves open.
        channels: a fourth axis is allowed (masks with a channel per class).

    Returns:
        An image: the numbers (scaled as the header says), and the affine to RAS mm.

    Raises:
        VolumeError: it is not there, not readable, or not such a volume.
    """
    if not path.exists():
        raise VolumeError(f"there is no file {path}; look at its name and folder")
    if path.is_dir():
        raise VolumeError(f"{path} is a folder, not a file; name one file in it")
    suffix = suffix_of(path)
    if is_dicom(path):
        return _one_dicom(path, report)
    if path.suffix.lower() == ".dcm":
        raise VolumeError(f"{path} is empty or no DICOM file; copy it again, or remove it")
    if not suffix:
        raise VolumeError(
            f"{path}: the end of its name is none of a format that this course reads "
            f"({', '.join(SUFFIXES)}); rename it if it is one of them, else unpack or convert it"
        )
    if suffix in PICTURES:
        array, affine = _picture(path, report, numbers=channels)
    else:
        array, affine = (_itk if suffix in ITK else _nibabel)(path, report)
    return _checked(path, array, affine, channels)


def _checked(path: Path, array: NDArray, affine: NDArray, channels: bool) -> nib.Nifti1Image:
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]  # one "time point": still a 3-D scan
    if channels and array.ndim == 5 and array.shape[3] == 1:
        array = array[:, :, :, 0]  # NIfTI keeps channels in the fifth axis
    if array.dtype.names:
        raise VolumeError(f"{path} is a colour image; scans are grey, masks are numbers")
    if array.dtype.kind == "c":
        raise VolumeError(f"{path} holds complex numbers; save their magnitude")
    if array.ndim != 3 and not (channels and array.ndim == 4):
        what = "a time series or several channels" if array.ndim > 3 else "a single slice"
        raise VolumeError(
            f"{path} is {array.ndim}-D, shape {array.shape} ({what}); save one 3-D volume"
        )
    if 0 in array.shape:
        raise VolumeError(f"{path} has no voxels, shape {array.shape}; export it again")
    sides = affine[:3, :3]
    least = 1e-6 * np.linalg.norm(sides, axis=0).prod()
    if not np.isfinite(affine).all() or not abs(np.linalg.det(sides)) > least:
        raise VolumeError(f"{path} has a voxel of no volume in its header; export it again")
    if None in nib.aff2axcodes(affine):
        raise VolumeError(f"{path}: its axes are so oblique that none is left-right; resample it")
    if array.dtype == bool:
        array = array.astype(np.uint8)
    elif array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        array = array.astype(np.float32)
    return nib.Nifti1Image(array, affine, dtype=array.dtype)


def _one_dicom(path: Path, report: Report) -> nib.Nifti1Image:
    image = read_series({str(path): path}, report, padding=True)
    if image.shape[2] == 1:
        beside = sum(is_dicom(p) for p in path.parent.iterdir() if p.is_file())
        if beside > 1:
            raise VolumeError(
                f"{path} is one slice; its folder holds {beside} DICOM files: name the folder "
                f"{path.parent}"
            )
    return image


# --- NIfTI and MGH


@contextmanager
def _quiet() -> Iterator[None]:
    """Let nibabel log nothing meanwhile: what it mends, the report says."""
    logger = nib.imageglobals.logger
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@_quiet()
def _nibabel(path: Path, report: Report) -> tuple[NDArray, NDArray]:
    try:
        image = _open(path, report)
        if isinstance(image, nib.freesurfer.MGHImage):
            affine = image.affine
            if int(image.header["goodRASFlag"]) != 1:
                raise VolumeError(f"{path} does not say how the patient lies; export it again")
        elif isinstance(image, nib.Nifti1Pair):
            affine = _nifti_affine(path, image.header, report)
        else:
            raise VolumeError(
                f"{path} is not NIfTI but {type(image).__name__}, which does not say which side is "
                "left; convert it to NIfTI where its origin is known"
            )
        n = int(np.prod([float(side) for side in image.shape]))
        if n > LARGEST:
            raise VolumeError(
                f"{path} has {n:,} voxels by its header, more than this course can hold "
                f"({LARGEST:,}); crop or resample it"
            )
        array = np.asanyarray(image.dataobj)
    except VolumeError:
        raise
    except Exception as error:  # zlib, struct, nibabel: all sorts, on damaged files
        raise VolumeError(
            f"{path} cannot be read as NIfTI ({type(error).__name__}: {error}); it may be cut off "
            "or another format, copy or convert it again"
        ) from error
    return array, affine


def _open(path: Path, report: Report) -> Any:
    """Open by what the file is, not by what its name says; say what nibabel mends in a header."""
    with path.open("rb") as stream:
        zipped = stream.read(2) == b"\x1f\x8b"
    suffix = suffix_of(path)
    if zipped != suffix.endswith(("gz", ".mgz")):
        kind = "compressed" if zipped else "not compressed"
        report.add("ignored", path, f"the end of its name; the file is {kind}")
    image: Any
    if suffix in PAIRS:
        _require_both(path)
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Pair):
            return image
        first, second = (str(image.file_map[part].filename) for part in ("header", "image"))
        with nib.openers.ImageOpener(first, "rb") as stream:
            raw = stream.read(type(image.header).sizeof_hdr)
        length = None if second.lower().endswith("gz") else Path(second).stat().st_size
    else:
        # whole, so that the checksum of the compression is looked at
        raw = gzip.decompress(path.read_bytes()) if zipped else path.read_bytes()
        if suffix in (".mgz", ".mgh"):
            return nib.MGHImage.from_bytes(raw)
        newer = 540 in (int.from_bytes(raw[:4], order) for order in ("little", "big"))
        image = (nib.Nifti2Image if newer else nib.Nifti1Image).from_bytes(raw)
        length = len(raw)
    header = type(image.header)
    faults = header.diagnose_binaryblock(raw[: header.sizeof_hdr]).strip()
    if faults:
        told = "; ".join(line for line in faults.splitlines() if line)
        report.add("header", path, f"the header has faults that were mended: {told}")
    if "non-zero" in faults and int(image.header["sform_code"]) == 0:
        raise VolumeError(f"{path} does not say how large its voxels are; export it again")
    if suffix not in PAIRS and image.dataobj.offset < header.single_vox_offset:
        raise VolumeError(f"{path}: the image would begin inside its header; export it again")
    end = int(image.dataobj.offset) + int(np.prod(image.shape)) * image.dataobj.dtype.itemsize
    if length is not None and length > end:
        report.add(
            "ignored", path, f"{length - end} bytes after the image; the header may be wrong"
        )
    return image


def _require_both(path: Path) -> None:
    """Refuse one half of a pair; nibabel would look for the other by the same ending."""
    suffix = suffix_of(path)
    other = {".hdr": ".img", ".img": ".hdr"}[suffix[:4]] + suffix[4:]
    beside = {p.name.lower() for p in path.parent.iterdir()}
    if stem(path).lower() + other not in beside:
        raise VolumeError(f"{path} is one half of a pair; put {stem(path)}{other} beside it")


def _nifti_affine(path: Path, header: nib.Nifti1Header, report: Report) -> NDArray:
    """Choose between the header's two statements of how the patient lies.

    Raises:
        VolumeError: it has none, or two that exchange sides or axes.
    """
    sform, s_code = header.get_sform(coded=True)
    qform, q_code = header.get_qform(coded=True)
    if sform is None and qform is None:
        raise VolumeError(
            f"{path} does not say how the patient lies (sform and qform codes are 0), so left and "
            "right are unknown; export it again with its orientation"
        )
    affine = qform if sform is None else sform
    if sform is not None and qform is not None and np.isfinite(sform).all():
        axes = ["".join(map(str, nib.aff2axcodes(a))) for a in (sform, qform)]
        if axes[0] != axes[1]:
            raise VolumeError(
                f"{path}: its header says two things, axes {axes[0]} (sform, code {s_code}) and "
                f"{axes[1]} (qform, code {q_code}); find out which is right and write it to both"
            )
        shape = (*header.get_data_shape(), 1, 1)[:3]
        apart = corners_apart(sform, qform, shape)
        if apart > TOLERANCE_MM:
            report.add("header", path, f"sform and qform lie {apart:.1f} mm apart; sform is used")
    zooms = [float(z) for z in header.get_zooms()[:3]]
    sides = [float(s) for s in nib.affines.voxel_sizes(affine)]
    apart = max((abs(a - b) for a, b in zip(zooms, sides, strict=False)), default=0.0)
    if apart > 0.01 * max(sides):
        shown = [" × ".join(f"{v:.3g}" for v in values) for values in (zooms, sides)]
        report.add("header", path, f"pixdim says {shown[0]} mm, sform {shown[1]} mm; sform is used")
    return _in_mm(path, np.asarray(affine, float), UNITS.get(int(header["xyzt_units"]) & 7), report)


def _in_mm(path: Path, affine: NDArray, unit: tuple[str, float] | None, report: Report) -> NDArray:
    name, mm = ("", 1.0) if unit is None else unit
    if unit is None:
        report.add("assumed", path, "its unit of length is unknown; mm is assumed")
    elif mm != 1:
        report.add("header", path, f"lengths are in {name}s; converted to mm")
    return np.diag([mm] * 3 + [1]) @ affine


# --- MetaImage, NRRD


def _itk(path: Path, report: Report) -> tuple[NDArray, NDArray]:
    """Read what SimpleITK is made for; it must not fill in a direction that the file lacks."""
    if importlib.util.find_spec("SimpleITK") is None:
        raise VolumeError(f"{path}: to read {suffix_of(path)} needs one more package; {INSTALL}")
    import SimpleITK as sitk

    meta = suffix_of(path) in (".mha", ".mhd")
    with path.open("rb") as stream:
        last = rb"(?<=ElementDataFile)([^\r\n]*)" if meta else rb"\r?\n\r?\n"
        head = b"".join(re.split(last, stream.read(65536), maxsplit=1)[: 1 + meta])
    lines = head.decode("utf-8", "replace").splitlines()
    pairs = [re.split("=" if meta else ":", line, maxsplit=1) for line in lines]
    keys = {pair[0].strip(): pair[-1].strip() for pair in pairs}
    if not ("NDims" in keys if meta else head.startswith(b"NRRD")):
        kind = "MetaImage" if meta else "NRRD"
        raise VolumeError(f"{path} is no {kind}, whatever the end of its name says; convert it")
    known = (
        {"TransformMatrix", "Rotation", "Orientation"} & keys.keys()
        if meta
        else ("space directions" in keys and re.fullmatch(SIDES, keys.get("space", ""), re.I))
    )
    if not known:
        raise VolumeError(
            f"{path} does not say how the patient lies (no direction in its header); export it "
            "again with its orientation"
        )
    data = keys.get("ElementDataFile", keys.get("data file", keys.get("datafile", "LOCAL")))
    if not re.match("LOCAL|LIST|.*%", data) and not (path.parent / data).is_file():
        raise VolumeError(f"{path} names the file {data} with its data; put that beside it")
    if meta and not {"ElementSpacing", "ElementSize"} & keys.keys():
        report.add("assumed", path, "no size of its voxels; 1 mm is assumed")
    if meta and keys.keys() & {f"ElementToIntensityFunction{end}" for end in ("Slope", "Offset")}:
        report.add("ignored", path, "ElementToIntensityFunction; the stored numbers are read")
    try:
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        image = sitk.ReadImage(  # by name: it wants small letters else
            str(path), imageIO="MetaImageIO" if meta else "NrrdImageIO"
        )
        array = sitk.GetArrayFromImage(image)
    except RuntimeError as error:
        said = str(error).strip().splitlines()[-1]
        raise VolumeError(
            f"{path} cannot be read ({said}); it may be cut off or lack its data file, copy it "
            "again"
        ) from error
    several = image.GetNumberOfComponentsPerPixel() > 1
    n = image.GetDimension()
    axes = tuple(reversed(range(n)))  # SimpleITK's arrays are (z, y, x, component)
    array = array.transpose((*axes, n) if several else axes)
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(n, n)
    if n >= 3:
        affine[:3, :3] = direction[:3, :3] * np.array(image.GetSpacing())[:3]
        affine[:3, 3] = image.GetOrigin()[:3]
    affine[:2] *= -1  # left-posterior to RAS
    units = set(re.findall(r'"([^"]*)"', keys.get("space units", ""))) or {"mm"}
    unit = ("mm", 1.0) if units == {"mm"} else WORDS.get(units.pop()) if len(units) == 1 else None
    return array, _in_mm(path, affine, unit, report)


# --- pictures


def _picture(path: Path, report: Report, numbers: bool) -> tuple[NDArray, NDArray]:
    """Read a grey picture as one axial slice; of a mask, a palette's numbers are the labels."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            if getattr(opened, "n_frames", 1) > 1:
                raise VolumeError(f"{path} holds several pictures; save one of them")
            orientation = opened.getexif().get(0x0112, 1)
            if opened.format == "TIFF" and orientation != 1:  # Pillow's versions do not agree
                raise VolumeError(f"{path} is a TIFF that is stored turned; save it upright")
            turned = ImageOps.exif_transpose(opened)
            if orientation != 1:
                report.add("changed", path, "turned as its EXIF orientation says")
            lossy = opened.format == "JPEG"
            as_numbers = turned.mode == "P" and numbers and _numbered(turned)
            if turned.mode in ("P", "CMYK", "YCbCr", "LAB") and not as_numbers:
                turned = turned.convert("RGB")  # as it is seen
            elif turned.mode == "P":
                report.add("header", path, "its palette's numbers are the labels, not its colours")
            array = np.asarray(turned)
    except VolumeError:
        raise
    except Exception as error:  # Pillow raises all sorts on damaged files
        raise VolumeError(f"{path} cannot be read as a picture ({error}); save it again") from error
    if array.ndim == 3:
        if array.shape[2] in (2, 4):  # opacity
            if (array[..., -1] != array[0, 0, -1]).any():
                raise VolumeError(f"{path} is partly transparent; save it without opacity")
            array = array[..., :-1]
        colours = array.astype(int)
        if np.ptp(colours, axis=2).max() > (8 if lossy else 0):
            raise VolumeError(f"{path} is a colour picture; scans are grey, masks are numbers")
        array = array[..., 0] if not lossy else np.round(colours.mean(2)).astype(array.dtype)
    report.add(
        "assumed",
        path,
        "a picture says neither size nor side; 400 mm along its longer edge, and the patient's "
        "right on its left",
    )
    pixel = 400 / max(array.shape)  # mm; a scan's usual field of view
    return array.T[..., None], np.diag([-pixel, -pixel, 1, 1])


def _numbered(picture: Any) -> bool:
    """Tell whether the numbers of a palette may be labels: colours, or greys from black on."""
    used = [number for _, number in picture.getcolors()]
    colours = np.array(picture.getpalette()).reshape(-1, 3)[used]
    return bool(np.ptp(colours, axis=1).any() or colours[np.argmin(used)].sum() == 0)
