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
HOME_AND_TMP = {"/tmp": "tmp", "/home/hipray": "home"}
OF_HEAD = {**HOME_AND_TMP, "/tmp/ray": "ray-logs"}
"""Ray's session, in the volume that the operator would otherwise make, without a bound."""
WRITABLE = {
    "redis": {"/data": "data", "/run/redis": "run"}, "minio": {"/data": "data", "/tmp": "tmp"},
    "bucket": {}, "ray-head": OF_HEAD,
}  # fmt: skip
GOODBYE = {"preStop": {"exec": {"command": ["/bin/sh", "-c", "ray stop"]}}}
GPU_TAINT = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
OTHERS = {
    "redis": r"(\S+/)?redis:7\.(2\.(1[1-9]|[2-9]\d)|4\.([6-9]|[1-9]\d))",
    "minio": r"(\S+/)?minio:RELEASE\.[\dTZ-]+",
}
"""Images of others; Redis from the first versions on without CVE-2025-49844."""
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


def check_amounts(name: str, resources: Document) -> Iterator[str]:
    """Yield where a container asks for more than it may have: the API server takes no such pod."""
    asked, most = resources["requests"], resources["limits"]
    if (
        count_cpus(asked["cpu"]) > count_cpus(most["cpu"])
        or gib(asked["memory"]) > gib(most["memory"])
        or asked.get("nvidia.com/gpu") != most.get("nvidia.com/gpu")
    ):
        yield f"{name} asks for {asked} and may have {most}"


def check_place(pod: Document) -> Iterator[str]:
    """Yield where a pod has another account, user, label or volume than its container needs."""
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    name, security = container["name"], spec["securityContext"]
    if spec.get("serviceAccountName") != ACCOUNT_OF.get(name):
        yield f"{name} runs as {spec.get('serviceAccountName')}"
    numbers = {security[key] for key in ("runAsUser", "runAsGroup", "fsGroup")}
    if numbers != {999 if name == "redis" else 1000}:
        yield f"is user and group {numbers}"
    labels = pod["metadata"]["labels"]
    if labels["app.kubernetes.io/component"] not in COMPONENT_OF.get(name, ()):
        yield f"{name} is labelled as another component"
    mounts = {each["mountPath"]: each["name"] for each in container.get("volumeMounts", [])}
    if mounts != WRITABLE.get(name, HOME_AND_TMP):
        yield f"{name} writes to {mounts}"
    volumes = {each["name"] for each in spec.get("volumes", [])}
    if volumes != set(mounts.values()) - ({"data"} if name == "redis" else set()):
        yield f"has volumes {volumes}"
    if not _knows_image(name, container["image"]):
        yield f"{name} has the image {container['image']}"
    if gib(container["resources"]["limits"]["memory"]) < 0.25:
        yield f"{name} has no memory to start in"
    if name in ("ray-head", "ray-worker"):
        yield from _check_node(spec, container)


def _knows_image(container: str, image: str) -> bool:
    if container in OTHERS:
        return re.fullmatch(OTHERS[container], image) is not None
    return read_image(image) is not None


def _check_node(spec: Document, container: Document) -> Iterator[str]:
    limits = container["resources"]["limits"]
    if container.get("lifecycle") != GOODBYE or spec.get("terminationGracePeriodSeconds") != 60:
        yield "goes without handing over what it holds"
    ports = {each["name"]: each["containerPort"] for each in container.get("ports", [])}
    if ports != (HEAD_PORTS if container["name"] == "ray-head" else {}):
        yield f"names the ports {ports}"
    sizes = {each["name"]: each["emptyDir"]["sizeLimit"] for each in spec["volumes"]}
    for name in {"tmp", "ray-logs"} & set(sizes):
        if not LEAST_TMP_GI <= gib(sizes[name]) <= 200:
            yield f"has {sizes[name]} for films or spilled objects"
    cpus = str(limits["cpu"])
    if not cpus.isdigit() or not 2 <= gib(limits["memory"]) / int(cpus) <= 8:
        yield f"is a node of {cpus} CPUs and {limits['memory']}"
    if spec.get("tolerations", []) not in (
        [GPU_TAINT] if "nvidia.com/gpu" in limits else [[], GPU_TAINT]
    ):
        yield "is not let onto GPU nodes, or onto others' nodes"


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
