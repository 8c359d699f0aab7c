"""The demonstration: the whole path on phantoms, through the same jobs a cluster runs.

Run again, it finds every finished step by its content and only repeats what changed.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pyarrow import dataset

from hipray import RESEARCH_NOTICE
from hipray.commands import tell
from hipray.config.jobs import DemoRun
from hipray.config.storage import StorageSettings
from hipray.data.flow import describe_flow
from hipray.data.ingest import run_ingest
from hipray.data.manifest import write_table
from hipray.data.phantom import film_path, plan_archive, write_study
from hipray.distributed.grid import run_grid
from hipray.distributed.phantom import run_phantom
from hipray.distributed.score import run_score
from hipray.errors import ConfigError
from hipray.evaluation.run_report import run_report
from hipray.releases.publish import run_release
from hipray.releases.release import Release
from hipray.scoring.outputs import open_output
from hipray.serving.serve import run_serve
from hipray.storage import open_store

BUCKET = "hipray-demo"
TIMEOUT_S = 120.0

ResultT = TypeVar("ResultT")


def run_demo(config: DemoRun) -> None:
    """Run every step below `config.out` and say where to look."""
    started = time.monotonic()
    out = str(Path(config.out))
    with _serve_s3() as storage:
        _train(config, out)
        release = _step("release", lambda: run_release(_at(config.release, out)))
        answer = _step("serve", lambda: _ask_endpoint(config, out, release, storage))
        _step("score", lambda: _score_unseen(config, out, release, storage))
    _say_where(out, answer, release.name, seconds=time.monotonic() - started)


def _train(config: DemoRun, out: str) -> None:
    archive = f"{out}/archive"
    phantom = config.phantom.model_copy(update={"workspace": out, "archive": archive})
    _step("phantom archive", lambda: run_phantom(phantom))
    ingest = config.ingest.model_copy(update={"workspace": out, "images": archive})
    tell(describe_flow(_step("ingest", lambda: run_ingest(ingest))))
    _step("grid", lambda: run_grid(_at(config.grid, out)))
    _step("report", lambda: run_report(_at(config.report, out)))


def _at(job: Any, out: str) -> Any:
    return job.model_copy(update={"workspace": out})


def _step(name: str, call: Callable[[], ResultT]) -> ResultT:
    tell(f"== {name}")
    started = time.monotonic()
    result = call()
    tell(f"   {name}: {time.monotonic() - started:.1f} s")
    return result


@contextmanager
def _serve_s3() -> Iterator[StorageSettings]:
    """An S3 server of this process on loopback, with credentials for it in the environment."""
    try:
        from moto.server import ThreadedMotoServer
    except ImportError:
        raise ConfigError(
            "the S3 server of the demonstration", "no package moto", "pip install 'hipray[demo]'"
        ) from None
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    no_proxy = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    os.environ |= {
        "no_proxy": f"{no_proxy},{host}",
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    os.environ.pop("AWS_ENDPOINT_URL", None)
    endpoint = f"http://{host}:{port}"
    httpx.put(f"{endpoint}/{BUCKET}").raise_for_status()
    try:
        yield StorageSettings(endpoint_url=endpoint, region="us-east-1")
    finally:
        server.stop()


def _ask_endpoint(
    config: DemoRun, out: str, release: Release, storage: StorageSettings
) -> dict[str, Any]:
    """Serve the release, let it read a DICOM from S3 and keep its answer."""
    target = Path(out) / "answer.json"
    if target.exists():
        known: dict[str, Any] = json.loads(target.read_bytes())
        if known.get("release_digest") == release.digest:
            return known
    uri = _upload_unseen(config, storage)
    serve = config.serve.model_copy(
        update={
            "workspace": str(Path(out).resolve()),
            "storage": storage,
            "block": False,
            "allowed_prefixes": (f"s3://{BUCKET}/unseen",),
        }
    )
    endpoint = run_serve(serve)
    try:
        response = httpx.post(f"{endpoint.url}/v1/score", json={"uri": uri}, timeout=TIMEOUT_S)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
    finally:
        endpoint.shutdown()
    target.write_text(json.dumps(answer, indent=1))
    return answer


def _upload_unseen(config: DemoRun, storage: StorageSettings) -> str:
    """Put the unseen archive on S3 and return the address of its first film."""
    bucket = open_store(f"s3://{BUCKET}", storage)
    studies = plan_archive(config.unseen.phantom)
    for study in studies:
        path = film_path(config.unseen.phantom, study)
        bucket.write(f"unseen/{path}", write_study(config.unseen.phantom, study)[path])
    return bucket.uri_of(f"unseen/{film_path(config.unseen.phantom, studies[0])}")


def _score_unseen(config: DemoRun, out: str, release: Release, storage: StorageSettings) -> None:
    _upload_unseen(config, storage)
    score = config.score.model_copy(
        update={
            "workspace": str(Path(out).resolve()),
            "storage": storage,
            "images": f"s3://{BUCKET}/unseen",
        }
    )
    result = run_score(score)
    parts = dataset.dataset(
        f"{open_output(score).uri}/parts", format="parquet", partitioning="hive"
    )
    rows = parts.to_table(filter=dataset.field("release_digest") == release.digest)
    write_table(open_store(out), f"scores/{release.name}.parquet", rows)
    tell(
        f"   {result.listed} files = {result.scored} scored + {result.refused} refused + "
        f"{result.failed} failed"
    )


def _say_where(out: str, answer: dict[str, Any], release: str, *, seconds: float) -> None:
    headline = next((hip["headline"] for hip in answer["hips"] if hip["headline"]), None)
    said = f"P(T <= -2.5) = {headline['probability']:.2f}" if headline else "a refusal"
    tell(f"\nDone in {seconds:.0f} s. Look at")
    for path, what in (
        ("report/index.html", "the paper's tables beside ours, with intervals"),
        ("ingest/contact-sheet.png", "the films with their annotated contours"),
        ("answer.json", f"what the endpoint said of an unseen film: {said}"),
        (f"scores/{release}.parquet", "40 unseen films scored from S3"),
        ("manifest.parquet", "one row per hip"),
    ):
        tell(f"  {Path(out) / path}: {what}")
    tell(f"Phantoms only: these numbers say nothing about patients. {RESEARCH_NOTICE}")
