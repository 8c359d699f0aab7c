"""The bench of batch scoring: rates against the pipeline and a loop, start-up, memory, resume.

All sides read the same films from the same S3 server and share the same cores with it. Rates are
steady: from the first result on, until the last, and what the clock misses no side has begun but
the loop, whose workers read some batches ahead. Start-up is a measure of its own.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hipray.benchmarks.archive_server import BUCKET, COUNT_PATH, FILLER
from hipray.benchmarks.footprint import MemoryWatch
from hipray.benchmarks.machine import pin_cores, use_threads
from hipray.benchmarks.measure import Measure, Pair, compare_rates, hold_below
from hipray.benchmarks.untrained import NAME, publish_untrained
from hipray.bundles.loading import Loading
from hipray.config.benchmarks import BenchRun, ScoreBench, ScoreMeasure
from hipray.config.experiment import ClassifierSettings
from hipray.config.jobs import ScoreRun
from hipray.config.phantom import PhantomConfig
from hipray.config.storage import StorageSettings
from hipray.data.isolation import IsolatedReader
from hipray.data.pseudonyms import load_pseudonyms
from hipray.distributed.cluster import connect
from hipray.distributed.score import run_score
from hipray.distributed.score_feed import WorkFeed
from hipray.distributed.score_pipeline import build_dataset
from hipray.errors import DataError, ProcessLostError
from hipray.pipeline import Pipeline, load_stages
from hipray.releases.engines import choose_engine
from hipray.releases.release import Release
from hipray.scoring.claim import claim_output
from hipray.scoring.films import FilmReader
from hipray.scoring.outputs import open_output
from hipray.scoring.scorer import describe_origin, score_films
from hipray.scoring.shards import Entry, group_entries
from hipray.storage import Store, open_store
from hipray.vocab import Device

PEER = "hipray.benchmarks.peers.score_loop"
PIPELINE_TARGET = 0.95
LOOP_TARGET = 1.5
START_LIMIT_S = 45.0
FIRST_ROWS_LIMIT_S = 60.0
MEMORY_TARGET = 1 / 1.1
"""Least memory of the tenth over that of the whole."""
RESUME_LIMIT_S = 30.0
SHARD_FILES = 32
DECODER_CPUS = 0.5
"""What one decoder reserves: the model actor has a thread for each core beside it."""
START_FILMS = 4
"""Films of the run whose time is nearly all start-up."""
LONG_FILMS = 128
"""Films among the keys of the long archive."""
POLL_S = 0.2
GATE_POLL_S = 0.02


@dataclass(frozen=True)
class Bench:
    """Everything the measures share."""

    settings: ScoreBench
    folder: Path
    release: Release
    storage: StorageSettings

    def archive(self, prefix: str) -> Store:
        """Return an archive of the server."""
        return open_store(f"s3://{BUCKET}/{prefix}", self.storage)

    def run(self, prefix: str, output: str) -> ScoreRun:
        """Return the run that scores an archive into a folder of its own."""
        return ScoreRun(
            workspace=str(self.folder),
            storage=self.storage,
            images=self.archive(prefix).uri,
            release=NAME,
            output=str(self.folder / output),
            shard_files=SHARD_FILES,
            max_decoders=self.settings.cores,
            cpus_per_decoder=DECODER_CPUS,
            cpus_per_actor=self.settings.cores - DECODER_CPUS,
            allow_phantom_release=True,
        )

    def count_read(self) -> int:
        """Return how many films the server has given away."""
        url = f"{self.storage.endpoint_url}{COUNT_PATH}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return int(answer.read())


def measure_score(config: BenchRun) -> Iterator[Measure]:
    """Yield the measures of the score bench as they are taken."""
    wanted = config.score.measures
    with pin_cores(config.score.cores), _open_bench(config) as bench:
        if ScoreMeasure.START in wanted:
            yield _measure_start(bench)
            yield _measure_first_rows(bench)
        connect()
        if ScoreMeasure.MEMORY in wanted:  # before this process loads a pipeline of its own
            yield from _measure_memory(bench)
        if ScoreMeasure.RATES in wanted:
            yield from _compare_rates(bench)


@contextmanager
def _open_bench(config: BenchRun) -> Iterator[Bench]:
    Path(config.out).mkdir(parents=True, exist_ok=True)
    settings = ClassifierSettings(size_px=config.score.size_px)
    with tempfile.TemporaryDirectory(prefix="score-", dir=config.out) as name:
        folder = Path(name).resolve()
        release = publish_untrained(
            open_store(str(folder)), config.score.backbones, settings,
            working_px=config.score.working_px,
        )  # fmt: skip
        with _serve(config, folder) as storage:
            yield Bench(config.score, folder, release, storage)


@contextmanager
def _serve(config: BenchRun, folder: Path) -> Iterator[StorageSettings]:
    score = config.score
    small = round(score.small_files * score.small_film_share)
    archives = [
        {"prefix": "rates", "films": score.films, "fillers": 0},
        {"prefix": "start", "films": START_FILMS, "fillers": 0},
    ]
    if ScoreMeasure.START in score.measures:
        fillers = score.long_keys - LONG_FILMS
        archives.append({"prefix": "long", "films": LONG_FILMS, "fillers": fillers})
    if ScoreMeasure.MEMORY in score.measures:
        for name, files, films in (("large", score.small_files, small),
                                   ("tenth", score.small_files // 10, small // 10)):  # fmt: skip
            archives.append({"prefix": name, "films": films, "fillers": files - films})
    job = folder / "server.json"
    phantom = PhantomConfig(
        n_patients=score.different_films, n_second_hips=0, n_device_a=0, image_px=score.film_px,
        exact_prevalence=False,
    )  # fmt: skip
    job.write_text(json.dumps({"archives": archives, "phantom": phantom.model_dump()}))
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "bench")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "bench")
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    server = subprocess.Popen(
        [sys.executable, "-m", "hipray.benchmarks.archive_server", str(job)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None, "it was asked for"
        port = int(server.stdout.readline())
        yield StorageSettings(endpoint_url=f"http://127.0.0.1:{port}", region="us-east-1")
    finally:
        server.kill()
        server.wait()


def _measure_start(bench: Bench) -> Measure:
    started = time.perf_counter()
    _score_all(bench.run("start", "start"), files=START_FILMS)
    seconds = time.perf_counter() - started
    return hold_below("score_start_up", [seconds], unit="s", limit=START_LIMIT_S,
                      films=START_FILMS)  # fmt: skip


def _measure_first_rows(bench: Bench) -> Measure:
    """The time from a submission, Ray's own start included, until a part lies in the output."""
    run = bench.run("long", "long")
    job = bench.folder / "long.json"
    job.write_text(run.model_dump_json())
    code = ("import sys; from hipray.config.jobs import ScoreRun; "
            "from hipray.distributed.score import run_score; "
            "run_score(ScoreRun.model_validate_json(open(sys.argv[1]).read()))")  # fmt: skip
    started = time.perf_counter()
    driver = subprocess.Popen([sys.executable, "-c", code, str(job)])
    output = open_store(str(run.output))
    try:
        wait_for_part(output, driver)
        seconds = time.perf_counter() - started
    finally:
        driver.terminate()
        driver.wait()
    return hold_below("score_first_rows", [seconds], unit="s", limit=FIRST_ROWS_LIMIT_S,
                      keys=bench.settings.long_keys)  # fmt: skip


