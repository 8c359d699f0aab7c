"""An answer as DICOM objects of the film's own study: a structured report and a segmentation.

They are filed beside the film, so they carry the identifiers that the film carries, and go to the
caller who sent it; to one who named it only where the operator allows that. Needs the package
`highdicom` (`pip install 'hipray[dicomweb]'`).
Sources: DICOM PS3.16 TID 1500 (measurement report), PS3.3 A.51 (segmentation).
"""

import io
import logging
import math
import re
import warnings
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, generate_uid

from hipray import RESEARCH_NOTICE, __version__
from hipray.answers import HipAnswer, RegionAnswer, StudyAnswer
from hipray.data.framing import Mask
from hipray.data.images import ReadResult
from hipray.pipeline import lift_masks
from hipray.vocab import REGIONS, LabelType, Region, Side

SCHEME = "99HIPRAY"
"""Private coding scheme: regions as DXA reports cut them have no standard code."""

MAKER = "hipray"
SERIAL_NUMBER = "none"
REPORT_SERIES, SEGMENTATION_SERIES = 9001, 9002
"""Series numbers above those that modalities give."""

LATERALITY = {Side.LEFT: ("7771000", "Left"), Side.RIGHT: ("24028007", "Right")}
"""SNOMED CT codes of the sides."""

UTF_8 = "ISO_IR 192"

FLAT_MM = 0.0
"""Thickness of a projection: it has none, and a segmentation must state one."""

MEANINGS = {
    LabelType.T_SCORE: "Probability of being abnormal by T-score",
    LabelType.BMD: "Probability of being abnormal by bone mineral density",
}

HEADER_BYTES = 256 * 1024
"""Longest header that is read again here, where no process of its own bounds the time it takes."""

MOST_PIXELS = 25_000_000
"""Largest film that objects are made of (the largest detectors have about 20 Mpx). A segmentation
of a pelvis takes 20 bytes of memory for each of its pixels (500 MB for this film): eight planes,
their sum in 64 bits, by which highdicom finds out whether regions overlap, and what it writes."""

TEXTS = ("PatientName", "PatientID", "StudyID", "AccessionNumber", "ReferringPhysicianName")
"""Attributes that every object of a study has, known or not (type 2), free in form."""

FORMS = {
    "PatientSex": re.compile(r"[MFO]"),
    "PatientBirthDate": re.compile(r"\d{8}"),
    "StudyDate": re.compile(r"\d{8}"),
    "StudyTime": re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"),
}
"""Those with a form (PS3.5 6.2): another value is left empty, as it is where it is not known."""

ORIGIN = ("SOPClassUID", "Modality", "Rows", "Columns", "PixelSpacing", "ImagerPixelSpacing")
"""What an object that refers to the film takes from it."""


def can_write() -> bool:
    """Whether the package that writes DICOM objects is installed."""
    return find_spec("highdicom") is not None


def read_header(film: bytes) -> Dataset | None:
    """Return what a DICOM film says of its study, with only valid values and in UTF-8.

    None for another kind of file, one without an id of its own, and one with a header longer than
    HEADER_BYTES or a deflated one, which may inflate to a thousand times that. Give it only what
    the isolated reader has read: this parses in the own process.
    """
    _keep_values_out_of_logs()
    start = film[:HEADER_BYTES]
    if DeflatedExplicitVRLittleEndian.encode() in start:
        return None
    stream = io.BytesIO(start)
    try:
        found = pydicom.dcmread(stream, stop_before_pixels=True)
    except (InvalidDicomError, EOFError):
        return None
    own = _read_uid(found, "SOPInstanceUID")
    if own is None or stream.tell() >= HEADER_BYTES:
        return None  # nothing could refer to it, or to what the rest of it says
    header = Dataset()
    header.SpecificCharacterSet = UTF_8
    for name in (*TEXTS, *FORMS):
        setattr(header, name, _read_text(found, name))
    for name in ORIGIN:
        if found.get(name) not in (None, ""):
            setattr(header, name, found[name].value)
    header.SOPInstanceUID = own
    for name in ("StudyInstanceUID", "SeriesInstanceUID"):
        made = generate_uid(entropy_srcs=[own, name])
        setattr(header, name, _read_uid(found, name) or made)
    return header


def _read_uid(found: Dataset, name: str) -> UID | None:
    value = found.get(name)
    uid = UID(str(value[0] if isinstance(value, MultiValue) else value or ""))
    return uid if uid.is_valid else None


def _read_text(found: Dataset, name: str) -> str:
    """The first value of an attribute as text; empty where it has not the form it must have."""
    try:
        value = found.get(name)
    except LookupError:  # a character set that nobody knows
        return ""
    first = value[0] if isinstance(value, MultiValue) and value else value
    text = "" if first is None or isinstance(first, MultiValue) else str(first).strip()
    form = FORMS.get(name)
    return text if form is None or form.fullmatch(text) else ""


@cache
def _keep_values_out_of_logs() -> None:
    """pydicom warns of odd values by quoting them: names, dates of birth, identifiers.

    For the whole process: a setting for one film would end under another thread's.
    """
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"pydicom|highdicom")


