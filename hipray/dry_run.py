"""What a job would do and whether it could: the answer to `--dry-run`.

First the plan, then the inputs, then the place: versions, stores, workers, token and resources.
A job that cannot run ends here with the error and exit code that it would end with.
"""

import json
from collections.abc import Iterator
from functools import singledispatch
from pathlib import Path
from typing import Any

from hipray.config.base import Config
from hipray.config.benchmarks import BenchRun
from hipray.config.jobs import (
    GridRun,
    IngestRun,
    Job,
    PhantomRun,
    PlanRun,
    PredictRun,
    ReleaseRun,
    ReportRun,
    Scaling,
    ScoreRun,
    SegmentRun,
    ServeRun,
    StatusRun,
)
from hipray.config.tuning import TuneRun
from hipray.distributed.segment import without_cells
from hipray.distributed.survey import Ask, Place, survey
from hipray.errors import NotFoundError
from hipray.releases.release import Release
from hipray.storage import Scheme, Store, open_store, parse_address


def rehearse(config: Config) -> Iterator[str]:
    """Yield the plan of a job and what was found; raises what would stop the job."""
    yield describe(config)
    yield from (f"reads      {found}" for found in find_inputs(config))
    yield from survey(list_places(config), list_asks(config))
    yield "dry run    nothing was done"


@singledispatch
def describe(config: Config) -> str:
    """Return what a job would do: here its whole configuration, one key a line."""
    settings = _flatten(config.model_dump(mode="json"))
    return "\n".join(f"setting    {key} = {json.dumps(value)}" for key, value in settings)


@describe.register
def _(config: GridRun) -> str:
    from hipray.training.estimate import describe_plan

    return describe_plan(_workspace(config), config)


@describe.register
def _(config: SegmentRun) -> str:
    from hipray.training.estimate import describe_plan

    return describe_plan(_workspace(config), without_cells(config))


@describe.register
def _(config: TuneRun) -> str:
    from hipray.training.search_estimate import describe_search

    return describe_search(_workspace(config), config)


@singledispatch
def find_inputs(config: Config) -> Iterator[str]:
    """Yield what the job would read, in words; raises where it is missing."""
    yield from ()


@find_inputs.register
def _(config: IngestRun) -> Iterator[str]:
    from hipray.data.archive import list_archive

    listing = list_archive(open_store(config.images, config.storage), config)
    tables = config.labels or ", ".join(listing.tables) or "no DXA table"
    yield f"{len(listing.films)} films and {len(listing.annotations)} annotations; {tables}"


@find_inputs.register
def _(config: GridRun) -> Iterator[str]:
    from hipray.data.manifest import read_manifest
    from hipray.training.preparation import check_labels, check_masks

    if not _workspace(config).exists(config.manifest):
        yield f"no {config.manifest} yet: ingest comes first"
        return
    manifest = read_manifest(_workspace(config), config.manifest)
    check_labels(manifest, config)
    check_masks(manifest, config)
    yield f"{config.manifest} of {len(manifest)} hips"


@find_inputs.register
def _(config: TuneRun) -> Iterator[str]:
    from hipray.distributed.tune import require_searcher
    from hipray.training.tuning import describe_as_grid

    require_searcher(config.search)
    yield from find_inputs(describe_as_grid(config))


@find_inputs.register
def _(config: ReportRun | ReleaseRun) -> Iterator[str]:
    from hipray.training.run_plan import read_run_plan

    plan = read_run_plan(_workspace(config), config.run)
    yield f"run {config.run} with {len(plan.fits)} fits"


@find_inputs.register
def _(config: StatusRun) -> Iterator[str]:
    from hipray.run_status import describe_run_status

    yield describe_run_status(config).partition("\n")[0]


@find_inputs.register
def _(config: PredictRun) -> Iterator[str]:
    address = parse_address(config.file)
    if address.scheme is Scheme.FILE and not Path(address.path).is_file():
        raise NotFoundError("a film", f"no file '{config.file}'", "check the path")
    yield _describe_release(config)


