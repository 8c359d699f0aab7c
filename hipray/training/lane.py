"""A lane: claims fits from the ledger one after another until none is left.

Any number of lanes drain one plan, on any machines; they meet only in the store.
"""

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto

from hipray.errors import (
    AccessDeniedError,
    ConfigError,
    DataError,
    HiprayError,
    StoreFullError,
    StoreUnavailableError,
)
from hipray.runtime.devices import is_device_error
from hipray.storage import Lease
from hipray.training.context import EpochReport, FitContext
from hipray.training.crew import END, WAIT
from hipray.training.device_errors import (
    CrewLostError,
    DeviceLostError,
    FitMemoryError,
    run_sparing_memory,
)
from hipray.training.fit_files import MASKS_FILE, FitFiles
from hipray.training.fits import run_classifier_fit, run_segmenter_fit
from hipray.training.inputs import FitInputs
from hipray.training.lane_notes import LaneNotes
from hipray.training.ledger import Ledger, Snapshot
from hipray.training.plan import PlannedFit
from hipray.training.watchdog import backstop, watch
from hipray.vocab import SegmenterFit

MAX_FAILURES_IN_A_ROW = 3
"""Different fits that raised, one after another, after which a lane takes its machine to be at
fault and stops. Fits whose data or settings are at fault say nothing about the machine."""
LONGEST_POLL_S = 10.0
"""Most seconds between two looks of a lane that finds nothing to claim."""
MAX_DEATHS = 5
"""Lanes that may die on one fit, in one submission, before it counts as failed: a fit that kills
its process (memory, a crash in native code) must not take every lane with it."""
HANG_EXIT_CODE = 75
"""EX_TEMPFAIL: the process is at fault, not the work it has left."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LaneSettings:
    """How one lane behaves."""

    name: str
    poll_s: float = 1.0
    """Pause before looking again when every open fit is another lane's."""
    checkpoint_s: float = 0.0
    """Seconds of training that a killed fit may lose beside the epoch it was in."""
    fit_timeout_s: float | None = None
    hang_grace_s: float = 60.0
    """Seconds past the time limit in which the training loop should notice it by itself."""
    idle_s: float | None = None
    """Seconds without a fit to claim after which the lane ends; None stays to the end."""
    gpus: float = 0.0
    """The lane's part of a GPU, for messages."""
    end_process: Callable[[int], None] | None = None
    """Ends the lane's process at once, from any thread; None never does, and a hang hangs."""


class Ending(Enum):
    """How a claimed fit ended in this lane."""

    DONE = auto()
    REFUSED = auto()  # its data or settings are at fault: no machine would finish it
    FAILED = auto()
    TAKEN = auto()  # this lane was thought dead: another one does it now


class FitTakenError(HiprayError):
    """Another lane took the fit over while this one still worked on it."""


@dataclass(frozen=True)
class LaneReport:
    """What one lane did."""

    name: str
    done: int
    failed: int
    stopped_early: bool


@dataclass(frozen=True)
class _Lane:
    """What a lane works with."""

    ledger: Ledger
    inputs: FitInputs
    settings: LaneSettings
    context: FitContext
    on_epoch: Callable[[str, EpochReport], None] | None
    on_commit: Callable[[PlannedFit, FitFiles], None] | None
    notes: LaneNotes | None


def drain(
    plan: Sequence[PlannedFit],
    ledger: Ledger,
    inputs: FitInputs,
    *,
    settings: LaneSettings,
    context: FitContext,
    on_epoch: Callable[[str, EpochReport], None] | None = None,
    on_commit: Callable[[PlannedFit, FitFiles], None] | None = None,
    notes: LaneNotes | None = None,
) -> LaneReport:
    """Run open fits of `plan` until none is left; return what this lane did.

    A fit that raises is written down and does not stop the others. Raises DeviceLostError where
    the GPU can no longer be used by this process, and a StorageError where the store is lost.
    """
    lane = _Lane(ledger, inputs, settings, context, on_epoch, on_commit, notes)
    hears = True
    try:
        return _drain(plan, lane)
    except DeviceLostError:
        hears = False  # the crew is in the middle of a fit
        raise
    finally:
        if hears:
            context.crew.call(END)


