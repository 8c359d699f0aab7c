"""What a DICOM header states: body part, view, side, spacing and person, by lists of known words.

Hospitals fill these attributes freely, in several languages and often wrongly. Only words of the
lists below leave this module, so no name typed into a description can travel further.
"""

import math
import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from pydicom.dataset import Dataset

from hipray.vocab import Sex, Side

PELVIS_WORDS = ("PELVIS", "PELVIC", "BECKEN", "BASSIN", "PELVE", "BACINO", "骨盆", "HIPS")
"""Words that mean both hips."""
HIP_WORDS = (
    *PELVIS_WORDS, "HIP", "FEMUR", "FEMURS", "FEMORAL", "THIGH", "COXA", "COXAE", "UPPER LEG",
    "HUEFTE", "HÜFTE", "OBERSCHENKEL", "HANCHE", "CADERA", "髖", "髋", "股骨",
)  # fmt: skip
"""The first one that a text holds counts."""
OTHER_PART_WORDS = (
    "CHEST", "THORAX", "LUNG", "RIB", "RIBS", "STERNUM", "BREAST", "HEART", "ABDOMEN", "SPINE",
    "CSPINE", "TSPINE", "LSPINE", "SSPINE", "LSSPINE", "TLSPINE", "WHOLESPINE", "CERVICAL",
    "THORACIC", "LUMBAR", "SACRUM", "COCCYX", "SKULL", "HEAD", "NECK", "JAW", "MANDIBLE",
    "MAXILLA", "SINUS", "NOSE", "TEETH", "DENTAL", "SHOULDER", "CLAVICLE", "SCAPULA", "ARM",
    "HUMERUS", "ELBOW", "FOREARM", "RADIUS", "ULNA", "WRIST", "HAND", "FINGER", "THUMB", "KNEE",
    "KNEES", "PATELLA", "TIBIA", "FIBULA", "LOWER LEG", "LOWERLEG", "CALF", "ANKLE", "FOOT",
    "FEET", "HEEL", "CALCANEUS", "TOE", "TOES", "KNIE", "GENOU", "RODILLA", "FUSS", "SCHÄDEL",
    "UNTERSCHENKEL", "LWS", "BWS", "HWS", "胸", "膝", "脛骨", "踝", "腰椎", "頸椎",
)  # fmt: skip
AP_WORDS = (
    "AP", "PA", "FRONTAL", "ANTEROPOSTERIOR", "ANTERO POSTERIOR", "POSTERO ANTERIOR", "正位",
)  # fmt: skip
VIEW_POSITION_CODES = ("LL", "RL", "LLD", "RLD", "LLO", "RLO")
"""Defined terms of ViewPosition (DICOM PS3.3 C.8.1.1.1) that mean other things in free text."""
OTHER_VIEW_WORDS = (
    "LAT", "LATERAL", "MEDIO LATERAL", "LATERO MEDIAL", "FROG", "FROGLEG", "FROGLEGS",
    "LAUENSTEIN", "AXIAL", "AX", "OBL", "OBLI", "OBLIQUE", "DUNN", "JUDET", "INLET", "OUTLET",
    "CROSSTABLE", "CROSS TABLE", "XTABLE", "SURGILAT", "側位", "侧位",
)  # fmt: skip
LEFT_WORDS = ("L", "LT", "LEFT", "LINKS", "GAUCHE", "IZQUIERDA", "左")
RIGHT_WORDS = ("R", "RT", "RIGHT", "RECHTS", "DROITE", "DERECHA", "右")
BOTH_WORDS = ("B", "BOTH", "BILATERAL", "BILAT", "BEIDSEITS", "雙側", "双侧")

IMAGE_DESCRIPTIONS = (
    "SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription",
)  # fmt: skip
"""Attributes that describe this one image; StudyDescription may cover several."""

SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
PLAUSIBLE_SPACING_MM = (0.05, 1.0)
"""Detector elements are 0.1-0.2 mm and scans 0.05-0.5; 0 and exactly 1 are place-holders."""
MAX_ANISOTROPY = 1.02
"""Rows and columns further apart than this have no single spacing."""
MAX_AGE_YEARS = 120.0


@dataclass(frozen=True)
class Statement:
    """A word of one of the lists above and the attribute that says it."""

    word: str
    tag: str
    accepted: bool


@dataclass(frozen=True)
class StatedSide:
    """The side of the film as its header states it."""

    side: Side
    both: bool = False


def read_value(dataset: Dataset, keyword: str) -> Any:
    """Return the attribute's value, or None where it is absent, empty or cannot be parsed."""
    try:
        value = dataset.get(keyword)
    except Exception:  # a value that breaks its own VR states nothing; pydicom raises many types
        return None
    return None if value is None or value == "" else value


def read_text(dataset: Dataset, keyword: str) -> str:
    """Return the attribute as one line of text, empty where there is none."""
    value = read_value(dataset, keyword)
    if value is None:
        return ""
    parts = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    return " ".join(str(part) for part in parts)


def read_integer(dataset: Dataset, keyword: str, *, default: int = 0) -> int:
    """Return the attribute as an integer, or `default`."""
    value = read_value(dataset, keyword)
    try:
        return default if value is None else int(value)
    except (TypeError, ValueError, OverflowError):
        return default


def find_words(text: str, words: tuple[str, ...]) -> list[str]:
    """Return those `words` that `text` contains as whole words, in the order of the list."""
    tokens = " " + " ".join(re.findall(r"[^\W\d_]+", text.upper())) + " "
    # Chinese is written without spaces, so its words are looked for anywhere.
    return [w for w in words if (f" {w} " in tokens if ord(w[0]) < 0x2E80 else w in tokens)]


