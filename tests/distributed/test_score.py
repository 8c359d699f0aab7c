"""Batch scoring on Ray Data against S3: counts, resume after deaths, and the pipeline's numbers."""

import io
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import pandas as pd
import pytest
from ray.data import Dataset

from hipray.bundles.loading import Loading
from hipray.config.jobs import ScoreRun
from hipray.config.scoring import RetryScope
from hipray.config.storage import StorageSettings
from hipray.data.images import read_hips
from hipray.data.phantom import film_path, plan_archive, write_study
from hipray.distributed import score, score_pipeline
from hipray.distributed.score import MOST_ROUNDS, run_score
from hipray.distributed.score_feed import WorkFeed
from hipray.distributed.score_pipeline import build_dataset
from hipray.errors import (
    ClusterUnavailableError,
    ConfigError,
    DataError,
    ProcessLostError,
    RunBusyError,
    StorageError,
    StoreThrottledError,
)
from hipray.pipeline import Pipeline, load_stages
from hipray.releases.release import Release, read_release
from hipray.runtime.engine import Engine
from hipray.scoring.claim import RUN_KEY
from hipray.scoring.decoder import ShardDecoder
from hipray.scoring.films import ReadFilms
from hipray.scoring.open_work import list_open_work
from hipray.scoring.parts import FOLDER, PartSet
from hipray.scoring.rows import probability_column
from hipray.scoring.session import LEASE_S, ScoreResult
from hipray.scoring.status import DRIVER_KEY, describe_status
from hipray.scoring.work import Work, parse_work
from hipray.storage import Store, acquire, open_store
from hipray.vocab import RefusalCode, Runtime, RuntimeChoice, View
from tests.conftest import S3Server
from tests.distributed.throttling import ThrottlingS3
from tests.processes import find_descendants
from tests.small_release import draw_phantoms, phantom_config, publish_small_release

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
DECOYS = 12
CHANGED, VANISHED = "films/changed.dcm", "films/vanished.dcm"
ROW_KEY = ["key", "hip_index"]
WORKER_TITLE = "ray::MapWorker(MapBatches(Shard"
FEED_TITLE = "ray::_Feed"
VARIES = ["fetch_seconds", "decode_seconds", "model_seconds"]
"""Columns in which two runs over one archive differ."""


@dataclass
class Case:
    """One archive on S3 with its workspace, both in a bucket of their own."""

    config: ScoreRun
    archive: Store
    output: Store

    def run(self, **changes: Any) -> ScoreResult:
        return run_score(self.config.model_copy(update=changes))

    @property
    def release(self) -> Release:
        return read_release(open_store(self.config.workspace, self.config.storage), "small")

    def parts(self) -> dict[str, Any]:
        return {info.key: (info.etag, info.modified) for info in self.output.list(FOLDER)}

    def rows(self) -> pd.DataFrame:
        parts = PartSet.of(self.release, self.config)
        tables = [part.table.to_pandas() for part in parts.read(
            self.output, parts.list_all(self.output))]  # fmt: skip
        rows = pd.concat(tables, ignore_index=True).drop(columns=VARIES)
        return rows.sort_values(ROW_KEY, ignore_index=True)


@pytest.fixture(scope="module")
def films() -> dict[str, bytes]:
    return draw_phantoms(HIPS)


@pytest.fixture(scope="module")
def workspace(s3_server: S3Server) -> Store:
    store = s3_server.new_store()
    publish_small_release(store, view=View.WHOLE, segmenters=False)
    return store


@pytest.fixture(scope="module")
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
            runtime=RuntimeChoice.ONNX,
            output=output.uri,
            shard_files=SHARD_FILES,
            max_decoders=2,
            allow_phantom_release=True,
            limits={"max_file_bytes": MAX_BYTES},
        )
        return Case(config, archive, output)

    return build


@pytest.fixture(scope="module")
def decoys() -> dict[str, bytes]:
    config = phantom_config(1, seed=5, decoys=DECOYS)
    drawn = [study for study in plan_archive(config) if study.decoy is not None]
    return {
        f"decoys/{study.decoy}.dcm": write_study(config, study)[film_path(config, study)]
        for study in drawn
    }


