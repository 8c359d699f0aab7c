"""The driver's watch over its lanes: as many as there is work and room for, no more.

Lanes end by themselves when they find nothing to claim; the watch starts them again when there
is, gives a dead lane's fit back at once, and cancels lanes that still wait for a node when no
fit is left for them.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from hipray.config.jobs import GridRun
from hipray.distributed.capacity import check_capacity, count_lanes
from hipray.distributed.cluster import connect, read_nodes
from hipray.distributed.grid_metrics import GridMetrics
from hipray.distributed.lanes import start_lane
from hipray.errors import FitsFailedError, HiprayError, all_errors
from hipray.progress import Tracker, track
from hipray.storage import Lease, LeaseInfo, Store, check_still_held
from hipray.training.lane_notes import clear_notes, read_notes
from hipray.training.ledger import Ledger, Snapshot
from hipray.training.plan import PlannedFit
from hipray.training.tally import Tally, tally_fits
from hipray.vocab import FitState

POLL_S = 1.0
"""Least seconds between two looks of the driver."""
LOOK_SHARE = 10
"""A look takes at most a tenth of the driver's time: large ledgers on S3 are looked at less."""
NODES_INTERVAL_S = 10.0
"""Seconds between two looks at the cluster's nodes."""
SHOW_S = 5.0
"""Seconds between two showings of the metrics: Ray drops what was not set for twenty."""
FAREWELL_S = 30.0
"""Seconds that lanes get to end by themselves when no fit is left."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _View:
    """What one look at the ledger shows."""

    snapshot: Snapshot
    claims: dict[str, LeaseInfo]
    tally: Tally
    unclaimed: int
    """Open fits that no live lane works on."""
    ready: int
    """Those of them that could start now."""


@dataclass
class _Fleet:
    """The lanes that were started and have not ended, and what became of the others."""

    names: dict[Any, str] = field(default_factory=dict)
    """Reference to name."""
    started: dict[str, float] = field(default_factory=dict)
    """Name to monotonic time of the start."""
    broken: int = 0
    """Lanes that ended badly; they are not replaced."""
    errors: list[HiprayError] = field(default_factory=list)


class Supervisor:
    """The lanes of one submission."""

    def __init__(
        self, config: GridRun, store: Store, submission: str, plan: Sequence[PlannedFit],
        ledger: Ledger, lease: Lease,
    ) -> None:  # fmt: skip
        self._config = config
        self._payload = config.model_dump(mode="json")
        self._store = store
        self._submission = submission
        self._plan = plan
        self._ledger = ledger
        self._lease = lease
        self._fleet = _Fleet()
        self._limit = 0
        self._limit_read = -NODES_INTERVAL_S
        self._observed: set[str] = set()

    def run(self) -> list[HiprayError]:
        """Keep lanes running until no fit is open; return what ended those that stopped badly."""
        connect()
        self._fit_bytes = check_capacity(self._config, self._plan)
        clear_notes(self._store, self._config.run)
        self._metrics = GridMetrics(self._config.run)
        self._observed = set(self._ledger.snapshot().done)
        try:
            with track(f"grid {self._config.run}", len(self._plan)) as update:
                while self._step(update):
                    pass
        except BaseException:
            self._cancel_all()  # the driver may live on, and its run is free for another one
            raise
        self._dismiss()
        return self._fleet.errors

    def _step(self, update: Tracker) -> bool:
        """Look once and act on it; return whether there is more to do."""
        check_still_held(self._lease, thing=f"run '{self._config.run}'")
        began = time.monotonic()
        view = look(self._ledger, self._plan)
        self._tell(update, view)
        if not view.tally.open:
            return False
        limit = self._read_limit() - self._fleet.broken
        self._grow(view, limit)
        if view.unclaimed == 0:
            self._cancel_waiting(view)
        self._pause(view, max(POLL_S, LOOK_SHARE * (time.monotonic() - began)))
        return bool(self._fleet.names) or limit > 0

    def _pause(self, view: _View, seconds: float) -> None:
        """Wait for the next look or the end of a lane, and keep the metrics alive meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._collect(min(left, SHOW_S)):
            self._metrics.show(view.tally, lanes=len(self._fleet.names))

    def _read_limit(self) -> int:
        """Most lanes at once; without a number in the configuration, as the cluster is now."""
        if self._config.scaling.lanes is not None:
            return self._config.scaling.lanes
        if time.monotonic() - self._limit_read >= NODES_INTERVAL_S:
            nodes, self._limit_read = read_nodes(), time.monotonic()
            # one lane where none fits: what it asks for makes an autoscaler add the first node
            self._limit = max(
                1, count_lanes(nodes, self._config.scaling, fit_bytes=self._fit_bytes)
            )
        return self._limit

    def _grow(self, view: _View, limit: int) -> None:
        own = sum(info.note.startswith(self._submission) for info in view.claims.values())
        wanted = min(limit, own + view.ready)
        for _ in range(wanted - len(self._fleet.names)):
            lane = f"{self._submission}-{len(self._fleet.started)}"
            reference = start_lane(self._config, self._payload, self._submission, lane)
            self._fleet.names[reference] = lane
            self._fleet.started[lane] = time.monotonic()

    def _cancel_waiting(self, view: _View) -> None:
        """Cancel lanes that wait for room: their node would boot to find nothing to do."""
        waiting = set(self._fleet.names.values()) - self._present(view)
        for reference, lane in list(self._fleet.names.items()):
            if lane in waiting:
                self._cancel(reference)

    def _present(self, view: _View) -> set[str]:
        """Lanes that hold a fit, or were heard of within a lease."""
        heard = {
            note.lane
            for note in read_notes(self._store, self._config.run).values()
            if time.time() - note.written_s <= self._config.scaling.lease_s
        }
        return heard | {info.note for info in view.claims.values()}

    def _cancel(self, reference: Any) -> None:
        lane = self._fleet.names.pop(reference)
        logger.info("lane %s is cancelled: no fit is left for it", lane)
        ray.cancel(reference, force=True)

    def _collect(self, timeout_s: float) -> bool:
        """Wait for a lane to end; return whether one did."""
        if not self._fleet.names:
            time.sleep(timeout_s)
            return False
        finished, _ = ray.wait(list(self._fleet.names), num_returns=1, timeout=timeout_s)
        for reference in finished:
            lane = self._fleet.names.pop(reference)
            ended_badly, error = read_end(reference, lane)
            self._fleet.broken += ended_badly
            self._fleet.errors += [error] if error else []
            self._ledger.release_lane(lane, [p.digest for p in self._plan])
        return bool(finished)

    def _dismiss(self) -> None:
        """Let the lanes end; one that waits for a node or does not answer is cancelled."""
        until = time.monotonic() + FAREWELL_S
        self._cancel_waiting(look(self._ledger, self._plan))
        while self._fleet.names and time.monotonic() < until:
            self._collect(POLL_S)
        self._cancel_all()

    def _cancel_all(self) -> None:
        for reference in list(self._fleet.names):
            self._cancel(reference)

    def _tell(self, update: Tracker, view: _View) -> None:
        lanes, failed = len(self._fleet.names), view.tally.fits[FitState.FAILED]
        note = f"{lanes} lanes" + (f", {failed} failed" if failed else "")
        update(view.tally.fits[FitState.DONE], note)
        self._metrics.show(view.tally, lanes=lanes)
        new = [p for p in self._plan if p.digest in view.snapshot.done - self._observed]
        self._observed |= {p.digest for p in new}
        read = [(p, self._ledger.read_done(p.digest)) for p in new]
        self._metrics.observe((p, done) for p, done in read if done is not None)


