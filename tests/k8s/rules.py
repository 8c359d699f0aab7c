"""What a schema cannot say of a document: rules that only operators check, and this project's own
on security, limits and settings. Each rule yields sentences."""

from collections.abc import Iterator
from typing import Any

from tests.k8s.containers import check_pod
from tests.k8s.kustomize import Document
from tests.k8s.nightly import check_cron_job
from tests.k8s.ray_documents import LONGEST_NAME, check_job, check_ray, check_service
from tests.k8s.standing import (
    check_budget,
    check_ingress,
    check_monitor,
    check_policy,
    check_redis,
    check_workload,
)


def find_problems(document: Document) -> list[str]:
    """Return what is wrong with one document."""
    kind = document["kind"]
    problems = [f"pod {where}: {p}" for where, pod in list_pods(document) for p in check_pod(pod)]
    spec = document.get("spec", {})
    if kind in LONGEST_NAME:
        problems += check_ray(document)
    checks = {
        "RayJob": check_job,
        "RayService": check_service,
        "CronJob": check_cron_job,
        "StatefulSet": check_redis,
        "PodMonitor": check_monitor,
    }
    named = {
        "NetworkPolicy": check_policy, "Ingress": check_ingress,
        "PodDisruptionBudget": check_budget,
    }  # fmt: skip
    if kind in checks:
        problems += checks[kind](spec)
    if kind in named:
        problems += named[kind](document)
    if kind in ("StatefulSet", "Deployment"):
        problems += check_workload(spec)
    if kind == "Secret":
        problems.append("a Secret in a file")
    if kind == "Service" and spec.get("type", "ClusterIP") != "ClusterIP":
        problems.append("a Service that is open to other networks")
    return problems


def list_pods(node: Any, where: str = "") -> Iterator[tuple[str, Document]]:
    """Yield every pod template below a document, by its place."""
    if isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, dict) and "containers" in value.get("spec", {}):
                yield f"{where}/{key}", value
            else:
                yield from list_pods(value, f"{where}/{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from list_pods(value, f"{where}/{number}")
