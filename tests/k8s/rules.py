"""What a schema cannot say: rules that only the KubeRay 1.7 operator checks (its validation.go),
and this project's own on security, limits and settings. Each rule yields sentences."""

import re
import shlex
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from tests.k8s.kustomize import Document
from tests.k8s.openings import OPENINGS, describe_policy
from tests.k8s.pods import SETTINGS, check_place

ROOT = Path(__file__).resolve().parent.parent.parent
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LONGEST_NAME = {"RayCluster": 53, "RayService": 47, "RayJob": 47}
MOST_WORKERS = 8
"""No group of this project may grow beyond it; a larger number is a slip."""
ALPHA_FIELDS = ("networkPolicy", "tlsOptions", "historyServerOptions")
"""Behind feature gates that are off by default."""
RESOURCES = {"cpu", "memory", "nvidia.com/gpu"}
"""What a container asks for; another name is a node's that there is none of."""
MOST_TRIES = 10
CLOSED = {
    "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}  # fmt: skip
"""All that a container may say of its own security."""
OF_POD = {"runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup", "seccompProfile"}
ACCOUNTS = {"hipray-head", "hipray-worker", "hipray-submit", "hipray-redis"}
PROBES = {"readinessProbe", "livenessProbe", "startupProbe"}
TOKEN = {"secretKeyRef": {"name": "hipray-ray-token", "key": "auth_token"}}
REDIS = {
    "redisAddress": "hipray-redis:6379",
    "redisPassword": {"valueFrom": {"secretKeyRef": {"name": "hipray-redis", "key": "password"}}},
}
NIGHTLY = re.compile(r"[0-5]?\d 0?[0-5] \* \* \*")
SUBMITTER_ENV = [
    {"name": "RAY_API_SERVER_ADDRESS", "value": "http://hipray-head-svc:8265"},
    {"name": "RAY_AUTH_MODE", "value": "token"},
    {"name": "RAY_AUTH_TOKEN", "valueFrom": TOKEN},
]
REDIS_START = (
    "umask 077\n"
    "printf 'requirepass %s\\nappendonly yes\\ndir /data\\nmaxmemory-policy noeviction\\n' \\\n"
    '  "$REDIS_PASSWORD" > /run/redis/redis.conf\n'
    "exec redis-server /run/redis/redis.conf\n"
)
ENDPOINT = {"name": "hipray-endpoint-serve-svc", "port": {"number": 8000}}
ROUTES = {"/v1": "Prefix", "/readyz": "Exact"}
ANNOTATIONS = {
    "nginx.ingress.kubernetes.io/proxy-body-size": "201m",
    "nginx.ingress.kubernetes.io/proxy-read-timeout": "75",
    "nginx.ingress.kubernetes.io/ssl-redirect": "true",
}
METRICS_PORTS = {"head": {"metrics", "as-metrics", "dash-metrics"}, "worker": {"metrics"}}
BUDGETS = {
    f"hipray-{name}": {**most, "selector": {"matchLabels": {"app.kubernetes.io/component": name}}}
    for name, most in (("serve", {"minAvailable": 1}), ("redis", {"maxUnavailable": 0}))
}
NEVER_HELPS = {2, 3, 4, 6}
"""hipray's exit codes that a second try does not change (hipray/errors.py)."""
STOPPED = 143
LITERALS = {
    "MINIO_BROWSER": "off",
    **{e["name"]: e["value"] for e in SUBMITTER_ENV if "value" in e},
}
"""Variables whose value may stand in a manifest, and that value; others come from a Secret."""
HEAD_KEYS = {"rayStartParams", "template"}
"""More would open the head by a Service or an Ingress of the operator's own."""
IMAGE = re.compile(r"\S+:(RELEASE\.)?\d[\w.-]*")
"""A tag that is a version: one that moves is another image tomorrow."""
PULLS = {"IfNotPresent"}
LONGEST_IDLE_S = 3600
LONGEST_TTL_S = 24 * 3600
PROBED = {"redis": ("readinessProbe", "livenessProbe"), "minio": ("readinessProbe",)}

READY = "/minio/health/ready"
DRAINED = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
NIGHT = (
    "night=$(date -u -d yesterday +%F)\n",
    '--images "$HIPRAY_INCOMING/$night" --output "$HIPRAY_WORKSPACE/scores/$night"',
)
DEMANDS = {
    "grid": ("scaling.cpus_per_lane", "scaling.gpus_per_lane"),
    "tune": ("resources.cpus_per_trial", "resources.gpus_per_trial"),
    "score": ("cpus_per_actor", ""),
}
STAYS = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
WORK_IN_DRIVER = {"report", "ingest", "release", "phantom", "bench"}
"""Entries whose driver does the work (cluster/README.md): on the head they would have two CPUs."""


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
        "CronJob": _check_cron_job,
        "StatefulSet": _check_redis,
        "PodMonitor": _check_monitor,
    }
    named = {
        "NetworkPolicy": _check_policy, "Ingress": _check_ingress,
        "PodDisruptionBudget": _check_budget,
    }  # fmt: skip
    if kind in checks:
        problems += checks[kind](spec)
    if kind in named:
        problems += named[kind](document)
    if kind in ("StatefulSet", "Deployment"):
        problems += _check_workload(spec)
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
    if set(head) != HEAD_KEYS:
        yield f"says {sorted(set(head) ^ HEAD_KEYS)} of its head"
    if "suspend" in cluster or document["spec"].get("suspend"):
        yield "does not start"
    idle = cluster.get("autoscalerOptions", {}).get("idleTimeoutSeconds", 60)
    if not 60 <= idle <= LONGEST_IDLE_S:
        yield f"keeps idle workers for {idle} s"
    groups = [group.get("groupName") for group in cluster.get("workerGroupSpecs", [])]
    if len(set(groups)) < len(groups):
        yield "has two groups of one name"
    if set(head.get("rayStartParams", {})) != {"num-cpus"}:
        yield "starts its head with other parameters"
    memory = {} if document["kind"] == "RayJob" else REDIS
    if cluster.get("gcsFaultToleranceOptions", {}) != memory:
        yield "remembers its head's state elsewhere, or not at all"
    scaler = cluster.get("autoscalerOptions", {}).get("securityContext")
    if scaler != {key: CLOSED[key] for key in ("allowPrivilegeEscalation", "capabilities")}:
        yield "has an autoscaler that may do more than it needs"
    if "gpu" in head["template"]["spec"]["containers"][0]["image"]:
        yield "has a head with CUDA"
    if document["kind"] == "RayJob" and head["template"]["metadata"].get("annotations") != STAYS:
        yield "may lose its head to a scale-down"
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
    if group.get("rayStartParams"):
        yield f"group {name} starts with parameters of its own"
    if group.get("numOfHosts", 1) != 1:
        yield f"group {name} is several machines at a time"
    if "suspend" in group:
        yield f"group {name}: autoscaler v2 takes no suspend"
    if group["template"]["metadata"]["labels"]["app.kubernetes.io/component"] != name:
        yield f"group {name} is labelled as another"
    if group.get("replicas", 0) != least:
        yield f"group {name} starts nodes that nobody asked for"
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
    if not 0 < spec.get("ttlSecondsAfterFinished", 0) <= LONGEST_TTL_S:
        yield "leaves no time to read its logs, or a cluster standing about"
    if not 0 <= spec.get("submitterConfig", {}).get("backoffLimit", 2) <= MOST_TRIES:
        yield "submits for ever"
    if not 1 <= spec.get("backoffLimit", 0) <= MOST_TRIES or not spec.get("activeDeadlineSeconds"):
        yield "has no sensible number of tries or no end"
    if spec.get("submissionMode") != "K8sJobMode":
        yield "is submitted by the operator itself, or by hand"
    yield from _check_submitter(spec["submitterPodTemplate"], "ray-job-submitter")
    most = max(_count_cpus(group) for group in spec["rayClusterSpec"]["workerGroupSpecs"])
    if spec.get("entrypointNumCpus", 0) > most:
        yield f"its driver wants more than the {most:g} CPUs of a worker"
    if not spec.get("preRunningDeadlineSeconds"):
        yield "may wait for nodes for ever"
    yield from check_entrypoint(spec["entrypoint"])
    if not 3600 <= spec.get("activeDeadlineSeconds", 0) <= 15 * 24 * 3600:
        yield f"ends after {spec.get('activeDeadlineSeconds')} s"
    if not 600 <= spec.get("preRunningDeadlineSeconds", 0) <= 2 * 3600:
        yield f"waits {spec.get('preRunningDeadlineSeconds')} s for nodes"
    if not spec.get("ttlSecondsAfterFinished", 0) >= 300:
        yield "leaves no time to read its logs"
    stem = spec["entrypoint"].partition(".py")[0].rpartition("/")[2]
    if (spec.get("entrypointNumCpus", 0) >= 1) != (stem in WORK_IN_DRIVER):
        yield f"{stem} works on the wrong machine"
    yield from check_demand(spec["entrypoint"], spec["rayClusterSpec"]["workerGroupSpecs"])