def follow(
    plan: Sequence[PlannedFit], ledger: Ledger, inputs: FitInputs, context: FitContext
) -> None:
    """Train the fits that the crew's leader calls, until it calls the end.

    The leader alone claims, saves and commits. What is wrong with a fit's data is wrong in every
    process of the crew alike, and the leader writes it down. Raises CrewLostError for anything
    else: the others wait for this process in the middle of a step.
    """
    while (place := context.crew.hear()) != END:
        if place == WAIT:
            continue
        planned = plan[place]
        own = replace(context, checkpoints=ledger.checkpoints(planned))
        try:
            run_fit(planned, ledger, inputs, own)
        except (DataError, ConfigError):
            continue
        except DeviceLostError:
            raise
        except Exception as error:
            raise CrewLostError.of(error) from error


def _drain(plan: Sequence[PlannedFit], lane: _Lane) -> LaneReport:
    ledger, settings = lane.ledger, lane.settings
    places = {planned.digest: place for place, planned in enumerate(plan)}
    done = failed = 0
    in_a_row: set[str] = set()
    idle_since: float | None = None
    while len(in_a_row) < MAX_FAILURES_IN_A_ROW:
        snapshot = ledger.snapshot()
        open_fits = [p for p in plan if p.digest not in snapshot.done | snapshot.failed]
        if not open_fits or _has_idled(idle_since, settings.idle_s):
            return LaneReport(settings.name, done, failed, stopped_early=False)
        claimed = _claim_next(open_fits, lane, snapshot)
        if claimed is None:
            idle_since = idle_since or time.monotonic()
            _wait(lane, idle_s=time.monotonic() - idle_since)
            continue
        with claimed[1]:
            ending = _lead(*claimed, lane, place=places[claimed[0].digest])
        idle_since = None
        done += ending is Ending.DONE
        failed += ending in (Ending.REFUSED, Ending.FAILED)
        in_a_row = in_a_row | {claimed[0].digest} if ending is Ending.FAILED else set()
    logger.error("lane %s stops: %d fits failed in a row", settings.name, len(in_a_row))
    return LaneReport(settings.name, done, failed, stopped_early=True)


def run_fit(
    planned: PlannedFit, ledger: Ledger, inputs: FitInputs, context: FitContext
) -> FitFiles:
    """Run one fit whose needs are done and return its files, uncommitted."""
    if isinstance(planned.fit, SegmenterFit):
        return run_segmenter_fit(planned.fit, inputs, context)
    masks = ledger.read_by_fold(planned.needs, MASKS_FILE)
    assert masks is not None, "a fit is claimed only when its needs are done"
    return run_classifier_fit(planned.fit, inputs, context, masks=masks)


def _has_idled(since: float | None, limit_s: float | None) -> bool:
    return since is not None and limit_s is not None and time.monotonic() - since >= limit_s


def _wait(lane: _Lane, *, idle_s: float) -> None:
    """Pause, the longer the longer nothing was found: each look lists the ledger."""
    lane.context.crew.call(WAIT)
    if lane.notes is not None:
        lane.notes.wait()
    time.sleep(max(lane.settings.poll_s, min(LONGEST_POLL_S, idle_s / 10)))


def _claim_next(
    open_fits: Sequence[PlannedFit], lane: _Lane, snapshot: Snapshot
) -> tuple[PlannedFit, Lease] | None:
    for planned in open_fits:
        if snapshot.failed & set(planned.needs):
            lane.ledger.record_failure(
                planned, error="a segmenter it needs failed", traceback="", final=True
            )
        elif set(planned.needs) <= snapshot.done:
            lease = lane.ledger.claim(planned, lane.settings.name)
            if lease is None or _is_deadly(planned, lease, lane):
                continue
            if lane.ledger.read_done(planned.digest) is None:
                return planned, lease
            lease.release()  # finished between the snapshot and the claim
    return None


def _is_deadly(planned: PlannedFit, lease: Lease, lane: _Lane) -> bool:
    """Fail a fit on which too many lanes died, instead of dying too."""
    if lease.attempt <= MAX_DEATHS:
        return False
    deaths = lane.ledger.count_deaths(planned, lease.attempt)
    if deaths < MAX_DEATHS:
        return False
    error = (
        f"{deaths} lanes died while they worked on it: too little memory, or a crash in native "
        "code; see the logs of the workers, or give a lane more memory"
    )
    lane.ledger.record_failure(planned, error=error, traceback="", final=True)
    lease.release()
    return True


