"""Which column of a DXA file means what, whatever its maker or a hospital calls it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from hipray.config.labels import DxaSystem
from hipray.data.dxa.numbers import UNIT_WORDS, Unit, normalise_text
from hipray.data.dxa.people import SIDE_WORDS
from hipray.vocab import REGION_ALIASES, Region, Side, parse_region


class Field(StrEnum):
    """What a cell holds."""

    IMAGE = "image"
    PATIENT = "patient_id"
    ANY_ID = "id"  # an id that does not say of what
    SIDE = "side"
    SEX = "sex"
    IS_MALE = "male"
    IS_FEMALE = "female"
    AGE = "age"
    WEIGHT = "weight_kg"
    HEIGHT = "height_cm"
    DEVICE = "device"
    EXAM_DATE = "exam_date"
    REGION = "region"
    INVALID = "invalid_reason"
    BMD = "bmd"
    SBMD = "sbmd"  # standardised BMD, the same for all makers
    T = "t_score"
    Z = "z_score"
    AM_PERCENT = "am_percent"
    AREA = "area"
    BMC = "bmc"
    LABEL_T = "t_label"
    LABEL_BMD = "bmd_label"
    UNUSED = "unused"  # known, and of no use here


QUANTITIES = (Field.BMD, Field.SBMD, Field.T, Field.Z, Field.AM_PERCENT, Field.AREA, Field.BMC)
LABELS = (Field.LABEL_T, Field.LABEL_BMD)
WEAK_IMAGE_WORDS = frozenset(
    {"study", "study id", "accession", "accession number", "accession no", "xray", "x ray", "dicom"}
    | {"photo", "picture"}
)
"""Names of image columns that give way to any other one: they may number examinations."""
DECISIVE = frozenset({Field.BMD, Field.SBMD, Field.T, Field.Z, Field.AM_PERCENT, *LABELS})
"""A file without one of these says nothing that a label can come from."""

FACT_WORDS: dict[Field, tuple[str, ...]] = {
    Field.IMAGE: (
        *("path", "study", "study id", "accession", "accession number", "accession no"),
        *("檔名", "影像", "影像編號"),
    ),
    Field.PATIENT: (
        *("patient", "patient id", "patientid", "patient no", "patient number", "pid", "pt id"),
        *("mrn", "medical record number", "chart no", "subject", "subject id", "participant"),
        *("participant id",),
        *("病歷號", "病歷號碼", "病人編號"),
    ),
    Field.ANY_ID: ("id", "case", "case id", "case no", "case number", "hip id", "編號"),
    Field.SIDE: ("side", "laterality", "hip side", "側別", "側"),
    Field.SEX: ("sex", "gender", "patient sex", "m f", "f m", "性別", "性别"),
    Field.IS_MALE: ("male", "is male"),
    Field.IS_FEMALE: ("female", "is female"),
    Field.AGE: ("age", "patient age", "age at exam", "age at scan", "年齡", "年龄"),
    Field.WEIGHT: ("weight", "body weight", "patient weight", "bw", "體重", "体重"),
    Field.HEIGHT: ("height", "body height", "patient height", "bh", "stature", "身高"),
    Field.DEVICE: (
        *("device", "scanner", "model", "machine", "system", "manufacturer", "densitometer"),
        *("dxa device", "dxa system", "機型"),
    ),
    Field.EXAM_DATE: (
        *("exam date", "scan date", "study date", "dxa date", "date", "date of exam"),
        *("檢查日期", "日期"),
    ),
    Field.REGION: ("region", "roi", "site", "region of interest", "部位", "區域"),
    Field.INVALID: ("invalid reason", "invalid", "exclusion reason", "excluded"),
}
QUANTITY_WORDS: dict[Field, tuple[str, ...]] = {
    Field.BMD: ("bmd", "bone mineral density", "bone density", "density", "骨密度"),
    Field.SBMD: ("sbmd", "standardised bmd", "standardized bmd"),
    Field.T: (
        *("t", "t score", "tscore", "ya t", "ya t score", "yat score", "ya tscore"),
        *("young adult t score", "t分數", "t值"),
    ),
    Field.Z: (
        *("z", "z score", "zscore", "am z", "am z score", "amz score", "am zscore"),
        *("age matched z score", "z分數", "z值"),
    ),
    Field.AM_PERCENT: ("am", "age match", "age matched"),
    Field.AREA: ("area", "面積"),
    Field.BMC: ("bmc", "bone mineral content"),
    Field.LABEL_T: (
        *("osteoporosis", "osteoporotic", "label", "class", "diagnosis", "t label", "tscore label"),
        *("t score label", "t class", "who class", "who", "診斷", "骨質疏鬆"),
    ),
    Field.LABEL_BMD: ("bmd label", "bmd class", "bmd status", "bmd abnormal", "abnormal bmd"),
    Field.UNUSED: ("ya", "young ref", "young adult", "peak reference", "pr"),
}
UNUSED_FACTS = (
    *("bmi", "ethnicity", "race", "name", "patient name", "birth date", "dob", "姓名"),
    *("s no", "sno", "sr no", "serial no", "serial number", "row", "index"),
)
IMAGE_THINGS = frozenset(
    {"image", "img", "xray", "radiograph", "film", "photo", "picture", "file", "filename", "dicom"}
    | {"imagename", "imageid", "filepath", "imagepath"}
)
"""What a column of images is called, alone or with what of the image it states."""
OF_A_DAY = frozenset({"age", "weight", "height", "bmi"})
IMAGE_TRAITS = frozenset({"name", "path", "id", "no", "number"})
REPORT_REGIONS = {
    "femur total": Region.TOTAL_HIP,
    "total femur": Region.TOTAL_HIP,
    "totalhip": Region.TOTAL_HIP,
    "femur neck": Region.FEMORAL_NECK,
    "femoralneck": Region.FEMORAL_NECK,
    "全髖": Region.TOTAL_HIP,
}
"""Spellings of reports beside the general aliases."""

FILLERS = frozenset({"hip", "femur", "femoral", "region", "roi", "value", "values", "of", "dxa"})
"""Words that a column name may hold beside region and quantity."""

PLAIN_REGION_WORDS = frozenset({"hip"})
"""Aliases that give way to any other region word in the same name ("hip neck")."""

_FACTS = {word: field for field, words in FACT_WORDS.items() for word in words}
_FACTS.update(dict.fromkeys(UNUSED_FACTS, Field.UNUSED))
_QUANTITIES = {word: field for field, words in QUANTITY_WORDS.items() for word in words}
_CODES: tuple[tuple[re.Pattern[str], frozenset[Field]], ...] = (
    (re.compile(r"[(\[]\s*sd\s*[)\]]$", re.I), frozenset(QUANTITIES)),
    (re.compile(r"[(\[]\s*[mf]\s*[/,|]\s*[mf]\s*[)\]]$", re.I), frozenset({Field.SEX})),
    (re.compile(r"[(\[]\s*[lr]\s*[/,|]\s*[lr]\s*[)\]]$", re.I), frozenset({Field.SIDE})),
    (re.compile(r"[(\[]\s*[01]\s*[/,|]\s*[01]\s*[)\]]$"), frozenset(LABELS)),
)
"""What may stand in brackets behind a name, and of what: "Sex (M/F)". What says which digit means
what is not taken: "(0 = yes)" would turn labels round."""
_OCCASIONS = frozenset(
    {"dxa", "exam", "examination", "scan", "visit", "study", "xray", "x", "ray", "imaging"}
    | {"radiograph", "baseline", "the", "time", "of"}
)
"""When a person was asked or measured for the film; age at menopause is no age."""
_CAMEL = re.compile(r"(?<=[a-z]{2})(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")
_NOT_WORD = re.compile(r"[^\w]+|_+")
_CJK_WORDS = re.compile(
    "(" + "|".join(w for w in (*REGION_ALIASES, *REPORT_REGIONS) if not w.isascii()) + "|左|右)側?"
)
_LONGEST_REGION = 3  # words in the longest region alias, "ward s triangle"
_SPINE = re.compile(r"l\d( ?l?\d)?|spine|lumbar.*|ap spine|腰椎")
_AVERAGES = frozenset({"mean", "diff", "difference", "avg", "average", "combined", "dual", "平均"})
_OTHER_ROIS = frozenset(
    {"shaft", "inter", "intertroch", "intertrochanter", "intertrochanteric", "upper neck"}
    | {"lower neck", "neck upper", "neck lower", "upper", "lower"}
)
_WORDS = (
    frozenset(word for phrase in (*_FACTS, *_QUANTITIES) for word in phrase.split()) | IMAGE_THINGS
)
_Meaning = tuple[Field | None, Region | None, Side | None, Unit | None]
NO_MEANING: _Meaning = (None, None, None, None)


@dataclass(frozen=True)
class Column:
    """One column: what it holds, and the region, side and unit that its name states."""

    index: int
    name: str
    field: Field | None  # None: not recognised
    region: Region | None = None
    side: Side | None = None
    unit: Unit | None = None


class RowKind(StrEnum):
    """What the region or side cell of a report's row announces."""

    HIP = "hip"
    NO_ROI = "no_roi"  # shaft, intertrochanter: part of a hip report, none of our regions
    AVERAGE = "average"  # mean or difference of both hips
    SPINE = "spine"
    BLANK = "blank"
    STRANGE = "strange"


