"""The bench of the endpoint: against its own pipeline in process, and against a hand-written one.

All sides hold the same networks, get the same films over loopback and share the same cores; they
are measured in turn, round after round, while the others rest.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import httpx

from hipray.benchmarks.footprint import MemoryWatch, read_endpoint
from hipray.benchmarks.load import Load, send_at_rate, send_in_turn
from hipray.benchmarks.machine import pin_cores
from hipray.benchmarks.measure import (
    Measure,
    Pair,
    compare_durations,
    compare_rates,
    hold_below,
    skip,
)
from hipray.benchmarks.untrained import NAME, publish_untrained
from hipray.config.benchmarks import BenchRun, ServeBench
from hipray.config.experiment import ClassifierSettings, SegmenterSettings
from hipray.config.jobs import ServeRun
from hipray.config.phantom import PhantomConfig
from hipray.data.images import read_hips
from hipray.data.phantom import film_path, plan_archive, write_study
from hipray.errors import ConfigError
from hipray.inference import start_pipeline
from hipray.pipeline import Pipeline
from hipray.releases.engines import choose_engine
from hipray.releases.release import Release
from hipray.serving.address import find_free_port
from hipray.serving.serve import run_serve
from hipray.storage import Store, open_store
from hipray.vocab import Device

PREFIX = "serve"
PEER = "hipray.benchmarks.peers.handwritten"
ONE, BUSY, CROWDED = ALL_CALLERS = 1, 8, 32
"""Callers at a time."""
THROUGHPUT_TARGET = 0.90
"""Least films per second of eight callers over those of the pipeline in process."""
ADDED_LIMIT_MS = 40.0
PEER_TARGET = 1.5
GOODPUT_TARGET = 0.9
REFUSAL_LIMIT_S = 0.2
GROWTH_LIMIT = 0.05
"""Most growth of the endpoint's memory under overload, as a share of what it took before."""
PEER_READY_S = 120.0


@dataclass(frozen=True)
class Round:
    """All sides measured once, one right after another."""

    direct_rate: float
    """Films per second of the pipeline in process, in batches."""
    direct_s: float
    """Median seconds of one film in the pipeline."""
    served: dict[int, Load]
    """The endpoint, by the number of callers."""
    peer: dict[int, Load]
    """The peer, likewise."""


def measure_serve(config: BenchRun) -> Iterator[Measure]:
    """Yield the measures of the endpoint; raises ConfigError where sides differ in machine."""
    bench = config.serve
    if os.environ.get("RAY_ADDRESS"):
        raise ConfigError(
            "one machine for all sides", "a cluster in RAY_ADDRESS", "unset RAY_ADDRESS"
        )
    Path(config.out).mkdir(parents=True, exist_ok=True)
    with pin_cores(bench.cores), tempfile.TemporaryDirectory(dir=config.out) as folder:
        store = open_store(str(Path(folder).resolve()))
        release, films = publish_release(store, bench), draw_films(bench)
        served = build_serve_run(store, bench)
        pipeline = _start_direct(store, release, served, bench)
        with _run_peer(store, bench) as peer_url, _run_endpoint(served) as url:
            _warm_up(films, url, peer_url)
            rounds = [_measure_round(pipeline, films, url, peer_url, bench)
                      for _ in range(bench.rounds)]  # fmt: skip
            yield from summarise(rounds, bench)
            peak = max(load.rate for r in rounds for load in r.served.values())
            yield from _measure_overload(url, films, peak, bench)
        with _run_endpoint(leave_to_defaults(served)) as url:
            _warm_up(films, url)
            yield _measure_defaults(pipeline, films, url, bench)


def publish_release(store: Store, bench: ServeBench) -> Release:
    """Publish networks as large as real ones: a U-Net, and all backbones for each region."""
    return publish_untrained(
        store, bench.backbones, ClassifierSettings(size_px=bench.size_px),
        working_px=bench.working_px, regions=bench.regions,
        segmenter=SegmenterSettings(size_px=bench.segmenter_px),
    )  # fmt: skip


def draw_films(bench: ServeBench) -> list[bytes]:
    """Return phantom films of one hip each, as DICOM."""
    config = PhantomConfig(
        seed=0, n_patients=bench.films, n_second_hips=0, n_device_a=0, image_px=bench.film_px,
        exact_prevalence=False,
    )  # fmt: skip
    studies = plan_archive(config)[: bench.films]
    return [write_study(config, study)[film_path(config, study)] for study in studies]


def build_serve_run(store: Store, bench: ServeBench) -> ServeRun:
    """Return the endpoint that is compared: by default all stages in one replica on all cores.

    So both sides of a comparison compute with the same threads. Nobody gets it without asking:
    see `leave_to_defaults`.
    """
    return ServeRun(
        workspace=store.uri,
        release=NAME,
        port=0,
        fused=bench.fused,
        allow_phantom_release=True,
        cpus_per_stage=bench.cores,
        gpus_per_stage=0,
        precision=bench.precision,
        batch=bench.batch,
        queue=bench.queue,
        block=False,
    )