@find_inputs.register
def _(config: ServeRun) -> Iterator[str]:
    from hipray.serving.access import TokenCheck
    from hipray.serving.bindings import read_served

    TokenCheck(config.token_sha256, config.token_file)
    yield _name_release(read_served(config))


@find_inputs.register
def _(config: ScoreRun) -> Iterator[str]:
    from hipray.scoring.key_list import check_key_list
    from hipray.scoring.selection import FIRST_KEYS, find_first_film

    yield _describe_release(config)
    if config.select.keys is not None:
        check_key_list(config.select.keys, config.storage)
        yield f"keys in {config.select.keys}"
        return
    archive = open_store(config.images, config.storage)
    first = find_first_film(archive, config.select)
    known = f"the first of them {first}" if first else f"none among the first {FIRST_KEYS:,} keys"
    yield f"films in {archive.uri}, {known}"


@find_inputs.register
def _(config: BenchRun) -> Iterator[str]:
    from hipray.benchmarks.run import check_name

    check_name(config.name)
    yield f"bench {config.name}"


@singledispatch
def list_places(config: Config) -> list[Place]:
    """Return the stores that the job uses; one that works in a local folder of its own has none."""
    return []


@list_places.register
def _(config: Job) -> list[Place]:
    return [Place("workspace", _workspace(config), written=True)]


@list_places.register
def _(config: PhantomRun) -> list[Place]:
    return [Place("archive", open_store(config.archive, config.storage), written=True)]


@list_places.register
def _(config: IngestRun) -> list[Place]:
    images = open_store(config.images, config.storage)
    return [Place("archive", images, written=False), *_workspace_place(config, written=True)]


@list_places.register
def _(config: PlanRun | PredictRun | ServeRun | StatusRun) -> list[Place]:
    return _workspace_place(config, written=False)


@list_places.register
def _(config: ScoreRun) -> list[Place]:
    from hipray.scoring.outputs import open_output

    return [
        Place("archive", open_store(config.images, config.storage), written=False),
        *_workspace_place(config, written=False),
        Place("output", open_output(config), written=True),
    ]


@singledispatch
def list_asks(config: Config) -> list[Ask]:
    """Return what the job reserves on the cluster; most work in their driver alone."""
    return []


@list_asks.register
def _(config: GridRun) -> list[Ask]:
    return [_ask_lanes(config.scaling)]


@list_asks.register
def _(config: TuneRun) -> list[Ask]:
    each = config.resources
    return [Ask("trials", each.max_concurrent, each.cpus_per_trial, each.gpus_per_trial)]


@list_asks.register
def _(config: ScoreRun) -> list[Ask]:
    models = Ask("model actors", config.actors, config.cpus_per_actor, config.gpus_per_actor)
    return [models, Ask("decoders", None, config.cpus_per_decoder)]


@list_asks.register
def _(config: ServeRun) -> list[Ask]:
    return [Ask("stages", None, config.stage_cpus, config.gpus_per_stage or 0)]


def _ask_lanes(scaling: Scaling) -> Ask:
    workers = None if scaling.lanes is None else scaling.lanes * scaling.workers_per_fit
    return Ask("lanes", workers, scaling.cpus_per_lane, scaling.gpus_per_lane)


def _workspace(config: Job) -> Store:
    return open_store(config.workspace, config.storage)


def _workspace_place(config: Job, *, written: bool) -> list[Place]:
    return [Place("workspace", _workspace(config), written)]


def _describe_release(config: PredictRun | ScoreRun) -> str:
    from hipray.releases.release import read_servable

    allowed = config.allow_phantom_release
    release = read_servable(_workspace(config), config.release, allow_phantom=allowed)
    return _name_release(release)


def _name_release(release: Release) -> str:
    return f"release {release.name} ({release.digest[:12]}) of {release.data_source} data"


def _flatten(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
