"""A lane on Ray: a task that hosts one Train run, whose one worker drains the plan.

A Train run costs tens of seconds to start whatever it trains, so a lane pays once for many fits.
"""

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import ray
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.backend import Backend
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hipray.config.jobs import GridRun
from hipray.distributed.capacity import count_host_memory
from hipray.errors import HiprayError
from hipray.runtime.engine import count_threads
from hipray.storage import Store, open_store
from hipray.storage.arrow import arrow_filesystem
from hipray.storage.retrying import RetryingStore, open_retrying_store
from hipray.training.context import FitContext, local_context
from hipray.training.crew import ALONE, Crew
from hipray.training.device_errors import DeviceLostError
from hipray.training.fit_files import FitFiles
from hipray.training.inputs import FitInputs
from hipray.training.lane import HANG_EXIT_CODE, LaneReport, LaneSettings, drain, follow
from hipray.training.lane_notes import LaneNotes
from hipray.training.ledger import Ledger
from hipray.training.memory import check_gpu_memory, limit_pool
from hipray.training.plan import PlannedFit, require_own_source, shaping_digest
from hipray.training.preparation import read_inputs, require_same_data
from hipray.training.run_keys import RunKeys
from hipray.training.run_plan import read_run_plan
from hipray.training.tracking import track_fit

logger = logging.getLogger(__name__)


class AloneConfig(TorchConfig):  # type: ignore[misc]
    """A lane of one worker needs no process group, whose store would open a port to everyone."""

    @property
    def backend_cls(self) -> Any:
        """The backend that sets nothing up."""
        return Backend


def start_lane(
    config: GridRun, payload: dict[str, Any], submission: str, lane: str
) -> "ray.ObjectRef[dict[str, Any]]":
    """Start a lane and return the reference of its report."""
    scaling = config.scaling
    # the host of a Train run lies beside the driver while that node's memory holds it: when
    # another node goes, only its own lanes go
    here = NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=True, _spill_on_unavailable=True
    )
    options: dict[str, Any] = (
        {"num_cpus": scaling.cpus_per_lane, "num_gpus": scaling.gpus_per_lane}
        if scaling.local_lanes
        else {"num_cpus": 0, "memory": count_host_memory(), "scheduling_strategy": here}
    )
    remote = ray.remote(host_lane).options(
        max_retries=scaling.max_lane_restarts, name=f"hipray-lane-{lane}", **options
    )
    return remote.remote(payload, submission, lane)


def host_lane(payload: dict[str, Any], submission: str, lane: str) -> dict[str, Any]:
    """Host one lane's Train run until the lane ends; return its report as plain data."""
    config = GridRun.model_validate(payload)
    scaling = config.scaling
    filesystem, path = arrow_filesystem(config.workspace, config.storage)
    trainer = TorchTrainer(
        _lane_loop,
        train_loop_config={"payload": payload, "submission": submission, "lane": lane},
        torch_config=AloneConfig() if scaling.workers_per_fit == 1 else TorchConfig(),
        scaling_config=ScalingConfig(
            num_workers=0 if scaling.local_lanes else scaling.workers_per_fit,
            use_gpu=scaling.gpus_per_lane > 0,
            resources_per_worker=None if scaling.local_lanes else _worker_resources(config),
        ),
        run_config=RunConfig(
            name=f"lane-{lane}",
            storage_path=f"{path}/{RunKeys(config.run).ray_train}",
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=scaling.max_lane_restarts),
        ),
    )
    report: dict[str, Any] = trainer.fit().return_value
    return report


def open_ledger(store: Store, config: GridRun, submission: str) -> Ledger:
    """Return the ledger of the workspace as this submission sees it."""
    scaling = config.scaling
    return Ledger(
        store, submission=submission, lease_s=scaling.lease_s, max_attempts=scaling.max_attempts
    )


