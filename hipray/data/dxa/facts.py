"""The person and examination that a row states: ids, sex, age, size, device, date."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from hipray.data.dxa.columns import FACT_WORDS, Column, Field, parse_header
from hipray.data.dxa.numbers import WHOLE_AS_FRACTION, is_missing, normalise_text
from hipray.data.dxa.people import (
    detect_day_first,
    parse_age,
    parse_date,
    parse_flag,
    parse_height,
    parse_sex,
    parse_side,
    parse_weight,
)
from hipray.data.dxa.problems import ProblemLog
from hipray.vocab import Sex

Facts = dict[str, Any]
"""Fields of a DxaRecord by their names; an absent key is not stated."""

_IDS = frozenset({Field.IMAGE, Field.PATIENT, Field.ANY_ID})
"""Cells that problems never quote."""

MAX_TEXT = 512  # characters of an id or path; longer is a broken quotation


class FactReader:
    """Read the fact columns of a table row by row."""

    def __init__(
        self, columns: Sequence[Column], *, decimal_comma: bool | None, problems: ProblemLog
    ) -> None:
        placed = {Field.SIDE, Field.REGION}
        self._columns = [c for c in columns if c.field in FACT_WORDS and c.field not in placed]
        self._comma = decimal_comma
        self._problems = problems
        self._day_first: bool | None = None

    def learn_dates(self, rows: Sequence[Sequence[str]]) -> None:
        """Find out from all dates of the table whether they start with the day."""
        for column in self._columns:
            if column.field is Field.EXAM_DATE:
                self._day_first = detect_day_first(
                    [r[column.index] for r in rows if len(r) > column.index]
                )

    def read(self, number: int, row: Sequence[str]) -> Facts:
        """Return the facts of one row; a cell that cannot be read is noted and left out."""
        facts: Facts = {}
        for column in self._columns:
            if text := row[column.index]:
                self._read_cell(number, column, text, facts)
        return _name_image(facts)

    def read_cover(self, cover: Sequence[Sequence[str]]) -> Facts:
        """Return the facts in the "name: value" lines above the table."""
        facts: Facts = {}
        for number, row in enumerate(cover, start=1):
            for name, text in _name_value_pairs(row):
                column = parse_header([name])[0]
                if column.field in FACT_WORDS and column.field is not Field.REGION:
                    self._read_cell(number, column, text, facts)
        return _name_image(facts)

    def _read_cell(self, number: int, column: Column, text: str, facts: Facts) -> None:
        try:
            value = self._parse(column, text)
        except ValueError as error:
            found = f"{len(text)} characters" if column.field in _IDS else text
            self._problems.add_cell(number, column.name, expected=str(error), found=found)
            return
        if value is not None and column.field is not None:
            facts[_key(column.field)] = value

    def _parse(self, column: Column, text: str) -> object:
        match column.field:
            case Field.SIDE:
                return parse_side(text)
            case Field.SEX:
                return parse_sex(text)
            case Field.IS_MALE:
                return _sex_from_flag(parse_flag(text), Sex.MALE, Sex.FEMALE)
            case Field.IS_FEMALE:
                return _sex_from_flag(parse_flag(text), Sex.FEMALE, Sex.MALE)
            case Field.EXAM_DATE:
                return parse_date(text, self._day_first)
            case Field.AGE | Field.WEIGHT | Field.HEIGHT:
                return _SIZES[column.field](text, column.unit, self._comma)
            case Field.PATIENT:
                return _parse_id(text)
        return _parse_text(text)


_SIZES: dict[Field, Callable[..., float | None]] = {
    Field.AGE: parse_age,
    Field.WEIGHT: parse_weight,
    Field.HEIGHT: parse_height,
}


def _parse_text(text: str) -> str | None:
    if len(text) > MAX_TEXT or "\n" in text:
        raise ValueError(f"one line of at most {MAX_TEXT} characters")
    return None if is_missing(text) else normalise_text(text)


def _parse_id(text: str) -> str | None:
    found = _parse_text(text)
    return found if found is None else WHOLE_AS_FRACTION.sub(r"\1", found)


def _sex_from_flag(flag: bool | None, yes: Sex, no: Sex) -> Sex | None:
    return None if flag is None else yes if flag else no


def _key(field: Field) -> str:
    return Field.SEX.value if field in {Field.IS_MALE, Field.IS_FEMALE} else field.value


def _name_image(facts: Facts) -> Facts:
    """Let an id that does not say of what name the image; it is nobody's patient id."""
    other = facts.pop(Field.ANY_ID.value, None)
    return facts if other is None else {"image": other, **facts}


def _name_value_pairs(row: Sequence[str]) -> list[tuple[str, str]]:
    cells = [cell.strip() for cell in row]
    pairs = [(name, text.strip()) for name, mark, text in (c.partition(":") for c in cells) if mark]
    pairs += [(name, text) for name, text in itertools.pairwise(cells)]
    return [(name.rstrip(": "), text) for name, text in pairs if name and text]
