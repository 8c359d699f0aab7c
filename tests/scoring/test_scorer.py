import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hipray.bundles.loading import Loading
from hipray.config.jobs import ScoreRun
from hipray.config.scoring import RetryScope, Selection
from hipray.config.storage import StorageSettings
from hipray.data.images import read_hips
from hipray.data.isolation import IsolatedReader
from hipray.data.pseudonyms import KEY_BYTES, Pseudonyms
from hipray.errors import (
    AccessDeniedError,
    BundleError,
    DataError,
    StoreFullError,
    StoreThrottledError,
    StoreUnavailableError,
)
from hipray.pipeline import Pipeline, load_stages
from hipray.releases.release import Release
from hipray.runtime.engine import Engine
from hipray.scoring.begun import MOST_TRIES, BegunWork
from hipray.scoring.claim import claim_output
from hipray.scoring.decoder import ShardDecoder
from hipray.scoring.estimate import measure_rates
from hipray.scoring.faults import FailedFilm, FailureWatch, Fault, parse_letters
from hipray.scoring.films import FilmReader
from hipray.scoring.open_work import list_lost, list_work
from hipray.scoring.outputs import open_output
from hipray.scoring.packing import pack_films, unpack_films
from hipray.scoring.parts import PartSet, is_retry
from hipray.scoring.retraction import Retraction
from hipray.scoring.retries import Retries, list_retry_work
from hipray.scoring.rows import Row, build_table, probability_column
from hipray.scoring.scorer import (
    BATCH_FILMS,
    GPU_LOST_EXIT_CODE,
    ShardScorer,
    check_complete,
)
from hipray.scoring.session import ScoreResult, conclude, count_listed, hold_output
from hipray.scoring.shards import Entry
from hipray.scoring.stage_tables import DECODED_SCHEMA, WORK_SCHEMA, build_stage_row
from hipray.scoring.work import Work, parse_work
from hipray.storage import Store, open_store
from hipray.vocab import Device, Runtime, View
from tests.data.film_files import encode_dicom
from tests.distributed.throttling import ThrottlingS3
from tests.scoring.test_begun import die_with
from tests.small_release import draw_phantoms, publish_small_release

TOLERANCE = 1e-5
PATIENT = {
    "PatientName": "Planted^Person", "PatientID": "PLANTED-4711", "PatientBirthDate": "19310203",
}  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("work")))


@pytest.fixture(scope="module")
def release(workspace: Store) -> Release:
    return publish_small_release(workspace, view=View.WHOLE, segmenters=False)


@pytest.fixture(scope="module")
def films() -> dict[str, bytes]:
    return draw_phantoms(BATCH_FILMS[Device.CPU] + 2)


@pytest.fixture
def config(workspace: Store, films: dict[str, bytes], tmp_path: Path) -> ScoreRun:
    archive = open_store(str(tmp_path / "archive"))
    for key, data in films.items():
        archive.write(key, data)
    return ScoreRun(workspace=workspace.uri, images=archive.uri, output=str(tmp_path / "scores"))


def stages(
    config: ScoreRun, release: Release, *, restarted: bool = False
) -> tuple[ShardDecoder, ShardScorer]:
    claim_output(config, open_output(config))
    arguments = config.model_dump_json(), release.model_dump_json(), lambda: restarted
    return ShardDecoder(*arguments), ShardScorer(*arguments)


def list_open(config: ScoreRun, release: Release) -> Iterator[pa.Table]:
    for work in list_work(config.model_dump_json(), release.model_dump_json(), relist=True):
        yield build_stage_row(WORK_SCHEMA, {"work": work})


def list_planned(config: ScoreRun, release: Release, submission: int) -> Iterator[pa.Table]:
    texts = config.model_dump_json(), release.model_dump_json()
    for work in list_retry_work(*texts, submission):
        yield build_stage_row(WORK_SCHEMA, {"work": work})


def score_all(config: ScoreRun, release: Release) -> list[Row]:
    """Score what is open and return the rows of all parts."""
    decode, score = stages(config, release)
    for work in list_open(config, release):
        (outcome,) = score(decode(work)).to_pylist()
        assert (outcome["letters"], outcome["published"]) == ("[]", True)
    parts, output = PartSet.of(release, config), open_output(config)
    return [row for part in parts.read(output, parts.list_all(output))
            for row in part.table.to_pylist()]  # fmt: skip