@dataclass(frozen=True)
class RegionCell:
    """A region cell such as "Neck Left", "Total sBMD" or "Mean"."""

    kind: RowKind
    region: Region | None = None
    side: Side | None = None
    standardised: bool = False


def parse_header(names: Sequence[str]) -> tuple[Column, ...]:
    """Return the meaning of each column name; unrecognised ones keep field None."""
    return tuple(
        Column(index, name, *_parse_name(name)) for index, name in enumerate(map(str.strip, names))
    )


def detect_layout(columns: Sequence[Column]) -> DxaSystem:
    """Return the maker whose report uses such column names, or UNKNOWN."""
    words = [" ".join(_split_words(column.name)) for column in columns]
    if any(word.startswith(("ya ", "yat ")) for word in words):
        return DxaSystem.GE_LUNAR
    if any("young ref" in word for word in words):
        return DxaSystem.NORLAND
    return DxaSystem.UNKNOWN


def accepted_names() -> str:
    """Return, for an error message, names of columns that carry a result."""
    names = (field for field in (*QUANTITIES, *LABELS) if field in DECISIVE)
    return ", ".join(f"'{name}'" for name in (*names, "osteoporosis"))


def is_weak_image(column: Column) -> bool:
    """Return whether another column of images would name them better."""
    words = _split_words(column.name)
    last = words[-1]
    numbers = last in {"no", "number"} or (last == "id" and words[0] not in {"image", "img"})
    counts = [_singular(word) for word in words] != words
    return " ".join(words) in WEAK_IMAGE_WORDS or numbers or counts


