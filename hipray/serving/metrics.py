"""The endpoint's own metrics, on Ray's Prometheus page of each node beside Serve's.

Ray writes `ray_` before each name and `_total` behind that of a counter: `hipray_requests` is
`ray_hipray_requests_total` in `cluster/grafana.json` and `cluster/alerts.yaml`. What to do when an
alert fires is in the runbook, `cluster/README.md`.
"""

from collections.abc import Iterator, Mapping
from functools import cache

import httpx
import ray
from ray.util.metrics import Counter, Gauge, Histogram

from hipray.answers import StudyAnswer
from hipray.serving.audit_line import AuditLine, outcome_of
from hipray.serving.problems import ProblemCode, ProblemError, come_later

SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]
"""Bounds of requests and their steps."""

TENTHS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
"""Bounds of probabilities: what is compared from one week to the next."""

FILMS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]
"""Bounds of batches."""

SCRAPE_S = 5.0


class RequestMetrics:
    """What the ingress counts; `release` is the digest's start, so that a swap is seen."""

    def __init__(self) -> None:
        self._requests = Counter(
            "hipray_requests", "Requests by outcome.", ("release", "route", "outcome", "status")
        )
        self._seconds = Histogram(
            "hipray_request_seconds", "Seconds of requests.", SECONDS, ("release", "route")
        )
        self._problems = Counter(
            "hipray_problems",
            "Requests, and films of a batch, without an answer by reason.",
            ("release", "code"),
        )
        self._films = Counter(
            "hipray_films", "Films that were answered, by outcome.", ("release", "outcome")
        )
        self._refusals = Counter(
            "hipray_refusals", "Refused films and hips by reason.", ("release", "code")
        )
        self._findings = Counter(
            "hipray_findings", "Remarks on hips by kind.", ("release", "finding")
        )
        self._steps = Histogram(
            "hipray_step_seconds", "Seconds of the steps of a film.", SECONDS, ("release", "step")
        )
        self._probability = Histogram(
            "hipray_probability",
            "Calibrated probabilities that were answered, for drift.",
            TENTHS,
            ("release", "region", "label"),
        )

    def observe_request(self, line: AuditLine) -> None:
        """Count a request that has ended."""
        release = {"release": line.release_digest[:12]}
        route = {**release, "route": line.route}
        outcome = {"outcome": line.outcome.value, "status": str(line.status)}
        self._requests.inc(1, {**route, **outcome})
        self._seconds.observe(line.milliseconds / 1000, route)
        if line.problem:
            self._problems.inc(1, {**release, "code": line.problem})
        for code in line.problems:
            self._problems.inc(1, {**release, "code": code})
        for code in line.codes:
            self._refusals.inc(1, {**release, "code": code})

    def observe_answer(self, study: StudyAnswer, timings_ms: Mapping[str, float]) -> None:
        """Count what one film's answer says and how long its steps took."""
        release = {"release": study.release_digest[:12]}
        self._films.inc(1, {**release, "outcome": outcome_of(study).value})
        for step, milliseconds in timings_ms.items():
            self._steps.observe(milliseconds / 1000, {**release, "step": step})
        for hip in study.hips:
            for finding in hip.findings:
                self._findings.inc(1, {**release, "finding": finding.value})
            for region in hip.regions:
                told = {"region": region.region.value, "label": region.label_type.value}
                self._probability.observe(region.probability, {**release, **told})


class QueueMetrics:
    """How many requests an ingress replica works on and lets wait."""

    def __init__(self) -> None:
        self._running = Gauge("hipray_running_requests", "Requests that are worked on.")
        self._waiting = Gauge("hipray_waiting_requests", "Requests that wait for a place.")

    def show(self, *, running: int, waiting: int) -> None:
        """Publish one moment."""
        self._running.set(running)
        self._waiting.set(waiting)


class BatchMetrics:
    """How full the batches of a model stage are."""

    def __init__(self) -> None:
        self._films = Histogram(
            "hipray_batch_films", "Films in one forward pass.", FILMS, ("stage",)
        )

    def observe(self, stage: str, films: int) -> None:
        """Count one forward pass."""
        self._films.observe(films, {"stage": stage})


@cache
def request_metrics() -> RequestMetrics:
    """Return those of this process."""
    return RequestMetrics()


@cache
def queue_metrics() -> QueueMetrics:
    """Return those of this process."""
    return QueueMetrics()


@cache
def batch_metrics() -> BatchMetrics:
    """Return those of this process."""
    return BatchMetrics()


def read_node_metrics() -> str:
    """Return Ray's Prometheus page of this node; raises ProblemError (503) where there is none."""
    nothing = come_later("Ray shows no metrics on this node", ProblemCode.NO_METRICS)
    try:
        address = next(_find_pages())
        answer = httpx.get(address, timeout=SCRAPE_S, trust_env=False)
        answer.raise_for_status()
    except (StopIteration, httpx.HTTPError):
        raise ProblemError(nothing) from None
    return answer.text


def _find_pages() -> Iterator[str]:
    if not ray.is_initialized():
        return
    own = ray.get_runtime_context().get_node_id()
    for node in ray.nodes():
        if node["NodeID"] == own and node.get("MetricsExportPort"):
            yield f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
