"""The search for settings on Ray Tune: one study per network, weak trials stopped by ASHA.

Tune proposes settings and compares trials; what a trial does is `hipray.training.tuning`. Trials
get the address of the workspace and their settings, never arrays: each maps the node's one file
of decoded films. Tune keeps its own state as pickles below runs/<run>/tune/, so that whoever can
write to the workspace can run code in the driver: tune in workspaces you trust.
"""

import importlib.util
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import PurePosixPath
from typing import Any

import torch
from ray import tune
from ray.tune.search.basic_variant import BasicVariantGenerator

from hipray.config.tuning import Axis, Searcher, TrialResources, TuneRun, Value
from hipray.data.dataset import DataIdentity
from hipray.distributed.capacity import require_places
from hipray.distributed.cluster import connect
from hipray.distributed.ray_errors import find_own
from hipray.distributed.studies import EPOCH, LOG_LOSS, RememberingAsha, StudyJournal
from hipray.errors import ConfigError, FitsFailedError, StorageError
from hipray.runtime.engine import count_threads
from hipray.storage import Store, check_still_held, check_store, open_store
from hipray.storage.arrow import arrow_filesystem
from hipray.storage.retrying import RetryingStore, open_retrying_store
from hipray.training.context import FitContext, local_context
from hipray.training.device_errors import FitMemoryError, run_sparing_memory
from hipray.training.driver import hold_run
from hipray.training.lockstep import Figures
from hipray.training.memory import limit_pool
from hipray.training.plan import require_own_source
from hipray.training.run_keys import RunKeys
from hipray.training.starts import try_classifiers
from hipray.training.trials import (
    TrialFolder,
    folder_of,
    read_figures,
    read_study,
    trial_row,
    write_study,
)
from hipray.training.tuned import Choice, conclude, hold_to_search, own_values, search_source
from hipray.training.tuning import Search, prepare_search, read_search, resolve_config, run_trial

ENVIRONMENT = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would answer Ctrl-C with a result that looks finished
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer output talks even where it is told to be silent
}
"""How Tune behaves in the driver."""


@dataclass(frozen=True)
class TuneResult:
    """How a search ended."""

    run: str
    choices: tuple[Choice, ...]
    trials: int
    failed: int
    searched_now: int
    """Networks whose search was not finished before."""
    seconds: float


def run_tune(config: TuneRun) -> TuneResult:
    """Search settings for every network that has none yet; finished trials never run again.

    Raises RunBusyError where another driver works on the run or took it over, ConfigError where
    the run was begun with another configuration or asks for more than a Ray of this machine alone
    has, FitsFailedError where no trial of a network has a figure or the store ended one.
    """
    store = open_store(config.workspace, config.storage)
    # a worker's working directory may be another: trials get the full address
    config = resolve_config(store, config.model_copy(update={"workspace": store.uri}))
    require_searcher(config.search)
    ttl_s = config.resources.lease_s
    with hold_run(store, config.run, ttl_s=ttl_s, owner_note="hipray tune") as lease:
        started = time.monotonic()
        data = prepare_search(store, config)
        hold_to_search(store, config, data)
        left = [name for name in config.backbones if read_study(store, config, name) is None]
        if left:
            check_store(store)
            try_classifiers(store, config.experiment, left)
            connect()
            _require_room(config.resources)
        for backbone in left:
            rows = _search_network(store, config, backbone)
            check_still_held(lease, thing=f"run '{config.run}'")
            write_study(store, config, backbone, rows)
        return _conclude(store, config, data, len(left), started)


def require_searcher(search: Searcher) -> None:
    """Raise ConfigError where the package of a search is not installed."""
    if search is Searcher.OPTUNA and importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            "the optuna package for search = 'optuna'",
            "none installed",
            "run `pip install 'hipray[optuna]'` or set search = 'random'",
        )


