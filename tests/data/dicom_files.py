"""DICOM slices for tests, written by pydicom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def slice_file(path: Path, z: float, pixels: np.ndarray | None, **changes: object) -> Path:
    """Write one CT slice: 5 rows, 6 columns, 2 mm pixels, first voxel at (−10, 5) LPS mm."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.SeriesInstanceUID = "CT", "1.2.3"
    dataset.ImagePositionPatient = [-10, 5, z]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [2, 2], 3
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1000
    if pixels is not None:
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 0
        dataset.PixelData = pixels.astype(np.uint16).tobytes()
    for key, value in changes.items():
        if value is None:
            delattr(dataset, key)
        else:
            setattr(dataset, key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def segmentation(
    folder: Path,
    labels: np.ndarray,
    kind: str = "BINARY",
    organs: tuple[str, ...] = ("Liver", "Spleen"),
    **how: object,
) -> Path:
    """Let highdicom write labels (slice, row, column) of a series' folder, into seg.dcm beside."""
    hd = pytest.importorskip("highdicom")
    from pydicom.sr.codedict import codes

    names = [
        hd.seg.SegmentDescription(
            segment_number=n,
            segment_label=name,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type="MANUAL",
        )
        for n, name in enumerate(organs, 1)
    ]
    written = hd.seg.Segmentation(
        source_images=[pydicom.dcmread(p) for p in sorted(folder.iterdir())],
        pixel_array=labels,
        segmentation_type=kind,
        segment_descriptions=names,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="1",
        device_serial_number="1",
        **how,
    )
    path = folder.parent / "seg.dcm"
    written.save_as(path)
    return path


def structures(path: Path, rois: dict[tuple[int, str, str], list[list[tuple]]]) -> Path:
    """Write contours: (number, name, type) → polygons of (x, y, z), left-posterior mm."""
    slice_file(path, 0, None, SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3", Modality="RTSTRUCT")
    dataset = pydicom.dcmread(path)
    names, contours, kinds = [], [], []
    for (number, name, kind), polygons in rois.items():
        one, two, three = Dataset(), Dataset(), Dataset()
        one.ROINumber, one.ROIName = number, name
        two.ReferencedROINumber, two.ContourSequence = number, Sequence()
        three.ReferencedROINumber, three.RTROIInterpretedType = number, kind
        for points in polygons:
            contour = Dataset()
            contour.ContourGeometricType = "CLOSED_PLANAR" if len(points) > 1 else "POINT"
            contour.ContourData = [v for point in points for v in point]
            two.ContourSequence.append(contour)
        names.append(one)
        contours.append(two)
        kinds.append(three)
    dataset.StructureSetROISequence = Sequence(names)
    dataset.ROIContourSequence = Sequence(contours)
    dataset.RTROIObservationsSequence = Sequence(kinds)
    dataset.save_as(path)
    return path