def _lead(planned: PlannedFit, lease: Lease, lane: _Lane, *, place: int) -> Ending:
    """Call the crew to a fit and run it; whatever then raises leaves the crew in its middle."""
    crew = lane.context.crew
    crew.call(place)
    try:
        return _try_fit(planned, lease, lane)
    except DeviceLostError:
        raise
    except Exception as error:
        if crew.size > 1:
            raise CrewLostError.of(error) from error
        raise


def _try_fit(planned: PlannedFit, lease: Lease, lane: _Lane) -> Ending:
    """Run and commit one fit; what it raises is in the ledger then, unless the store did."""
    if lane.notes is not None:
        lane.notes.begin(planned.name)
    try:
        with _guard(planned, lease, lane):
            _run_and_commit(planned, lease, lane)
    except (StoreUnavailableError, StoreFullError, AccessDeniedError):
        raise  # no fault of this fit: the next one would meet it too
    except (DataError, ConfigError, FitMemoryError) as error:
        _record(planned, error, lane, final=True)
        return Ending.REFUSED
    except FitTakenError as error:
        if lane.context.crew.size > 1:
            raise
        logger.warning("%s: %s", planned.name, error)
        return Ending.TAKEN
    except Exception as error:
        _record(planned, error, lane, final=False)
        if is_device_error(error):
            raise DeviceLostError.of(error) from error
        if lane.context.crew.size > 1:
            raise
        return Ending.FAILED
    return Ending.DONE


@contextmanager
def _guard(planned: PlannedFit, lease: Lease, lane: _Lane) -> Iterator[None]:
    """End the process when the fit hangs: its failure is recorded and its lease released first."""
    end_process, limit = lane.settings.end_process, lane.settings.fit_timeout_s
    if end_process is None or limit is None:
        yield
        return

    def give_up(stack: str) -> None:
        error = (
            f"it hung: no step ended within {limit:g} s (scaling.fit_timeout_s) and "
            f"{lane.settings.hang_grace_s:g} s of grace; its lane was started again"
        )
        logger.error("%s: %s", planned.name, error)
        try:
            lane.ledger.record_failure(planned, error=error, traceback=stack, final=False)
            lease.release()
        finally:
            end_process(HANG_EXIT_CODE)

    hung_s = limit + lane.settings.hang_grace_s
    with backstop(hung_s), watch(hung_s, give_up):
        yield


def _run_and_commit(planned: PlannedFit, lease: Lease, lane: _Lane) -> None:
    started = time.monotonic()
    limit = lane.settings.fit_timeout_s
    context = replace(
        lane.context,
        checkpoints=lane.ledger.checkpoints(planned),
        checkpoint_s=lane.settings.checkpoint_s,
        deadline=started + limit if limit else None,
        report=lambda report: _report(planned, report, lease, lane),
    )

    def run() -> FitFiles:
        return run_fit(planned, lane.ledger, lane.inputs, context)

    if context.crew.size > 1:
        result = run()  # one of a crew cannot try again alone
    else:
        result = run_sparing_memory(
            run, experiment=lane.inputs.experiment, fit=planned.fit, gpus=lane.settings.gpus
        )
    first = lane.ledger.commit(
        planned,
        result.files,
        summary=result.summary,
        seconds=round(time.monotonic() - started, 3),
        attempt=lease.attempt,
        lane=lane.settings.name,
    )
    if first and lane.on_commit is not None:
        lane.on_commit(planned, result)


def _report(planned: PlannedFit, report: EpochReport, lease: Lease, lane: _Lane) -> None:
    if lease.taken:
        raise FitTakenError(
            "a live lease on the fit", "another lane's", "see why this lane was not heard for long"
        )
    if lane.notes is not None:
        lane.notes.report(report.epoch, report.epochs)
    if lane.on_epoch is not None:
        lane.on_epoch(planned.name, report)
    else:
        lane.context.report(report)


def _record(planned: PlannedFit, error: Exception, lane: _Lane, *, final: bool) -> None:
    lane.ledger.record_failure(
        planned, error=str(error) or type(error).__name__,
        traceback=traceback.format_exc(), final=final,
    )  # fmt: skip
    logger.warning("%s failed: %s", planned.name, error)
