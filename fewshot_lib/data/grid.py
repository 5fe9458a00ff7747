"""One orientation and one set of names for scans from anywhere."""

from __future__ import annotations

import re

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

# (pattern, the name that all its matches share), first match wins
_SHARED = (
    (r"vertebrae(_[CTL]\d+)?", "vertebrae"),
    (r"intervertebral_discs", "intervertebral_discs"),
    (r"sacrum|vertebrae_S1", "sacrum"),
    (r"rib_(left|right)_\d+", "ribs"),
    (r"lung(_.*)?_(left|right)", "lungs"),
    (r"hip_(left|right)", "hips"),
    (r"femur_(left|right)", "femurs"),
    (r"humerus_(left|right)", "humeri"),
    (r"gluteus_.*", "gluteus"),
    (r"(autochthon|iliopsoas)_(left|right)", r"\1"),
    (r"(adrenal_gland|iliac_artery|iliac_vena)_(left|right)", r"\1"),
)


def harmonise_names(names: tuple[str, ...]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Give every scan the same class names: all ribs one class, left and right muscles one, ….

    Kidneys keep their sides: novel organs are never merged.

    Arguments:
        names: class names, ``names[0] == "background"``.

    Returns:
        The shared names, and a table (len(names),) int64 from old label to new.

    >>> harmonise_names(("background", "rib_left_7", "liver", "rib_right_7"))[1].tolist()
    [0, 1, 2, 1]
    """
    shared = [_shared_name(name) for name in names]
    new = tuple(dict.fromkeys(shared))
    return new, np.array([new.index(name) for name in shared], np.int64)


def _shared_name(name: str) -> str:
    for pattern, target in _SHARED:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(target)
    return name


def axial(image: nib.Nifti1Image) -> tuple[NDArray, tuple[float, float, float]]:
    """Bring a 3-D image to the course's convention: axial slices as radiologists show them.

    Arguments:
        image: any orientation; oblique ones are brought to the closest axes.

    Returns:
        (Z, H, W) array, slice 0 inferior, row 0 anterior, column 0 the patient's right; and the
        spacing in mm, (slice, row, column).

    >>> image = nib.Nifti1Image(np.zeros((4, 5, 6)), np.diag([1.0, 2.0, 3.0, 1.0]))
    >>> axial(image)[0].shape, axial(image)[1]
    ((6, 5, 4), (3.0, 2.0, 1.0))
    """
    canonical = nib.as_closest_canonical(image)  # axes to right, anterior, superior
    array = np.asarray(canonical.dataobj)
    x, y, z = (float(s) for s in canonical.header.get_zooms()[:3])
    # (X, Y, Z) → (Z, Y, X); rows run to posterior, columns run to the patient's left
    return np.ascontiguousarray(array.transpose(2, 1, 0)[:, ::-1, ::-1]), (z, y, x)


def as_stored(array: NDArray, image: nib.Nifti1Image) -> NDArray:
    """Bring axial slices back to the order in which an image stores its voxels: undo `axial`.

    Arguments:
        array: (Z, H, W), as `axial` gives it for this image.
        image: 3-D, the image whose order is wanted.

    Returns:
        An array of the image's shape.

    Raises:
        ValueError: the array does not have the image's size.

    >>> image = nib.Nifti1Image(np.arange(24.0).reshape(2, 3, 4), np.diag([-1.0, 2, 3, 1]))
    >>> bool((as_stored(axial(image)[0], image) == image.dataobj).all())
    True
    """
    there = nib.orientations.io_orientation(image.affine)
    canonical = array[:, ::-1, ::-1].transpose(2, 1, 0)  # (Z, Y, X) → (X, Y, Z)
    back = nib.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], there)
    stored = np.ascontiguousarray(nib.orientations.apply_orientation(canonical, back))
    if stored.shape != image.shape:
        raise ValueError(f"the slices make an array {stored.shape}, the image has {image.shape}")
    return stored


def corners_apart(one: NDArray, other: NDArray, shape: tuple[int, ...]) -> float:
    """Measure in mm how far apart two affines put a corner of an array, at most."""
    corners = np.array(np.meshgrid(*((0, n - 1) for n in shape))).reshape(3, -1).T
    places = [nib.affines.apply_affine(affine, corners) for affine in (one, other)]
    return float(np.linalg.norm(places[0] - places[1], axis=1).max())
