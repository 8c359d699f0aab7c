"""Age, sex, side, size, date and given labels as records write them.

Each function returns None for a missing mark and raises ValueError, saying what it expects.
"""

import re
from datetime import date, datetime
from functools import lru_cache

from hipray.config.labels import DxaSystem
from hipray.data.dxa.numbers import Unit, is_missing, normalise_text, parse_quantity
from hipray.vocab import LabelType, Sex, Side

AGE_RANGE = (0.0, 120.0)  # years
WEIGHT_RANGE = (25.0, 250.0)  # kg; densitometer tables carry up to about 205 kg
HEIGHT_RANGE = (100.0, 230.0)  # cm
KG_PER_POUND = 0.45359237  # international avoirdupois pound
CM_PER_INCH = 2.54  # international inch
MONTHS_PER_YEAR = 12.0
DAYS_PER_YEAR = 365.25
ROC_EPOCH = 1911  # year 1 of the Republic of China calendar is 1912

SEX_WORDS = {
    **dict.fromkeys(("f", "female", "woman", "w", "女", "女性"), Sex.FEMALE),
    **dict.fromkeys(("m", "male", "man", "男", "男性"), Sex.MALE),
}
SIDE_WORDS = {
    **dict.fromkeys(("l", "lt", "left", "左", "左側", "左侧"), Side.LEFT),
    **dict.fromkeys(("r", "rt", "right", "右", "右側", "右侧"), Side.RIGHT),
}
_YES = frozenset({"1", "yes", "y", "true", "t", "是"})
_NO = frozenset({"0", "no", "n", "false", "f", "否"})
_ABNORMAL = frozenset(
    {"abnormal", "osteoporosis", "osteoporotic", "op", "positive", "pos", "+"}
    | {"骨質疏鬆", "骨質疏鬆症", "骨质疏松", "異常"}
)
_NORMAL = frozenset({"normal", "healthy", "negative", "neg", "-", "正常"})
_LOW_BONE_MASS = frozenset(
    {"osteopenia", "osteopaenia", "osteopenic", "low bone mass", "low bone density", "low"}
    | {"骨質缺乏", "骨質流失", "骨量减少"}
)
_SYSTEM_WORDS = (
    (DxaSystem.GE_LUNAR, re.compile(r"lunar|prodigy|idxa|encore|\bdpx|\bge\b")),
    (DxaSystem.HOLOGIC, re.compile(r"hologic|discovery|horizon|delphi|\bqdr|\bapex\b")),
    (DxaSystem.NORLAND, re.compile(r"norland|\bxr-?(26|36|46|600|800)|excell")),
)
_DICOM_AGE = re.compile(r"(\d{3})([DWMY])")
_DICOM_AGE_UNITS = {"D": 1 / DAYS_PER_YEAR, "W": 7 / DAYS_PER_YEAR, "M": 1 / 12, "Y": 1.0}
_YEARS_MONTHS = re.compile(
    r"(\d+)\s*(?:years?|yrs?|y|歲|岁)\W*(?:and\s*)?(\d+)\s*(?:months?|mos?|m|個月|月)", re.I
)
_FEET_INCHES = re.compile(
    r"(\d)\s*(?:'|ft|feet)\s*(\d{1,2}(?:\.\d+)?)\s*(?:\"|''|in|inches)?", re.I
)
_DATE_PARTS = re.compile(r"(\d{1,4})[-/.](\d{1,2})[-/.](\d{1,4})(?:[ T].*)?")
_DATE_FORMATS = ("%Y%m%d", "%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%B %d, %Y", "%d %B %Y")


@lru_cache(maxsize=4096)
def parse_age(text: str, unit: Unit | None, decimal_comma: bool | None) -> float | None:
    """Return the age in years from "76.7 years", "19 years 4 months", "072Y" or a number."""
    plain = normalise_text(text)
    if match := _DICOM_AGE.fullmatch(plain):
        years: float | None = int(match[1]) * _DICOM_AGE_UNITS[match[2]]
    elif match := _YEARS_MONTHS.fullmatch(plain):
        years = int(match[1]) + int(match[2]) / MONTHS_PER_YEAR
    else:
        value, stated = parse_quantity(text, decimal_comma=decimal_comma)
        months = (stated or unit) is Unit.MONTH
        years = value / MONTHS_PER_YEAR if value is not None and months else value
    return _within(years, AGE_RANGE, "an age of 0 to 120 years")


@lru_cache(maxsize=4096)
def parse_weight(text: str, unit: Unit | None, decimal_comma: bool | None) -> float | None:
    """Return the weight in kg; pounds where the cell or the column says so."""
    value, stated = parse_quantity(text, decimal_comma=decimal_comma)
    if value is not None and (stated or unit) is Unit.POUND:
        value *= KG_PER_POUND
    return _within(value, WEIGHT_RANGE, "a weight of 25 to 250 kg")


