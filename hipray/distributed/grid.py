"""The grid on Ray Train: a plan of fits drained by lanes, each lane a Train run of one worker.

A Train run costs tens of seconds to start whatever it trains, so a lane pays once for many fits.
Lanes meet only in the ledger: any of them, or the driver, may die at any moment.
"""

import logging
import time
import traceback
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ray
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from hipray.config.jobs import GridRun
from hipray.distributed.cluster import connect
from hipray.errors import ConfigError, FitsFailedError, HiprayError, RunBusyError, all_errors
from hipray.progress import Tracker, track
from hipray.storage import Lease, Store, acquire, holder, open_store
from hipray.storage.arrow import arrow_filesystem
from hipray.training.context import FitContext, local_context
from hipray.training.lane import LaneReport, LaneSettings, drain
from hipray.training.ledger import Ledger, Snapshot
from hipray.training.plan import PlannedFit, load_plan, shaping_digest
from hipray.training.preparation import prepare, read_inputs, write_plan
from hipray.training.results import read_plan

POLL_S = 1.0
"""Seconds between two looks of the driver at its lanes."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GridResult:
    """How a submission of a grid ended."""

    run: str
    fits: int
    done: int
    failed: int
    trained_now: int
    seconds: float


def run_grid(config: GridRun) -> GridResult:
    """Train all open fits of the grid; finished fits are never trained again.

    Raises RunBusyError where another driver works on the run, FitsFailedError naming the fits
    that failed after all others were finished.
    """
    store = open_store(config.workspace, config.storage)
    # a worker's working directory may be another: lanes get the full address
    config = config.model_copy(update={"workspace": store.uri})
    with _hold_run(store, config):
        started = time.monotonic()
        preparation = prepare(store, config)
        write_plan(store, config, preparation)
        submission = uuid.uuid4().hex[:8]
        ledger = open_ledger(store, config, submission)
        before = _open_fits(preparation.plan, ledger.snapshot())
        if before:
            errors = _run_lanes(config, submission, preparation.plan, ledger, lanes=len(before))
            if errors and _open_fits(preparation.plan, ledger.snapshot()):
                raise errors[0]
        return _conclude(config, preparation.plan, ledger, len(before), started)


def open_ledger(store: Store, config: GridRun, submission: str) -> Ledger:
    """Return the ledger of the workspace as this submission sees it."""
    scaling = config.scaling
    return Ledger(
        store, submission=submission, lease_s=scaling.lease_s, max_attempts=scaling.max_attempts
    )


def _hold_run(store: Store, config: GridRun) -> Lease:
    key = f"runs/{config.run}/driver"
    lease = acquire(store, key, ttl_s=config.scaling.lease_s, owner_note="hipray grid")
    if lease is None:
        raise RunBusyError(
            f"run '{config.run}' to be free",
            f"a live driver: {holder(store, key)}",
            "wait for it, watch it with `hipray status`, or choose another run name",
        )
    return lease


def _run_lanes(
    config: GridRun, submission: str, plan: Sequence[PlannedFit], ledger: Ledger, *, lanes: int
) -> list[HiprayError]:
    """Run the lanes until all have ended; return what ended those that stopped early."""
    connect()
    errors: list[HiprayError] = []
    count = min(config.scaling.lanes, lanes)
    payload = config.model_dump(mode="json")
    running = [_start_lane(config, payload, submission, n) for n in range(count)]
    with track(f"grid {config.run}", len(plan)) as update:
        while running:
            finished, running = ray.wait(running, timeout=POLL_S)
            errors += filter(None, map(_lane_error, finished))
            _show(update, plan, ledger.snapshot(), lanes=len(running))
    return errors


def _start_lane(
    config: GridRun, payload: dict[str, Any], submission: str, number: int
) -> "ray.ObjectRef[dict[str, Any]]":
    scaling = config.scaling
    reserve = (
        {"num_cpus": scaling.cpus_per_lane, "num_gpus": scaling.gpus_per_lane}
        if scaling.local_lanes
        else {"num_cpus": 0}  # the Train worker below reserves
    )
    remote = ray.remote(host_lane).options(
        max_retries=scaling.max_lane_restarts, name=f"hipray-lane-{number}", **reserve
    )
    return remote.remote(payload, submission, f"{submission}-{number}")


def host_lane(payload: dict[str, Any], submission: str, lane: str) -> dict[str, Any]:
    """Host one lane's Train run until the plan is drained; return its report as plain data."""
    config = GridRun.model_validate(payload)
    scaling = config.scaling
    filesystem, path = arrow_filesystem(config.workspace, config.storage)
    trainer = TorchTrainer(
        _lane_loop,
        train_loop_config={"payload": payload, "submission": submission, "lane": lane},
        scaling_config=ScalingConfig(
            num_workers=0 if scaling.local_lanes else 1,
            use_gpu=scaling.gpus_per_lane > 0,
            resources_per_worker=None if scaling.local_lanes else _worker_resources(config),
        ),
        run_config=RunConfig(
            name=f"lane-{lane}",
            storage_path=f"{path}/runs/{config.run}/train",
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=scaling.max_lane_restarts),
        ),
    )
    report: dict[str, Any] = trainer.fit().return_value
    return report