@lru_cache(maxsize=4096)
def parse_region_cell(text: str) -> RegionCell:
    """Return what a row is about; never raises."""
    words, side = _take_side(_split_words(text))
    standardised = "sbmd" in words
    words = [word for word in words if word not in {"sbmd", "bmd"}]
    phrase = " ".join(words)
    if not words:
        return RegionCell(RowKind.BLANK, None, side)
    if _AVERAGES & set(words):
        return RegionCell(RowKind.AVERAGE)
    if phrase in _OTHER_ROIS:
        return RegionCell(RowKind.NO_ROI, None, side)
    if _SPINE.fullmatch(phrase):
        return RegionCell(RowKind.SPINE)
    region, rest = next(_region_readings(words))
    if any(word not in FILLERS for word in rest):
        return RegionCell(RowKind.STRANGE)
    if region is None:
        return RegionCell(RowKind.BLANK, None, side)
    return RegionCell(RowKind.HIP, region, side, standardised)


@lru_cache(maxsize=4096)
def _parse_name(name: str) -> _Meaning:
    as_it_is = _split_words(name)
    for words in (as_it_is, [*map(_singular, as_it_is)]):
        meaning = _parse_words(words)
        if meaning[0] is not None:
            return meaning
    for codes, fields in _CODES:
        meaning = _parse_words(_split_words(codes.sub("", name)))
        if codes.search(name) and meaning[0] in fields:
            return meaning
    return _parse_occasion(as_it_is)


