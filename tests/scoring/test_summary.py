import io
import json
import re
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from hipray import RESEARCH_NOTICE
from hipray.config.evaluation import Combine
from hipray.config.experiment import ThresholdRule
from hipray.config.jobs import PlanRun, ScoreRun
from hipray.config.scoring import Machine, PlannedJob
from hipray.errors import AccessDeniedError, DataError, RunBusyError, StoreFullError
from hipray.evaluation.release_result import RegionScores, ReleaseResult, ScoreDistribution
from hipray.metrics import population_stability
from hipray.releases.release import Release
from hipray.scoring.claim import RUN_KEY
from hipray.scoring.drift import DriftLevel, measure_drift
from hipray.scoring.estimate import (
    MachineEstimate,
    MeasuredRates,
    describe_plan,
    estimate,
)
from hipray.scoring.faults import FailedFilm, FailureWatch, Fault
from hipray.scoring.films import FETCHED_AHEAD
from hipray.scoring.index import Index
from hipray.scoring.open_work import list_open_work
from hipray.scoring.parts import PartSet, write_part
from hipray.scoring.rows import build_table, probability_column
from hipray.scoring.session import ScoreResult, check_current, conclude, settle
from hipray.scoring.shards import Entry
from hipray.scoring.status import DRIVER_KEY, ProgressNote, describe_status
from hipray.scoring.summary import LETTERS_AT_ONCE, LETTERS_KEY, write_letters
from hipray.scoring.tally import HEADLINE, Histogram
from hipray.scoring.unpublished import Unpublished
from hipray.storage import Store, acquire, open_store
from hipray.vocab import View
from tests.small_release import publish_small_release

FILMS, SHARD_FILES = 20, 5
REFUSED = 3
FETCH_S, DECODE_S, MODEL_S = 0.8, 0.2, 0.6


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    store = open_store(str(tmp_path_factory.mktemp("work")))
    return publish_small_release(store, view=View.WHOLE, segmenters=False)


@pytest.fixture
def config(tmp_path: Path) -> ScoreRun:
    archive = open_store(str(tmp_path / "archive"))
    archive.write("dxa.csv", b"no film")
    for number in range(FILMS):
        archive.write(f"{number:03d}.dcm", b"film")
    return ScoreRun(
        images=archive.uri, output=str(tmp_path / "out"), shard_files=SHARD_FILES, price_per_hour=36
    )


@pytest.fixture
def output(config: ScoreRun, release: Release) -> Store:
    """An output whose first two of four shards are scored, one film refused by the store."""
    output = open_store(str(config.output))
    parts = PartSet.of(release, config)
    archive = open_store(config.images)
    for number, work in enumerate(list_open_work(config, archive, output, parts, relist=True)):
        if number < 2:
            failed = work.entries[:1] if number else ()
            _publish(output, parts, work.part, work.entries[len(failed):], failed)  # fmt: skip
    now = time.time()
    ProgressNote(config.images, "small", parts.folder, now - 10, now, files=10,
                 failed={"denied": 1}, price_per_hour=36).write(output)  # fmt: skip
    return output


def _publish(
    output: Store, parts: PartSet, part: str, films: tuple[Entry, ...], failed: tuple[Entry, ...]
) -> None:
    error = AccessDeniedError("access to a film", "403 AccessDenied", "check the policy")
    about = {
        "device": "cpu", "fetch_seconds": FETCH_S, "decode_seconds": DECODE_S,
        "model_seconds": MODEL_S,
    }  # fmt: skip
    rows = [
        {"key": entry.key, "size": entry.size, **about, **_outcome(int(entry.key[:3]))}
        for entry in films
    ]
    letters = [FailedFilm.of(entry, error, tries=1) for entry in failed]
    write_part(output, parts.key(part), build_table(rows), letters)


def _outcome(number: int) -> dict[str, object]:
    if number < REFUSED:
        return {"outcome": "refused", "refusal_code": "implant"}
    return {"outcome": "scored", HEADLINE: number / FILMS, "headline_abnormal": number > 5}


