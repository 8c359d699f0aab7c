"""Rules for every pod: whose account, user and volumes it has, and what kind of node it is."""

import re
from collections.abc import Iterator
from typing import Any

from tests.k8s.images import read_image
from tests.k8s.kustomize import Document

SETTINGS = {"configMapRef": {"name": "hipray-settings"}}
LEAST_TMP_GI = 5
ACCOUNT_OF = {
    "ray-head": "hipray-head", "ray-worker": "hipray-worker", "redis": "hipray-redis",
    "ray-job-submitter": "hipray-submit", "submit": "hipray-submit",
}  # fmt: skip
COMPONENT_OF = {
    "ray-head": {"head"}, "ray-worker": {"cpu", "gpu", "serve"}, "ray-job-submitter": {"submit"},
    "submit": {"submit"}, "redis": {"redis"}, "minio": {"minio"}, "bucket": {"minio-bucket"},
}  # fmt: skip
WRITABLE = {
    "redis": {"/data": "data", "/run/redis": "run"}, "minio": {"/data": "data", "/tmp": "tmp"},
    "bucket": {},
}  # fmt: skip
HOME_AND_TMP = {"/tmp": "tmp", "/home/hipray": "home"}
SHELLS = {
    "submit": ["/bin/sh", "-c"], "redis": ["/bin/sh", "-c"], "bucket": ["python", "-c"],
}  # fmt: skip
STORE = {"secretRef": {"name": "hipray-store", "optional": True}}
GOODBYE = {"preStop": {"exec": {"command": ["/bin/sh", "-c", "ray stop"]}}}
GPU_TAINT = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
OTHERS = {"redis": r"(\S+/)?redis:7\.\d+\.\d+", "minio": r"(\S+/)?minio:RELEASE\.[\dTZ-]+"}
HEAD_PORTS = {
    "gcs-server": 6379, "dashboard": 8265, "client": 10001, "serve": 8000, "metrics": 8080,
    "as-metrics": 44217, "dash-metrics": 44227,
}  # fmt: skip
"""All that the head's Service has and Prometheus asks: the operator adds nothing to a list."""
PORTS_OF_OPERATOR = {"metrics": 8080}
"""What KubeRay 1.7 names on every Ray container by itself (common/pod.go)."""


def gib(quantity: Any) -> float:
    """Return a quantity of Mi or Gi in GiB; another unit is a slip."""
    found = re.fullmatch(r"(\d+)([MG])i", str(quantity))
    return float(found[1]) / (1 if found[2] == "G" else 1024) if found else 0.0


def count_cpus(quantity: Any) -> float:
    """Return a quantity of CPUs, whole or in thousandths, as a number."""
    text = str(quantity)
    return float(text.removesuffix("m")) / (1000 if text.endswith("m") else 1)


def check_place(pod: Document) -> Iterator[str]:
    """Yield where a pod has another account, user, label or volume than its container needs."""
    spec, (container, *more) = pod["spec"], pod["spec"]["containers"]
    name, security = container["name"], spec.get("securityContext", {})
    if more:
        yield "has a second container"
    if spec.get("serviceAccountName") != ACCOUNT_OF.get(name):
        yield f"{name} runs as {spec.get('serviceAccountName')}"
    numbers = {security.get(key) for key in ("runAsUser", "runAsGroup", "fsGroup")}
    if numbers != {999 if name == "redis" else 1000}:
        yield f"is user and group {numbers}"
    labels = pod["metadata"]["labels"]
    if labels.get("app.kubernetes.io/part-of") != "hipray":
        yield "is not seen by Prometheus"
    if labels.get("app.kubernetes.io/component") not in COMPONENT_OF.get(name, ()):
        yield f"{name} is labelled as another component"
    mounts = {each["mountPath"]: each["name"] for each in container.get("volumeMounts", [])}
    if mounts != WRITABLE.get(name, HOME_AND_TMP):
        yield f"{name} writes to {mounts}"
    volumes = {each["name"] for each in spec.get("volumes", [])}
    if volumes != set(mounts.values()) - ({"data"} if name == "redis" else set()):
        yield f"has volumes {volumes}"
    if container.get("command") != SHELLS.get(name):
        yield f"{name} starts with {container.get('command')}"
    if not _knows_image(name, container["image"]):
        yield f"{name} has the image {container['image']}"
    if gib(container.get("resources", {}).get("limits", {}).get("memory")) < 0.25:
        yield f"{name} has no memory to start in"
    if name in ("ray-job-submitter", "submit") and container.get("envFrom") != [SETTINGS]:
        yield "its submitter knows more than the settings"
    if name in ("ray-head", "ray-worker"):
        yield from _check_node(spec, container)


def _knows_image(container: str, image: str) -> bool:
    if container in OTHERS:
        return re.fullmatch(OTHERS[container], image) is not None
    return read_image(image) is not None


def _check_node(spec: Document, container: Document) -> Iterator[str]:
    limits = container.get("resources", {}).get("limits", {})
    if container.get("lifecycle") != GOODBYE or spec.get("terminationGracePeriodSeconds") != 60:
        yield "goes without handing over what it holds"
    if container.get("envFrom") != [SETTINGS, STORE]:
        yield "has no keys of a store, or cannot do without"
    ports = {each.get("name"): each["containerPort"] for each in container.get("ports", [])}
    if ports != (HEAD_PORTS if container["name"] == "ray-head" else {}):
        yield f"names the ports {ports}"
    tmp = {e["name"]: e.get("emptyDir", {}).get("sizeLimit") for e in spec.get("volumes", [])}
    if not LEAST_TMP_GI <= gib(tmp.get("tmp")) <= 200:
        yield f"has {tmp.get('tmp')} for films and spilled objects"
    cpus = str(limits.get("cpu"))
    if (
        not re.fullmatch(r"[1-9]|1[0-6]", cpus)
        or not 2 <= gib(limits.get("memory")) / int(cpus) <= 8
    ):
        yield f"is a node of {cpus} CPUs and {limits.get('memory')}"
    if limits.get("nvidia.com/gpu", "1") != "1":
        yield "takes several GPUs"
    if spec.get("tolerations", []) not in (
        [GPU_TAINT] if "nvidia.com/gpu" in limits else [[], GPU_TAINT]
    ):
        yield "is not let onto GPU nodes, or onto others' nodes"
    for spread in spec.get("topologySpreadConstraints", []):
        if spread["maxSkew"] != 1 or spread["labelSelector"] != {
            "matchLabels": {"app.kubernetes.io/component": "serve"}
        }:
            yield "spreads pods that do not exist, or not evenly"
