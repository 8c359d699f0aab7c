"""Audit the tables of Feng et al. 2023 by arithmetic on them alone.

Of one test set with a share p of abnormal hips, accuracy = p sensitivity + (1 - p) specificity,
and the same holds for means over runs. This gives p, and with p what cannot be right.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hipray.evaluation.paper import CLASSIFIER_TABLES, TEST_HIPS, PaperTables, Split
from hipray.evaluation.single_run import PRINTED_STEP, Printed, fits_single_run
from hipray.evaluation.statistics import PAPER_METRICS
from hipray.vocab import Backbone, Cell, LabelType, Region, Variant

PREVALENCE_GRID = np.linspace(0, 1, 10_001)
PREVALENCE_TOLERANCE = 0.1  # beyond the rounding, a row's p this far from its region's is an error
F1_TOLERANCE = 0.05  # beyond it an F1 does not belong to its row
COLLAPSE_BELOW = 0.6  # balanced accuracy; nearer to chance, runs that call one class lower mean F1

Site = tuple[Region, LabelType]


@dataclass(frozen=True)
class PaperRow:
    """One printed row of Tables 6 to 10."""

    cell: Cell
    split: Split
    printed: Printed

    @property
    def table(self) -> int:
        """The number of its table."""
        return CLASSIFIER_TABLES[self.cell.variant, self.cell.label_type]

    @property
    def site(self) -> Site:
        """The region and label whose share of abnormal hips it implies."""
        return self.cell.region, self.cell.label_type

    @property
    def accuracy(self) -> float:
        """The printed accuracy."""
        return self.printed[3]

    @property
    def balanced_accuracy(self) -> float:
        """The mean of the printed sensitivity and specificity."""
        return (self.printed[0] + self.printed[1]) / 2

    @property
    def prevalences(self) -> tuple[float, float]:
        """The range of p that this row allows; NaN where none."""
        return bound_prevalence([self])


@dataclass(frozen=True)
class Prevalence:
    """The share of abnormal test hips of one region and label, as its test rows imply it."""

    value: float  # least squares
    low: float  # of what is feasible for every row under rounding; NaN where nothing is
    high: float
    n_rows: int

    @property
    def majority(self) -> float:
        """The accuracy of calling every hip by the larger class."""
        return max(self.value, 1 - self.value)


@dataclass(frozen=True)
class PaperAudit:
    """What arithmetic says about the paper's tables."""

    rows: tuple[PaperRow, ...]
    prevalences: Mapping[Site, Prevalence]
    one_run: tuple[PaperRow, ...]  # test rows that some single run on that many hips can give
    at_majority: tuple[PaperRow, ...]  # test rows at or below the majority class
    pasted: Mapping[PaperRow, PaperRow]  # to the row of another region that it repeats
    impossible_f1: Mapping[PaperRow, float]  # to the F1 that its other numbers give
    misprinted: tuple[PaperRow, ...]  # training rows that imply another p than their region

    @property
    def test_rows(self) -> tuple[PaperRow, ...]:
        """The rows measured on test hips."""
        return tuple(row for row in self.rows if row.split is Split.TEST)

    def get_note(self, cell: Cell, split: Split) -> str:
        """Return the doubt about one row, or an empty string."""
        return self._notes.get((cell, split), "")

    @property
    def _notes(self) -> dict[tuple[Cell, Split], str]:
        return {
            (row.cell, row.split): text
            for part in (
                ((row, _note_pasted(row, source)) for row, source in self.pasted.items()),
                ((row, _note_f1(row, implied)) for row, implied in self.impossible_f1.items()),
                ((row, _note_misprint(row, self.prevalences)) for row in self.misprinted),
            )
            for row, text in part
        }

    def mean_balanced_accuracy(self, table: int, backbone: str) -> float | None:
        """Return the mean over a table's test rows of one network, or None without any."""
        own = [r for r in self.test_rows if (r.table, r.cell.backbone) == (table, backbone)]
        return float(np.mean([row.balanced_accuracy for row in own])) if own else None


def audit_paper(paper: PaperTables) -> PaperAudit:
    """Audit every row of Tables 6 to 10."""
    rows = read_rows(paper)
    tests = [row for row in rows if row.split is Split.TEST]
    pasted = _find_pasted(tests)
    prevalences = _imply_prevalences([row for row in tests if row not in pasted])
    misprinted = tuple(row for row in rows if _is_misprinted(row, prevalences))
    sound = [row for row in rows if row not in pasted and row not in misprinted]
    return PaperAudit(
        rows=rows,
        prevalences=prevalences,
        one_run=tuple(r for r in tests if fits_single_run(r.printed, TEST_HIPS[r.cell.region])),
        at_majority=tuple(r for r in tests if r.accuracy <= prevalences[r.site].majority),
        pasted=pasted,
        impossible_f1={
            row: implied
            for row in sound
            if row.balanced_accuracy >= COLLAPSE_BELOW
            and abs((implied := imply_f1(row, prevalences[row.site].value)) - row.printed[2])
            > F1_TOLERANCE
        },
        misprinted=misprinted,
    )