def wait_for_part(output: Store, driver: "subprocess.Popen[bytes]") -> None:
    """Wait for the first part; raises ProcessLostError where the driver ends without one."""
    ended = False
    while next(output.list("parts"), None) is None:
        if ended:
            raise ProcessLostError(
                f"a part in {output.uri}", f"a driver that ended with {driver.returncode}",
                "see what it printed",
            )  # fmt: skip
        time.sleep(POLL_S)
        ended = driver.poll() is not None


def _score_all(run: ScoreRun, *, files: int) -> None:
    """Score an archive; raises DataError unless all its files are scored or refused."""
    result = run_score(run)
    if (result.listed, result.failed) != (files, 0):
        raise DataError(
            f"{files} files scored or refused", f"{result.listed} listed, {result.failed} failed",
            "see the dead letters",
        )  # fmt: skip


def _compare_rates(bench: Bench) -> Iterator[Measure]:
    against_pipeline, against_loop = [], []
    for number in range(bench.settings.repeats):
        ours = _rate_ray(bench, f"rates-{number}")
        against_pipeline.append(Pair(ours, _rate_pipeline(bench)))
        against_loop.append(Pair(ours, _rate_loop(bench)))
    about = {"films": bench.settings.films, "film_px": bench.settings.film_px,
             "backbones": list(bench.settings.backbones),
             "size_px": bench.settings.size_px}  # fmt: skip
    yield compare_rates("score_rate_vs_pipeline", against_pipeline, unit="films/s",
                        target=PIPELINE_TARGET, **about)  # fmt: skip
    yield compare_rates("score_rate_vs_loop", against_loop, unit="films/s", target=LOOP_TARGET,
                        **about)  # fmt: skip


