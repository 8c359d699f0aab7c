"""What a schema cannot say: rules that only the KubeRay 1.7 operator checks (its validation.go),
and this project's own on security, limits and settings. Each rule yields sentences."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.k8s.kustomize import Document

ROOT = Path(__file__).resolve().parent.parent.parent
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LONGEST_NAME = {"RayCluster": 53, "RayService": 47, "RayJob": 47}
MOST_WORKERS = 64
"""No group of this project may grow beyond it; a larger number is a slip."""
ALPHA_FIELDS = ("networkPolicy", "tlsOptions", "historyServerOptions")
"""Behind feature gates that are off by default."""
RESOURCES = {"cpu", "memory", "nvidia.com/gpu"}
"""What a container asks for; another name is a node's that there is none of."""
METADATA_SERVICE = "169.254.0.0/16"
NEVER_HELPS = {2, 3, 4, 6}
"""hipray's exit codes that a second try does not change (hipray/errors.py)."""
TRY_AGAIN = 75
RAY_FORBIDDEN_ENVIRONMENT = {"REDIS_PASSWORD", "RAY_REDIS_ADDRESS", "RAY_enable_autoscaler_v2"}


def ray_version() -> str:
    """Return the Ray version that everything else must name."""
    pins = (ROOT / "cluster/constraints.txt").read_text("utf-8")
    (version,) = re.findall(r"^ray==(\S+)$", pins, re.M)
    return str(version)


def find_problems(document: Document) -> list[str]:
    """Return what is wrong with one document."""
    kind = document["kind"]
    problems = [f"pod {where}: {p}" for where, pod in list_pods(document) for p in _check_pod(pod)]
    spec = document.get("spec", {})
    if kind in LONGEST_NAME:
        problems += _check_ray(document)
    checks = {
        "RayJob": _check_job,
        "RayService": _check_service,
        "NetworkPolicy": _check_policy,
        "Ingress": _check_ingress,
        "CronJob": _check_cron_job,
    }
    if kind in checks:
        problems += checks[kind](spec)
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


def cluster_of(document: Document) -> Document:
    """Return the RayCluster spec inside a ray.io document."""
    spec = document["spec"]
    inside = {"RayCluster": spec, "RayJob": spec.get("rayClusterSpec")}
    return dict(inside.get(document["kind"], spec.get("rayClusterConfig")) or {})


def _check_pod(pod: Document) -> Iterator[str]:
    spec = pod["spec"]
    security = spec.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        yield "may run as root"
    if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "has no seccomp profile"
    accounts = ("hipray-head",) if "ray-head" in [c["name"] for c in spec["containers"]] else ()
    if spec.get("automountServiceAccountToken") is not (spec.get("serviceAccountName") in accounts):
        yield "mounts a Kubernetes token that it does not need, or lacks one"
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "shares the host's namespaces"
    if any("hostPath" in volume for volume in spec.get("volumes", [])):
        yield "mounts the host's files"
    for container in spec["containers"] + spec.get("initContainers", []):
        yield from _check_container(container)


def _check_container(container: Document) -> Iterator[str]:
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        yield "may escalate its privileges"
    if security.get("capabilities", {}).get("drop") != ["ALL"]:
        yield "keeps capabilities"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "can change its own code"
    name, _, tag = container["image"].rpartition(":")
    if not name or tag in ("", "latest"):
        yield "has no pinned image"
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
    if {"readinessProbe", "livenessProbe"} & set(container):
        yield "a probe by hand switches the operator's own off"
    names = {entry["name"] for entry in container.get("env", [])}
    if names & RAY_FORBIDDEN_ENVIRONMENT:
        yield "sets variables that the operator sets"


def _check_ray(document: Document) -> Iterator[str]:
    name, cluster = document["metadata"]["name"], cluster_of(document)
    if not DNS_1035.fullmatch(name) or len(name) > LONGEST_NAME[document["kind"]]:
        yield f"name {name} is not DNS-1035 or too long"
    if cluster.get("rayVersion") != ray_version():
        yield f"Ray {cluster.get('rayVersion')} is not the image's {ray_version()}"
    token = cluster.get("authOptions", {})
    if token.get("mode") != "token" or token.get("secretName") != "hipray-ray-token":
        yield "its APIs are open or have another token"
    if set(ALPHA_FIELDS) & set(cluster):
        yield "uses fields behind feature gates that are off"
    if cluster.get("enableInTreeAutoscaling") is not True:
        yield "does not autoscale"
    if cluster.get("autoscalerOptions", {}).get("version") != "v2":
        yield "does not use autoscaler v2"
    if "ray.io/ft-enabled" in document["metadata"].get("annotations", {}):
        yield "asks for fault tolerance twice"
    head = cluster.get("headGroupSpec", {})
    if head.get("rayStartParams", {}).get("num-cpus") != "0":
        yield "works on its head"
    if "redis-password" in head.get("rayStartParams", {}):
        yield "gives Redis' password twice"
    for group in (head, *cluster.get("workerGroupSpecs", [])):
        if group["template"]["spec"].get("restartPolicy", "Never") != "Never":
            yield "autoscaler v2 needs restartPolicy Never"
    for group in cluster.get("workerGroupSpecs", []):
        yield from _check_group(group)


