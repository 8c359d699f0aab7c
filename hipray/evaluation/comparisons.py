"""Rank the cells of a region and label and hold each against the baselines, ties called ties.

Two families, each at the family-wise error 1 - level: all pairs of cells of one region and label,
so that choosing the best on the same hips is paid for; and all cells of the run against one
baseline.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import numpy as np

from hipray.config.evaluation import EvaluationConfig
from hipray.evaluation.baselines import Baseline, BaselineResult
from hipray.evaluation.intervals import Interval, build_interval, widen
from hipray.evaluation.paired import Contestant, Difference, PairedAurocs
from hipray.evaluation.results import CellResult
from hipray.evaluation.simultaneous import adjust_step_down, adjust_two_sided
from hipray.evaluation.statistics import Metric
from hipray.vocab import Cell, LabelType, Region

MUST_BEAT = (Baseline.AGE_SEX, Baseline.MAJORITY)
"""What a cell must beat, age and sex where they are known. Both, since fitted on labels without
signal age and sex can fall below the constant .5; asking one cell for both costs no further
correction (Berger 1982)."""

Pair = tuple[Cell, Cell]
KeyT = TypeVar("KeyT")


@dataclass(frozen=True)
class Gain:
    """An AUROC difference with its p, adjusted over its family; None for too few hips."""

    interval: Interval
    p: float | None


@dataclass(frozen=True)
class Comparison:
    """A cell's AUROC beside its region and label's best cell and beside the baselines."""

    rank: int  # 1 is the highest AUROC of the region and label
    behind_best: Gain | None  # best - this; None for the best itself and without a common hip
    over: Mapping[Baseline, Gain]  # this - baseline
    alpha: float  # family-wise error

    @property
    def tied_with_best(self) -> bool:
        """Whether the best cannot be told apart from this cell."""
        return self.behind_best is not None and not self._is_beyond(self.behind_best)

    @property
    def knows_people(self) -> bool:
        """Whether age and sex are known well enough to be a baseline."""
        return Baseline.AGE_SEX in self.over

    @property
    def tested(self) -> bool:
        """Whether there are enough patients to hold this cell against what it must beat."""
        return bool(self._rivals) and all(gain.p is not None for gain in self._rivals)

    @property
    def beats_baseline(self) -> bool:
        """Whether it is better than age and sex, and than a constant, after correction."""
        return bool(self._rivals) and all(map(self._is_beyond, self._rivals))

    @property
    def _rivals(self) -> tuple[Gain, ...]:
        return tuple(self.over[baseline] for baseline in MUST_BEAT if baseline in self.over)

    def _is_beyond(self, gain: Gain) -> bool:
        return gain.p is not None and gain.p <= self.alpha and gain.interval.value > 0


def compare_cells(
    results: Sequence[CellResult], baselines: Sequence[BaselineResult], config: EvaluationConfig
) -> dict[Cell, Comparison]:
    """Compare each cell with the best of its region and label and with every baseline, by AUROC."""
    if not results:
        return {}
    cells = {result.cell: Contestant(result.cell.name, result.hips) for result in results}
    rivals = {
        (b.region, b.label_type, b.baseline): Contestant(_name_baseline(b), b.hips)
        for b in baselines
    }
    paired = PairedAurocs([*cells.values(), *rivals.values()], config)
    orders = _rank_groups(results)
    behind = {
        cell: gain
        for order in orders
        for cell, gain in _measure_gaps(order, cells, paired, config).items()
    }
    over = {b: _measure_gains(b, cells, rivals, paired, config) for b in Baseline}
    return {
        cell: Comparison(
            rank=rank,
            behind_best=behind.get(cell),
            over={b: gains[cell] for b, gains in over.items() if cell in gains},
            alpha=1 - config.level,
        )
        for order in orders
        for rank, cell in enumerate(order, start=1)
    }


def _name_baseline(result: BaselineResult) -> str:
    return f"{result.baseline}-{result.region}-{result.label_type}"


def _rank_groups(results: Sequence[CellResult]) -> list[list[Cell]]:
    """Return the cells of each region and label, the highest AUROC first, undefined last."""
    groups: dict[tuple[Region, LabelType], list[CellResult]] = {}
    for result in results:
        groups.setdefault((result.cell.region, result.cell.label_type), []).append(result)
    return [[r.cell for r in sorted(group, key=_order_by_auroc)] for group in groups.values()]


def _order_by_auroc(result: CellResult) -> tuple[float, str]:
    value = result.pooled[Metric.AUROC].value
    return (-value if np.isfinite(value) else 1.0), result.cell.name


def _measure_gaps(
    order: Sequence[Cell],
    cells: Mapping[Cell, Contestant],
    paired: PairedAurocs,
    config: EvaluationConfig,
) -> dict[Cell, Gain]:
    """Return best - cell for all but the best; p adjusted over all pairs of the group."""
    pairs: dict[Pair, Difference] = {
        (first, second): difference
        for first, second in combinations(order, 2)
        if (difference := paired.compare(cells[first], cells[second])) is not None
    }
    p = _adjust(pairs, config, two_sided=True)
    return {
        second: Gain(_bound(difference, config), p.get((first, second)))
        for (first, second), difference in pairs.items()
        if first == order[0]
    }


def _measure_gains(
    baseline: Baseline,
    cells: Mapping[Cell, Contestant],
    rivals: Mapping[tuple[Region, LabelType, Baseline], Contestant],
    paired: PairedAurocs,
    config: EvaluationConfig,
) -> dict[Cell, Gain]:
    """Return cell - baseline for every cell of the run; p adjusted over all of them."""
    differences: dict[Cell, Difference] = {}
    for cell, contestant in cells.items():
        rival = rivals.get((cell.region, cell.label_type, baseline))
        difference = None if rival is None else paired.compare(contestant, rival)
        if difference is not None:
            differences[cell] = difference
    p = _adjust(differences, config, two_sided=False)
    return {cell: Gain(_bound(d, config), p.get(cell)) for cell, d in differences.items()}


def _adjust(
    differences: Mapping[KeyT, Difference], config: EvaluationConfig, *, two_sided: bool
) -> dict[KeyT, float]:
    tested = {key: difference for key, difference in differences.items() if difference.testable}
    if not tested:
        return {}
    values = np.array([difference.value for difference in tested.values()])
    drawn = np.stack([widen(d.value, d.drawn, config) for d in tested.values()], axis=1)
    p = (adjust_two_sided if two_sided else adjust_step_down)(values, drawn)
    return dict(zip(tested, p.tolist(), strict=True))


def _bound(difference: Difference, config: EvaluationConfig) -> Interval:
    return build_interval(difference.value, difference.drawn, config)
