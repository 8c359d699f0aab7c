"""Say in a few sentences what the results are worth, before any table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from hipray.evaluation.baselines import name_covariates
from hipray.evaluation.comparisons import Comparison
from hipray.evaluation.intervals import MIN_PER_CLASS
from hipray.evaluation.results import CellResult
from hipray.evaluation.statistics import Metric
from hipray.vocab import Cell, Covariate, LabelType, Region


@dataclass(frozen=True)
class BestCell:
    """The best cell of a region and label with the cells that cannot be told apart from it."""

    result: CellResult
    ties: tuple[Cell, ...]
    n_rivals: int
    n_compared: int
    """Rivals that were tested on some of its hips."""


@dataclass(frozen=True)
class Worth:
    """Counts over all cells of the run, and the best of each region and label."""

    n_cells: int
    n_planned: int
    n_fits: int
    n_hips: int
    n_patients: int
    n_tested: int  # cells with enough hips for a test
    n_beating: int  # of these, better than the covariates and than a constant after correction
    known: tuple[Covariate, ...]  # what the covariates baseline is made of
    alpha: float  # family-wise error
    best: tuple[BestCell, ...]

    @property
    def verdict(self) -> str:
        """Whether anything beats the baseline, in plain words."""
        untested = self.n_cells - self.n_tested
        rest = (
            f" {untested} cells have fewer than {MIN_PER_CLASS} patients of a class and were not "
            "tested."
            if untested
            else ""
        )
        family = f"after correction for {self.n_tested} comparisons (family error {self.alpha:.0%})"
        people = name_covariates(self.known) if self.known else ""
        rivals = f"{people} and than a constant" if people else "a constant"
        rest += self._describe_unknown()
        if not self.n_tested:
            return "Nothing here is shown to beat the baseline." + rest
        if not self.n_beating:
            return (
                f"Nothing here beats the baseline: {family}, none of {self.n_tested} tested cells "
                f"could be shown to have a higher AUROC than {rivals}." + rest
            )
        return (
            f"{self.n_beating} of {self.n_cells} cells beat {rivals.replace(' and than', ' and')} "
            f"by AUROC {family}.{rest}"
        )

    def _describe_unknown(self) -> str:
        unknown = " and ".join(c for c in (Covariate.AGE, Covariate.SEX) if c not in self.known)
        if not unknown:
            return ""
        verb = "are" if " and " in unknown else "is"
        return f" {unknown.capitalize()} {verb} not known well enough to be a baseline."


def assess_worth(
    cells: Sequence[CellResult],
    comparisons: Mapping[Cell, Comparison],
    *,
    planned: int,
    level: float,
    known: tuple[Covariate, ...],
) -> Worth:
    """Count what was tested and what beats the baseline, and name the best with its ties."""
    hips = pd.concat([c.hips[["hip_id", "patient_id"]] for c in cells]) if cells else None
    return Worth(
        n_cells=len(cells),
        n_planned=max(planned, len(cells)),
        n_fits=sum(c.n_fits for c in cells),
        n_hips=0 if hips is None else hips["hip_id"].nunique(),
        n_patients=0 if hips is None else hips["patient_id"].nunique(),
        n_tested=sum(comparisons[c.cell].tested for c in cells),
        n_beating=sum(comparisons[c.cell].beats_baseline for c in cells),
        known=known,
        alpha=1 - level,
        best=tuple(_name_best(c, cells, comparisons) for c in _find_best(cells, comparisons)),
    )


def find_best_cell(cells: Sequence[CellResult]) -> CellResult | None:
    """Return the cell with the highest AUROC of all, or None where none is defined."""
    defined = [c for c in cells if c.pooled[Metric.AUROC].value == c.pooled[Metric.AUROC].value]
    return max(defined, key=lambda c: c.pooled[Metric.AUROC].value, default=None)


def _find_best(
    cells: Sequence[CellResult], comparisons: Mapping[Cell, Comparison]
) -> list[CellResult]:
    best = [c for c in cells if comparisons[c.cell].rank == 1]
    labels, regions = list(LabelType), list(Region)
    return sorted(
        best, key=lambda c: (labels.index(c.cell.label_type), regions.index(c.cell.region))
    )


def _name_best(
    best: CellResult, cells: Sequence[CellResult], comparisons: Mapping[Cell, Comparison]
) -> BestCell:
    site = best.cell.region, best.cell.label_type
    rivals = [
        c.cell for c in cells if (c.cell.region, c.cell.label_type) == site and c.cell != best.cell
    ]
    ties = tuple(cell for cell in rivals if comparisons[cell].tied_with_best)
    compared = [cell for cell in rivals if comparisons[cell].behind_best is not None]
    return BestCell(best, ties, len(rivals), len(compared))
