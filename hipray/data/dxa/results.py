"""The figures and given labels of a row: parsed, brought to g/cm², held against the possible."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from hipray.config.labels import DxaSystem
from hipray.data.dxa.checks import plausible_range
from hipray.data.dxa.columns import LABELS, QUANTITIES, Column, Field, RegionCell
from hipray.data.dxa.numbers import Unit, is_missing, parse_quantity
from hipray.data.dxa.people import parse_label
from hipray.data.dxa.problems import ProblemLog
from hipray.data.reference import from_standardised
from hipray.vocab import LabelType, Region, Side

MG_PER_G = 1000.0
MAX_G_CM2 = 10.0  # no bone has so much in g/cm², none so little in mg/cm²
LABEL_TYPES = {Field.LABEL_T: LabelType.T_SCORE, Field.LABEL_BMD: LabelType.BMD}

Figures = dict[Field, float]
"""Figures of one region by what they are; labels as 1.0 (abnormal) and 0.0."""


class _Scale(NamedTuple):
    """On what scale a density is written."""

    region: Region
    system: DxaSystem
    standardised: bool

    def to_maker(self, value: float, unit: Unit | None) -> float:
        """Return a density in g/cm² on the maker's scale; mg/cm² where stated or Norland's."""
        norland = unit is None and self.system is DxaSystem.NORLAND and value > MAX_G_CM2
        value = value / MG_PER_G if unit is Unit.MG_CM2 or norland else value
        if not self.standardised:
            return value
        own = from_standardised(value, system=self.system, region=self.region)
        if own is None:
            raise ValueError("standardised BMD of a maker and region with a known equation")
        return own


class ResultReader:
    """Read the columns that hold DXA figures or labels."""

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        region: Region | None,
        decimal_comma: bool | None,
        problems: ProblemLog,
    ) -> None:
        self._region = region
        self._comma = decimal_comma
        self._problems = problems
        self._columns = [c for c in columns if c.field in QUANTITIES or c.field in LABELS]

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides that column names state."""
        return tuple(dict.fromkeys(c.side for c in self._columns if c.side is not None))

    def drop_class_codes(self, rows: Sequence[Sequence[str]]) -> None:
        """Leave out label columns whose digits are more than 0 and 1: 1 may mean osteopenia."""
        for column in [c for c in self._columns if c.field in LABELS]:
            words = {row[column.index].strip() for row in rows if len(row) > column.index}
            codes = {code for word in words if (code := _read_code(word)) not in (None, 0, 1)}
            if codes:
                self._columns.remove(column)
                found = min(code for code in codes if code is not None)
                line = f"column '{column.name}': expected 0 and 1, found also {found:g}; not used"
                self._problems.add(f"codes {column.name}", line)

    def read(
        self, number: int, row: Sequence[str], place: RegionCell, system: DxaSystem
    ) -> dict[tuple[Side, Region], Figures] | None:
        """Return the figures of a row per hip and region, or None where no cell is filled."""
        found: dict[tuple[Side, Region], Figures] = {}
        filled = False
        for column in self._columns:
            text = row[column.index]
            if not text or is_missing(text):
                continue
            filled = True
            region = column.region or place.region or self._region
            side = column.side or place.side or Side.UNKNOWN
            if region is None:
                self._note_no_region(number, column)
                continue
            standardised = column.field is Field.SBMD or place.standardised
            value = self._read_cell(number, column, text, _Scale(region, system, standardised))
            if value is not None and column.field is not None:
                name = Field.BMD if column.field is Field.SBMD else column.field
                found.setdefault((side, region), {}).setdefault(name, value)
        return found if filled else None

    def _read_cell(self, number: int, column: Column, text: str, scale: _Scale) -> float | None:
        try:
            if column.field in LABEL_TYPES:
                label = parse_label(text, LABEL_TYPES[column.field])
                return None if label is None else float(label)
            return self._read_figure(column, text, scale)
        except ValueError as error:
            self._problems.add_cell(number, column.name, expected=str(error), found=text)
            return None

    def _read_figure(self, column: Column, text: str, scale: _Scale) -> float | None:
        value, unit = parse_quantity(text, decimal_comma=self._comma)
        field = column.field
        assert field is not None
        if value is None:
            return None
        if field is Field.BMD or field is Field.SBMD:
            value = scale.to_maker(value, unit or column.unit)
            field = Field.BMD
        low, high = plausible_range(field, scale.region, scale.system)
        if not low <= value <= high:
            raise ValueError(f"{scale.region} {field} of {low:.2f} to {high:.2f}")
        return value

    def _note_no_region(self, number: int, column: Column) -> None:
        line = (
            f"row {number}, column '{column.name}': expected a region in the column name, in a "
            "region column or as the region setting, found none; not used"
        )
        self._problems.add(f"region of {column.name}", line)


def numeric_cells(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the cells of numeric columns, or none where no cell holds a comma to be judged."""
    numeric = {*QUANTITIES, Field.AGE, Field.WEIGHT, Field.HEIGHT}
    places = [c.index for c in columns if c.field in numeric]
    cells = [row[at] for row in rows for at in places if at < len(row)]
    return cells if any("," in cell for cell in cells) else []


def _read_code(word: str) -> float | None:
    """The number of a class code such as 2 or 2.0, or None for a word."""
    return float(word) if re.fullmatch(r"\d+(\.0*)?", word) else None