@pytest.fixture(scope="module")
def scored(
    open_case: Callable[..., Case], films: dict[str, bytes], decoys: dict[str, bytes]
) -> tuple[Case, ScoreResult]:
    """One scored archive; two of its objects change and vanish after they were listed."""
    junk = {key: data for key, (data, _) in JUNK.items()}
    late = {CHANGED: b"as it was listed", VANISHED: b"as it was listed"}
    case = open_case(films | decoys | junk | late | OTHER_FILES)
    parts = PartSet.of(case.release, case.config)
    list(list_open_work(case.config, case.archive, case.output, parts, relist=True))
    case.output.delete("index/listing-0000/complete.json")  # as if it had broken off
    case.archive.write(CHANGED, next(iter(films.values())))
    case.archive.delete(VANISHED)
    return case, case.run()


def test_every_file_is_counted_and_every_key_is_in_the_rows_once(
    scored: tuple[Case, ScoreResult], films: dict[str, bytes], decoys: dict[str, bytes]
) -> None:
    case, result = scored
    rows = case.rows()
    listed = set(films) | set(decoys) | set(JUNK) | {CHANGED, VANISHED}
    assert set(rows["key"]) == listed
    assert not rows.duplicated(ROW_KEY).any()
    assert (result.listed, result.failed) == (len(listed), 0)
    assert result.scored + result.refused == result.listed
    shards = -(-len(listed) // SHARD_FILES) + 1  # one of what came before the listing went on
    assert (result.rows, result.parts) == (len(rows), shards)
    assert result.left_out == len(OTHER_FILES)


def test_files_are_refused_as_everywhere_and_the_summary_counts_them_by_code(
    scored: tuple[Case, ScoreResult], films: dict[str, bytes], decoys: dict[str, bytes]
) -> None:
    case, result = scored
    expected = {VANISHED: RefusalCode.MISSING_OBJECT}
    expected |= {key: code for key, (_, code) in JUNK.items()}
    for key, data in (films | decoys).items():
        refusal = read_hips(data, name=key).refusal
        if refusal is not None:
            expected[key] = refusal.code
    assert len(expected) > DECOYS // 2
    rows = case.rows()
    refused = rows[rows["outcome"] == "refused"]
    assert dict(zip(refused["key"], refused["refusal_code"], strict=True)) == expected
    summary = json.loads(case.output.read("summary.json"))
    assert summary["refusals"] == Counter(expected.values())
    assert summary["files"]["refused"] == result.refused == len(expected)


def test_rows_hold_the_numbers_of_the_pipeline(
    scored: tuple[Case, ScoreResult], films: dict[str, bytes], workspace: Store
) -> None:
    release = read_release(workspace, "small")
    loading = Loading(Engine(Runtime.ONNX), verify=False)
    pipeline = Pipeline(load_stages(workspace, release, loading))
    rows = scored[0].rows().set_index(ROW_KEY)
    assert rows.index.is_unique
    results = [read_hips(data, name=key) for key, data in films.items()]
    for key, answer in zip(films, pipeline.answer(results), strict=True):
        for hip in answer.hips:
            for region in hip.regions:
                found = rows.loc[(key, hip.index)]
                column = probability_column(region.label_type, region.region)
                assert found[column] == pytest.approx(region.probability, abs=TOLERANCE)
                assert found["release_digest"] == release.digest


def test_an_object_that_changed_under_a_listing_is_scored_as_it_is_now_and_nothing_is_left(
    scored: tuple[Case, ScoreResult],
) -> None:
    case, first = scored
    rows = case.rows().set_index("key")
    assert rows.loc[CHANGED, "outcome"] == "scored"
    assert rows.loc[CHANGED, "etag"] == rows.loc[CHANGED, "listed_etag"]
    before = case.parts()
    again = case.run()
    assert replace(again, seconds=first.seconds) == first
    assert case.parts() == before


class Saboteur:
    """From a thread: kills the run's workers at its first part, interrupts the driver later."""

    def __init__(self, output: Store) -> None:
        self._output = output
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.killed: list[int] = []
        self._handler = signal.getsignal(signal.SIGINT)

    def __enter__(self) -> Self:
        # a shell starts background processes, a test run may be one, deaf to it
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        signal.signal(signal.SIGINT, self._handler)

    def _work(self) -> None:
        self._wait_for_parts(1)
        self.killed = find_descendants(WORKER_TITLE, of=os.getpid())
        for process_id in self.killed:
            os.kill(process_id, signal.SIGKILL)
        self._wait_for_parts(2)
        if not self._ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    def _wait_for_parts(self, count: int) -> None:
        while not self._ended.wait(0.02):
            if sum(1 for _ in self._output.list(FOLDER)) >= count:
                return


@pytest.mark.cluster
@pytest.mark.full
def test_a_run_that_lost_its_workers_and_its_driver_goes_on_without_redoing_parts(
    open_case: Callable[..., Case], scored: tuple[Case, ScoreResult], films: dict[str, bytes]
) -> None:
    case = open_case(films)
    with Saboteur(case.output) as saboteur, pytest.raises(KeyboardInterrupt):
        case.run(shard_files=1)
    assert saboteur.killed
    before = case.parts()
    assert 2 <= len(before) < HIPS
    result = case.run(shard_files=1)
    assert (result.listed, result.scored, result.parts) == (HIPS, HIPS, HIPS)
    assert {key: case.parts()[key] for key in before} == before
    whole = scored[0].rows()
    whole = whole[whole["key"].isin(films)].reset_index(drop=True)
    pd.testing.assert_frame_equal(case.rows(), whole, check_dtype=False)


def test_a_second_driver_is_refused_and_told_of_the_first(
    open_case: Callable[..., Case], films: dict[str, bytes]
) -> None:
    case = open_case({})
    with acquire(case.output, DRIVER_KEY, ttl_s=LEASE_S, owner_note="the first") as lease:
        assert lease is not None
        with pytest.raises(RunBusyError, match=rf"process {os.getpid()}.*the first"):
            case.run()


def test_a_run_that_waits_for_its_cluster_is_found_by_its_status(
    open_case: Callable[..., Case], films: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait_in_vain(**_: object) -> None:
        assert f"score run {case.output.uri}" in describe_status(case.output)
        raise ClusterUnavailableError("a cluster", "none", "start one")

    case = open_case(dict(list(films.items())[:1]))
    monkeypatch.setattr("hipray.distributed.score.connect", wait_in_vain)
    with pytest.raises(ClusterUnavailableError):
        case.run()


def test_an_output_belongs_to_one_archive_and_lies_outside_of_it(
    open_case: Callable[..., Case], films: dict[str, bytes]
) -> None:
    case = open_case({})
    with pytest.raises(ConfigError, match="outside"):
        case.run(output=case.archive.uri_of("scores"))
    assert list(case.archive.list()) == []
    with pytest.raises(DataError, match="found none"):
        case.run()
    assert not case.output.exists(RUN_KEY), "a mistyped archive claims nothing"
    case.output.create(RUN_KEY, json.dumps({"archive": "s3://other/films", "select": {}}).encode())
    case.archive.write("film.dcm", b"film")
    with pytest.raises(ConfigError, match="that of s3://other/films"):
        case.run()


def test_a_release_of_phantoms_needs_leave(open_case: Callable[..., Case]) -> None:
    with pytest.raises(ConfigError, match="allow_phantom_release"):
        open_case({}).run(allow_phantom_release=False)


def test_an_altered_index_stops_the_run_with_its_own_error(
    open_case: Callable[..., Case], films: dict[str, bytes]
) -> None:
    case = open_case(dict(list(films.items())[:1]))
    case.output.write("index/ranges.json", b"[]")
    case.output.write("index/listing-0000/range-0000/00000000.json", b"{}")
    with pytest.raises(StorageError, match="altered"):
        case.run()


def test_decoding_is_never_fused_into_the_model_actors(
    open_case: Callable[..., Case], workspace: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    case = open_case({})
    feed = WorkFeed(case.config, case.release, relist=True, submission=1)
    build_dataset(case.config, case.release, feed).explain()
    feed.close()
    plan = capsys.readouterr().out.rpartition("Physical Plan (Optimized)")[2]
    operators = [line for line in plan.splitlines() if "MapOperator" in line]
    assert len(operators) == 3
    assert not any("->" in line for line in operators)


def build_deadly_decoder(key: str) -> type[ShardDecoder]:
    """A decoder whose process ends with one film; its class travels by value."""

    class Deadly(ShardDecoder):
        def _read(self, work: Work) -> ReadFilms:
            with self._begun.noted(work, restarted=self._restarted) as letters:
                if not letters and any(entry.key == key for entry in work.entries):
                    os._exit(1)
            return super()._read(work) if not letters else ReadFilms(letters=letters)

    Deadly.__name__ = ShardDecoder.__name__
    return Deadly


@pytest.mark.cluster
@pytest.mark.full
def test_a_shard_that_kills_every_actor_ends_as_letters_and_all_others_are_scored(
    open_case: Callable[..., Case], films: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = open_case(dict(list(films.items())[:6]))
    poison = list(films)[2]
    with monkeypatch.context() as patch:
        patch.setattr(score_pipeline, "ShardDecoder", build_deadly_decoder(poison))
        result = case.run(shard_files=1, max_failed_fraction=0.5)
    assert (result.listed, result.scored, result.failed) == (6, 5, 1)
    letters = pd.read_parquet(io.BytesIO(case.output.read("dead-letters/letters.parquet")))
    assert list(zip(letters["key"], letters["fault"], strict=True)) == [(poison, "process_lost")]
    assert "more memory" in letters["message"][0]
    result = case.run(shard_files=1)
    assert (result.scored, result.failed) == (6, 0)


@pytest.mark.cluster
@pytest.mark.full
def test_actors_that_ray_gives_up_end_the_run_with_an_error_that_says_so(
    open_case: Callable[..., Case], films: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = open_case(dict(list(films.items())[:2]))
    monkeypatch.setattr(score_pipeline, "ShardDecoder", build_deadly_decoder(next(iter(films))))
    monkeypatch.setattr(score_pipeline, "TASK_RETRIES", 0)
    with pytest.raises(ProcessLostError, match="give it more memory"):
        case.run(shard_files=1)


@pytest.mark.cluster
@pytest.mark.full
def test_a_long_run_is_several_datasets_that_take_on_from_each_other(
    open_case: Callable[..., Case], films: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = open_case(dict(list(films.items())[:7]))
    built: list[WorkFeed] = []

    def build(config: ScoreRun, release: Release, feed: WorkFeed) -> Dataset:
        built.append(feed)
        return build_dataset(config, release, feed)

    monkeypatch.setattr(score_pipeline, "MOST_SHARDS", 3)
    monkeypatch.setattr("hipray.distributed.score.build_dataset", build)
    result = case.run(shard_files=1)
    assert (result.scored, result.parts) == (7, 7)
    assert len(built) == 3
    assert len(set(map(id, built))) == 1, "one feed: the archive is listed once"


@pytest.mark.cluster
@pytest.mark.full
def test_a_feed_that_was_killed_hands_nothing_out_twice(
    open_case: Callable[..., Case], films: dict[str, bytes]
) -> None:
    case = open_case(films)
    config = case.config.model_copy(update={"shard_files": 1})
    feed = WorkFeed(config, case.release, relist=True, submission=1)
    work = feed.take(HIPS + 1)
    keys = [parse_work(next(work)).entries[0].key for _ in range(HIPS // 2)]
    (process_id,) = find_descendants(FEED_TITLE, of=os.getpid())
    os.kill(process_id, signal.SIGKILL)
    keys += [parse_work(text).entries[0].key for text in work]
    feed.close()
    assert keys == sorted(films), "though nothing has a part yet"


def test_work_that_is_lost_in_every_round_is_told_as_what_may_go_well_another_time(
    open_case: Callable[..., Case], films: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    case, rounds = open_case(dict(list(films.items())[:2])), list[bool]()
    parts = PartSet.of(case.release, case.config)
    list(list_open_work(case.config, case.archive, case.output, parts, relist=True))

    class LostWork:
        def __init__(self, *_: object, relist: bool, submission: int) -> None:
            rounds.append(relist)

        def has_more(self) -> bool:
            return False

        def close(self) -> None:
            pass

    monkeypatch.setattr(score, "WorkFeed", LostWork)
    monkeypatch.setattr(score, "build_dataset", lambda *_: None)
    monkeypatch.setattr(score, "_iterate", lambda _: iter(()))
    with pytest.raises(ClusterUnavailableError, match="1 lost on the way") as caught:
        case.run()
    assert caught.value.exit_code == 75
    assert rounds == [True, *[False] * (MOST_ROUNDS - 1)]


@pytest.fixture
def throttling() -> Iterator[ThrottlingS3]:
    server = ThrottlingS3()
    yield server
    server.close()


def throttled_case(throttling: ThrottlingS3, films: dict[str, bytes]) -> Case:
    bucket = throttling.s3.new_store()
    publish_small_release(bucket.child("work"), view=View.WHOLE, segmenters=False)
    for key, data in films.items():
        bucket.write(f"archive/{key}", data)
    config = ScoreRun(
        workspace=bucket.uri_of("work"),
        storage=StorageSettings(
            endpoint_url=throttling.s3.endpoint_url, max_attempts=2, read_timeout_s=2
        ),
        images=bucket.uri_of("archive"),
        release="small",
        runtime=RuntimeChoice.ONNX,
        shard_files=4,
        fetch_rounds=1,
        max_failed_fraction=0.5,
        allow_phantom_release=True,
    )
    return Case(config, bucket.child("archive"), bucket.child("work/scores"))


@pytest.mark.cluster
@pytest.mark.full
def test_films_the_store_will_not_give_fail_alone_and_are_scored_by_a_retry(
    throttling: ThrottlingS3, films: dict[str, bytes], ray_session: None
) -> None:
    case = throttled_case(throttling, dict(list(films.items())[:8]))
    slow, late = list(films)[1], list(films)[6]
    throttling.throttled, throttling.silent = (slow,), (late,)
    result = case.run()
    assert (result.listed, result.scored, result.refused, result.failed) == (8, 6, 0, 2)
    letters = pd.read_parquet(io.BytesIO(case.output.read("dead-letters/letters.parquet")))
    assert dict(zip(letters["key"], letters["fault"], strict=True)) == {
        slow: "throttled", late: "timed_out",
    }  # fmt: skip
    throttling.throttled = throttling.silent = ()
    assert case.run().failed == 2  # a plain submission leaves them
    again = case.run(retry=RetryScope.FAILED)
    assert not list(case.output.list("retries"))
    assert (again.listed, again.scored, again.failed, again.parts) == (8, 8, 0, 4)
    assert sorted(case.rows()["key"]) == sorted(list(films)[:8])


@pytest.mark.cluster
@pytest.mark.full
def test_a_store_that_gives_too_few_films_stops_the_run_with_its_own_error(
    throttling: ThrottlingS3, films: dict[str, bytes], ray_session: None
) -> None:
    case = throttled_case(throttling, dict(list(films.items())[:8]))
    throttling.throttled = tuple(list(films)[:5])
    with pytest.raises(StoreThrottledError):
        case.run()
    summary = json.loads(case.output.read("summary.json"))
    assert summary["files"] == {"listed": 8, "scored": 3, "refused": 0, "failed": 5}
    throttling.throttled = ()
    result = case.run(retry=RetryScope.FAILED)
    assert (result.scored, result.failed) == (8, 0)