def look(ledger: Ledger, plan: Sequence[PlannedFit]) -> _View:
    """Return the state of the plan now."""
    snapshot = ledger.snapshot()
    left = {p.digest: p for p in plan if p.digest not in snapshot.done | snapshot.failed}
    claims = ledger.live_claims(left)
    tally = tally_fits(plan, done=snapshot.done, failed=snapshot.failed, running=claims.keys())
    unclaimed = [p for digest, p in left.items() if digest not in claims]
    # what needs a failed fit is ready too: a lane has to write down that it fails with it
    ready = [
        p for p in unclaimed
        if set(p.needs) <= snapshot.done or set(p.needs) & snapshot.failed
    ]  # fmt: skip
    return _View(snapshot, claims, tally, len(unclaimed), len(ready))


def read_end(reference: Any, lane: str) -> tuple[bool, HiprayError | None]:
    """Return whether a lane ended badly, and the error that did it where it has one.

    A lost lane loses no fit: other lanes take them, or the next submission does.
    """
    try:
        ended = ray.get(reference)
    except ray.exceptions.RayError as error:
        first = str(error).strip().partition("\n")[0]
        return True, _explain_loss(lane, first or type(error).__name__)
    if "error" not in ended:
        return bool(ended["stopped_early"]), None
    logger.error("lane %s ended with %s: %s", lane, ended["error"], "; ".join(ended["parts"]))
    kinds = {kind.__name__: kind for kind in all_errors()}
    if ended["error"] in kinds:
        return True, kinds[ended["error"]](*ended["parts"])
    last = ended["parts"][0].strip().rpartition("\n")[2]
    return True, _explain_loss(lane, last or ended["error"])


def _explain_loss(lane: str, reason: str) -> HiprayError:
    logger.error("lane %s ended for good: %s", lane, reason)
    return FitsFailedError(
        "lanes that run until the plan is drained",
        f"lane {lane} ended: {reason}",
        "see the logs of Ray's workers and submit the same job again; finished fits are kept",
    )