def conclude_held(config: ScoreRun, output: Store, release: Release) -> ScoreResult:
    parts, watch = PartSet.of(release, config), FailureWatch(0.1)
    return conclude(config, output, release, parts, watch, seconds=1, check_held=lambda: None)


def finish(config: ScoreRun, release: Release, output: Store) -> None:
    parts, archive = PartSet.of(release, config), open_store(config.images)
    for work in list(list_open_work(config, archive, output, parts, relist=False)):
        _publish(output, parts, work.part, work.entries, ())


def test_the_summary_adds_up_and_dead_letters_carry_reason_and_exception(
    config: ScoreRun, release: Release, output: Store
) -> None:
    finish(config, release, output)
    result = conclude_held(config, output, release)
    assert (result.listed, result.scored, result.refused, result.failed) == (20, 16, 3, 1)
    summary = json.loads(output.read("summary.json"))
    assert summary["files"] == {"listed": 20, "scored": 16, "refused": 3, "failed": 1}
    assert summary["left_out"] == {"table": 1}
    assert result.left_out == 1
    assert summary["refusals"] == {"implant": REFUSED}
    assert summary["failures"] == {"denied": 1}
    assert sum(summary["distributions"][HEADLINE]["bins"]) == 16
    (letter,) = pq.read_table(io.BytesIO(output.read("dead-letters/letters.parquet"))).to_pylist()
    assert (letter["key"], letter["fault"]) == ("005.dcm", Fault.DENIED)
    assert letter["exception"] == "AccessDeniedError"
    assert "403 AccessDenied" in letter["message"]


def test_a_run_that_finds_no_film_says_so_and_leaves_its_output_unclaimed(
    config: ScoreRun, release: Release, tmp_path: Path
) -> None:
    output = open_store(str(tmp_path / "unused"))
    output.create(RUN_KEY, b"{}")
    Index(output).choose_ranges(("m",))
    with pytest.raises(DataError, match="found none; check the path and `select`"):
        conclude_held(config, output, release)
    assert not list(output.list())


def test_a_stopped_run_leaves_its_dead_letters(
    config: ScoreRun, release: Release, output: Store
) -> None:
    parts = PartSet.of(release, config)
    error = AccessDeniedError("access to a film", "403 AccessDenied", "check the policy")
    letter = FailedFilm.of(Entry("019.dcm", 4, "e"), error, tries=1)
    Unpublished(output, parts).note("0000-0000-00000003-x", [letter])
    settle(config, output, release, parts, lambda: None)
    letters = pq.read_table(io.BytesIO(output.read("dead-letters/letters.parquet"))).to_pylist()
    assert [row["key"] for row in letters] == ["005.dcm", "019.dcm"]
    assert not output.exists("summary.json"), "nobody has tried the others"


def test_a_driver_that_was_taken_over_writes_nothing_any_more(
    config: ScoreRun, release: Release, output: Store
) -> None:
    finish(config, release, output)
    with acquire(output, DRIVER_KEY, ttl_s=60) as stale:
        assert stale is not None
        stale.declare_lost()
        with acquire(output, DRIVER_KEY, ttl_s=60) as fresh:
            assert fresh is not None
            before = {info.key: info.etag for info in output.list()}
            parts, watch = PartSet.of(release, config), FailureWatch(0.1)
            with pytest.raises(RunBusyError, match="took over"):
                conclude(
                    config, output, release, parts, watch, seconds=1,
                    check_held=lambda: check_current(stale, output),
                )  # fmt: skip
            assert {info.key: info.etag for info in output.list()} == before
            check_current(fresh, output)


def test_a_second_release_has_parts_of_its_own_and_leaves_those_of_the_first(
    config: ScoreRun, release: Release, output: Store
) -> None:
    finish(config, release, output)
    first = {info.key: info.etag for info in output.list("parts")}
    other = release.model_copy(update={"headline_threshold": 0.25})
    finish(config, other, output)
    assert first.items() < {info.key: info.etag for info in output.list("parts")}.items()
    assert conclude_held(config, output, other).parts == len(first)
    pattern = json.loads(output.read("summary.json"))["parts"]["pattern"]
    latest = pq.read_table(sorted(Path(str(config.output)).glob(pattern)), partitioning=None)
    assert len(latest) == FILMS
    assert not {f"{config.output}/{key}" for key in first} & set(
        map(str, Path(str(config.output)).glob(pattern))
    )


