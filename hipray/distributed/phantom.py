"""The phantom archive, drawn in parallel: every film depends on its own seed only."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import ray

from hipray.config.jobs import PhantomRun
from hipray.data.listing import ARCHIVE_NOTE
from hipray.data.phantom import (
    PhantomClone,
    PhantomStudy,
    clone_film,
    clone_path,
    dxa_csv,
    film_path,
    plan_archive,
    plan_clones,
    write_study,
)
from hipray.digests import digest_of, source_digest
from hipray.distributed.cluster import connect
from hipray.progress import track
from hipray.storage import check_still_held, check_store, hold, open_store
from hipray.vocab import DataSource

STUDIES_PER_TASK = 8
CLONES_PER_TASK = 500
DXA_TABLE = "dxa.csv"
LEASE_KEY = ".writer"
"""Where the process that writes an archive says so; a hidden name is no film."""
LEASE_S = 60.0


def run_phantom(config: PhantomRun) -> int:
    """Write the archive and return its number of films; a finished archive is left as it is.

    Raises RunBusyError where another process writes it.
    """
    archive = open_store(config.archive, config.storage)
    config = config.model_copy(update={"archive": archive.uri})  # workers may run elsewhere
    studies = plan_archive(config.phantom)
    clones = plan_clones(config.phantom, studies)
    identity = digest_of([config.phantom, source_digest("data/phantom")])
    if archive.exists(ARCHIVE_NOTE):
        known = json.loads(archive.read(ARCHIVE_NOTE))
        if known.get("identity") == identity:
            return len(studies) + len(clones)
    check_store(archive)
    thing = f"the archive {archive.uri}"
    with hold(archive, LEASE_KEY, ttl_s=LEASE_S, owner_note="hipray phantom", thing=thing) as lease:
        archive.delete(ARCHIVE_NOTE)  # written last: no note of another over a half-made one
        connect()
        _write_all("phantom films", _draw, config, studies, per_task=STUDIES_PER_TASK)
        if clones:
            _write_all("clones", _clone, config, clones, per_task=CLONES_PER_TASK)
        check_still_held(lease, thing=thing)
        archive.write(DXA_TABLE, dxa_csv(config.phantom, studies))
        films = len(studies) + len(clones)
        note = {"source": DataSource.PHANTOM, "identity": identity, "films": films}
        archive.write(ARCHIVE_NOTE, json.dumps(note).encode())
    return films


def _write_all(
    title: str,
    work: Callable[[dict[str, Any], list[Any]], int],
    config: PhantomRun,
    items: Sequence[Any],
    *,
    per_task: int,
) -> None:
    """Hand `items` to Ray tasks in chunks and show how many are written."""
    task = ray.remote(work).options(num_cpus=1)
    payload = config.model_dump(mode="json")
    chunks = [list(items[i : i + per_task]) for i in range(0, len(items), per_task)]
    waiting = [task.remote(payload, chunk) for chunk in chunks]
    done = 0
    with track(title, len(items)) as update:
        while waiting:
            finished, waiting = ray.wait(waiting, timeout=1.0)
            done += sum(ray.get(finished))
            update(done)


def _draw(payload: dict[str, Any], studies: list[PhantomStudy]) -> int:
    config = PhantomRun.model_validate(payload)
    archive = open_store(config.archive, config.storage)
    for study in studies:
        for name, data in write_study(config.phantom, study).items():
            archive.write(name, data)
    return len(studies)


def _clone(payload: dict[str, Any], clones: list[PhantomClone]) -> int:
    config = PhantomRun.model_validate(payload)
    archive = open_store(config.archive, config.storage)
    paths = {s.name: film_path(config.phantom, s) for s in plan_archive(config.phantom)}
    originals: dict[str, bytes] = {}
    for clone in clones:
        if clone.original not in originals:
            originals[clone.original] = archive.read(paths[clone.original])
        archive.write(clone_path(clone), clone_film(originals[clone.original], clone.index))
    return len(clones)