def _check_submitter(template: Document, container: str) -> Iterator[str]:
    if template["metadata"]["labels"].get("app.kubernetes.io/component") != "submit":
        yield "has a submitter that no policy knows"
    if [each["name"] for each in template["spec"]["containers"]] != [container]:
        yield f"has no container {container}"
    if template["spec"].get("restartPolicy") != "Never":
        yield "restarts its submitter"
    if template["spec"].get("serviceAccountName") != "hipray-submit":
        yield "submits with another's account"
    for each in template["spec"]["containers"]:
        if SETTINGS not in each.get("envFrom", []):
            yield "does not know where the workspace is"


def _count_cpus(group: Document) -> float:
    limits = group["template"]["spec"]["containers"][0].get("resources", {}).get("limits", {})
    cpus = str(limits.get("cpu", "0"))
    return float(cpus.removesuffix("m")) / (1000 if cpus.endswith("m") else 1)


def check_entrypoint(command: str) -> Iterator[str]:
    """Yield what is wrong with `python /opt/hipray/jobs/x.py ...` as hipray itself reads it."""
    from hipray import cli
    from hipray.errors import HiprayError

    unknown = set(re.findall(r"\$\{?([A-Z]\w+)", command)) - set(read_settings())
    if unknown:
        yield f"asks for {sorted(unknown)}, which nobody sets"
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


