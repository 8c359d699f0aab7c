"""The serve bench, small: loads are counted right, judged right, and both sides answer alike."""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from hipray.answers import answer_as_dict
from hipray.benchmarks.load import LOST, Load, Reply, send_at_rate, send_in_turn
from hipray.benchmarks.measure import Pair
from hipray.benchmarks.peers.handwritten import build_app
from hipray.benchmarks.serve import (
    BUSY,
    CROWDED,
    ONE,
    Round,
    build_serve_run,
    describe_endpoint,
    draw_films,
    judge_overload,
    leave_to_defaults,
    publish_release,
    summarise,
)
from hipray.bundles.loading import Loading
from hipray.cli import main
from hipray.config.benchmarks import ServeBench
from hipray.config.jobs import ServeRun
from hipray.pipeline import Pipeline, load_stages
from hipray.runtime.engine import Engine
from hipray.storage import open_store
from hipray.vocab import Region, Runtime
from tests.small_workspace import BACKBONE, one_thread

SMALL = ServeBench(
    regions=(Region.TOTAL_HIP,),
    backbones=(BACKBONE,),
    size_px=32,
    segmenter_px=32,
    working_px=64,
    films=2,
    film_px=128,
    cores=1,
    queue=4,
    rounds=1,
    single_requests=2,
    requests_per_caller=2,
    overload_s=3,
)

FLAT = Pair(101e6, 100e6)
"""Bytes under overload, and before."""


def replies(seconds: float, count: int, status: int = HTTPStatus.OK) -> tuple[Reply, ...]:
    return tuple(Reply(status, seconds, seconds * (n + 1)) for n in range(count))


def load(rate: float, latency_s: float) -> Load:
    return Load(replies(latency_s, 10), 10 / rate)


def test_rates_and_latencies_are_compared_with_pipeline_and_peer() -> None:
    served = {ONE: load(1.0, 1.02), BUSY: load(1.9, 4.0), CROWDED: load(2.0, 16.0)}
    peer = {ONE: load(0.9, 1.1), BUSY: load(1.0, 8.0), CROWDED: load(0.5, 60.0)}
    once = Round(direct_rate=2.0, direct_s=1.0, served=served, peer=peer)
    lines = {m.name: m.as_line() for m in summarise([once], SMALL)}
    assert lines["serve_throughput_c8"]["ratio"] == pytest.approx(0.95)
    assert lines["serve_throughput_c8"]["met"]
    assert lines["serve_throughput_c32"]["target"] is None
    assert lines["serve_added_latency_p50"]["ours"] == pytest.approx(20, abs=0.1)
    assert lines["serve_vs_handwritten_c8"]["ratio"] == pytest.approx(1.9)
    assert lines["serve_p99_vs_handwritten_c8"]["ratio"] == pytest.approx(2.0)
    assert lines["serve_p99_vs_handwritten_c8"]["p99_of"] == 10
    assert lines["serve_throughput_c8"]["p99_of"] == 10
    assert lines["serve_vs_handwritten_c32"]["ratio"] == pytest.approx(4.0)
    judged = {name for name, line in lines.items() if name.count("handwritten") and line["target"]}
    assert judged == {"serve_vs_handwritten_c8", "serve_p99_vs_handwritten_c8"}
    assert all(line["met"] in (True, None) for line in lines.values())


def test_the_lines_tell_which_endpoint_was_measured_and_the_default_one_is_another() -> None:
    store = open_store("/nowhere")
    measured = build_serve_run(store, SMALL)
    assert describe_endpoint(SMALL) == {
        "fused": measured.fused,
        "cpus_per_stage": measured.cpus_per_stage,
    }
    default = leave_to_defaults(measured)
    assert (default.fused, default.cpus_per_stage) == (False, ServeRun().cpus_per_stage)
    assert (default.queue, default.workspace) == (measured.queue, measured.workspace)


