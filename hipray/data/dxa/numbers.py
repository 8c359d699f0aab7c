"""Numbers as DXA reports write them: decimal comma, typographic minus, units, missing marks."""

import math
import re
import unicodedata
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache

MISSING_WORDS = frozenset(
    {"", "na", "n/a", "n.a.", "nan", "none", "null", "nil", "missing", "unknown", "?", "無", "未知"}
)
MAX_CELL = 40  # characters: no figure of a report is longer, and matching stays cheap
_MISSING_MARKS = re.compile(r"[*.\-_/\s]*")  # "*****" of Norland, "-" of GE Lunar under 20 years
_MINUS_SIGNS = str.maketrans("−–—‒﹣", "-----")
WHOLE_AS_FRACTION = re.compile(r"^(\d+)\.0+$")
"""How many programs write a column of whole numbers with a gap: 17.0 is 17."""

_QUANTITY = re.compile(r"([+-]?\s?[\d.,]*\d[.,]?(?:e[+-]?\d+)?)\s*([^\d.,+\-][^,]*)?", re.I)
_GROUPED_BY_COMMA = re.compile(r"\d{1,3}(,\d{3})+")
_GROUPED_BY_DOT = re.compile(r"\d{1,3}(\.\d{3})+")
_SURE_COMMA = re.compile(r"[+-]?(0*,\d+|\d+,(\d{1,2}|\d{4,}))")
_SURE_POINT = re.compile(r"[+-]?(0*\.\d+|\d+\.(\d{1,2}|\d{4,}))")


class Unit(StrEnum):
    """A unit as a column name or a cell states it."""

    G_CM2 = "g/cm2"
    MG_CM2 = "mg/cm2"
    CM2 = "cm2"
    GRAM = "g"
    PERCENT = "%"
    KG = "kg"
    POUND = "lb"
    CM = "cm"
    METRE = "m"
    INCH = "in"
    YEAR = "y"
    MONTH = "mo"


UNIT_WORDS = {
    **dict.fromkeys(("gcm2", "gmcm2", "gmscm2", "gpercm2"), Unit.G_CM2),
    **dict.fromkeys(("mgcm2", "mgpercm2"), Unit.MG_CM2),
    **dict.fromkeys(("cm2", "sqcm"), Unit.CM2),
    **dict.fromkeys(("g", "gm", "gms", "gram", "grams"), Unit.GRAM),
    **dict.fromkeys(("%", "percent", "pct"), Unit.PERCENT),
    **dict.fromkeys(("kg", "kgs", "公斤"), Unit.KG),
    **dict.fromkeys(("lb", "lbs", "pound", "pounds"), Unit.POUND),
    **dict.fromkeys(("cm", "cms", "公分"), Unit.CM),
    **dict.fromkeys(("m", "metre", "meter", "metres", "meters"), Unit.METRE),
    **dict.fromkeys(("in", "ins", "inch", "inches"), Unit.INCH),
    **dict.fromkeys(("y", "yr", "yrs", "year", "years", "yo", "歲", "岁"), Unit.YEAR),
    **dict.fromkeys(("mo", "mos", "month", "months", "個月"), Unit.MONTH),
}


@lru_cache(maxsize=16384)
def normalise_text(text: str) -> str:
    """Return `text` without typographic variants: full width, NBSP, superscripts, minus signs."""
    if text.isascii():
        return text.strip()
    return unicodedata.normalize("NFKC", text).translate(_MINUS_SIGNS).strip()


@lru_cache(maxsize=16384)
def is_missing(text: str) -> bool:
    """Return whether a cell says that there is no value."""
    plain = normalise_text(text)
    return plain.lower() in MISSING_WORDS or _MISSING_MARKS.fullmatch(plain) is not None


@lru_cache(maxsize=16384)
def parse_quantity(
    text: str, *, decimal_comma: bool | None = None
) -> tuple[float | None, Unit | None]:
    """Return number and unit of a cell such as "745 mg/cm²", (None, None) for a missing mark.

    `decimal_comma` says how the file writes decimals where that is known; without it "1,008" may
    be 1.008 or 1008 and is refused. Raises ValueError for what is no number.
    """
    if is_missing(text):
        return None, None
    match = _QUANTITY.fullmatch(normalise_text(text)) if len(text) <= MAX_CELL else None
    if match is None:
        raise ValueError("a number")
    value = _to_float(match[1].replace(" ", ""), decimal_comma)
    return value, None if match[2] is None else parse_unit(match[2])


def parse_unit(text: str) -> Unit:
    """Return the unit that `text` names; raise ValueError for an unknown one."""
    word = re.sub(r"[\s/^.()_]", "", normalise_text(text).lower())
    if word not in UNIT_WORDS:
        raise ValueError("a number with a known unit")
    return UNIT_WORDS[word]


def detect_decimal_comma(cells: Iterable[str]) -> bool | None:
    """Return whether a file writes decimal commas, or None where its cells do not settle it."""
    comma = point = False
    for cell in cells:
        plain = normalise_text(cell)
        comma = comma or ("," in plain and _SURE_COMMA.fullmatch(plain) is not None)
        point = point or ("." in plain and _SURE_POINT.fullmatch(plain) is not None)
    return comma if comma != point else None


def _to_float(digits: str, decimal_comma: bool | None) -> float:
    if "," in digits and "." in digits:
        plain = _join_mixed(digits)
    elif "," in digits:
        plain = _join_commas(digits, decimal_comma)
    elif "." in digits:
        plain = _join_points(digits, decimal_comma)
    else:
        plain = digits
    value = float(plain)
    if not math.isfinite(value):
        raise ValueError("a finite number")
    return value


def _join_mixed(digits: str) -> str:
    decimal = max(",.", key=digits.rfind)
    whole, fraction = digits.rsplit(decimal, 1)
    grouped = _GROUPED_BY_DOT if decimal == "," else _GROUPED_BY_COMMA
    if not grouped.fullmatch(whole.lstrip("+-")):
        raise ValueError("a number with one decimal mark")
    return whole.replace(",", "").replace(".", "") + "." + fraction


def _join_commas(digits: str, decimal_comma: bool | None) -> str:
    bare = digits.lstrip("+-")
    grouped = _GROUPED_BY_COMMA.fullmatch(bare) is not None and not bare.startswith("0")
    if digits.count(",") > 1:
        if not grouped:
            raise ValueError("a number with one decimal mark")
        return digits.replace(",", "")
    if grouped and decimal_comma is None:
        raise ValueError("a number whose comma is clearly decimal or clearly thousands")
    return digits.replace(",", "" if grouped and not decimal_comma else ".")


def _join_points(digits: str, decimal_comma: bool | None) -> str:
    bare = digits.lstrip("+-")
    grouped = _GROUPED_BY_DOT.fullmatch(bare) is not None and not bare.startswith("0")
    if digits.count(".") > 1:
        if not grouped:
            raise ValueError("a number with one decimal mark")
        return digits.replace(".", "")
    if grouped and decimal_comma:
        raise ValueError("a number whose point is clearly decimal or clearly thousands")
    return digits