def _require_room(resources: TrialResources) -> None:
    require_places(
        resources.max_concurrent, "trials",
        cpus=resources.cpus_per_trial, gpus=resources.gpus_per_trial,
        mend="lower resources.max_concurrent, cpus_per_trial or gpus_per_trial",
    )  # fmt: skip


def _search_network(store: Store, config: TuneRun, backbone: str) -> list[dict[str, Any]]:
    """Run or resume one network's study and return its trials."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    filesystem, root = arrow_filesystem(config.workspace, config.storage)
    key = f"{RunKeys(config.run).ray_tune}/{folder_of(backbone)}"
    trainable = build_trainable(config, backbone)
    if _can_resume(store, key):
        tuner = tune.Tuner.restore(
            f"{root}/{key}", trainable, resume_errored=True, storage_filesystem=filesystem
        )
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=_build_param_space(config, backbone),
            tune_config=_build_tune_config(config, backbone),
            run_config=tune.RunConfig(
                name=folder_of(backbone),
                storage_path=f"{root}/{RunKeys(config.run).ray_tune}",
                storage_filesystem=filesystem,
                failure_config=tune.FailureConfig(max_failures=config.resources.max_failures),
                callbacks=[StudyJournal(config, backbone)],
                verbose=0,
            ),
        )
    return [_read_row(result, config, backbone) for result in tuner.fit()]


def _can_resume(store: Store, key: str) -> bool:
    """Whether Tune left a state with trials; a driver killed in its first moments leaves none."""
    keys = [info.key for info in store.list(key)]
    states = [k for k in keys if PurePosixPath(k).match(f"{key}/experiment_state-*.json")]
    if f"{key}/tuner.pkl" not in keys or not states:
        return False
    try:
        return bool(json.loads(store.read(max(states)))["trial_data"])
    except ValueError:  # cut off while it was written: begin again, outcomes are kept
        return False


def build_trainable(config: TuneRun, backbone: str) -> Any:
    """Return the function that Tune runs for each trial, with what it reserves."""
    payload = config.model_dump(mode="json")
    bound = tune.with_parameters(
        run_one, payload=payload, backbone=backbone, source=search_source()
    )
    resources = config.resources
    return tune.with_resources(
        bound, {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}
    )


def _build_param_space(config: TuneRun, backbone: str) -> dict[str, Any]:
    return {name: _build_domain(axis) for name, axis in config.offered(backbone).items()}


def _build_domain(axis: Axis | Sequence[Value]) -> Any:
    if isinstance(axis, Axis) and not axis.choices:
        return tune.loguniform(*axis.extremes()) if axis.log else tune.uniform(*axis.extremes())
    choices = [*axis.choices] if isinstance(axis, Axis) else [*axis]
    # plain strings: settings travel as JSON
    plain = [str(choice) if isinstance(choice, str) else choice for choice in choices]
    return tune.choice(plain) if len(plain) > 1 else plain[0]


def _build_tune_config(config: TuneRun, backbone: str) -> tune.TuneConfig:
    own = own_values(config, backbone) if config.try_experiment else None
    searched = {k for k, v in _build_param_space(config, backbone).items() if hasattr(v, "sample")}
    points = [{k: v for k, v in own.items() if k in searched}] if own else []
    concurrent, halving = config.resources.max_concurrent, config.halving
    if config.search is Searcher.OPTUNA:
        from ray.tune.search import ConcurrencyLimiter
        from ray.tune.search.optuna import OptunaSearch

        optuna = OptunaSearch(
            metric=LOG_LOSS, mode="min", points_to_evaluate=points or None, seed=config.seed
        )
        search = ConcurrencyLimiter(optuna, max_concurrent=concurrent)
    else:
        search = BasicVariantGenerator(
            points_to_evaluate=points, max_concurrent=concurrent, random_state=config.seed
        )
    return tune.TuneConfig(
        search_alg=search,
        scheduler=RememberingAsha(
            time_attr=EPOCH,
            metric=LOG_LOSS,
            mode="min",
            max_t=halving.max_epochs,
            grace_period=halving.grace_epochs,
            reduction_factor=halving.reduction_factor,
        ),
        num_samples=config.trials,
        reuse_actors=True,
    )


def run_one(
    chosen: dict[str, Value], *, payload: dict[str, Any], backbone: str, source: str
) -> dict[str, Any]:
    """Run one trial and return its last figures; an ended one only says them again."""
    require_own_source(source, own=search_source())
    config = TuneRun.model_validate(payload)
    folder = TrialFolder(_open_workspace(config), config, backbone, chosen)
    figures = folder.read_outcome()
    if figures is None:
        torch.set_num_threads(count_threads(config.resources.cpus_per_trial))
        search = _open_search(json.dumps(payload), backbone)
        context = _trial_context(config, folder)
        figures = _run_sparing_memory(search, chosen, context)
    return asdict(figures)


def _run_sparing_memory(search: Search, chosen: dict[str, Value], context: FitContext) -> Figures:
    """Run a trial, once more where the GPU's memory ran out; raises FitMemoryError after that."""
    gpus = search.config.resources.gpus_per_trial
    run = partial(run_trial, search, chosen, context=context, report=_report)
    try:
        return run_sparing_memory(
            run, experiment=search.config.experiment, fit=search.fit, gpus=gpus
        )
    except FitMemoryError as error:
        raise FitMemoryError(
            f"{len(search.folds)} networks of {search.fit.cell.backbone}, one for each inner fold, "
            f"to fit into a trial's part of a GPU (resources.gpus_per_trial = {gpus:g})",
            error.found,
            "raise resources.gpus_per_trial, or search smaller films in a run of another name",
        ) from error