def _check_group(group: Document) -> Iterator[str]:
    name, least, most = group["groupName"], group.get("minReplicas", 0), group.get("maxReplicas")
    if most is None or not 1 <= most <= MOST_WORKERS:
        yield f"group {name} has no sensible maximum: {most}"
    elif not least <= group.get("replicas", 0) <= most:
        yield f"group {name} starts outside of its bounds"
    if "suspend" in group:
        yield f"group {name}: autoscaler v2 takes no suspend"
    for container in group["template"]["spec"]["containers"]:
        asks = "nvidia.com/gpu" in container.get("resources", {}).get("limits", {})
        if asks and container["image"].endswith("-cpu"):
            yield f"group {name} asks for a GPU with the CPU image"
        if not asks and container["image"].endswith("-gpu"):
            yield f"group {name} has the GPU image and asks for no GPU"


def _check_job(spec: Document) -> Iterator[str]:
    if not spec.get("rayClusterSpec") or spec.get("clusterSelector"):
        yield "needs a cluster of its own"
    if spec.get("shutdownAfterJobFinishes") is not True or spec.get("deletionStrategy"):
        yield "does not clean up after itself"
    if not spec.get("ttlSecondsAfterFinished"):
        yield "leaves no time to read its logs"
    if not spec.get("backoffLimit") or not spec.get("activeDeadlineSeconds"):
        yield "has no retry or no end"
    if not spec.get("preRunningDeadlineSeconds"):
        yield "may wait for nodes for ever"
    yield from check_entrypoint(spec["entrypoint"])


def check_entrypoint(command: str) -> Iterator[str]:
    """Yield what is wrong with `python /opt/hipray/jobs/x.py ...` as hipray itself reads it."""
    from hipray import cli
    from hipray.errors import HiprayError

    words = shlex.split(command.replace("$HIPRAY_", "s3://HIPRAY_"))
    if words[0] != "python" or not words[1].startswith("/opt/hipray/jobs/"):
        yield f"entrypoint {words[:2]} is not in the image"
        return
    script = ROOT / words[1].removeprefix("/opt/hipray/")
    if not script.exists():
        yield f"{script.name} does not exist"
        return
    try:
        options = cli._build_parser().parse_args([script.stem, *words[2:]])
        cli._read_config(cli.COMMANDS[script.stem], options)
    except (HiprayError, SystemExit) as error:
        yield f"hipray refuses the entrypoint: {error}"


def _check_service(spec: Document) -> Iterator[str]:
    from tests.cluster.serve_files import find_serve_problems

    if "readinessProbe" in spec or "serveService" in spec:
        yield "overrides what the operator makes"
    if spec.get("upgradeStrategy", {}).get("type") != "NewCluster":
        yield "upgrades with a gap"
    if spec.get("excludeHeadPodFromServeSvc") is not True:
        yield "sends callers to the head"
    yield from find_serve_problems(yaml.safe_load(spec["serveConfigV2"]))


def _check_policy(spec: Document) -> Iterator[str]:
    for rule in spec.get("ingress", []):
        if not rule.get("from") or any("ipBlock" in peer for peer in rule["from"]):
            yield "lets in from everywhere or from outside of the cluster"
        if any(peer.get("podSelector") == {} and len(peer) == 1 for peer in rule.get("from", [])):
            yield "lets in every pod"
        if any(peer.get("namespaceSelector") == {} for peer in rule.get("from", [])):
            yield "lets in every namespace"
    for rule in spec.get("egress", []):
        if not rule.get("to"):
            yield "lets out to everywhere"
        for peer in rule.get("to", []):
            block = peer.get("ipBlock", {})
            wide = block.get("cidr") == "0.0.0.0/0"
            if wide and (METADATA_SERVICE not in block.get("except", []) or not rule.get("ports")):
                yield "lets out to the metadata service or to every port"


def _check_ingress(spec: Document) -> Iterator[str]:
    covered = {host for entry in spec.get("tls", []) for host in entry["hosts"]}
    for rule in spec["rules"]:
        if rule["host"] not in covered:
            yield f"{rule['host']} is served without TLS"
        for path in rule["http"]["paths"]:
            service = path["backend"]["service"]
            if service != {"name": "hipray-serve-svc", "port": {"number": 8000}}:
                yield f"opens {service}"


def _check_cron_job(spec: Document) -> Iterator[str]:
    if spec.get("concurrencyPolicy") != "Forbid":
        yield "starts a night beside another"
    job = spec["jobTemplate"]["spec"]
    if not job.get("activeDeadlineSeconds") or not job.get("backoffLimit"):
        yield "has no retry or no end"
    final = {
        code
        for rule in job.get("podFailurePolicy", {}).get("rules", [])
        if rule["action"] == "FailJob"
        for code in rule.get("onExitCodes", {}).get("values", [])
    }
    if not final >= NEVER_HELPS or TRY_AGAIN in final:
        yield f"its exit codes without another try are {sorted(final)}"