def check_demand(command: str, groups: list[Document]) -> Iterator[str]:
    """Yield where a lane, trial or actor fits on no worker, or works outside the workspace."""
    from hipray import cli
    from hipray.errors import HiprayError

    if '--workspace "$HIPRAY_WORKSPACE"' not in command:
        yield "writes to a disk that goes with its pod"
    words = shlex.split(command.replace("$HIPRAY_", "s3://HIPRAY_"))
    stem = Path(words[1]).stem
    if stem not in DEMANDS:
        return
    try:
        options = cli._build_parser().parse_args([stem, *words[2:]])
        config = cli._read_config(cli.COMMANDS[stem], options)
    except (HiprayError, SystemExit):
        return  # said by check_entrypoint
    cpus, gpus = (reduce(getattr, path.split("."), config) if path else 0 for path in DEMANDS[stem])
    limits = [
        group["template"]["spec"]["containers"][0]["resources"].get("limits", {})
        for group in groups
    ]
    if not any(
        cpus <= float(x.get("cpu", 0)) and gpus <= float(x.get("nvidia.com/gpu", 0)) for x in limits
    ):
        yield f"{stem} asks for {cpus:g} CPUs and {gpus:g} GPUs at a time, which no worker has"


def read_settings() -> dict[str, str]:
    """Return the variables of every pod, as the base has them."""
    text = (ROOT / "k8s/base/settings.yaml").read_text("utf-8")
    return dict(yaml.safe_load(text)["data"])