def test_only_answers_in_time_are_goodput_and_the_slowest_refusal_counts() -> None:
    late = Reply(HTTPStatus.OK, 1.0, SMALL.overload_s + 1)
    refused = replies(0.01, 5, HTTPStatus.SERVICE_UNAVAILABLE)
    slow = Reply(HTTPStatus.SERVICE_UNAVAILABLE, 0.5, 1.0)
    lost = Reply(LOST, 1.0, 1.0)
    crowd = Load((*replies(0.1, 3), late, *refused, slow, lost), 4.0)
    goodput, lost, refusal, memory = judge_overload(crowd, peak=1.0, memory=FLAT, bench=SMALL)
    assert goodput.ratio == pytest.approx(1.0)
    assert goodput.as_line().items() >= {"sent": 11, "refused": 6}.items()
    assert (lost.ours, lost.n, lost.met) == (1, 11, False)
    assert (refusal.ours, refusal.met) == (0.5, False)
    assert memory.met
    assert memory.as_line().items() >= {"most_mb": 101.0, "before_mb": 100.0}.items()


def test_an_overload_may_lose_no_request() -> None:
    crowd = Load((*replies(0.1, 3), *replies(0.01, 5, HTTPStatus.SERVICE_UNAVAILABLE)), 4.0)
    measures = judge_overload(crowd, peak=1.0, memory=FLAT, bench=SMALL)
    (lost,) = [each for each in measures if each.name == "serve_overload_lost"]
    assert (lost.ours, lost.target, lost.met) == (0, 0, True)


def test_where_nothing_was_refused_the_speed_of_refusals_is_not_measured() -> None:
    calm = Load(replies(0.1, 3), 4.0)
    measures = judge_overload(calm, peak=1.0, memory=FLAT, bench=SMALL)
    lines = {measure.name: measure.as_line() for measure in measures}
    refusal = lines["serve_overload_slowest_refusal"]
    assert (refusal["met"], refusal["skipped"]) == (None, "not measured: nothing was refused")


@pytest.fixture
def slow_server() -> Iterator[tuple[str, list[int]]]:
    """A server that takes 50 ms and remembers how many requests it had at a time."""
    lock, running, most = threading.Lock(), itertools.count(), []
    present = [0]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            with lock:
                present[0] += 1
                most.append(present[0])
            time.sleep(0.05)
            with lock:
                present[0] -= 1
            refuse = next(running) % 4 == 3
            self.send_response(HTTPStatus.SERVICE_UNAVAILABLE if refuse else HTTPStatus.OK)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", most
    server.shutdown()
    server.server_close()


def test_callers_in_turn_are_as_many_as_asked_for(slow_server) -> None:
    url, most = slow_server
    found = send_in_turn(url, [b"a", b"b"], concurrency=3, requests=12)
    assert (len(found.answered), len(found.refused), found.lost) == (9, 3, 0)
    assert max(most) == 3
    assert found.quantile_s(0.5) >= 0.05


def test_a_rate_does_not_wait_for_answers(slow_server) -> None:
    url, _ = slow_server
    found = send_at_rate(url, [b"a"], per_second=40, seconds=0.5)
    assert len(found.replies) == 20
    assert found.lost == 0


def test_nobody_at_the_other_end_is_a_lost_request() -> None:
    assert send_in_turn("http://127.0.0.1:9/", [b"a"], concurrency=1, requests=1).lost == 1


def test_the_peer_gives_the_answer_of_the_served_pipeline(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with one_thread():
        release = publish_release(store, SMALL)
        film = draw_films(SMALL)[0]
        ours = Pipeline(load_stages(store, release, Loading(Engine(Runtime.ONNX))))
        with TestClient(build_app(Pipeline(load_stages(store, release)))) as client:
            theirs = client.post("/score", files={"file": ("film", film)}).json()
    wanted = json.loads(json.dumps(answer_as_dict(ours(film))))
    (hip,), (expected,) = theirs["hips"], wanted["hips"]
    assert hip["refusal"] == expected["refusal"]
    for found, region in zip(hip["regions"], expected["regions"], strict=True):
        assert found["probability"] == pytest.approx(region["probability"], abs=1e-4)


@pytest.mark.full
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_the_command_prints_one_line_for_each_measure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = SMALL.model_dump(mode="json", exclude_unset=True)
    table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
    assert main(["bench", "serve", "--set", f"out={tmp_path}", "--set", f"serve={{{table}}}"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["name"] for line in lines} >= {
        "serve_throughput_c8",
        "serve_added_latency_p50",
        "serve_vs_handwritten_c8",
        "serve_overload_goodput",
        "serve_default_throughput_c8",
    }
    assert all(line["n"] >= 1 for line in lines)