def read_rows(paper: PaperTables) -> tuple[PaperRow, ...]:
    """Return the rows that the paper has, in the order of its tables."""
    cells = [
        Cell(region, label_type, backbone, variant)
        for variant, label_type in CLASSIFIER_TABLES
        for region in Region
        for backbone in Backbone
    ]
    printed = [
        (cell, split, _read_printed(paper, cell, split)) for cell in cells for split in Split
    ]
    return tuple(PaperRow(cell, split, row) for cell, split, row in printed if row is not None)


def fit_prevalence(rows: Iterable[PaperRow]) -> float:
    """Return the least-squares p of accuracy - spec = p (sens - spec) over the rows."""
    lean, gain = np.array(
        [(r.printed[0] - r.printed[1], r.accuracy - r.printed[1]) for r in rows]
    ).T
    return float(lean @ gain / (lean @ lean))


def bound_prevalence(rows: Iterable[PaperRow]) -> tuple[float, float]:
    """Return the lowest and highest p that every row allows under rounding; NaN where none."""
    feasible = np.ones_like(PREVALENCE_GRID, dtype=np.bool_)
    for row in rows:
        sensitivity, specificity, _, accuracy = row.printed
        implied = PREVALENCE_GRID * sensitivity + (1 - PREVALENCE_GRID) * specificity
        # Half a step for the accuracy and half for the mean of the two others.
        feasible &= np.abs(accuracy - implied) <= PRINTED_STEP + 1e-9
    found = PREVALENCE_GRID[feasible]
    return (float(found[0]), float(found[-1])) if found.size else (float("nan"), float("nan"))


def imply_f1(row: PaperRow, prevalence: float) -> float:
    """Return the F1 of one run with the row's sensitivity and specificity."""
    hits = prevalence * row.printed[0]
    alarms = (1 - prevalence) * (1 - row.printed[1])
    return 2 * hits / (hits + prevalence + alarms)


def _read_printed(paper: PaperTables, cell: Cell, split: Split) -> Printed | None:
    values = [paper.get_metric(cell, split, metric) for metric in PAPER_METRICS]
    found = [value for value in values if value is not None]
    return (found[0], found[1], found[2], found[3]) if len(found) == len(values) else None


def _imply_prevalences(tests: Sequence[PaperRow]) -> dict[Site, Prevalence]:
    sites: dict[Site, list[PaperRow]] = {}
    for row in tests:
        sites.setdefault(row.site, []).append(row)
    return {
        site: Prevalence(fit_prevalence(rows), *bound_prevalence(rows), len(rows))
        for site, rows in sites.items()
    }


def _find_pasted(tests: Sequence[PaperRow]) -> dict[PaperRow, PaperRow]:
    """Find rows of two regions that agree in all four numbers; the odd one is the pasted one.

    Only test rows: training rows near 1.00 agree by nature.
    """
    twins = [
        (row, other)
        for row in tests
        for other in tests
        if row.printed == other.printed
        and (row.table, row.cell.label_type, row.cell.backbone)
        == (other.table, other.cell.label_type, other.cell.backbone)
        and row.cell.region is not other.cell.region
    ]
    doubtful = {row for row, _ in twins}
    others = _imply_prevalences([row for row in tests if row not in doubtful])
    return {row: other for row, other in twins if _stray(row, others) > _stray(other, others)}


def _stray(row: PaperRow, prevalences: Mapping[Site, Prevalence]) -> float:
    return abs(fit_prevalence([row]) - prevalences[row.site].value)


def _is_misprinted(row: PaperRow, prevalences: Mapping[Site, Prevalence]) -> bool:
    # Augmented training sets were balanced: they have a share of their own.
    if row.split is Split.TEST or row.cell.variant is not Variant.ORIGINAL:
        return False
    low, high = row.prevalences
    expected = prevalences[row.site].value
    return bool(low > expected + PREVALENCE_TOLERANCE or high < expected - PREVALENCE_TOLERANCE)


def _note_pasted(row: PaperRow, source: PaperRow) -> str:
    return (
        f"Table {row.table}: equals the {source.cell.region.display_name.lower()} row of the same "
        "network in all four numbers, with that region's share of abnormal hips: probably pasted."
    )


def _note_f1(row: PaperRow, implied: float) -> str:
    sensitivity, specificity, f1, accuracy = row.printed
    return (
        f"Table {row.table}: an F1 of {f1:.2f} is impossible beside sensitivity {sensitivity:.2f}, "
        f"specificity {specificity:.2f} and accuracy {accuracy:.2f}, which give {implied:.2f}."
    )


def _note_misprint(row: PaperRow, prevalences: Mapping[Site, Prevalence]) -> str:
    low, high = row.prevalences
    return (
        f"Table {row.table}: implies that {low:.2f} to {high:.2f} of the training hips are "
        f"abnormal where the region's test rows imply {prevalences[row.site].value:.2f}: probably "
        "a misprint."
    )
