"""Which region and side a row is about, in tables and in the row groups of vendor reports."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from hipray.data.dxa.columns import (
    Column,
    Field,
    RegionCell,
    RowKind,
    parse_region_cell,
)
from hipray.data.dxa.facts import Facts
from hipray.data.dxa.people import parse_side
from hipray.data.dxa.problems import ProblemLog
from hipray.vocab import Side

NOWHERE = RegionCell(RowKind.BLANK)


class PlaceReader:
    """Read region and side columns; remember the row group a report without ids is in."""

    def __init__(
        self, columns: Sequence[Column], *, cover_side: Side | None, problems: ProblemLog
    ) -> None:
        by_field = {column.field: column for column in columns}
        self._region_column = by_field.get(Field.REGION)
        self._side_column = by_field.get(Field.SIDE)
        self._grouped = not {Field.IMAGE, Field.PATIENT, Field.ANY_ID} & set(by_field)
        self._cover_side = cover_side
        self._group = NOWHERE
        self._spine_of: tuple[object, object] | None = None
        self._problems = problems

    def read(self, number: int, row: Sequence[str], facts: Facts) -> RegionCell | None:
        """Return the row's place, or None where it is about none of the regions."""
        place = self._read_region(number, row, facts)
        stated = self._read_side(number, row)
        if place is None or place.kind is RowKind.AVERAGE or stated is RowKind.AVERAGE:
            return None
        if self._grouped:
            place = self._fill_from_group(place)
        if place.kind not in {RowKind.HIP, RowKind.BLANK}:
            return None
        side = stated or place.side or self._group.side or self._cover_side
        return replace(place, side=side)

    def open_group(self, place: RegionCell) -> None:
        """Take a row without figures as the heading of the rows below it."""
        if self._grouped:
            self._group = place

    def _fill_from_group(self, place: RegionCell) -> RegionCell:
        """Return `place`, or for a row that names only a side (or nothing) the group's region."""
        if place.kind is RowKind.BLANK:
            return replace(self._group, side=place.side or self._group.side)
        self._group = replace(place, side=self._group.side)
        return place

    def _read_region(self, number: int, row: Sequence[str], facts: Facts) -> RegionCell | None:
        if self._region_column is None:
            return NOWHERE
        text = row[self._region_column.index]
        place = parse_region_cell(text)
        if self._is_spine(place, text, (facts.get("image"), facts.get("patient_id"))):
            self._problems.add("spine", f"row {number}: a lumbar spine region; row not used")
            return None
        if place.kind is RowKind.STRANGE:
            name = self._region_column.name
            self._problems.add_cell(number, name, expected="a hip region", found=text)
        return place

    def _is_spine(self, place: RegionCell, text: str, who: tuple[object, object]) -> bool:
        """Return whether a row belongs to a spine scan, whose "Total" is not the total hip."""
        if place.kind is RowKind.SPINE:
            self._spine_of = who
            return True
        total = self._spine_of == who and text.strip().lower() == "total"
        if not total and place.region is not None:
            self._spine_of = None
        return total

    def _read_side(self, number: int, row: Sequence[str]) -> Side | Literal[RowKind.AVERAGE] | None:
        if self._side_column is None:
            return None
        text = row[self._side_column.index]
        try:
            return parse_side(text)
        except ValueError as error:
            if parse_region_cell(text).kind is RowKind.AVERAGE:
                return RowKind.AVERAGE
            name = self._side_column.name
            self._problems.add_cell(number, name, expected=str(error), found=text)
            return None