def _report(figures: Figures) -> None:
    tune.report(asdict(figures))


@lru_cache(maxsize=1)
def _open_search(payload: str, backbone: str) -> Search:
    """A worker's data, kept from trial to trial."""
    config = TuneRun.model_validate_json(payload)
    return read_search(_open_workspace(config), config, backbone)


def _open_workspace(config: TuneRun) -> RetryingStore:
    return open_retrying_store(
        config.workspace, config.storage, patience_s=config.resources.store_wait_s
    )


def _trial_context(config: TuneRun, folder: TrialFolder) -> FitContext:
    gpus = config.resources.gpus_per_trial
    context = FitContext(
        checkpoints=folder.checkpoints(), checkpoint_s=config.resources.checkpoint_s
    )
    if gpus <= 0:
        return context
    limit_pool(gpus)
    return replace(context, device=local_context().device)


def _read_row(result: Any, config: TuneRun, backbone: str) -> dict[str, Any]:
    """One ended trial as a row; raises FitsFailedError where it was cut off by no fault of its own.

    A study is written once and for good: settings that a store's outage or a too small part of a
    GPU kept from being tried would never be tried again.
    """
    figures, cause = None, find_own(result.error) if result.error else None
    if isinstance(cause, StorageError | FitMemoryError):
        raise FitsFailedError(
            f"all trials of {backbone} to end by themselves",
            f"one that was cut off: {cause}",
            "mend that and submit the same job again; ended trials are kept",
        )
    if result.error is None:
        if LOG_LOSS not in (result.metrics or {}):
            raise FitsFailedError(
                f"all trials of {backbone} ended", "an interrupted search", "submit the job again"
            )
        figures = read_figures(result.metrics)
    own = result.config == own_values(config, backbone)
    row = trial_row(result.config, figures, own=own, max_epochs=config.halving.max_epochs)
    return row | {"error": str(result.error).strip().splitlines()[-1] if result.error else None}


def _conclude(
    store: Store, config: TuneRun, data: DataIdentity, searched: int, started: float
) -> TuneResult:
    choices, trials = conclude(store, config, data)
    return TuneResult(
        run=config.run,
        choices=choices,
        trials=len(trials),
        failed=int(trials["log_loss"].isna().sum()),
        searched_now=searched,
        seconds=round(time.monotonic() - started, 1),
    )
