"""Rows of a DXA table merged to one record per hip and examination."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from hipray.config.labels import DxaSystem
from hipray.data.dxa.columns import (
    Column,
    Field,
    RowKind,
    detect_layout,
    is_weak_image,
    parse_region_cell,
)
from hipray.data.dxa.facts import FactReader, Facts
from hipray.data.dxa.numbers import detect_decimal_comma
from hipray.data.dxa.people import parse_system
from hipray.data.dxa.places import PlaceReader
from hipray.data.dxa.problems import ProblemLog
from hipray.data.dxa.records import NO_LABELS, DxaRecord, RegionValues
from hipray.data.dxa.results import LABEL_TYPES, Figures, ResultReader, numeric_cells
from hipray.data.dxa.table import TextTable
from hipray.vocab import Region, Side

LABELLING = frozenset({Field.BMD, Field.T, Field.Z, Field.AM_PERCENT, *LABEL_TYPES})
"""Figures that a label may rest on."""
HipKey = tuple[object, ...]
"""Image, patient, side and date: what makes two rows the same examination of the same hip."""


@dataclass
class HipDraft:
    """One hip while its rows are read."""

    side: Side
    facts: Facts
    figures: dict[Region, Figures] = field(default_factory=dict)
    contradicted: set[Region | str] = field(default_factory=set)
    """Regions and facts of which rows say different things: which row is right is not known."""


class RowMerger:
    """Read the rows of one table and merge those of the same hip."""

    def __init__(self, table: TextTable, *, region: Region | None, problems: ProblemLog) -> None:
        columns = _first_of_each(table.columns, problems)
        comma = detect_decimal_comma(numeric_cells(columns, table.rows))
        self._table = table
        self._doubtful = _has_rows_of_its_width(table)
        self._problems = problems
        self._layout = _system_of_layout(table)
        self._facts = FactReader(columns, decimal_comma=comma, problems=problems)
        self._facts.learn_dates(table.rows)
        self._cover = self._facts.read_cover(table.cover)
        cover_side = self._cover.pop("side", None)
        self._places = PlaceReader(columns, cover_side=cover_side, problems=problems)
        self._results = ResultReader(columns, region=region, decimal_comma=comma, problems=problems)
        self._results.drop_class_codes(table.rows)
        self._drafts: dict[HipKey, HipDraft] = {}

    def read(self) -> tuple[DxaRecord, ...]:
        """Return the records in the order in which the file first names them."""
        names = [column.name for column in self._table.columns]
        width = len(names)
        for number, row in enumerate(self._table.rows, start=self._table.first_row):
            if not any(row):
                continue
            if len(row) != width:
                cells = self._fit_to_width(number, row, width)
                if cells is None:
                    continue
                row = cells
            if row[0].strip() == names[0] and [cell.strip() for cell in row] == names:
                continue  # concatenated exports repeat their header
            self._read_row(number, row)
        return tuple(self._build_record(draft) for draft in self._drafts.values())

    def _fit_to_width(self, number: int, row: Sequence[str], width: int) -> list[str] | None:
        if not any(cell.strip() for cell in row):
            return None
        if len(row) > width and (self._doubtful or any(cell.strip() for cell in row[width:])):
            self._problems.add(
                "width",
                f"row {number}: expected {width} cells, found {len(row)} (a decimal comma without "
                "quotes?); row not used",
            )
            return None
        return [*row[:width], *[""] * (width - len(row))]

    def _read_row(self, number: int, row: Sequence[str]) -> None:
        own = self._facts.read(number, row)
        facts = {**self._cover, **own}
        place = self._places.read(number, row, facts)
        if place is None:
            return
        found = self._results.read(number, row, place, self._system_of(facts))
        if found is None:
            self._places.open_group(place)
        sides = list(dict.fromkeys(side for side, _ in found)) if found else []
        if not found and ("image" in own or "patient_id" in own):
            sides = list(self._results.sides) or [place.side or Side.UNKNOWN]
        drafts = {side: self._draft(number, facts, side) for side in sides}
        for (side, region), figures in (found or {}).items():
            self._merge_figures(number, drafts[side], region, figures)

    def _draft(self, number: int, facts: Facts, side: Side) -> HipDraft:
        key = (facts.get("image"), facts.get("patient_id"), side, facts.get("exam_date"))
        draft = self._drafts.get(key)
        if draft is None:
            draft = self._drafts[key] = HipDraft(side, facts)
        elif draft.facts != facts:
            self._merge_facts(number, draft, facts)
        return draft

    def _merge_facts(self, number: int, draft: HipDraft, new: Facts) -> None:
        kept = draft.facts
        conflicts = [name for name in new if kept.setdefault(name, new[name]) != new[name]]
        if conflicts:
            draft.contradicted.update(conflicts)
            self._problems.add(
                f"conflict {conflicts}",
                f"row {number}: {', '.join(conflicts)} differ from an earlier row of the same hip; "
                "neither is used",
            )

    def _merge_figures(
        self, number: int, draft: HipDraft, region: Region, figures: Figures
    ) -> None:
        kept = draft.figures.setdefault(region, {})
        conflicts = [name for name in figures if kept.get(name, figures[name]) != figures[name]]
        if conflicts:
            decisive = not LABELLING.isdisjoint(conflicts)
            if decisive:
                draft.contradicted.add(region)
            self._problems.add(
                "conflict",
                f"row {number}: {', '.join(conflicts)} of {region} differ from an earlier row of "
                f"the same hip; {'neither is used' if decisive else 'the earlier stand'}",
            )
        elif any(name in kept for name in figures):
            self._problems.add(
                "duplicate", f"row {number}: repeats {region} of an earlier row; counted once"
            )
        draft.figures[region] = {**figures, **kept}

    def _system_of(self, facts: Mapping[str, object]) -> DxaSystem:
        device = facts.get("device")
        stated = parse_system(str(device)) if device else DxaSystem.UNKNOWN
        return self._layout if stated is DxaSystem.UNKNOWN else stated

    def _build_record(self, draft: HipDraft) -> DxaRecord:
        values = {
            region: RegionValues(region, contradicted=True)
            if region in draft.contradicted
            else _build_values(region, found)
            for region, found in draft.figures.items()
        }
        doubted = draft.contradicted - {"invalid_reason"}  # either one voids the hip
        facts = {name: value for name, value in draft.facts.items() if name not in doubted}
        return DxaRecord(side=draft.side, system=self._system_of(facts), values=values, **facts)


def _system_of_layout(table: TextTable) -> DxaSystem:
    """Return the maker that the lines above the table name, or whose column names it uses."""
    named = parse_system(" ".join(cell for row in table.cover for cell in row))
    return detect_layout(table.columns) if named is DxaSystem.UNKNOWN else named


def _build_values(region: Region, found: Figures) -> RegionValues:
    given = {kind: bool(found[name]) for name, kind in LABEL_TYPES.items() if name in found}
    return RegionValues(
        region,
        bmd=found.get(Field.BMD),
        t=found.get(Field.T),
        z=found.get(Field.Z),
        am_percent=found.get(Field.AM_PERCENT),
        area_cm2=found.get(Field.AREA),
        bmc_g=found.get(Field.BMC),
        given=MappingProxyType(given) if given else NO_LABELS,
    )


def _has_rows_of_its_width(table: TextTable) -> bool:
    """Whether one more empty cell may be half of a decimal: other rows do without it."""
    names = [column.name for column in table.columns]
    rows = ([cell.strip() for cell in row] for row in table.rows)
    return table.delimiter == "," and any(
        len(row) == len(names) and any(row) and row != names for row in rows
    )


def _first_of_each(columns: Sequence[Column], problems: ProblemLog) -> list[Column]:
    """Return the recognised columns; of two that mean the same the first that says so plainly."""
    kept: dict[tuple[object, ...], Column] = {}
    for column in sorted(columns, key=is_weak_image):
        if column.field is None or column.field is Field.UNUSED:
            continue
        first = kept.setdefault((column.field, column.region, column.side), column)
        if first is not column:
            line = f"column '{column.name}' means the same as '{first.name}'; not used"
            problems.add("same column", line)
    strange = [column.name for column in columns if column.field is None and column.name]
    if strange:
        shown = ", ".join(f"'{name[:30]}'" for name in strange[:20])
        problems.add("unknown columns", f"columns not used: {shown}")
    return sorted(kept.values(), key=lambda column: column.index)


def ignore_idle_regions(table: TextTable, problems: ProblemLog) -> TextTable:
    """Return the table without use of a region column that names none: a 'Site' of hospitals."""
    kept = []
    for column in table.columns:
        cells = [row[column.index] for row in table.rows if len(row) > column.index]
        if column.field is Field.REGION and not any(_names_place(cell) for cell in cells):
            line = f"column '{column.name}' names no region of the hip in any row; not used"
            problems.add("no region", line)
            column = replace(column, field=Field.UNUSED)
        kept.append(column)
    return replace(table, columns=tuple(kept))


def _names_place(cell: str) -> bool:
    place = parse_region_cell(cell)
    return place.side is not None or place.kind not in (RowKind.STRANGE, RowKind.BLANK)