def test_the_stages_give_the_numbers_of_the_pipeline(
    config: ScoreRun, workspace: Store, release: Release, films: dict[str, bytes]
) -> None:
    rows = {row["key"]: row for row in score_all(config, release)}
    assert set(rows) == set(films)
    loading = Loading(Engine(Runtime.ONNX), verify=False)
    pipeline = Pipeline(load_stages(workspace, release, loading))
    for key, data in films.items():
        (hip,) = pipeline.answer([read_hips(data, name=key)])[0].hips
        row = rows[key]
        for region in hip.regions:
            column = probability_column(region.label_type, region.region)
            assert row[column] == pytest.approx(region.probability, abs=TOLERANCE)
        assert hip.headline is not None
        assert row["headline_probability"] == pytest.approx(hip.headline.probability, abs=TOLERANCE)
        assert row["etag"] == row["listed_etag"]
        assert row["bundle_digests"] == [member.bundle for member in release.members]
        assert row["release_digest"] == release.digest
        assert (row["runtime"], row["device"]) == ("onnx", "cpu")


def test_films_of_equal_pixels_are_scored_once_and_reported_for_each_key(
    config: ScoreRun, release: Release, films: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, data = open_store(config.images), next(iter(films.values()))
    for number in range(3):
        archive.write(f"again/{number}.dcm", data)
    counts: list[int] = []
    answer = Pipeline.answer
    monkeypatch.setattr(
        Pipeline, "answer",
        lambda self, results, **more: counts.append(len(results)) or answer(
            self, results, **more),
    )  # fmt: skip
    once = config.model_copy(update={"deduplicate": True, "shard_files": 8})
    rows = {row["key"]: row for row in score_all(once, release)}
    assert sum(counts) == len(films)
    copies = [rows[f"again/{number}.dcm"] for number in range(3)] + [rows[next(iter(films))]]
    assert len({row["headline_probability"] for row in copies}) == 1
    assert len({row["pixel_sha256"] for row in rows.values()}) == len(films)
    assert len({row["file_id"] for row in copies}) == 4


def test_a_changed_film_is_scored_anew_and_its_old_row_leaves_the_parts(
    config: ScoreRun, release: Release, films: dict[str, bytes]
) -> None:
    config = config.model_copy(update={"shard_files": 8})
    before = {row["key"]: row for row in score_all(config, release)}
    key = list(films)[3]
    open_store(config.images).write(key, b"junk now")
    score_all(config, release)
    output, parts = open_output(config), PartSet.of(release, config)
    retraction = Retraction(output, parts, lambda: None)
    assert [retraction.retract_replaced() for _ in range(2)] == [1, 0]
    rows = score_all(config, release)
    assert sorted(row["key"] for row in rows) == sorted(films)
    (changed,) = [row for row in rows if row["key"] == key]
    assert (changed["outcome"], before[key]["outcome"]) == ("refused", "scored")
    assert all(row == before[row["key"]] for row in rows if row["key"] != key)


def test_a_film_that_travelled_to_the_model_has_the_whole_answer_of_one_that_did_not(
    config: ScoreRun, workspace: Store, release: Release
) -> None:
    archive, keys = open_store(config.images), Pseudonyms(b"k" * KEY_BYTES)
    reader = FilmReader(archive, IsolatedReader(config.limits, release.preprocessing), keys)
    read = reader.read([Entry(info.key, info.size, info.etag) for info in archive.list()][:2])
    sent = unpack_films(*pack_films(read.films))
    pipeline = Pipeline(load_stages(workspace, release, Loading(Engine(Runtime.ONNX))))
    direct = pipeline.answer([film.result for film in read.films])
    travelled = pipeline.answer(
        [film.result for film in sent], stated=[film.person for film in sent]
    )
    assert travelled == direct


@pytest.fixture
def throttling() -> Iterator[ThrottlingS3]:
    server = ThrottlingS3()
    yield server
    server.close()


@pytest.fixture
def remote(
    throttling: ThrottlingS3, workspace: Store, films: dict[str, bytes], tmp_path: Path
) -> ScoreRun:
    """Six films on a server that fails as told."""
    archive = throttling.s3.new_store()
    for key, data in list(films.items())[:6]:
        archive.write(key, data)
    settings = StorageSettings(
        endpoint_url=throttling.s3.endpoint_url, max_attempts=1, read_timeout_s=10
    )
    return ScoreRun(
        workspace=workspace.uri, images=archive.uri, storage=settings, shard_files=4,
        output=str(tmp_path / "scores"), fetch_rounds=1, max_failed_fraction=0.5,
    )  # fmt: skip


def submit(
    config: ScoreRun, release: Release, *, once_listed: Callable[[], object] = lambda: None
) -> ScoreResult:
    """One submission without Ray: what is open is scored in this process."""
    decode, score = stages(config, release)
    output = open_output(config)
    watch = FailureWatch(config.max_failed_fraction, count_listed=partial(count_listed, output))
    parts = PartSet.of(release, config)
    with hold_output(output) as lease:
        number = lease.attempt
    retries = Retries(output, parts, number)
    if config.retry is RetryScope.FAILED:
        retries.plan()
    opened = [*list_open(config, release), *list_planned(config, release, number)]
    once_listed()
    for work in opened:
        (outcome,) = score(decode(work)).to_pylist()
        letters = parse_letters(outcome["letters"])
        watch.add(files=outcome["files"], letters=letters, unlike_listed=outcome["unlike_listed"])
    assert list(list_lost(output, parts)) == retries.open() == []
    return conclude(config, output, release, parts, watch, seconds=0, check_held=lambda: None)


def counts(result: ScoreResult) -> tuple[int, int, int, int]:
    return result.listed, result.scored, result.refused, result.failed


def test_films_the_store_will_not_give_fail_alone_and_a_retry_scores_them(
    remote: ScoreRun, release: Release, films: dict[str, bytes], throttling: ThrottlingS3
) -> None:
    slow, late = list(films)[1], list(films)[4]
    archive = open_store(remote.images, remote.storage)
    for key in (next(iter(films)), slow):
        archive.write(key, encode_dicom(**PATIENT))
    throttling.throttled, throttling.silent = (slow,), (late,)
    storage = remote.storage.model_copy(update={"read_timeout_s": 1})
    remote = remote.model_copy(update={"deduplicate": True})
    hasty = remote.model_copy(update={"storage": storage})
    assert counts(submit(hasty, release)) == (6, 4, 0, 2)
    letters = pd.read_parquet(f"{remote.output}/dead-letters/letters.parquet")
    assert dict(zip(letters["key"], letters["fault"], strict=True)) == {
        slow: "throttled", late: "timed_out",
    }  # fmt: skip
    throttling.silent = ()
    assert counts(submit(remote, release)) == (6, 4, 0, 2)  # a plain submission leaves them
    retry = remote.model_copy(update={"retry": RetryScope.FAILED})
    assert counts(submit(retry, release)) == (6, 5, 0, 1)
    throttling.throttled = ()
    assert counts(submit(retry, release)) == (6, 6, 0, 0)
    assert counts(submit(retry, release)) == (6, 6, 0, 0)
    assert_tells_no_patient(open_output(remote))


def assert_tells_no_patient(output: Store) -> None:
    seen = set()
    for info in output.list():
        data = output.read(info.key)
        if info.key.endswith(".parquet"):
            table = pq.read_table(io.BytesIO(data))
            data = repr([table.schema.metadata, table.to_pylist()]).encode()
        assert not any(value.encode() in data for value in PATIENT.values()), info.key
        seen.add(info.key.partition("/")[0])
    assert {"parts", "index", "answers", "dead-letters", "summary.json", "summary.html"} <= seen


def keys_with_rows(config: ScoreRun, release: Release) -> list[str]:
    parts, output = PartSet.of(release, config), open_output(config)
    read = parts.read(output, parts.list_all(output))
    return sorted(key for part in read for key in part.table["key"].to_pylist())


def test_films_that_were_gone_or_changed_and_are_as_they_were_again_are_scored_by_a_retry(
    remote: ScoreRun, release: Release, films: dict[str, bytes], throttling: ThrottlingS3
) -> None:
    archive = open_store(remote.images, remote.storage)
    gone, changed, denied = list(films)[:3]
    throttling.throttled = (denied,)

    def disturb() -> None:
        archive.delete(gone)
        archive.write(changed, films[list(films)[7]])

    assert counts(submit(remote, release, once_listed=disturb)) == (6, 3, 2, 1)
    archive.write(changed, films[changed])
    assert counts(submit(remote, release)) == (6, 3, 2, 1)  # a plain submission leaves them
    retry = remote.model_copy(update={"retry": RetryScope.FAILED})
    assert counts(submit(retry, release)) == (6, 4, 1, 1), "one is still gone"
    archive.write(gone, films[gone])
    throttling.throttled = ()
    assert counts(submit(retry, release)) == (6, 6, 0, 0)
    assert keys_with_rows(remote, release) == list(films)[:6]
    assert counts(submit(retry, release)) == (6, 6, 0, 0)


def test_a_film_that_was_gone_and_is_not_given_at_its_retry_is_counted_once(
    remote: ScoreRun, release: Release, films: dict[str, bytes], throttling: ThrottlingS3
) -> None:
    archive = open_store(remote.images, remote.storage)
    gone, other = list(films)[:2]
    both = lambda: [archive.delete(key) for key in (gone, other)]  # noqa: E731
    assert counts(submit(remote, release, once_listed=both)) == (6, 4, 2, 0)
    archive.write(gone, films[gone])
    archive.write(other, films[other])
    throttling.throttled = (gone,)
    retry = remote.model_copy(update={"retry": RetryScope.FAILED})
    assert counts(submit(retry, release)) == (6, 5, 0, 1)
    throttling.throttled = ()
    assert counts(submit(retry, release)) == (6, 6, 0, 0)
    assert keys_with_rows(remote, release) == list(films)[:6]


def test_a_film_that_stays_changed_is_scored_by_the_next_listing_and_by_no_retry(
    remote: ScoreRun, release: Release, films: dict[str, bytes]
) -> None:
    archive = open_store(remote.images, remote.storage)
    changed = list(films)[1]
    change = lambda: archive.write(changed, films[list(films)[7]])  # noqa: E731
    assert counts(submit(remote, release, once_listed=change)) == (6, 5, 1, 0)
    retry = remote.model_copy(update={"retry": RetryScope.FAILED})
    assert counts(submit(retry, release)) == (6, 6, 0, 0)
    assert keys_with_rows(remote, release) == list(films)[:6]
    written = PartSet.of(release, remote).list_all(open_output(remote))
    assert not any(map(is_retry, written)), "it was changed and still is: no row for that"


def test_a_part_that_was_deleted_is_made_again_though_its_films_were_read_anew_since(
    remote: ScoreRun, release: Release, films: dict[str, bytes]
) -> None:
    output, parts = open_output(remote), PartSet.of(release, remote)
    archive = open_store(remote.images, remote.storage)
    assert counts(submit(remote, release)) == (6, 6, 0, 0)
    archive.write(list(films)[1], films[list(films)[7]])
    assert counts(submit(remote, release)) == (6, 6, 0, 0)
    output.delete(parts.key(next(parts.list_all(output))))
    assert counts(submit(remote, release)) == (6, 6, 0, 0)
    assert keys_with_rows(remote, release) == list(films)[:6]


def test_a_shard_whose_retry_alone_is_left_is_scored_again(
    remote: ScoreRun, release: Release, films: dict[str, bytes], throttling: ThrottlingS3
) -> None:
    throttling.throttled = (list(films)[1],)
    assert counts(submit(remote, release)) == (6, 5, 0, 1)
    throttling.throttled = ()
    retry = remote.model_copy(update={"retry": RetryScope.FAILED})
    assert counts(submit(retry, release)) == (6, 6, 0, 0)
    output, parts = open_output(remote), PartSet.of(release, remote)
    output.delete(parts.key(next(parts.list_all(output))))
    assert counts(submit(remote, release)) == (6, 6, 0, 0)
    assert keys_with_rows(remote, release) == list(films)[:6]


def test_a_list_of_keys_of_which_many_never_were_is_no_store_that_loses_objects(
    remote: ScoreRun, release: Release, films: dict[str, bytes], tmp_path: Path
) -> None:
    keys = tmp_path / "keys.csv"
    keys.write_text("\n".join(["key", *list(films)[:2], "none/1.dcm", "none/2.dcm"]))
    listed = remote.model_copy(
        update={"select": Selection(keys=str(keys)), "max_failed_fraction": 0.1}
    )
    assert counts(submit(listed, release)) == (4, 2, 2, 0)


def test_a_shard_of_which_nothing_can_be_had_stays_open_and_too_many_such_are_the_store_s_error(
    remote: ScoreRun, release: Release, films: dict[str, bytes], throttling: ThrottlingS3
) -> None:
    throttling.throttled = tuple(list(films)[:4])
    with pytest.raises(StoreThrottledError):
        submit(remote, release)
    output = open_output(remote)
    assert json.loads(output.read("summary.json"))["files"]["failed"] == 4
    assert len(list(output.list("parts"))) == 1
    throttling.throttled = ()
    assert counts(submit(remote, release)) == (6, 6, 0, 0)


def test_a_film_that_changed_while_its_shard_could_not_be_had_is_counted_once(
    remote: ScoreRun, release: Release, films: dict[str, bytes], throttling: ThrottlingS3
) -> None:
    lenient = remote.model_copy(update={"max_failed_fraction": 1.0})
    gone = list(films)[:4]
    throttling.throttled = tuple(gone)
    assert counts(submit(lenient, release)) == (6, 2, 0, 4)
    throttling.throttled = ()
    open_store(remote.images, remote.storage).write(gone[0], films[list(films)[7]])
    throttling.throttled = tuple(gone)
    assert counts(submit(lenient, release)) == (6, 2, 0, 4)
    throttling.throttled = ()
    assert counts(submit(lenient, release)) == (6, 6, 0, 0)


def test_a_store_out_of_reach_when_a_decoder_begins_costs_its_shard_and_not_the_run(
    config: ScoreRun, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: ScoreRun, output: Store) -> None:
        raise StoreUnavailableError("a store", "silence", "wait")

    decode, _ = stages(config, release)
    work = next(list_open(config, release))
    with monkeypatch.context() as patch:
        patch.setattr("hipray.scoring.decoder.load_claimed_pseudonyms", fail)
        (away,) = decode(work).to_pylist()
    entries = parse_work(work["work"][0].as_py()).entries
    assert [letter["entry"]["key"] for letter in json.loads(away["letters"])] == [
        e.key for e in entries
    ]
    (back,) = decode(work).to_pylist()
    assert back["letters"] == "[]"


def test_rates_are_not_measured_on_parts_of_an_earlier_version(
    config: ScoreRun, release: Release
) -> None:
    score_all(config, release)
    parts, output = PartSet.of(release, config), open_output(config)
    assert measure_rates(output, parts).films > 0
    name = next(parts.list_all(output))
    (part,) = parts.read(output, iter([name]))
    old = io.BytesIO()
    pq.write_table(part.table.drop_columns(["fetch_seconds"]), old)
    output.write(parts.key(name), old.getvalue())
    with pytest.raises(DataError, match="parts of an earlier version"):
        measure_rates(output, parts)


def test_a_gpu_that_fails_ends_its_process_while_the_shard_is_noted(
    config: ScoreRun, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access\nCUDA kernel errors")

    ended: list[tuple[int, int]] = []

    def end(code: int) -> None:
        ended.append((code, len(list(open_output(config).list("begun")))))

    decode, score = stages(config, release, restarted=True)
    decoded = decode(next(list_open(config, release)))
    with monkeypatch.context() as patch:
        patch.setattr("os._exit", end)
        patch.setattr(Pipeline, "answer", fail)
        with pytest.raises(torch.AcceleratorError):
            score(decoded)
    assert ended == [(GPU_LOST_EXIT_CODE, 1)], "films that break each GPU are given up in the end"
    (outcome,) = score(decoded).to_pylist()
    assert (outcome["letters"], outcome["published"]) == ("[]", True)


def test_an_output_that_is_full_or_read_only_on_the_way_ends_the_run_and_leaves_nothing_corrupt(
    remote: ScoreRun, release: Release, throttling: ThrottlingS3
) -> None:
    bucket = throttling.s3.new_store()
    config = remote.model_copy(update={"output": bucket.uri_of("scores")})
    throttling.full = "-00000001-"  # the second part
    with pytest.raises(StoreFullError, match="room for"):
        submit(config, release)
    written = {info.key: info.etag for info in bucket.list("scores/parts")}
    assert (len(written), len(keys_with_rows(config, release))) == (1, 4)
    throttling.full, throttling.read_only = "", "/parts/"
    with pytest.raises(AccessDeniedError, match="check the AWS credentials and policy"):
        submit(config, release)
    assert {info.key: info.etag for info in bucket.list("scores/parts")} == written
    throttling.read_only = ""
    assert counts(submit(config, release)) == (6, 6, 0, 0)
    assert written.items() <= {i.key: i.etag for i in bucket.list("scores/parts")}.items()


def test_an_archive_that_was_rewritten_since_it_was_listed_is_scored_and_read_once(
    remote: ScoreRun, release: Release, films: dict[str, bytes], throttling: ThrottlingS3,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("hipray.scoring.faults.MIN_FILES_SEEN", 1)
    assert len(list(list_open(remote, release))) == 2, "shards that nobody scored then"
    archive, read = open_store(remote.images, remote.storage), throttling.bytes_read
    for key, other in zip(list(films)[:6], list(films)[6:12], strict=True):
        archive.write(key, films[other])
    once = sum(len(films[key]) for key in list(films)[6:12])
    strict = remote.model_copy(update={"max_failed_fraction": 0.1})
    assert counts(submit(strict, release)) == (6, 6, 0, 0)
    assert throttling.bytes_read - read < 1.1 * once


def test_a_release_that_does_not_load_is_a_bundle_error(config: ScoreRun, release: Release) -> None:
    lost = release.model_copy(
        update={
            "members": tuple(m.model_copy(update={"bundle": "0" * 64}) for m in release.members)
        }
    )
    _, scorer = stages(config, lost)
    with pytest.raises(BundleError, match="000000"):
        scorer(build_stage_row(DECODED_SCHEMA, {}))


def test_a_part_without_rows_or_letter_for_a_film_is_never_published() -> None:
    work = Work("part", tuple(Entry(f"{number}", 1, "e") for number in range(3)))
    rows = [{"key": "0"}, {"key": "1"}]
    error = StoreThrottledError("an answer", "none", "try again later")
    letters = [FailedFilm.of(work.entries[2], error, tries=1)]
    check_complete(work, build_table(rows), letters)
    for missing_rows, given in ((rows, []), (rows[1:], letters), (rows * 2, letters * 2)):
        with pytest.raises(DataError, match="the 3 films of part"):
            check_complete(work, build_table(missing_rows), given)


@pytest.mark.parametrize("stage", ["decoder", "scorer"])
def test_a_shard_that_killed_its_process_too_often_ends_as_letters_and_stays_open(
    config: ScoreRun, release: Release, stage: str
) -> None:
    output, parts = open_output(config), PartSet.of(release, config)
    work_row = next(list_open(config, release))
    work = parse_work(work_row["work"][0].as_py())
    begun = BegunWork(output, parts.folder, stage)
    for _ in range(MOST_TRIES):
        die_with(begun, work)
    decode, score = stages(config, release, restarted=True)
    (outcome,) = score(decode(work_row)).to_pylist()
    letters = parse_letters(outcome["letters"])
    assert {letter.fault for letter in letters} == {Fault.PROCESS_LOST}
    assert (len(letters), outcome["published"]) == (len(work.entries), False)
    assert not list(output.list("parts"))
    (outcome,) = score(decode(work_row)).to_pylist()
    assert (outcome["letters"], outcome["published"]) == ("[]", True)


def test_one_film_that_fails_of_a_small_submission_is_no_sign_of_a_store_that_is_gone(
    remote: ScoreRun, release: Release, films: dict[str, bytes], throttling: ThrottlingS3
) -> None:
    config = remote.model_copy(update={"max_failed_fraction": 0.2})
    assert counts(submit(config, release)) == (6, 6, 0, 0)
    archive = open_store(remote.images, remote.storage)
    late = "films/zz-late.dcm"
    archive.write(late, next(iter(films.values())))
    throttling.throttled = (late,)
    assert counts(submit(config, release)) == (7, 6, 0, 1)
    with pytest.raises(StoreThrottledError):
        submit(remote.model_copy(update={"max_failed_fraction": 0.1}), release)
