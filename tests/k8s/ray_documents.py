"""Rules on Ray clusters, jobs and the endpoint: KubeRay's (validation.go) and this project's."""

import re
from collections.abc import Iterator

import yaml
from pydantic import ValidationError

from hipray.config.jobs import ServeRun
from tests.cluster.serve_files import STAGES, count_upgrade_cpus, find_serve_problems
from tests.k8s.containers import CLOSED
from tests.k8s.entrypoints import ROOT, check_demand, check_entrypoint, check_head_memory
from tests.k8s.images import Target, read_image
from tests.k8s.kustomize import Document
from tests.k8s.pods import SETTINGS, count_cpus, gib

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LONGEST_NAME = {"RayCluster": 53, "RayService": 47, "RayJob": 47}
MOST_WORKERS = 16
"""No group of this project may grow beyond it; a larger number is a slip."""
ALPHA_FIELDS = ("networkPolicy", "tlsOptions", "historyServerOptions")
"""Behind feature gates that are off by default."""
MOST_TRIES = 10
REDIS = {
    "redisAddress": "hipray-redis:6379",
    "redisPassword": {"valueFrom": {"secretKeyRef": {"name": "hipray-redis", "key": "password"}}},
}
ENDPOINT = {"name": "hipray-endpoint-serve-svc", "port": {"number": 8000}}
HEAD_KEYS = {"rayStartParams", "template"}
"""More would open the head by a Service or an Ingress of the operator's own."""
LONGEST_IDLE_S = 3600
LONGEST_TTL_S = 24 * 3600
STAYS = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
WORK_IN_DRIVER = {"report", "ingest", "release", "phantom", "bench"}
"""Entries whose driver does the work (cluster/README.md): on the head they would have two CPUs."""


def ray_version() -> str:
    """Return the Ray version that everything else must name."""
    pins = (ROOT / "cluster/constraints.txt").read_text("utf-8")
    (version,) = re.findall(r"^ray==(\S+)$", pins, re.M)
    return str(version)


def cluster_of(document: Document) -> Document:
    """Return the RayCluster spec inside a ray.io document."""
    spec = document["spec"]
    inside = {"RayCluster": spec, "RayJob": spec.get("rayClusterSpec")}
    return dict(inside.get(document["kind"], spec.get("rayClusterConfig")) or {})


def check_ray(document: Document) -> Iterator[str]:
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
    if _target(head["template"]["spec"]["containers"][0]) is Target.GPU:
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
        if asks and _target(container) is Target.CPU:
            yield f"group {name} asks for a GPU with the CPU image"
        if not asks and _target(container) is Target.GPU:
            yield f"group {name} has the GPU image and asks for no GPU"


def _target(container: Document) -> Target | None:
    own = read_image(container["image"])
    return own.target if own else None


def check_job(spec: Document) -> Iterator[str]:
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
    yield from check_submitter(spec["submitterPodTemplate"], "ray-job-submitter")
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
    (head,) = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    memory = gib(head.get("resources", {}).get("limits", {}).get("memory"))
    yield from check_head_memory(spec["entrypoint"], memory)


def check_submitter(template: Document, container: str) -> Iterator[str]:
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
    return count_cpus(limits.get("cpu", "0"))


def check_service(spec: Document) -> Iterator[str]:
    if "readinessProbe" in spec or "serveService" in spec:
        yield "overrides what the operator makes"
    if spec.get("upgradeStrategy", {}).get("type") != "NewCluster":
        yield "upgrades with a gap"
    if spec.get("excludeHeadPodFromServeSvc") is not True:
        yield "sends callers to the head"
    if spec.get("rayClusterDeletionDelaySeconds", 0) < 90:
        yield "ends the old cluster with requests under way"
    (group,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    config, nodes = yaml.safe_load(spec["serveConfigV2"]), group.get("maxReplicas") or 0
    yield from find_serve_problems(config, nodes=nodes)
    http = config.get("http_options", {})
    if (http.get("host"), http.get("port")) != ("0.0.0.0", ENDPOINT["port"]["number"]):
        yield "listens where its Service does not look"
    if config.get("proxy_location") != "EveryNode":
        yield "answers on the head only, where nobody asks"
    cpus, (application,) = _count_cpus(group), config["applications"]
    try:
        run = ServeRun.model_validate(application["args"])
    except ValidationError:
        return  # said by find_serve_problems
    if 4 * run.cpus_per_stage > cpus:  # three stages, the ingress and its decoders
        yield f"a node of {cpus:g} CPUs does not hold one replica of each stage"
    scales = [each["autoscaling_config"] for each in application.get("deployments", [])]
    least = max(
        [each.get("min_replicas", 1) for each in scales]
        + [getattr(run.scaling, stage).min_replicas for stage in STAGES]
    )
    if count_upgrade_cpus(run, least) > cpus * nodes:
        yield f"{nodes} nodes of {cpus:g} CPUs do not hold a new version beside the old one"
    if any(each["target_ongoing_requests"] != run.batch for each in scales):
        yield "scales by something else than a full batch"
