"""What a fit costs besides training: claim, load, checkpoint, score, commit.

One lane drains plans of one trivial fit each: a tiny network, one epoch. From the time of each
drain the training is taken off: the steps and the inner validation of its epoch, without the
checkpoint. The rest is the fixed cost, on local disk; a store far away adds its own round trips.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

from hipray.benchmarks.lanes import build_bench_grid, count_lane_threads
from hipray.benchmarks.machine import use_threads
from hipray.benchmarks.measure import Measure, hold_below
from hipray.config.benchmarks import GridBench
from hipray.config.jobs import GridRun
from hipray.errors import FitsFailedError
from hipray.storage import Lease, Store
from hipray.training.checkpoints import Checkpoint, CheckpointStore
from hipray.training.context import FitContext
from hipray.training.lane import LaneSettings, drain
from hipray.training.ledger import Ledger, Snapshot
from hipray.training.plan import PlannedFit
from hipray.training.preparation import Preparation, prepare
from hipray.vocab import Variant

OVERHEAD_LIMIT_S = 0.5
WARM_UP_FITS = 1
"""The first fit also pays for what a process imports and builds once."""

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Stopwatch:
    """Seconds by what they were spent on."""

    seconds: Counter[str] = field(default_factory=Counter)

    def time(self, part: str, call: Callable[[], ResultT]) -> ResultT:
        """Call and add the time it takes to `part`."""
        started = time.perf_counter()
        try:
            return call()
        finally:
            self.seconds[part] += time.perf_counter() - started  # type: ignore[assignment]


class TimedCheckpoints(CheckpointStore):
    """Checkpoints whose writing is timed."""

    def __init__(self, store: Store, watch: Stopwatch) -> None:
        super().__init__(store)
        self._watch = watch

    def save(self, checkpoint: Checkpoint) -> None:
        """Save and time it."""
        self._watch.time("checkpoint", lambda: super(TimedCheckpoints, self).save(checkpoint))


class TimedLedger(Ledger):
    """A ledger that times what a lane asks of it."""

    def __init__(self, store: Store, watch: Stopwatch) -> None:
        super().__init__(store, submission="bench")
        self._watch = watch

    def snapshot(self) -> Snapshot:
        """Look and time it."""
        return self._watch.time("look", super().snapshot)

    def claim(self, planned: PlannedFit, lane: str) -> Lease | None:
        """Claim and time it."""
        return self._watch.time("claim", lambda: super(TimedLedger, self).claim(planned, lane))

    def checkpoints(self, planned: PlannedFit) -> CheckpointStore:
        """Return checkpoints that are timed too."""
        return TimedCheckpoints(self._store.child(f"work/{planned.digest}/checkpoints"),
                                self._watch)  # fmt: skip

    def commit(self, planned: PlannedFit, files: dict[str, bytes], **facts: Any) -> bool:
        """Commit and time it."""
        return self._watch.time(
            "commit", lambda: super(TimedLedger, self).commit(planned, files, **facts)
        )


@dataclass(frozen=True)
class FixedCost:
    """What one fit cost besides its training."""

    seconds: float
    parts: dict[str, float]
    """The same by what it was spent on; `other` is loading, building and scoring."""


def measure_overhead(store: Store, bench: GridBench) -> Measure:
    """Return the seconds that a fit costs besides its training, held against half a second."""
    preparation = prepare(store, build_trivial_grid(store, bench))
    fits = preparation.plan[: bench.trivial_fits + WARM_UP_FITS]
    with use_threads(count_lane_threads(bench)):
        costs = [_drain_one(store, preparation, planned) for planned in fits]
    costs = costs[WARM_UP_FITS:] or costs
    return hold_below(
        "fit_overhead",
        [cost.seconds for cost in costs],
        unit="s",
        limit=OVERHEAD_LIMIT_S,
        backbone=bench.trivial_backbone,
        parts=_median_parts(costs),
    )


def build_trivial_grid(store: Store, bench: GridBench) -> GridRun:
    """Return a grid of fits that hardly train: the region that the split is stratified by."""
    grid = build_bench_grid(store, bench)
    classifier = grid.experiment.classifier.model_copy(
        update={"size_px": bench.trivial_size_px, "epochs": 1, "patience": 1}
    )
    return grid.model_copy(
        update={
            "run": "bench-trivial",
            "regions": (grid.experiment.split.stratify_region,),
            "backbones": (bench.trivial_backbone,),
            "variants": (Variant.ORIGINAL, Variant.AUGMENTED),
            "test_folds": None,
            "experiment": grid.experiment.model_copy(update={"classifier": classifier}),
        }
    )


def _drain_one(store: Store, preparation: Preparation, planned: PlannedFit) -> FixedCost:
    watch = Stopwatch()
    epochs: list[float] = []
    started = time.perf_counter()
    ledger = TimedLedger(store, watch)
    report = drain(
        [planned], ledger, preparation.inputs,
        settings=LaneSettings("bench"), context=FitContext(),
        on_epoch=lambda _, report: epochs.append(report.seconds),
    )  # fmt: skip
    total = time.perf_counter() - started
    if not report.done:
        raise FitsFailedError(
            f"the trivial fit {planned.name} to be done",
            ledger.read_failures(planned.digest)[-1].error,
            "measure on a larger archive or with other settings",
        )
    parts = {name: float(seconds) for name, seconds in watch.seconds.items()}
    cost = total - (sum(epochs) - parts["checkpoint"])
    return FixedCost(cost, parts | {"other": cost - sum(parts.values())})


def _median_parts(costs: Sequence[FixedCost]) -> dict[str, float]:
    return {part: median(cost.parts[part] for cost in costs) for part in costs[0].parts}
