"""What no pod and no container may do or ask for, whatever it is for."""

import re
from collections.abc import Iterator

from tests.k8s.kustomize import Document
from tests.k8s.pods import SETTINGS, check_place

RESOURCES = {"cpu", "memory", "nvidia.com/gpu"}
"""What a container asks for; another name is a node's that there is none of."""
CLOSED = {
    "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}  # fmt: skip
"""All that a container may say of its own security."""
OF_POD = {"runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup", "seccompProfile"}
ACCOUNTS = {"hipray-head", "hipray-worker", "hipray-submit", "hipray-redis"}
PROBES = {"readinessProbe", "livenessProbe", "startupProbe"}
TOKEN = {"secretKeyRef": {"name": "hipray-ray-token", "key": "auth_token"}}
SUBMITTER_ENV = [
    {"name": "RAY_API_SERVER_ADDRESS", "value": "http://hipray-head-svc:8265"},
    {"name": "RAY_AUTH_MODE", "value": "token"},
    {"name": "RAY_AUTH_TOKEN", "valueFrom": TOKEN},
]
LITERALS = {
    "MINIO_BROWSER": "off",
    **{e["name"]: e["value"] for e in SUBMITTER_ENV if "value" in e},
}
"""Variables whose value may stand in a manifest, and that value; others come from a Secret."""
IMAGE = re.compile(r"\S+:(RELEASE\.)?\d[\w.-]*")
"""A tag that is a version: one that moves is another image tomorrow."""
PULLS = {"IfNotPresent"}
PROBED = {"redis": ("readinessProbe", "livenessProbe"), "minio": ("readinessProbe",)}


def check_pod(pod: Document) -> Iterator[str]:
    spec = pod["spec"]
    security = spec.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        yield "may run as root"
    if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "has no seccomp profile"
    if set(security) - OF_POD:
        yield f"asks for {sorted(set(security) - OF_POD)}"
    if not all(security.get(key) for key in ("runAsGroup", "fsGroup") if key in security):
        yield "belongs to root's group"
    account, own = spec.get("serviceAccountName"), pod["metadata"]["labels"]
    if account not in ACCOUNTS and not own["app.kubernetes.io/component"].startswith("minio"):
        yield f"runs as {account}"
    for volume in spec.get("volumes", []):
        if "emptyDir" in volume and not volume["emptyDir"].get("sizeLimit"):
            yield f"volume {volume['name']} may fill the node's disk"
    accounts = ("hipray-head",) if "ray-head" in [c["name"] for c in spec["containers"]] else ()
    if spec.get("automountServiceAccountToken") is not (spec.get("serviceAccountName") in accounts):
        yield "mounts a Kubernetes token that it does not need, or lacks one"
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "shares the host's namespaces"
    if any("hostPath" in volume for volume in spec.get("volumes", [])):
        yield "mounts the host's files"
    for container in spec["containers"] + spec.get("initContainers", []):
        yield from _check_container(container)
    yield from check_place(pod)


def _check_container(container: Document) -> Iterator[str]:
    if container.get("securityContext") != CLOSED:
        yield "may do more than it needs, or change its own code"
    if not IMAGE.fullmatch(container["image"]):
        yield "has no pinned image"
    if container.get("imagePullPolicy", "IfNotPresent") not in PULLS:
        yield f"pulls its image {container['imagePullPolicy']}"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "opens a port of its node"
    for entry in container.get("env", []):
        if "value" in entry and LITERALS.get(entry["name"]) != entry["value"]:
            yield f"has {entry['name']} in plain text"
    for probe in PROBED.get(container["name"], ()):
        if probe not in container:
            yield f"has no {probe}"
    limits = container.get("resources", {}).get("limits", {})
    if not {"cpu", "memory"} <= set(limits):
        yield "has no limits"
    asked = {*limits, *container.get("resources", {}).get("requests", {})}
    if not asked <= RESOURCES:
        yield f"asks for {sorted(asked - RESOURCES)}"
    if container["name"].startswith("ray-") and container["name"] != "ray-job-submitter":
        yield from _check_ray_container(container)


def _check_ray_container(container: Document) -> Iterator[str]:
    resources = container.get("resources", {})
    if resources.get("requests") != resources.get("limits"):
        yield "Ray counts limits that are not requested"
    if PROBES & set(container):
        yield "a probe by hand switches the operator's own off"
    if container.get("env"):
        yield "sets variables of its own: the operator's, token and all, then no longer count"
    if SETTINGS not in container.get("envFrom", []):
        yield "does not know where the workspace is"
    if "/tmp" not in {mount["mountPath"] for mount in container.get("volumeMounts", [])}:
        yield "has no room for Ray's files"
