"""Every metric that dashboard and alerts may ask for, with its labels: Ray's own and those of
kube-state-metrics by their lists, the package's from its source."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.cluster.ray_metrics import RAY_METRICS

SOURCES = Path(__file__).resolve().parent.parent.parent / "hipray"
KINDS = {"Counter": ("_total",), "Gauge": ("",), "Histogram": ("_bucket", "_count", "_sum")}
"""What Prometheus sees of each kind of ray.util.metrics."""
STEM = re.compile(r"_(bucket|count|sum|total)$")
OF_CRON_JOBS = {
    "kube_cronjob_status_last_successful_time", "kube_cronjob_created", "kube_cronjob_spec_suspend",
}  # fmt: skip
"""What kube-state-metrics says of each CronJob by its name and namespace."""


def is_known(name: str) -> bool:
    """Whether Prometheus has a metric of this name, Ray's, the package's or Kubernetes'."""
    of_ray = not {name, STEM.sub("", name)}.isdisjoint(RAY_METRICS)
    return of_ray or name in own_metrics() or name in OF_CRON_JOBS


def list_labels(name: str) -> frozenset[str]:
    """Return the labels that a metric is made with; none for one that nobody makes."""
    if name in OF_CRON_JOBS:
        return frozenset({"namespace", "cronjob"})
    stem = STEM.sub("", name)
    of_ray = RAY_METRICS.get(name) or RAY_METRICS.get(stem)
    return of_ray.labels if of_ray else _own_labels().get(stem, frozenset())


@cache
def own_metrics() -> frozenset[str]:
    """Return the names under which the package's own metrics arrive."""
    return frozenset(f"ray_{name}{end}" for kind, name, _ in _list_own() for end in KINDS[kind])


@cache
def list_buckets(name: str) -> frozenset[str]:
    """Return the bounds of a histogram's buckets as Prometheus has them; else none."""
    bounds = _own_bounds().get(STEM.sub("", name)) if name.endswith("_bucket") else None
    return frozenset(str(bound) for bound in bounds) | {"+Inf"} if bounds else frozenset()


@cache
def _own_bounds() -> dict[str, tuple[float, ...]]:
    return {name: bounds for path in SOURCES.rglob("*.py") for name, bounds in _read_bounds(path)}


def _read_bounds(path: Path) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Yield each histogram that a module makes with its bounds, a constant of the module."""
    tree = ast.parse(path.read_text("utf-8"))
    lists = {
        ast.unparse(node.targets[0]): tuple(map(float, ast.literal_eval(node.value)))
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)
        and all(isinstance(each, ast.Constant) and isinstance(each.value, float)
                for each in node.value.elts)
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Histogram":
            bounds = [lists[each.id] for each in node.args[2:3] if isinstance(each, ast.Name)
                      and each.id in lists]  # fmt: skip
            yield from ((f"ray_{ast.literal_eval(node.args[0])}", each) for each in bounds)


@cache
def _own_labels() -> dict[str, frozenset[str]]:
    return {f"ray_{name}": labels for _, name, labels in _list_own()}


@cache
def _list_own() -> tuple[tuple[str, str, frozenset[str]], ...]:
    return tuple(each for path in SOURCES.rglob("*.py") for each in _read_metrics(path))


def _read_metrics(path: Path) -> Iterator[tuple[str, str, frozenset[str]]]:
    """Yield kind, name and labels of each metric that a module makes."""
    tree = ast.parse(path.read_text("utf-8"))
    imported = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "ray.util.metrics"
        for alias in node.names
    }
    for node in ast.walk(tree):
        kind = imported.get(getattr(getattr(node, "func", None), "id", ""))
        if kind in KINDS and isinstance(node, ast.Call) and node.args:
            told = [each for each in node.args if isinstance(each, ast.Tuple)]
            labels = ast.literal_eval(told[-1]) if told else ()
            yield kind, ast.literal_eval(node.args[0]), frozenset(labels)
