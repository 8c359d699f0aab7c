"""Batch scoring on Ray Data against S3: counts, resume after deaths, and the pipeline's numbers."""

import io
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from hipray.config.jobs import ScoreRun
from hipray.config.storage import StorageSettings
from hipray.data.images import read_hips
from hipray.distributed.score import LEASE_KEY, LEASE_S, build_dataset, run_score
from hipray.errors import (
    BundleError,
    ConfigError,
    DataError,
    RunBusyError,
    StoreUnavailableError,
)
from hipray.pipeline import Pipeline, load_stages
from hipray.releases.release import Release, read_release
from hipray.scoring.shards import freeze_shards
from hipray.storage import Store, acquire
from hipray.vocab import RefusalCode, View
from tests.conftest import S3Server
from tests.small_release import draw_phantoms, publish_small_release

pytestmark = pytest.mark.ray

HIPS = 30
SHARD_FILES = 8
TOLERANCE = 1e-5
JUNK = {
    "films/junk.dcm": (b"junk" * 50, RefusalCode.UNREADABLE),
    "films/empty.dcm": (b"", RefusalCode.UNREADABLE),
    "films/large.dcm": (b"x" * 3_000_000, RefusalCode.TOO_LARGE),
}
OTHER_FILES = {"dxa.csv": b"a,b", "films/note.json": b"{}", "archive.json": b"{}"}
MAX_BYTES = 2_000_000
VARIES = ["seconds"]


@dataclass
class Case:
    """One archive on S3 with its workspace, both in a bucket of their own."""

    config: ScoreRun
    archive: Store
    output: Store

    def run(self, **changes: Any) -> Any:
        return run_score(self.config.model_copy(update=changes))

    def parts(self) -> dict[str, Any]:
        return {info.key: (info.etag, info.modified) for info in self.output.list("parts")}

    def rows(self) -> pd.DataFrame:
        tables = [
            pq.read_table(io.BytesIO(self.output.read(key))).to_pandas() for key in self.parts()
        ]
        rows = pd.concat(tables, ignore_index=True).drop(columns=VARIES)
        return rows.sort_values(["key", "hip_index", "region", "label_type"], ignore_index=True)


@pytest.fixture(scope="module")
def films() -> dict[str, bytes]:
    return draw_phantoms(HIPS)


@pytest.fixture(scope="module")
def workspace(s3_server: S3Server) -> Store:
    store = s3_server.new_store()
    publish_small_release(store, view=View.WHOLE, segmenters=False)
    return store


@pytest.fixture
def open_case(
    s3_server: S3Server, workspace: Store, ray_session: None
) -> Callable[[dict[str, bytes]], Case]:
    def build(files: dict[str, bytes]) -> Case:
        archive, output = s3_server.new_store(), s3_server.new_store()
        for key, data in files.items():
            archive.write(key, data)
        config = ScoreRun(
            workspace=workspace.uri,
            storage=s3_server.settings,
            images=archive.uri,
            release="small",
            output=output.uri,
            shard_files=SHARD_FILES,
            max_decoders=2,
            allow_phantom_release=True,
            limits={"max_file_bytes": MAX_BYTES},
        )
        return Case(config, archive, output)

    return build


def list_keys(store: Store) -> list[str]:
    return [info.key for info in store.list()]


def test_every_film_is_counted_once_and_junk_is_refused_by_code(
    open_case: Callable[..., Case], films: dict[str, bytes], workspace: Store
) -> None:
    decoys = draw_phantoms(1 + 12, seed=5, n_patients=1, decoys=12)
    decoys.pop(next(iter(decoys)))
    junk = {key: data for key, (data, _) in JUNK.items()}
    case = open_case(films | decoys | junk | OTHER_FILES)
    result = case.run()
    rows = case.rows()
    listed = set(films | decoys | junk)
    assert result.listed == len(listed) == result.scored + result.refused
    assert result.scored == HIPS
    assert (result.failed, result.rows, result.parts) == (0, len(rows), 6)
    assert set(rows["key"]) == listed
    assert not rows.duplicated(["key", "hip_index", "region", "label_type"]).any()
    summary = json.loads(case.output.read("summary.json"))
    refused = rows[rows["outcome"] == "refused"].groupby("key")["refusal_code"].first()
    assert summary["refusals"] == Counter(refused)
    for key, (_, code) in JUNK.items():
        assert refused[key] == code
    _check_parity(rows, films, workspace)