class GatedFeed(WorkFeed):
    """A feed that keeps all but its first shard until a gate opens.

    Else decoders would run ahead while the model actor still loads, before the clock starts.
    """

    def __init__(self, config: ScoreRun, release: Release, gate: Path) -> None:
        super().__init__(config, release, relist=True, submission=1)
        self._gate = gate

    def take(self, most: int) -> Iterator[str]:
        """Yield work as `WorkFeed` does, the second of it when the gate is open."""
        for number, work in enumerate(super().take(most)):
            while number == 1 and not self._gate.exists():
                time.sleep(GATE_POLL_S)
            yield work


def _rate_ray(bench: Bench, output: str) -> float:
    """Films per second of the Ray Data pipeline after its first shard."""
    gate, films, first = bench.folder / f"{output}.gate", 0, 0.0
    run = bench.run("rates", output)
    claim_output(run, open_output(run))
    feed = GatedFeed(run, bench.release, gate)
    dataset = build_dataset(run, bench.release, feed)
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        if set(batch["letters"].to_pylist()) != {"[]"}:
            raise DataError("films that are all read", "dead letters", "see the server's log")
        if first:
            films += sum(batch["files"].to_pylist())
        else:
            first = time.perf_counter()
            gate.touch()
    seconds = time.perf_counter() - first
    feed.close()
    return films / seconds


def _rate_pipeline(bench: Bench) -> float:
    """Films per second of the same stages in this process, after the first shard."""
    archive = bench.archive("rates")
    entries = [Entry(info.key, info.size, info.etag) for info in archive.list()]
    pseudonyms = load_pseudonyms(open_store(str(bench.folder)))
    with use_threads(bench.settings.cores), IsolatedReader() as reader:
        run = bench.run("rates", "direct").model_copy(
            update={"cpus_per_actor": bench.settings.cores}
        )
        store = open_store(str(bench.folder))
        engine = choose_engine(store, bench.release, run, device=Device.CPU)
        pipeline = Pipeline(load_stages(store, bench.release, Loading(engine)))
        origin = describe_origin(run, pipeline)
        films = FilmReader(archive, reader, pseudonyms)
        first, count = 0.0, 0
        for group in group_entries(entries, max_files=SHARD_FILES, max_bytes=1 << 40):
            score_films(pipeline, films.read(group).films, origin)
            count += len(group) if first else 0
            first = first or time.perf_counter()
        return count / (time.perf_counter() - first)


def _rate_loop(bench: Bench) -> float:
    """Films per second of the loop over a DataLoader, after its first batch."""
    settings = ClassifierSettings(size_px=bench.settings.size_px)
    job = {
        "endpoint_url": bench.storage.endpoint_url,
        "bucket": BUCKET,
        "prefix": "rates",
        "size_px": bench.settings.size_px,
        "threads": bench.settings.cores,
        "settings": settings.model_dump(mode="json"),
        "backbones": [member.backbone for member in bench.release.members],
        "out": str(bench.folder / "loop.csv"),
    }
    path = bench.folder / "loop.json"
    path.write_text(json.dumps(job))
    text = subprocess.run(
        [sys.executable, "-m", PEER, str(path)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    result: dict[str, Any] = json.loads(text.splitlines()[-1])
    return float(result["films"] / result["seconds"])


def _measure_memory(bench: Bench) -> Iterator[Measure]:
    """Peaks of driver and actors on the tenth and on the whole archive, then the resume.

    Most files are a few bytes that are no film: many shards pass in the time that films would take.
    """
    peaks, files = {}, bench.settings.small_files
    films = round(files * bench.settings.small_film_share)
    for prefix, size in (("tenth", files // 10), ("large", files)):
        with MemoryWatch() as watch:
            _score_all(bench.run(prefix, prefix), files=size)
        peaks[prefix] = watch.peaks
    for part in peaks["large"]:
        pair = Pair(peaks["tenth"][part] / 1e6, peaks["large"][part] / 1e6)
        yield compare_rates(f"score_memory_{part}", [pair], unit="MB", target=MEMORY_TARGET,
                            files=files, films=films, bytes_of_others=len(FILLER),
                            ours_is=f"{files // 10} files", peer_is=f"{files} files")  # fmt: skip
    before, started = bench.count_read(), time.perf_counter()
    _score_all(bench.run("large", "large"), files=files)
    yield judge_resume(time.perf_counter() - started, bench.count_read() - before, files=files)


def judge_resume(seconds: float, downloaded: int, *, files: int) -> Measure:
    """Return the measure of a resume: short, and without reading any film again."""
    measure = hold_below("score_resume", [seconds], unit="s", limit=RESUME_LIMIT_S, files=files,
                         films_downloaded=downloaded)  # fmt: skip
    return replace(measure, met=measure.met and not downloaded)
