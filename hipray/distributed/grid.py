"""The grid on Ray Train: a plan of fits drained by lanes, each lane a Train run of one worker.

Lanes meet only in the ledger: any of them, or the driver, may die at any moment.
"""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hipray.config.jobs import GridRun
from hipray.distributed.lanes import open_ledger, open_workspace
from hipray.distributed.supervision import Supervisor
from hipray.errors import FitsFailedError
from hipray.storage import Store, check_store
from hipray.training.costs import count_films
from hipray.training.driver import hold_run
from hipray.training.ledger import Ledger, Snapshot
from hipray.training.plan import PlannedFit, order_fits
from hipray.training.preparation import (
    Preparation,
    check_divisions,
    describe_run,
    prepare,
    refuse_idle_settings,
)
from hipray.training.run_plan import write_run_plan
from hipray.training.starts import try_starts


@dataclass(frozen=True)
class GridResult:
    """How a submission of a grid ended."""

    run: str
    fits: int
    """Fits of the run, all of them done."""
    trained_now: int
    seconds: float


def run_grid(config: GridRun) -> GridResult:
    """Train all open fits of the grid; finished fits are never trained again.

    Raises RunBusyError where another driver works on the run or took it over, FitsFailedError
    naming the fits that failed after all others were finished, ConfigError before anything is
    trained where the largest fit does not fit into a lane's part of a GPU or start weights do not
    fit a network.
    """
    store = open_workspace(config)
    # a worker's working directory may be another: lanes get the full address
    config = config.model_copy(update={"workspace": store.uri})
    ttl_s = config.scaling.lease_s
    with hold_run(store, config.run, ttl_s=ttl_s, owner_note="hipray grid") as lease:
        started = time.monotonic()
        preparation = _prepare(store, config)
        submission = uuid.uuid4().hex[:8]
        ledger = open_ledger(store, config, submission)
        before = _open_fits(preparation.plan, ledger.snapshot())
        if before:
            check_store(store)
            try_starts(store, config.experiment, before)
        write_run_plan(store, describe_run(config, preparation))
        if before:
            errors = Supervisor(config, store, submission, preparation.plan, ledger, lease).run()
            if errors and _was_left(preparation.plan, ledger.snapshot()):
                raise errors[0]
        return _conclude(config, preparation.plan, ledger, len(before), started)


def _prepare(store: Store, config: GridRun) -> Preparation:
    """The grid's plan with the films of this archive counted, so that the longest come first."""
    refuse_idle_settings(config)
    preparation = prepare(store, config)
    check_divisions(preparation.inputs, preparation.plan)
    films = count_films(preparation.inputs.manifest)
    plan = order_fits(preparation.plan, config.experiment, films)
    return replace(preparation, plan=plan)


def _open_fits(plan: Sequence[PlannedFit], snapshot: Snapshot) -> list[PlannedFit]:
    return [p for p in plan if p.digest not in snapshot.done]


def _was_left(plan: Sequence[PlannedFit], snapshot: Snapshot) -> bool:
    """Whether a fit was neither done nor failed: then what ended the lanes is the reason."""
    return any(p.digest not in snapshot.done | snapshot.failed for p in plan)


def _conclude(
    config: GridRun, plan: Sequence[PlannedFit], ledger: Ledger, before: int, started: float
) -> GridResult:
    left = _open_fits(plan, ledger.snapshot())
    if left:
        first = left[0]
        failures = ledger.read_failures(first.digest)
        why = failures[-1].error if failures else "no lane finished it"
        raise FitsFailedError(
            f"all {len(plan)} fits of run '{config.run}' done",
            f"{len(left)} not done, the first {first.name}: {why}",
            "correct the cause and submit the same job again; finished fits are kept",
        )
    seconds = round(time.monotonic() - started, 1)
    return GridResult(config.run, len(plan), before, seconds)
