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
from hipray.evaluation.baselines import BaselineResult
from hipray.evaluation.intervals import Interval, build_interval, widen
from hipray.evaluation.paired import Contestant, Difference, PairedAurocs, Tests, share_tests
from hipray.evaluation.results import CellResult
from hipray.evaluation.simultaneous import adjust_step_down, adjust_two_sided
from hipray.evaluation.statistics import Metric
from hipray.vocab import Baseline, Cell, LabelType, Region

MUST_BEAT = (Baseline.COVARIATES, Baseline.MAJORITY)
"""What a cell must beat, covariates where they are known. Both, since fitted on labels without
signal covariates can fall below the constant .5; asking one cell for both costs no further
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

    rank: int  # 1 is the highest AUROC of the region and label on the tests that cells share
    behind_best: Gain | None  # best - this; None for the best itself and for an unfinished cell
    over: Mapping[Baseline, Gain]  # this - baseline
    alpha: float  # family-wise error

    @property
    def tied_with_best(self) -> bool:
        """Whether the best cannot be told apart from this cell."""
        return self.behind_best is not None and not self._is_beyond(self.behind_best)

    @property
    def tested(self) -> bool:
        """Whether there are enough patients to hold this cell against what it must beat."""
        return bool(self._rivals) and all(gain.p is not None for gain in self._rivals)

    @property
    def beats_baseline(self) -> bool:
        """Whether it is better than the covariates, and than a constant, after correction."""
        return bool(self._rivals) and all(map(self._is_beyond, self._rivals))

    @property
    def _rivals(self) -> tuple[Gain, ...]:
        return tuple(self.over[baseline] for baseline in MUST_BEAT if baseline in self.over)

    def _is_beyond(self, gain: Gain) -> bool:
        return gain.p is not None and gain.p <= self.alpha and gain.interval.value > 0


def compare_cells(
    results: Sequence[CellResult], baselines: Sequence[BaselineResult], config: EvaluationConfig
) -> dict[Cell, Comparison]:
    """Compare each cell with the best of its region and label and with every baseline, by AUROC.

    Cells of a region and label are ranked on the tests that all of them have. One with fewer fits
    than the others comes after them and is not held against the best.
    """
    if not results:
        return {}
    cells = {result.cell: Contestant(result.cell.name, result.tests) for result in results}
    rivals = {
        (b.region, b.label_type, b.baseline): Contestant(_name_baseline(b), b.tests)
        for b in baselines
    }
    paired = PairedAurocs([*cells.values(), *rivals.values()], config)
    groups = [_rank_group(group, cells, paired) for group in _group_sites(results)]
    behind = {
        cell: gain
        for group in groups
        for cell, gain in _measure_gaps(group, cells, paired, config).items()
    }
    over = {b: _measure_gains(b, cells, rivals, paired, config) for b in Baseline}
    return {
        cell: Comparison(
            rank=rank,
            behind_best=behind.get(cell),
            over={b: gains[cell] for b, gains in over.items() if cell in gains},
            alpha=1 - config.level,
        )
        for group in groups
        for rank, cell in enumerate(group.order, start=1)
    }


def _name_baseline(result: BaselineResult) -> str:
    return f"{result.baseline}-{result.region}-{result.label_type}"


@dataclass(frozen=True)
class _Ranking:
    """The cells of one region and label in order."""

    order: tuple[Cell, ...]
    finished: tuple[Cell, ...]  # the first of them: those with all fits that any has
    common: Tests  # what the finished ones share


def _group_sites(results: Sequence[CellResult]) -> list[list[CellResult]]:
    groups: dict[tuple[Region, LabelType], list[CellResult]] = {}
    for result in results:
        groups.setdefault((result.cell.region, result.cell.label_type), []).append(result)
    return list(groups.values())


def _rank_group(
    group: Sequence[CellResult], cells: Mapping[Cell, Contestant], paired: PairedAurocs
) -> _Ranking:
    """Order cells by AUROC on common tests, undefined ones last, then those with fewer fits."""
    splits = {result.cell: _list_splits(result) for result in group}
    wanted = frozenset().union(*splits.values())
    finished = [cell for cell, own in splits.items() if own == wanted]
    common = share_tests([cells[cell] for cell in finished]) if finished else frozenset()
    measured = {cell: paired.measure(cells[cell], common) for cell in finished}
    rest = {r.cell: r.pooled[Metric.AUROC].value for r in group if r.cell not in measured}
    ranked = (*_sort_by_auroc(measured), *_sort_by_auroc(rest))
    return _Ranking(ranked, ranked[: len(finished)], common)


def _list_splits(result: CellResult) -> frozenset[tuple[int, int]]:
    splits = result.tests[["repeat", "fold"]].drop_duplicates()
    return frozenset(splits.itertuples(index=False, name=None))


def _sort_by_auroc(values: Mapping[Cell, float]) -> list[Cell]:
    return sorted(
        values,
        key=lambda cell: (-values[cell] if np.isfinite(values[cell]) else 1.0, cell.name),
    )


def _measure_gaps(
    group: _Ranking,
    cells: Mapping[Cell, Contestant],
    paired: PairedAurocs,
    config: EvaluationConfig,
) -> dict[Cell, Gain]:
    """Return best - cell for all finished but the best; p adjusted over all pairs of the group."""
    pairs: dict[Pair, Difference] = {
        (first, second): difference
        for first, second in combinations(group.finished, 2)
        if (difference := paired.compare(cells[first], cells[second], on=group.common)) is not None
    }
    p = _adjust(pairs, config, two_sided=True)
    return {
        second: Gain(_bound(difference, config), p.get((first, second)))
        for (first, second), difference in pairs.items()
        if first == group.order[0]
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
    # Twice a one-sided p, since it stands beside a two-sided interval and must agree with it.
    p = (
        adjust_two_sided(values, drawn)
        if two_sided
        else np.minimum(1.0, 2 * adjust_step_down(values, drawn))
    )
    return dict(zip(tested, p.tolist(), strict=True))


def _bound(difference: Difference, config: EvaluationConfig) -> Interval:
    return build_interval(difference.value, difference.drawn, config)