def test_more_letters_than_are_held_at_a_time_are_all_in_the_table(tmp_path: Path) -> None:
    output, error = open_store(str(tmp_path)), AccessDeniedError("access", "403", "check it")
    sent = [f"{number:06d}.dcm" for number in range(LETTERS_AT_ONCE + 1)]
    letters = (FailedFilm.of(Entry(key, 4, "etag"), error, tries=1) for key in sent)
    write_letters(output, (("shard", letter) for letter in letters))
    table = pq.read_table(io.BytesIO(output.read(LETTERS_KEY)))
    assert table["key"].to_pylist() == sent


def test_letters_that_the_disk_has_no_room_for_are_one_clear_sentence(tmp_path: Path) -> None:
    error = AccessDeniedError("access", "403", "check it")
    letter = FailedFilm.of(Entry("a.dcm", 4, "etag"), error, tries=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(StoreFullError, match="room on the disk"):
            write_letters(open_store(str(tmp_path)), [("shard", letter)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_machine_whose_folders_for_temporary_files_are_full_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    with pytest.raises(StoreFullError, match="set TMPDIR"):
        write_letters(open_store(str(tmp_path)), [])


def test_the_page_shows_the_counts_and_loads_nothing(
    config: ScoreRun, release: Release, output: Store
) -> None:
    finish(config, release, output)
    conclude_held(config, output, release)
    page = output.read("summary.html").decode()
    assert RESEARCH_NOTICE in page
    assert re.search(r"implant</th><td>3<", page)
    assert re.search(r"table</th><td>1<", page)
    assert f"failed file is a row of <code>{LETTERS_KEY}<" in page
    assert page.count("<svg") == 1 + len(release.questions)
    assert not re.search(r"https?://|<script|<link", page)


def test_counts_of_altered_parts_are_an_error(
    config: ScoreRun, release: Release, output: Store
) -> None:
    with pytest.raises(DataError, match="20 files listed"):
        conclude_held(config, output, release)  # two shards have no part


def test_status_tells_progress_rate_time_and_cost_left(output: Store) -> None:
    with acquire(output, DRIVER_KEY, ttl_s=60, owner_note="hipray score") as lease:
        assert lease is not None
        text = describe_status(output)
    assert "listing: complete, 20 files" in text
    assert "left out: 1 keys (1 table)" in text
    assert "shards: 2 of 4 done (50 %)" in text
    assert "rate: 1.0 files/s" in text
    assert "time left: about 10 s; cost left: 0.10" in text
    assert "failed: 1 denied" in text
    assert "hipray score" in text
    assert "none is running" in describe_status(output)


def test_status_promises_no_time_for_what_comes_after_the_last_shard(
    config: ScoreRun, release: Release, output: Store
) -> None:
    finish(config, release, output)
    with acquire(output, DRIVER_KEY, ttl_s=60, owner_note="hipray score"):
        text = describe_status(output)
    assert "shards: 4 of 4 done (100 %)" in text
    assert "time left: not known, every shard is done" in text


def test_status_of_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a scoring run in"):
        describe_status(open_store(str(tmp_path)))


def test_a_plan_compares_machines_by_measured_rates(config: ScoreRun, output: Store) -> None:
    plan = PlanRun(
        job=PlannedJob.SCORE,
        output=config.output,
        films=3_600_000,
        machines=(
            Machine(name="cpu", count=10, cpus=8, price_per_hour=0.5),
            Machine(name="gpu", cpus=4, gpus=1, price_per_hour=2, gpu_films_per_second=100),
            Machine(name="unknown", cpus=4, gpus=1),
        ),
    )
    text = describe_plan(plan, output)
    assert "0.800 s to fetch one, 0.200 core-seconds to decode it, 0.600 core-seconds of" in text
    assert "10 x cpu: 10.0 h, costs 50.06; 100.0 films/s" in text
    assert "gpu: 2.1 days, costs 100.03; 20.0 films/s, bound by decoding" in text
    assert "unknown: not known, no film was scored on a GPU" in text
    assert text.endswith("fastest: cpu\ncheapest: cpu")


def test_a_plan_without_a_number_counts_what_is_left(config: ScoreRun, output: Store) -> None:
    text = describe_plan(PlanRun(job=PlannedJob.SCORE, output=config.output), output)
    assert text.startswith("films: 10 left of 20 listed")
    assert "one measured core" in text


def test_a_plan_waits_for_the_listing_unless_it_is_told_how_many(
    config: ScoreRun, output: Store
) -> None:
    output.delete("index/listing-0000/complete.json")
    plan = PlanRun(job=PlannedJob.SCORE, output=config.output)
    with pytest.raises(DataError, match=r"listed to its end, found 4 shards so far"):
        describe_plan(plan, output)
    told = describe_plan(plan.model_copy(update={"films": 7}), output)
    assert told.startswith("films: 7\n")


def test_waiting_for_the_store_costs_no_core_but_few_films_are_waited_for_at_a_time() -> None:
    machine = Machine(name="m", cpus=8)
    near = MeasuredRates(films=9, fetch_s=0.2, decode_s=0.2, cpu_s=0.6, gpu_s=None, gpu="")
    found = estimate(machine, near, 100)
    assert isinstance(found, MachineEstimate)
    assert found.films_per_second == pytest.approx(8 / 0.8), "as without any latency"
    far = estimate(machine, replace(near, fetch_s=16.0), 100)
    assert isinstance(far, MachineEstimate)
    assert far.films_per_second == pytest.approx(16 * FETCHED_AHEAD / 16.0)
    assert "store" in far.bound


def test_drift_is_measured_against_the_release_s_own_scores(release: Release) -> None:
    generator = np.random.default_rng(0)
    own = generator.uniform(0.2, 0.6, 2000)
    edges = np.quantile(own, np.arange(1, 10) / 10)
    (region, label), *_ = release.questions
    scores = {
        "n_hips": 2000, "n_patients": 2000, "n_positives": 500, "metrics": {}, "ece": 0.0,
        "calibration_in_the_large": None,
        "distribution": ScoreDistribution(edges=tuple(edges), shares=(0.1,) * 10),
    }  # fmt: skip
    known = release.model_copy(
        update={
            "evaluation": ReleaseResult(
                endpoint="", source=release.data_source, members=(), combine=Combine.MEAN,
                threshold_rule=ThresholdRule.YOUDEN, n_folds=5, n_repeats=1,
                n_folds_without_threshold=0, n_without_t_score=0, baselines=(),
                regions=(RegionScores(region=region, label_type=label, **scores),), **scores,
            )
        }
    )  # fmt: skip
    same, moved = Histogram(edges), Histogram(edges)
    same.add(pd.Series(generator.uniform(0.2, 0.6, 2000)))
    moved.add(pd.Series(generator.uniform(0.5, 0.9, 2000)))
    found = measure_drift(known, {HEADLINE: same, probability_column(label, region): moved})
    assert [drift.level for drift in found] == [DriftLevel.LITTLE, DriftLevel.LARGE]
    assert measure_drift(release, {HEADLINE: same}) == []
    assert population_stability([0.5, 0.5], [10, 10]) == pytest.approx(0)


@pytest.mark.parametrize("width", [1e-1, 1e-3, 1e-9, 0.0])
def test_scores_that_lie_close_together_have_not_moved_because_of_it(width: float) -> None:
    own, again = 0.3 + width * np.random.default_rng(0).random((2, 5000))
    edges = np.unique(np.quantile(own, np.arange(1, 10) / 10))
    shares = np.bincount(np.searchsorted(edges, own, side="right"), minlength=len(edges) + 1)
    histogram = Histogram(tuple(edges))
    histogram.add(pd.Series(again))
    assert population_stability(shares / len(own), histogram.between) < 0.02


def test_the_index_counts_what_listings_found(config: ScoreRun, output: Store) -> None:
    totals = Index(output).totals()
    assert (totals.files, totals.bytes, totals.shards) == (FILMS, 4 * FILMS, 4)
