"""A lane: claims fits from the ledger one after another until none is left.

Any number of lanes drain one plan, on any machines; they meet only in the store.
"""

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hipray.errors import (
    AccessDeniedError,
    ConfigError,
    DataError,
    StoreFullError,
    StoreUnavailableError,
)
from hipray.storage import Lease
from hipray.training.context import EpochReport, FitContext
from hipray.training.fits import (
    MASKS_FILE,
    FitFiles,
    FitInputs,
    run_classifier_fit,
    run_segmenter_fit,
)
from hipray.training.ledger import Ledger, Snapshot
from hipray.training.plan import PlannedFit
from hipray.vocab import SegmenterFit

MAX_FAILURES_IN_A_ROW = 3
"""Failed fits after which a lane takes its machine to be at fault and stops."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LaneSettings:
    """How one lane behaves."""

    name: str
    poll_s: float = 1.0
    """Pause before looking again when every open fit is another lane's."""
    fit_timeout_s: float | None = None


@dataclass(frozen=True)
class LaneReport:
    """What one lane did."""

    name: str
    done: int
    failed: int
    stopped_early: bool


def drain(
    plan: Sequence[PlannedFit],
    ledger: Ledger,
    inputs: FitInputs,
    *,
    settings: LaneSettings,
    context: FitContext,
    on_epoch: Callable[[str, EpochReport], None] | None = None,
) -> LaneReport:
    """Run open fits of `plan` until none is left; return what this lane did.

    A fit that raises is written down and does not stop the others.
    """
    done = failed = in_a_row = 0
    while in_a_row < MAX_FAILURES_IN_A_ROW:
        snapshot = ledger.snapshot()
        open_fits = [p for p in plan if p.digest not in snapshot.done | snapshot.failed]
        if not open_fits:
            return LaneReport(settings.name, done, failed, stopped_early=False)
        claimed = _claim_next(open_fits, ledger, snapshot, settings.name)
        if claimed is None:
            time.sleep(settings.poll_s)
            continue
        planned, lease = claimed
        with lease:
            finished = _try_fit(planned, lease, ledger, inputs, settings, context, on_epoch)
        done, failed = done + finished, failed + (not finished)
        in_a_row = 0 if finished else in_a_row + 1
    logger.error("lane %s stops: %d fits failed in a row", settings.name, in_a_row)
    return LaneReport(settings.name, done, failed, stopped_early=True)


def run_fit(
    planned: PlannedFit, ledger: Ledger, inputs: FitInputs, context: FitContext
) -> FitFiles:
    """Run one fit whose needs are done and return its files, uncommitted."""
    if isinstance(planned.fit, SegmenterFit):
        return run_segmenter_fit(planned.fit, inputs, context)
    masks: dict[int, list[bytes]] = {}
    for digest in planned.needs:
        needed = ledger.read_done(digest)
        assert needed is not None, "a fit is claimed only when its needs are done"
        masks.setdefault(needed.fit["fold"], []).append(ledger.read_file(needed, MASKS_FILE))
    return run_classifier_fit(planned.fit, inputs, context, masks=masks)


def _claim_next(
    open_fits: Sequence[PlannedFit], ledger: Ledger, snapshot: Snapshot, lane: str
) -> tuple[PlannedFit, Lease] | None:
    for planned in open_fits:
        if snapshot.failed & set(planned.needs):
            ledger.record_failure(
                planned, error="a segmenter it needs failed", traceback="", final=True
            )
        elif set(planned.needs) <= snapshot.done:
            lease = ledger.claim(planned, lane)
            if lease is not None:
                return planned, lease
    return None


def _try_fit(
    planned: PlannedFit,
    lease: Lease,
    ledger: Ledger,
    inputs: FitInputs,
    settings: LaneSettings,
    context: FitContext,
    on_epoch: Callable[[str, EpochReport], None] | None,
) -> bool:
    """Run and commit one fit; False where it raised, which is then in the ledger."""
    if ledger.read_done(planned.digest) is not None:  # committed between snapshot and claim
        return True
    started = time.monotonic()
    own = replace(
        context,
        checkpoints=ledger.checkpoints(planned),
        deadline=started + settings.fit_timeout_s if settings.fit_timeout_s else None,
        report=(lambda report: on_epoch(planned.name, report)) if on_epoch else context.report,
    )
    try:
        result = run_fit(planned, ledger, inputs, own)
        ledger.commit(
            planned,
            result.files,
            summary=result.summary,
            seconds=round(time.monotonic() - started, 3),
            attempt=lease.attempt,
            lane=settings.name,
        )
    except (StoreUnavailableError, StoreFullError, AccessDeniedError):
        raise  # no fault of this fit: the next one would meet it too
    except Exception as error:
        final = isinstance(error, (DataError, ConfigError))
        ledger.record_failure(
            planned, error=str(error) or type(error).__name__,
            traceback=traceback.format_exc(), final=final,
        )  # fmt: skip
        logger.warning("%s failed: %s", planned.name, error)
        return False
    return True