def leave_to_defaults(served: ServeRun) -> ServeRun:
    """Return the endpoint that `hipray serve` deploys where its graph and sizes are not set."""
    return served.model_copy(update={"fused": False, "cpus_per_stage": None})


def describe_endpoint(bench: ServeBench) -> dict[str, Any]:
    """Return what a measure's line tells of the endpoint, by the names of its settings."""
    return {"fused": bench.fused, "cpus_per_stage": bench.cores}


def _start_direct(store: Store, release: Release, served: ServeRun, bench: ServeBench) -> Pipeline:
    engine = choose_engine(store, release, served, device=Device.CPU)
    return start_pipeline(store, release, engine, cpus=bench.cores, batch=bench.batch)


@contextmanager
def _run_endpoint(config: ServeRun) -> Iterator[str]:
    endpoint = run_serve(config)
    try:
        yield f"{endpoint.url}/v1/score"
    finally:
        endpoint.shutdown()


@contextmanager
def _run_peer(store: Store, bench: ServeBench) -> Iterator[str]:
    job = {"workspace": store.uri, "release": NAME, "threads": bench.cores,
           "port": find_free_port("127.0.0.1")}  # fmt: skip
    path = Path(store.uri) / "peer.json"
    path.write_text(json.dumps(job))
    process = subprocess.Popen([sys.executable, "-m", PEER, str(path)])
    try:
        _await_peer(f"http://127.0.0.1:{job['port']}/healthz")
        yield f"http://127.0.0.1:{job['port']}/score"
    finally:
        process.terminate()
        process.wait()


def _await_peer(url: str) -> None:
    until = time.monotonic() + PEER_READY_S
    while time.monotonic() < until:
        try:
            httpx.get(url, trust_env=False)
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return
    raise ConfigError("a peer that starts", f"none within {PEER_READY_S:.0f} s", "free the machine")


def _warm_up(films: Sequence[bytes], *urls: str) -> None:
    for url in urls:
        send_in_turn(url, films, concurrency=2, requests=4)


def _measure_round(
    pipeline: Pipeline, films: Sequence[bytes], url: str, peer_url: str, bench: ServeBench
) -> Round:
    return Round(
        direct_rate=_rate_direct(pipeline, films, bench.batch),
        direct_s=median(_time_direct(pipeline, film) for film in films[: bench.single_requests]),
        served=_load_with_all(url, films, bench),
        peer=_load_with_all(peer_url, films, bench),
    )


def _load_with_all(url: str, films: Sequence[bytes], bench: ServeBench) -> dict[int, Load]:
    return {
        callers: send_in_turn(
            url, films, concurrency=callers, requests=_count_requests(callers, bench)
        )
        for callers in ALL_CALLERS
    }


def _measure_defaults(
    pipeline: Pipeline, films: Sequence[bytes], url: str, bench: ServeBench
) -> Measure:
    """State what the default graph does on these cores: a deployment for each stage."""
    pairs = []
    for _ in range(bench.rounds):
        direct_rate = _rate_direct(pipeline, films, bench.batch)
        load = send_in_turn(url, films, concurrency=BUSY, requests=_count_requests(BUSY, bench))
        pairs.append(Pair(load.rate, direct_rate))
    return compare_rates(
        f"{PREFIX}_default_throughput_c{BUSY}",
        pairs,
        unit="films/s",
        peer_is="the pipeline in process, in batches",
        fused=False,
        cpus_per_stage="default",
    )


def _count_requests(callers: int, bench: ServeBench) -> int:
    return bench.single_requests if callers == ONE else callers * bench.requests_per_caller


def _rate_direct(pipeline: Pipeline, films: Sequence[bytes], batch: int) -> float:
    preprocessing = pipeline.stages.release.preprocessing
    started = time.perf_counter()
    for start in range(0, len(films), batch):
        pipeline.answer([read_hips(film, name="", preprocessing=preprocessing)
                         for film in films[start : start + batch]])  # fmt: skip
    return len(films) / (time.perf_counter() - started)


def _time_direct(pipeline: Pipeline, film: bytes) -> float:
    started = time.perf_counter()
    pipeline(film)
    return time.perf_counter() - started