def state_body_part(dataset: Dataset) -> Statement | None:
    """Return what the header says about the body part, or None where it says nothing known.

    BodyPartExamined is often a default of the console: a description of the same image that
    names the hip and nothing else outweighs it.
    """
    own = _state_part(dataset, "BodyPartExamined")
    if own is not None and own.accepted:
        return own
    described = [s for s in (_state_part(dataset, k) for k in IMAGE_DESCRIPTIONS) if s is not None]
    if own is not None:
        overruled = described and all(s.accepted for s in described)
        return described[0] if overruled else own
    if described:
        return described[0]
    return _state_anatomic_region(dataset) or _state_part(dataset, "StudyDescription")


def _state_part(dataset: Dataset, keyword: str) -> Statement | None:
    return _classify_part(read_text(dataset, keyword), keyword)


def _classify_part(text: str, tag: str) -> Statement | None:
    for words, accepted in ((HIP_WORDS, True), (OTHER_PART_WORDS, False)):
        found = find_words(text, words)
        if found:
            return Statement(found[0], tag, accepted)
    return None


def _state_anatomic_region(dataset: Dataset) -> Statement | None:
    return _classify_part(_code_meaning(dataset, "AnatomicRegionSequence"), "AnatomicRegion")


def _code_meaning(dataset: Dataset, keyword: str) -> str:
    items = read_value(dataset, keyword)
    first = items[0] if items else None
    return read_text(first, "CodeMeaning") if isinstance(first, Dataset) else ""


def state_view(dataset: Dataset) -> Statement | None:
    """Return the stated view, or None; a description naming two views states none of them."""
    code = find_words(read_text(dataset, "ViewPosition"), VIEW_POSITION_CODES)
    if code:
        return Statement(code[0], "ViewPosition", accepted=False)
    for text, tag in _view_texts(dataset):
        other, frontal = find_words(text, OTHER_VIEW_WORDS), find_words(text, AP_WORDS)
        if other and not frontal:
            return Statement(other[0], tag, accepted=False)
        if frontal and not other:
            return Statement(frontal[0], tag, accepted=True)
    return None


def names_other_view(dataset: Dataset) -> bool:
    """Return whether a text names another view than AP alone, whatever the first of them states.

    Consoles fill ViewPosition by default.
    """
    texts = [text for text, _ in _view_texts(dataset)]
    return any(find_words(t, OTHER_VIEW_WORDS) and not find_words(t, AP_WORDS) for t in texts)


def _view_texts(dataset: Dataset) -> list[tuple[str, str]]:
    texts = [(read_text(dataset, "ViewPosition"), "ViewPosition")]
    texts.append((_code_meaning(dataset, "ViewCodeSequence"), "ViewCodeSequence"))
    return texts + [(read_text(dataset, keyword), keyword) for keyword in IMAGE_DESCRIPTIONS]


def state_side(dataset: Dataset) -> StatedSide:
    """Return the side from ImageLaterality, else Laterality, else the image's descriptions."""
    for keyword in ("ImageLaterality", "Laterality", "SeriesDescription", "ProtocolName"):
        stated = classify_side(read_text(dataset, keyword))
        if stated is not None:
            return stated
    return StatedSide(Side.UNKNOWN)


def classify_side(text: str) -> StatedSide | None:
    """Return the side that `text` names, or None."""
    left, right = bool(find_words(text, LEFT_WORDS)), bool(find_words(text, RIGHT_WORDS))
    if find_words(text, BOTH_WORDS) or (left and right):
        return StatedSide(Side.UNKNOWN, both=True)
    if left or right:
        return StatedSide(Side.LEFT if left else Side.RIGHT)
    return None


def read_spacing(dataset: Dataset) -> float | None:
    """Return the pixel spacing in mm, of the detector where that alone is given.

    Hips appear 1.1 to 1.2 times larger there. Implausible values count as absent.
    """
    stated = (_plausible_spacing(read_value(dataset, keyword)) for keyword in SPACINGS)
    return next((spacing for spacing in stated if spacing is not None), None)


def _plausible_spacing(value: Any) -> float | None:
    try:
        rows, columns = (float(v) for v in value)
    except (TypeError, ValueError):
        return None
    low, high = PLAUSIBLE_SPACING_MM
    if not (low <= rows < high and low <= columns < high):
        return None
    same = max(rows, columns) / min(rows, columns) <= MAX_ANISOTROPY
    return math.sqrt(rows * columns) if same else None


def read_sex(dataset: Dataset) -> Sex:
    """Return the patient's sex as PatientSex states it."""
    return {"F": Sex.FEMALE, "M": Sex.MALE}.get(
        read_text(dataset, "PatientSex").strip().upper(), Sex.UNKNOWN
    )


def read_age(dataset: Dataset) -> float | None:
    """Return the patient's age in years from PatientAge, else from birth and acquisition date.

    An age of nought is what consoles fill in for none.
    """
    match = re.fullmatch(r"\s*(\d{1,3})([DWMY])\s*", read_text(dataset, "PatientAge").upper())
    if match and int(match[1]):
        years = int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}[match[2]]
        return years if years <= MAX_AGE_YEARS else None
    born, taken = _read_date(dataset, "PatientBirthDate"), read_exposure_date(dataset)
    if born is None or taken is None:
        return None
    years = (taken - born).days / 365.25
    return years if 0 <= years <= MAX_AGE_YEARS else None


def read_exposure_date(dataset: Dataset) -> date | None:
    """Return the day of the exposure from AcquisitionDate, else from StudyDate."""
    return _read_date(dataset, "AcquisitionDate") or _read_date(dataset, "StudyDate")


def _read_date(dataset: Dataset, keyword: str) -> date | None:
    try:
        return datetime.strptime(read_text(dataset, keyword).strip(), "%Y%m%d").date()
    except ValueError:
        return None