def _parse_occasion(words: list[str]) -> _Meaning:
    """Read "age at DXA" or "weight at visit (kg)"."""
    words, unit = _take_unit(words)
    fact, _, occasion = " ".join(words).partition(" at ")
    if fact in OF_A_DAY and occasion and _OCCASIONS.issuperset(occasion.split()):
        return _FACTS[fact], None, None, unit
    return NO_MEANING


def _singular(word: str) -> str:
    stems = (word.removesuffix(end) for end in ("es", "s"))
    return next((stem for stem in stems if stem in _WORDS), word)


def _is_image_name(words: Sequence[str]) -> bool:
    said = set(" ".join(words).replace("x ray", "xray").split())
    return bool(said & IMAGE_THINGS) and said <= IMAGE_THINGS | IMAGE_TRAITS


def _parse_words(words: list[str]) -> _Meaning:
    if " ".join(words) in _FACTS:  # "F/M": the m is no metre
        return _FACTS[" ".join(words)], None, None, None
    words, unit = _take_unit(words)
    phrase = " ".join(words)
    if phrase == "wt" and unit in {Unit.KG, Unit.POUND}:
        return Field.WEIGHT, None, None, unit
    if phrase == "ht" and unit in {Unit.CM, Unit.METRE, Unit.INCH}:
        return Field.HEIGHT, None, None, unit
    if phrase in _FACTS:
        return _FACTS[phrase], None, None, unit
    if _is_image_name(words):
        return Field.IMAGE, None, None, None
    words, side = _take_side(words)
    for region, rest in _region_readings(words):
        field = _quantity(rest, unit)
        if field is not None:
            return field, region, side, unit
    return NO_MEANING


def _quantity(words: Sequence[str], unit: Unit | None) -> Field | None:
    phrase = " ".join(word for word in words if word not in FILLERS)
    return _QUANTITIES.get(phrase, Field.BMD if phrase == "" and _is_density(unit) else None)


def _is_density(unit: Unit | None) -> bool:
    return unit in {Unit.G_CM2, Unit.MG_CM2}


def _split_words(name: str) -> list[str]:
    plain = _CJK_WORDS.sub(r" \1 ", _CAMEL.sub(" ", normalise_text(name)))
    plain = plain.lower().replace("%", " percent ").replace("'", "").replace("’", "")
    return [word for word in _NOT_WORD.split(plain) if word]


def _take_unit(words: list[str]) -> tuple[list[str], Unit | None]:
    for length in (3, 2, 1):
        tail = "".join(words[-length:])
        if len(words) > length and tail in UNIT_WORDS:
            return words[:-length], UNIT_WORDS[tail]
    return words, None


def _take_side(words: list[str]) -> tuple[list[str], Side | None]:
    sides = [SIDE_WORDS[word] for word in words if word in SIDE_WORDS]
    if len(sides) != 1:
        return words, None
    return [word for word in words if word not in SIDE_WORDS], sides[0]


def _region_readings(words: list[str]) -> Iterator[tuple[Region | None, list[str]]]:
    """Yield every way to read a region out of `words`, the longest alias first, none last."""
    plain: list[tuple[Region, list[str]]] = []
    for length in range(_LONGEST_REGION, 0, -1):
        for start in range(len(words) - length + 1):
            phrase = " ".join(words[start : start + length])
            region = parse_region(phrase) or REPORT_REGIONS.get(phrase)
            rest = words[:start] + words[start + length :]
            if region is not None and phrase in PLAIN_REGION_WORDS:
                plain.append((region, rest))
            elif region is not None:
                yield region, rest
    yield from plain
    yield None, words