def write_report(header: Dataset, answer: StudyAnswer) -> bytes | None:
    """Return a structured report of each region's probability; None without any."""
    import highdicom as hd

    groups = [
        _describe_region(header, answer, hip, region)
        for hip in answer.hips
        for region in hip.regions
    ]
    if not groups:
        return None
    observer = hd.sr.ObserverContext(
        observer_type=hd.sr.CodedConcept("121007", "DCM", "Device"),
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=hd.UID(), manufacturer_name=MAKER, model_name=f"release {answer.release}"
        ),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=hd.sr.CodedConcept("DX", "DCM", "Digital Radiography"),
        imaging_measurements=groups,
    )
    report = hd.sr.EnhancedSR(
        evidence=[header],
        content=content,
        series_number=REPORT_SERIES,
        series_description=RESEARCH_NOTICE[:64],
        is_complete=False,
        is_final=False,
        is_verified=False,
        institution_name=None,
        **_made_by(),
    )
    return _save(report)


def _describe_region(
    header: Dataset, answer: StudyAnswer, hip: HipAnswer, region: RegionAnswer
) -> Any:
    import highdicom as hd

    side = LATERALITY.get(hip.side)
    laterality = None if side is None else hd.sr.CodedConcept(side[0], "SCT", side[1])
    site = _code(hd, region.region, region.region.display_name)
    probability = hd.sr.Measurement(
        name=_code(hd, f"p-{region.label_type}", MEANINGS[region.label_type]),
        value=region.probability,
        unit=hd.sr.CodedConcept("1", "UCUM", "no units"),
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=f"{MAKER} {answer.release_digest[:12]}", version=__version__
        ),
    )
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=hd.UID(), identifier=f"hip {hip.index} {region.region} {region.label_type}"
        ),
        finding_type=_code(hd, "research-only", RESEARCH_NOTICE[:64]),
        finding_sites=[hd.sr.FindingSite(anatomic_location=site, laterality=laterality)],
        measurements=[probability],
        source_images=[hd.sr.SourceImageForMeasurementGroup.from_source_image(header)],
    )


def write_segmentation(
    header: Dataset, result: ReadResult, masks: Mask, working_px: int
) -> bytes | None:
    """Return the masks (N, R, S, S) of a film's hips as a segmentation on the film's own pixels.

    None where the header does not state the size of a pixel, or another size than the image has.
    """
    import highdicom as hd

    spacing, film = _read_spacing(header), result.hips[0].geometry
    if spacing is None or (film.film_height, film.film_width) != (header.Rows, header.Columns):
        return None
    planes = _lift_planes(result, masks, working_px)
    segments = [
        _describe_segment(number, region, hip.side)
        for number, (hip, region) in enumerate(
            ((hip, region) for hip in result.hips for region in REGIONS), 1
        )
    ]
    segmentation = hd.seg.Segmentation(
        source_images=[header],
        pixel_array=np.moveaxis(planes, 0, -1)[None],
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=spacing,
            slice_thickness=FLAT_MM,
        ),
        series_number=SEGMENTATION_SERIES,
        series_description=RESEARCH_NOTICE[:64],
        software_versions=__version__,
        device_serial_number=SERIAL_NUMBER,
        **_made_by(),
    )
    return _save(segmentation)


def _read_spacing(header: Dataset) -> list[float] | None:
    """The size of a pixel in mm, rows first; None where it is not stated as two such sizes."""
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        stated = header.get(name)
        if not isinstance(stated, MultiValue) or len(stated) != 2:
            continue
        try:
            spacing = [float(mm) for mm in stated]
        except ValueError:
            continue
        if all(0 < mm < math.inf for mm in spacing):
            return spacing
    return None


def _lift_planes(result: ReadResult, masks: Mask, working_px: int) -> npt.NDArray[np.uint8]:
    """The masks on the film's own pixels, (N * R, H, W) of 0 and 1: all there is of them at once.

    One plane after the other in memory, as highdicom reads them.
    """
    film = result.hips[0].geometry
    shape = len(result.hips) * len(REGIONS), film.film_height, film.film_width
    planes = np.empty(shape, np.uint8)
    unfilled = iter(planes)
    for index, hip in enumerate(result.hips):
        lifted = lift_masks(hip, masks[index], working_px)
        for region in REGIONS:
            next(unfilled)[:] = hip.geometry.unwarp_mask(lifted[region])
    return planes


def _describe_segment(number: int, region: Region, side: Side) -> Any:
    import highdicom as hd

    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"{side} {region.display_name}"[:64],
        segmented_property_category=hd.sr.CodedConcept("123037004", "SCT", "Anatomical Structure"),
        segmented_property_type=_code(hd, region, region.display_name),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=MAKER,
            version=__version__,
            family=hd.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
        ),
    )


def _code(hd: Any, value: str, meaning: str) -> Any:
    return hd.sr.CodedConcept(str(value)[:16], SCHEME, meaning)


def _made_by() -> dict[str, Any]:
    return {
        "series_instance_uid": generate_uid(),
        "sop_instance_uid": generate_uid(),
        "instance_number": 1,
        "manufacturer": MAKER,
        "manufacturer_model_name": MAKER,
    }


def _save(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