def _check_parity(rows: pd.DataFrame, films: dict[str, bytes], workspace: Store) -> None:
    release = read_release(workspace, "small")
    pipeline = Pipeline(load_stages(workspace, release, verify=False))
    scored = rows.set_index(["key", "hip_index", "region", "label_type"])
    for key, data in films.items():
        for hip in pipeline.answer([read_hips(data, name=key)])[0].hips:
            for region in hip.regions:
                found = scored.loc[(key, hip.index, region.region, region.label_type)]
                assert found["probability"] == pytest.approx(region.probability, abs=TOLERANCE)
                assert found["release_digest"] == release.digest


def test_objects_that_changed_or_vanished_after_the_listing_are_rows(
    open_case: Callable[..., Case], films: dict[str, bytes]
) -> None:
    case = open_case(dict(list(films.items())[:SHARD_FILES]))
    (shard,) = freeze_shards(case.archive, case.output, shard_files=SHARD_FILES)
    changed, vanished = shard.entries[1].key, shard.entries[2].key
    case.archive.write(changed, films[shard.entries[3].key])
    case.archive.delete(vanished)
    result = case.run()
    assert (result.listed, result.scored, result.refused) == (SHARD_FILES, SHARD_FILES - 2, 2)
    codes = case.rows().dropna(subset="refusal_code").set_index("key")["refusal_code"]
    assert codes.to_dict() == {
        changed: RefusalCode.CHANGED_OBJECT,
        vanished: RefusalCode.MISSING_OBJECT,
    }


