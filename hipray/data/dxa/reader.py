"""Read one DXA file: table, rows, then the checks over all its records."""

from collections.abc import Sequence

from hipray.data.dxa.checks import check_t_scores, find_identity_breaks
from hipray.data.dxa.columns import Field
from hipray.data.dxa.problems import ProblemLog
from hipray.data.dxa.records import DxaRecord, DxaTable
from hipray.data.dxa.rows import RowMerger, ignore_idle_regions
from hipray.data.dxa.table import TextTable, read_table
from hipray.errors import DataError
from hipray.vocab import Region


def read_dxa(data: bytes, *, name: str, region: Region | None = None) -> DxaTable:
    """Read DXA results from CSV or JSON `data`, one record per hip and examination.

    Accepts long tables (a row per hip and region), wide ones ("total_hip_t_score"), and the row
    groups of GE Lunar, Hologic and Norland reports. `region` is meant where the file names none.
    A cell that cannot be right is left out and told in `problems`; values are otherwise kept as
    given. Raises DataError for a file without a usable table, naming the columns found.
    """
    problems = ProblemLog()
    table = ignore_idle_regions(read_table(data, name=name), problems)
    if region is None and not _names_regions(table):
        raise DataError(
            "a region column, or regions in the column names",
            f"neither in {name}",
            "add a column 'region', or name the region that the file is about (--region total_hip)",
        )
    records = RowMerger(table, region=region, problems=problems).read()
    if not records:
        problems.add("empty", f"no row of {name} holds a result: every label is missing")
    _check(records, problems)
    return DxaTable(records, problems.lines())


def _names_regions(table: TextTable) -> bool:
    return any(c.field is Field.REGION or c.region is not None for c in table.columns)


def _check(records: Sequence[DxaRecord], problems: ProblemLog) -> None:
    scores = check_t_scores(records)
    if scores.disagreeing:
        problems.add(
            "t against bmd",
            f"{scores.disagreeing} of {scores.checked} T-scores do not follow from their BMD with "
            f"a known reference (up to {scores.largest:.1f} beyond rounding); kept as given",
        )
    breaks = find_identity_breaks(records)
    if breaks:
        problems.add("identity", f"{breaks} regions where BMD is not BMC / area; kept as given")
