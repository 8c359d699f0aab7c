"""What a schema cannot say of a document: rules that only operators check, and this project's own
on security, limits and settings. Each rule yields sentences."""

from tests.k8s.containers import check_pod
from tests.k8s.kustomize import Document
from tests.k8s.nightly import check_cron_job
from tests.k8s.pods import list_pods
from tests.k8s.ray_documents import LONGEST_NAME, check_job, check_ray, check_service
from tests.k8s.shapes import find_shape_errors
from tests.k8s.standing import (
    check_budget,
    check_ingress,
    check_monitor,
    check_namespace,
    check_one_off,
    check_policy,
    check_redis,
    check_workload,
)


def find_problems(document: Document) -> list[str]:
    """Return what is wrong with one document."""
    kind = document["kind"]
    if wrong := find_shape_errors(document):
        return wrong
    problems = [f"pod {where}: {p}" for where, pod in list_pods(document) for p in check_pod(pod)]
    spec = document.get("spec", {})
    if kind in LONGEST_NAME:
        problems += check_ray(document)
    checks = {
        "RayService": check_service,
        "CronJob": check_cron_job,
        "Job": check_one_off,
        "StatefulSet": check_redis,
        "PodMonitor": check_monitor,
    }
    named = {
        "NetworkPolicy": check_policy, "Ingress": check_ingress,
        "PodDisruptionBudget": check_budget, "RayJob": check_job, "Namespace": check_namespace,
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