@dataclass
class _WhenPartsAppear:
    """Does something once, from a thread, as soon as the output has a part."""

    output: Store
    action: Callable[[], None]
    error: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> "_WhenPartsAppear":
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            if next(iter(self.output.list("parts")), None) is not None:
                try:
                    self.action()
                except BaseException as error:
                    self.error.append(error)
                return


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_run_goes_on_without_redoing_finished_parts(
    open_case: Callable[..., Case], films: dict[str, bytes]
) -> None:
    case = open_case(films)
    with _WhenPartsAppear(case.output, _interrupt), pytest.raises(KeyboardInterrupt):
        case.run(shard_files=2)
    before = case.parts()
    assert 1 <= len(before) < HIPS // 2
    result = case.run(shard_files=2)
    assert (result.listed, result.scored, result.parts) == (HIPS, HIPS, HIPS // 2)
    after = case.parts()
    assert {key: after[key] for key in before} == before
    whole = open_case(films)
    whole.run(shard_files=2)
    pd.testing.assert_frame_equal(_content(case), _content(whole))


def _content(case: Case) -> pd.DataFrame:
    return case.rows().drop(columns="etag")


def _kill_workers() -> None:
    import psutil
    import ray  # noqa: F401 - psutil comes with it

    own = psutil.Process().children(recursive=True)
    workers = [
        p for p in own if any(w in " ".join(p.cmdline()) for w in ("ShardDecoder", "ShardScorer"))
    ]
    killed = [p for p in workers if "ray::MapWorker" in " ".join(p.cmdline())]
    assert killed, "no worker to kill"
    for process in killed:
        os.kill(process.pid, signal.SIGKILL)


def test_killed_workers_cost_neither_a_film_nor_a_second_part(
    open_case: Callable[..., Case], films: dict[str, bytes]
) -> None:
    case = open_case(films)
    with _WhenPartsAppear(case.output, _kill_workers) as killer:
        result = case.run(shard_files=2)
    assert not killer.error
    assert (result.listed, result.scored, result.parts) == (HIPS, HIPS, HIPS // 2)
    rows = case.rows()
    assert not rows.duplicated(["key", "hip_index", "region", "label_type"]).any()
    assert set(rows["key"]) == set(films)


def test_a_finished_run_answers_without_reading_the_archive_again(
    open_case: Callable[..., Case], films: dict[str, bytes]
) -> None:
    case = open_case(dict(list(films.items())[:3]))
    first = case.run()
    for key in list_keys(case.archive):
        case.archive.delete(key)
    again = case.run()
    assert (again.listed, again.rows) == (first.listed, first.rows)


def test_a_second_driver_is_refused_and_told_of_the_first(
    open_case: Callable[..., Case], films: dict[str, bytes]
) -> None:
    case = open_case({})
    with acquire(case.output, LEASE_KEY, ttl_s=LEASE_S, owner_note="the first") as lease:
        assert lease is not None
        with pytest.raises(RunBusyError, match=rf"process {os.getpid()}.*the first"):
            case.run()


def test_an_output_belongs_to_one_archive_and_lies_outside_of_it(
    open_case: Callable[..., Case], films: dict[str, bytes]
) -> None:
    case, other = open_case({}), open_case({})
    with pytest.raises(ConfigError, match="outside"):
        case.run(output=case.archive.uri_of("scores"))
    with pytest.raises(DataError, match="no file"):
        case.run()
    with pytest.raises(ConfigError, match="that of"):
        case.run(images=other.archive.uri)


def test_a_release_of_phantoms_needs_leave(open_case: Callable[..., Case]) -> None:
    with pytest.raises(ConfigError, match="allow_phantom_release"):
        open_case({}).run(allow_phantom_release=False)


def test_a_release_that_does_not_load_stops_the_run_with_its_own_error(
    open_case: Callable[..., Case], films: dict[str, bytes], s3_server: S3Server, workspace: Store
) -> None:
    case = open_case(dict(list(films.items())[:1]))
    bare = s3_server.new_store()  # the release without its bundles
    bare.write("releases/small.json", workspace.read("releases/small.json"))
    with pytest.raises(BundleError, match="nothing at"):
        case.run(workspace=bare.uri)


def test_decoding_is_never_fused_into_the_model_actors(
    open_case: Callable[..., Case], workspace: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    release: Release = read_release(workspace, "small")
    build_dataset(open_case({}).config, release, frozenset()).explain()
    plan = capsys.readouterr().out.rpartition("Physical Plan (Optimized)")[2]
    operators = [line for line in plan.splitlines() if "MapOperator" in line]
    assert len(operators) == 3
    assert not any("->" in line for line in operators)


class ThrottlingS3:
    """An S3 server whose GETs of some keys answer 503 SlowDown while `throttled` is set."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import (
            DomainDispatcherApplication,
            MotoRequestHandler,
            create_backend_app,
        )
        from werkzeug.serving import make_server

        self.throttled = ""
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=MotoRequestHandler
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()
        self.s3 = S3Server(f"http://127.0.0.1:{self._server.server_port}")

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()

    def _answer(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if self.throttled and environ["PATH_INFO"].endswith(self.throttled):
            start_response("503 Slow Down", [("Content-Type", "text/xml")])
            return [b"<Error><Code>SlowDown</Code></Error>"]
        with self._lock:
            return list(self._moto(environ, start_response))


@pytest.fixture
def throttling() -> Iterator[ThrottlingS3]:
    server = ThrottlingS3()
    yield server
    server.close()


def test_films_the_store_will_not_give_fail_and_are_scored_by_the_next_submission(
    throttling: ThrottlingS3, films: dict[str, bytes], ray_session: None
) -> None:
    bucket = throttling.s3.new_store()
    publish_small_release(bucket.child("work"), view=View.WHOLE, segmenters=False)
    for key, data in list(films.items())[:4]:
        bucket.write(f"archive/{key}", data)
    throttling.throttled = list(films)[1]
    config = ScoreRun(
        workspace=bucket.uri_of("work"),
        storage=StorageSettings(endpoint_url=throttling.s3.endpoint_url, max_attempts=2),
        images=bucket.uri_of("archive"),
        release="small",
        shard_files=2,
        max_failed_fraction=0.5,
        allow_phantom_release=True,
    )
    result = run_score(config)
    assert (result.listed, result.scored, result.failed, result.parts) == (4, 2, 2, 1)
    with pytest.raises(StoreUnavailableError):
        run_score(config.model_copy(update={"max_failed_fraction": 0.0}))
    throttling.throttled = ""
    result = run_score(config)
    assert (result.scored, result.failed, result.parts) == (4, 0, 2)