def _check_service(spec: Document) -> Iterator[str]:
    from tests.cluster.serve_files import find_serve_problems

    if "readinessProbe" in spec or "serveService" in spec:
        yield "overrides what the operator makes"
    if spec.get("upgradeStrategy", {}).get("type") != "NewCluster":
        yield "upgrades with a gap"
    if spec.get("excludeHeadPodFromServeSvc") is not True:
        yield "sends callers to the head"
    if spec.get("rayClusterDeletionDelaySeconds", 0) < 90:
        yield "ends the old cluster with requests under way"
    config = yaml.safe_load(spec["serveConfigV2"])
    yield from find_serve_problems(config)
    http = config.get("http_options", {})
    if (http.get("host"), http.get("port")) != ("0.0.0.0", ENDPOINT["port"]["number"]):
        yield "listens where its Service does not look"
    if config.get("proxy_location") != "EveryNode":
        yield "answers on the head only, where nobody asks"
    (group,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    cpus, (application,) = _count_cpus(group), config["applications"]
    run = application["args"]
    if 4 * run["cpus_per_stage"] > cpus:  # three stages, the ingress and its decoders
        yield f"a node of {cpus:g} CPUs does not hold one replica of each stage"
    if (
        any(e.get("max_replicas_per_node") for e in application.get("deployments", []))
        and (group.get("maxReplicas") or 0) < run["max_replicas"]
    ):
        yield "has fewer nodes than replicas"
    for each in application.get("deployments", []):
        if each["autoscaling_config"]["target_ongoing_requests"] != run["batch"]:
            yield "scales by something else than a full batch"


def _check_policy(document: Document) -> Iterator[str]:
    told, known = set(describe_policy(document["spec"])), OPENINGS.get(document["metadata"]["name"])
    if known is None:
        yield "is a policy that tests/k8s/openings.py does not know"
        return
    yield from (f"also opens: {each}" for each in sorted(told - known))
    yield from (f"no longer opens: {each}" for each in sorted(known - told))


def _check_ingress(document: Document) -> Iterator[str]:
    spec = document["spec"]
    if document["metadata"].get("annotations") != ANNOTATIONS:
        yield "has other limits, or answers without TLS"
    if spec.get("ingressClassName") != "nginx":
        yield "is of a controller that is not there"
    if {entry.get("secretName") for entry in spec.get("tls", [])} != {"hipray-tls"}:
        yield "has another certificate"
    opened = {
        path["path"]: path["pathType"] for rule in spec["rules"] for path in rule["http"]["paths"]
    }
    if opened != ROUTES:
        yield f"opens {opened} instead of {ROUTES}"
    covered = {host for entry in spec.get("tls", []) for host in entry["hosts"]}
    for rule in spec["rules"]:
        if rule["host"] not in covered:
            yield f"{rule['host']} is served without TLS"
        for path in rule["http"]["paths"]:
            if path["path"] not in ROUTES or path["backend"]["service"] != ENDPOINT:
                yield f"opens {path['path']} of {path['backend']['service']}"


def _check_budget(document: Document) -> Iterator[str]:
    spec, name = document["spec"], document["metadata"]["name"]
    if spec != BUDGETS.get(name):
        yield f"{name} lets a drain take too much, or blocks it"


def _check_monitor(spec: Document) -> Iterator[str]:
    kind = spec["selector"]["matchLabels"].get("ray.io/node-type")
    if set(spec["selector"]["matchLabels"]) != {"ray.io/node-type", "app.kubernetes.io/part-of"}:
        yield "looks for other pods"
    if any(
        set(each) != {"port", "interval"} or each["interval"] != "15s"
        for each in spec["podMetricsEndpoints"]
    ):
        yield "asks another way, or too rarely for rates over five minutes"
    ports = {each.get("port") for each in spec["podMetricsEndpoints"]}
    if ports != METRICS_PORTS.get(kind):
        yield f"asks ports {sorted(map(str, ports))} of {kind}"


def _check_redis(spec: Document) -> Iterator[str]:
    (container,) = spec["template"]["spec"]["containers"]
    text = "".join(container.get("args", []))
    if container["name"] != "redis":
        return
    if spec.get("replicas") != 1:
        yield "is more than one on a volume, or none"
    if spec.get("serviceName") != "hipray-redis":
        yield "has no name in the network"
    if container.get("env") != [{"name": "REDIS_PASSWORD", **REDIS["redisPassword"]}]:
        yield "has another password than the heads"
    if text != REDIS_START:
        yield "starts open, forgetful or not at all"
    run = spec["template"]["spec"].get("volumes")
    if run != [{"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]:
        yield "writes its password to the node's disk"
    mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
    claims = {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
    if mounts.get("/data") not in claims:
        yield "forgets what the heads must remember"


def _check_workload(spec: Document) -> Iterator[str]:
    """Yield where labels or the names of ports inside one workload differ."""
    labels, (container,) = (
        spec["template"]["metadata"]["labels"],
        spec["template"]["spec"]["containers"],
    )
    if not set(spec["selector"]["matchLabels"].items()) <= set(labels.items()):
        yield "does not select its own pods"
    if spec.get("replicas") != 1 or spec.get("strategy", {"type": "Recreate"}) != {
        "type": "Recreate"
    }:
        yield "is none, or two on one volume"
    named = {port["name"] for port in container["ports"]}
    for probe in PROBES & set(container):
        ((_, asked),) = (
            (k, v) for k, v in container[probe].items() if k in ("tcpSocket", "httpGet")
        )
        if asked["port"] not in named or asked.get("path", READY) != READY:
            yield f"{probe} asks {asked}"


def _check_cron_job(spec: Document) -> Iterator[str]:
    if spec.get("concurrencyPolicy") != "Forbid":
        yield "starts a night beside another"
    if not NIGHTLY.fullmatch(spec["schedule"]):
        yield f"does not run once a night: {spec['schedule']}"
    if spec.get("timeZone") != "Etc/UTC":
        yield f"lives by the clock of {spec['timeZone']}"
    if not 600 <= spec.get("startingDeadlineSeconds", 0) <= LONGEST_TTL_S:
        yield "misses its night after a moment"
    job = spec["jobTemplate"]["spec"]
    if job.get("ttlSecondsAfterFinished", 0) < 24 * 3600 or not spec.get("failedJobsHistoryLimit"):
        yield "leaves nothing of a failed night to read"
    yield from _check_submitter(job["template"], "submit")
    (container,) = job["template"]["spec"]["containers"]
    if container.get("env") != SUBMITTER_ENV or SETTINGS not in container.get("envFrom", []):
        yield "asks another cluster, or without a token"
    yield from _check_submission("".join(container.get("args", [])))
    for rule in job.get("podFailurePolicy", {}).get("rules", []):
        if rule.get("onExitCodes", {}).get("containerName", "submit") != "submit":
            yield "judges the exit codes of no container"
    if (
        not 3600 <= job.get("activeDeadlineSeconds", 0) <= 24 * 3600
        or not 1 <= job.get("backoffLimit", 0) <= MOST_TRIES
    ):
        yield "has no retry or no end"
    rules = job.get("podFailurePolicy", {}).get("rules", [])
    if {rule["onExitCodes"]["operator"] for rule in rules if "onExitCodes" in rule} != {"In"}:
        yield "takes exit codes for their opposite"
    if DRAINED not in rules:
        yield "counts a drained node as a failure"
    final = {
        code
        for rule in job.get("podFailurePolicy", {}).get("rules", [])
        if rule["action"] == "FailJob"
        for code in rule.get("onExitCodes", {}).get("values", [])
    }
    if final != NEVER_HELPS | {STOPPED}:
        yield f"its exit codes without another try are {sorted(final)}"


def _check_submission(script: str) -> Iterator[str]:
    """Yield what is wrong with the call of submit.py that ends a shell script."""
    before, _, call = script.replace("\\\n", " ").partition(
        "exec python cluster/submit.py --installed "
    )
    if not call or before.count("\n") > 1:
        yield "does not end with the exit code of cluster/submit.py"
        return
    if before != NIGHT[0] or " ".join(NIGHT[1].split()) not in " ".join(call.split()):
        yield "scores another night, or all of them"
    job, _, arguments = call.partition(" ")
    (cluster,) = yaml.safe_load_all((ROOT / "k8s/base/ray-cluster.yaml").read_text("utf-8"))
    yield from check_demand(
        f"python /opt/hipray/jobs/{job}.py {arguments}", cluster["spec"]["workerGroupSpecs"]
    )
    yield from check_entrypoint(f"python /opt/hipray/jobs/{job}.py {arguments}")