def open_workspace(config: GridRun) -> RetryingStore:
    """Return the workspace's store as driver and lanes use it."""
    return open_retrying_store(
        config.workspace, config.storage, patience_s=config.scaling.store_wait_s
    )


def _worker_resources(config: GridRun) -> dict[str, float]:
    gpus = {"GPU": config.scaling.gpus_per_lane} if config.scaling.gpus_per_lane else {}
    return {"CPU": config.scaling.cpus_per_lane, **gpus}


def _lane_loop(options: dict[str, Any]) -> dict[str, Any]:
    """The training function of each worker of a lane.

    Returns a report or what ended it: only a dead process, not an error, is worth a restart. A
    lost GPU ends the process, for only a new one can use it again.
    """
    try:
        report = _drain_plan(options)
        return {} if report is None else asdict(report)
    except DeviceLostError as error:
        logger.error("the lane's process ends: %s", error)
        _end_process(HANG_EXIT_CODE)
        raise  # never reached
    except HiprayError as error:
        return {"error": type(error).__name__, "parts": error.__reduce__()[1]}
    except Exception:
        return {"error": "defect", "parts": (traceback.format_exc(),)}


def _drain_plan(options: dict[str, Any]) -> LaneReport | None:
    """Drain the plan as the lane's leader, or follow it and report nothing."""
    config = GridRun.model_validate(options["payload"])
    scaling, lane = config.scaling, options["lane"]
    torch.set_num_threads(count_threads(scaling.cpus_per_lane))
    store = open_workspace(config)
    plan, inputs = _read_own_plan(store, config)
    ledger = open_ledger(store, config, options["submission"])
    context = _lane_context(config, plan)
    if not context.crew.leads:
        follow(plan, ledger, inputs, context)
        return None
    notes = LaneNotes(open_store(config.workspace, config.storage), config.run, lane)
    notes.wait()
    # this lane's last process is gone: its fit need not wait for the lease to run out
    ledger.release_lane(lane, [p.digest for p in plan])
    settings = LaneSettings(
        lane,
        checkpoint_s=scaling.checkpoint_s,
        fit_timeout_s=scaling.fit_timeout_s,
        idle_s=scaling.idle_lane_s,
        gpus=scaling.gpus_per_lane,
        end_process=_end_process,
    )
    try:
        return drain(
            plan, ledger, inputs, settings=settings, context=context,
            on_commit=partial(_track, store, config), notes=notes,
        )  # fmt: skip
    finally:
        notes.end()


def _track(store: Store, config: GridRun, planned: PlannedFit, result: FitFiles) -> None:
    track_fit(store, config.run, planned.name, result, config.tracking)


def _end_process(code: int) -> None:
    """End this process without unwinding: its threads or its GPU no longer answer."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _read_own_plan(store: Store, config: GridRun) -> tuple[Sequence[PlannedFit], FitInputs]:
    """The driver's plan and its data; refused where this worker would compute other numbers.

    Raises ConfigError for other source code, DataError for an archive ingested again since.
    """
    plan = read_run_plan(store, config.run)
    require_own_source(plan.source, own=shaping_digest())
    inputs = read_inputs(store, config)
    require_same_data(inputs, plan.data)
    return plan.fits, inputs


def _lane_context(config: GridRun, plan: Sequence[PlannedFit]) -> FitContext:
    device = local_context().device if config.scaling.gpus_per_lane > 0 else torch.device("cpu")
    context = FitContext(device=device, crew=_find_crew(config, device))
    share = config.scaling.gpus_per_lane
    if context.device.type == "cuda":
        total = int(torch.cuda.get_device_properties(context.device).total_memory)
        check_gpu_memory(plan, config.experiment, gpu_bytes=total, gpus_per_lane=share)
        limit_pool(share)
    return context


def _find_crew(config: GridRun, device: torch.device) -> Crew:
    if config.scaling.workers_per_fit == 1:
        return ALONE
    here = ray.train.get_context()
    return Crew(here.get_world_rank(), here.get_world_size(), device)