def summarise(rounds: Sequence[Round], bench: ServeBench) -> Iterator[Measure]:
    """Yield throughput, added latency and the comparison with the peer."""
    for callers in ALL_CALLERS:
        yield compare_rates(
            f"{PREFIX}_throughput_c{callers}",
            [Pair(r.served[callers].rate, r.direct_rate) for r in rounds],
            unit="films/s",
            target=THROUGHPUT_TARGET if callers == BUSY else None,
            peer_is="the pipeline in process, in batches",
            p50_s=median(r.served[callers].quantile_s(0.5) for r in rounds),
            p99_s=median(r.served[callers].quantile_s(0.99) for r in rounds),
            p99_of=min(len(r.served[callers].answered) for r in rounds),
            **describe_endpoint(bench),
        )
        loads = [r.served[callers] for r in rounds]
        yield count_lost(
            f"{PREFIX}_lost_c{callers}",
            sum(load.lost for load in loads),
            of=sum(len(load.replies) for load in loads),
        )
    yield hold_below(
        f"{PREFIX}_added_latency_p50",
        [1000 * (r.served[ONE].quantile_s(0.5) - r.direct_s) for r in rounds],
        unit="ms",
        limit=ADDED_LIMIT_MS,
        direct_ms=median(1000 * r.direct_s for r in rounds),
    )
    for callers in ALL_CALLERS:
        yield from _compare_with_peer(rounds, callers, bench)


def _compare_with_peer(
    rounds: Sequence[Round], callers: int, bench: ServeBench
) -> Iterator[Measure]:
    """Yield rate and slowest answers beside the peer's; the targets are those of BUSY.

    `p99_of` are the fewest answers of a round and side: of a few dozen, it is near the slowest.
    """
    judged = callers == BUSY
    yield compare_rates(
        f"{PREFIX}_vs_handwritten_c{callers}",
        [Pair(r.served[callers].rate, r.peer[callers].rate) for r in rounds],
        unit="films/s",
        target=PEER_TARGET if judged else None,
        precision=bench.precision,
        **describe_endpoint(bench),
        peer_lost=sum(r.peer[callers].lost for r in rounds),
    )
    yield compare_durations(
        f"{PREFIX}_p99_vs_handwritten_c{callers}",
        [
            Pair(r.served[callers].quantile_s(0.99), r.peer[callers].quantile_s(0.99))
            for r in rounds
        ],
        unit="s",
        target=1.0 if judged else None,
        p99_of=min(len(side[callers].answered) for r in rounds for side in (r.served, r.peer)),
    )


def count_lost(name: str, lost: int, *, of: int) -> Measure:
    """Judge how many requests had neither an answer nor a refusal: none may."""
    return Measure(
        name, "requests", ours=float(lost), target=0.0, met=lost == 0, n=of,
        spread=(float(lost), float(lost)),
    )  # fmt: skip


def _measure_overload(
    url: str, films: Sequence[bytes], peak: float, bench: ServeBench
) -> Iterator[Measure]:
    """Send too much, between two loads that are not: a virtual machine's speed drifts."""
    beside = [_rate_busy(url, films, bench)]
    (before,) = read_endpoint().values()
    with MemoryWatch(read_endpoint) as watch:
        load = send_at_rate(
            url, films, per_second=bench.overload_factor * peak, seconds=bench.overload_s
        )
    (most,) = watch.peaks.values()
    beside.append(_rate_busy(url, films, bench))
    yield from judge_overload(load, mean(beside), memory=Pair(most, before), bench=bench)


def _rate_busy(url: str, films: Sequence[bytes], bench: ServeBench) -> float:
    requests = _count_requests(BUSY, bench)
    return send_in_turn(url, films, concurrency=BUSY, requests=requests).rate


def judge_overload(
    load: Load, peak: float, *, memory: Pair, bench: ServeBench
) -> Iterator[Measure]:
    """Yield goodput, lost requests, the speed of refusals and the growth of memory.

    `memory` has the bytes of the endpoint's processes: the most under overload, and before it.
    """
    in_time = [reply for reply in load.answered if reply.ended_s <= bench.overload_s]
    yield compare_rates(
        f"{PREFIX}_overload_goodput",
        [Pair(len(in_time) / bench.overload_s, peak)],
        unit="films/s",
        target=GOODPUT_TARGET,
        peer_is=f"the rate of {BUSY} callers right before and after",
        sent=len(load.replies),
        refused=len(load.refused),
        **describe_endpoint(bench),
    )
    yield count_lost(f"{PREFIX}_overload_lost", load.lost, of=len(load.replies))
    yield _judge_refusals(load)
    yield hold_below(
        f"{PREFIX}_overload_memory_growth",
        [max(memory.ours / memory.peer - 1, 1e-6)],
        unit="share",
        limit=GROWTH_LIMIT,
        most_mb=memory.ours / 1e6,
        before_mb=memory.peer / 1e6,
    )


def _judge_refusals(load: Load) -> Measure:
    name, unit = f"{PREFIX}_overload_slowest_refusal", "s"
    if not load.refused:
        return skip(name, unit=unit, reason="not measured: nothing was refused")
    slowest = max(reply.seconds for reply in load.refused)
    return hold_below(name, [slowest], unit=unit, limit=REFUSAL_LIMIT_S)