def _worker_resources(config: GridRun) -> dict[str, float]:
    gpus = {"GPU": config.scaling.gpus_per_lane} if config.scaling.gpus_per_lane else {}
    return {"CPU": config.scaling.cpus_per_lane, **gpus}


def _lane_loop(options: dict[str, Any]) -> dict[str, Any]:
    """The training function of a lane's one worker.

    Returns a report or what ended it: only a dead process, not an error, is worth a restart.
    """
    try:
        return asdict(_drain_plan(options))
    except HiprayError as error:
        return {"error": type(error).__name__, "parts": error.__reduce__()[1]}
    except Exception:
        return {"error": "defect", "parts": (traceback.format_exc(),)}


def _drain_plan(options: dict[str, Any]) -> LaneReport:
    config = GridRun.model_validate(options["payload"])
    torch.set_num_threads(max(1, int(config.scaling.cpus_per_lane)))
    store = open_store(config.workspace, config.storage)
    plan = _read_own_plan(store, config)
    inputs = read_inputs(store, config)
    settings = LaneSettings(options["lane"], fit_timeout_s=config.scaling.fit_timeout_s)
    ledger = open_ledger(store, config, options["submission"])
    return drain(plan, ledger, inputs, settings=settings, context=_lane_context(config))


def _read_own_plan(store: Store, config: GridRun) -> list[PlannedFit]:
    """The driver's plan; refused where this worker would compute other numbers than planned."""
    plan = read_plan(store, config.run)
    if plan["source"] != shaping_digest():
        raise ConfigError(
            "the driver's hipray on every worker",
            "other source code",
            "submit the job with the package as py_modules, or use one image everywhere",
        )
    return load_plan(plan["fits"])


def _lane_context(config: GridRun) -> FitContext:
    if config.scaling.gpus_per_lane <= 0:
        return FitContext()
    if config.scaling.gpus_per_lane < 1:
        torch.cuda.set_per_process_memory_fraction(config.scaling.gpus_per_lane)
    return local_context()


def _lane_error(reference: "ray.ObjectRef[dict[str, Any]]") -> HiprayError | None:
    """What ended a lane before the plan was drained, or None.

    A lost lane loses no fit: other lanes take them, or the next submission does.
    """
    try:
        ended = ray.get(reference)
    except ray.exceptions.RayError as error:
        logger.error("a lane ended for good: %s", str(error).splitlines()[0])
        return None
    if "error" not in ended:
        return None
    logger.error("a lane ended with %s: %s", ended["error"], "; ".join(ended["parts"]))
    kinds = {kind.__name__: kind for kind in all_errors()}
    return kinds[ended["error"]](*ended["parts"]) if ended["error"] in kinds else None


def _show(update: Tracker, plan: Sequence[PlannedFit], snapshot: Snapshot, *, lanes: int) -> None:
    failed = sum(p.digest in snapshot.failed for p in plan)
    note = f"{lanes} lanes" + (f", {failed} failed" if failed else "")
    update(sum(p.digest in snapshot.done for p in plan), note)


def _open_fits(plan: Sequence[PlannedFit], snapshot: Snapshot) -> list[PlannedFit]:
    return [p for p in plan if p.digest not in snapshot.done]


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
    return GridResult(config.run, len(plan), len(plan), 0, before, seconds)
