"""The phantom archive, drawn in parallel: every film depends on its own seed only."""

import json
from collections.abc import Sequence

import ray

from hipray.config.jobs import PhantomRun
from hipray.data.phantom import PhantomStudy, dxa_csv, plan_archive, write_study
from hipray.digests import digest_of, source_digest
from hipray.distributed.cluster import connect
from hipray.progress import track
from hipray.storage import open_store
from hipray.vocab import DataSource

STUDIES_PER_TASK = 8
ARCHIVE_NOTE = "archive.json"


def run_phantom(config: PhantomRun) -> int:
    """Write the archive and return its number of films; a finished archive is left as it is."""
    archive = open_store(config.archive, config.storage)
    studies = plan_archive(config.phantom)
    identity = digest_of([config.phantom, source_digest("data/phantom")])
    if archive.exists(ARCHIVE_NOTE):
        known = json.loads(archive.read(ARCHIVE_NOTE))
        if known.get("identity") == identity:
            return len(studies)
    _draw_all(config, studies)
    archive.write("dxa.csv", dxa_csv(config.phantom, studies))
    note = {"source": DataSource.PHANTOM, "identity": identity, "films": len(studies)}
    archive.write(ARCHIVE_NOTE, json.dumps(note).encode())
    return len(studies)


def _draw_all(config: PhantomRun, studies: Sequence[PhantomStudy]) -> None:
    connect()
    chunks = [
        studies[start : start + STUDIES_PER_TASK]
        for start in range(0, len(studies), STUDIES_PER_TASK)
    ]
    draw = ray.remote(_draw).options(num_cpus=1)
    payload = config.model_dump(mode="json")
    waiting = [draw.remote(payload, list(chunk)) for chunk in chunks]
    done = 0
    with track("phantom films", len(studies)) as update:
        while waiting:
            finished, waiting = ray.wait(waiting, timeout=1.0)
            done += sum(ray.get(finished))
            update(done)


def _draw(payload: dict[str, object], studies: list[PhantomStudy]) -> int:
    config = PhantomRun.model_validate(payload)
    archive = open_store(config.archive, config.storage)
    for study in studies:
        for name, data in write_study(config.phantom, study).items():
            archive.write(name, data)
    return len(studies)