@lru_cache(maxsize=4096)
def parse_height(text: str, unit: Unit | None, decimal_comma: bool | None) -> float | None:
    """Return the height in cm; inches or metres where the cell or the column says so."""
    if match := _FEET_INCHES.fullmatch(normalise_text(text)):
        value: float | None = (int(match[1]) * 12 + float(match[2])) * CM_PER_INCH
    else:
        value, stated = parse_quantity(text, decimal_comma=decimal_comma)
        factor = {Unit.INCH: CM_PER_INCH, Unit.METRE: 100.0}.get(stated or unit or Unit.CM, 1.0)
        value = None if value is None else value * factor
    return _within(value, HEIGHT_RANGE, "a height of 100 to 230 cm (name the unit if not cm)")


@lru_cache(maxsize=256)
def parse_sex(text: str) -> Sex | None:
    """Return the sex; digits are refused because files disagree on what they mean."""
    if is_missing(text):
        return None
    word = normalise_text(text).lower()
    if word not in SEX_WORDS:
        raise ValueError("F or M (digits only in a column called 'male' or 'female')")
    return SEX_WORDS[word]


@lru_cache(maxsize=256)
def parse_flag(text: str) -> bool | None:
    """Return yes or no from 1/0, yes/no, true/false."""
    if is_missing(text):
        return None
    word = normalise_text(text).lower().removesuffix(".0")
    if word not in _YES | _NO:
        raise ValueError("1 or 0, yes or no")
    return word in _YES


@lru_cache(maxsize=256)
def parse_side(text: str) -> Side | None:
    """Return the patient's side."""
    if is_missing(text):
        return None
    word = normalise_text(text).lower().removesuffix(" hip").removesuffix(" femur")
    if word not in SIDE_WORDS:
        raise ValueError("left or right")
    return SIDE_WORDS[word]


@lru_cache(maxsize=1024)
def parse_label(text: str, label_type: LabelType) -> bool | None:
    """Return whether a given label says abnormal; for t_score osteopenia is not abnormal.

    Osteopenia is a T-score class, so for the bmd label it decides nothing and is refused.
    """
    word = " ".join(normalise_text(text).lower().replace("_", " ").split())
    if word in _NORMAL and word != "-":
        return False
    if word in _ABNORMAL:
        return True
    if word in _LOW_BONE_MASS:
        if label_type is not LabelType.T_SCORE:
            raise ValueError("normal or abnormal for age")
        return False
    if is_missing(text):
        return None
    try:
        return parse_flag(text)
    except ValueError:
        raise ValueError("normal or abnormal, 0 or 1, osteoporosis or osteopenia") from None


@lru_cache(maxsize=256)
def parse_system(device: str) -> DxaSystem:
    """Return the densitometer's maker that a device name tells, or UNKNOWN."""
    word = device.lower().replace("_", " ")
    return next((s for s, words in _SYSTEM_WORDS if words.search(word)), DxaSystem.UNKNOWN)


@lru_cache(maxsize=4096)
def parse_date(text: str, day_first: bool | None) -> date | None:
    """Return the date; `day_first` settles 03/04/2020, None means it must settle itself."""
    if is_missing(text):
        return None
    plain = normalise_text(text)
    if match := _DATE_PARTS.fullmatch(plain):
        return _build_date(match[1], int(match[2]), match[3], day_first)
    for form in _DATE_FORMATS:
        try:
            return datetime.strptime(plain, form).date()
        except ValueError:
            continue
    raise ValueError("a date such as 2020-09-15")


def detect_day_first(dates: list[str]) -> bool | None:
    """Return whether d/m/y dates start with the day, or None where no date of the file tells."""
    matches = [m for text in dates if (m := _DATE_PARTS.fullmatch(normalise_text(text)))]
    short = [m for m in matches if len(m[1]) <= 2]
    day_first = any(int(m[1]) > 12 for m in short)
    month_first = any(int(m[2]) > 12 for m in short)
    return day_first if day_first != month_first else None


def _build_date(first: str, second: int, third: str, day_first: bool | None) -> date:
    a, c = int(first), int(third)
    try:
        if len(first) == 4:
            return date(a, second, c)
        if len(first) == 3:
            return date(a + ROC_EPOCH, second, c)
        year = c + 2000 if len(third) == 2 else c
        if a != second and max(a, second) <= 12 and day_first is None:
            raise ValueError
        swap = a > 12 or (bool(day_first) and second <= 12)
        return date(year, second, a) if swap else date(year, a, second)
    except ValueError:
        raise ValueError("a date whose day and month are clear, such as 2020-09-15") from None


def _within(value: float | None, limits: tuple[float, float], expected: str) -> float | None:
    if value is not None and not limits[0] <= value <= limits[1]:
        raise ValueError(expected)
    return value
