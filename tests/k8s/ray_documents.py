"""Rules on Ray clusters, jobs and the endpoint: KubeRay's (validation.go) and this project's."""

import re
from collections.abc import Iterator

import yaml

from hipray.config.jobs import ServeRun
from tests.cluster.serve_files import (
    STAGES,
    count_upgrade_cpus,
    count_upgrade_gpus,
    find_serve_problems,
)
from tests.k8s.entrypoints import (
    ROOT,
    check_archive,
    check_demand,
    check_entrypoint,
    check_head_memory,
)
from tests.k8s.images import Target, read_image
from tests.k8s.kustomize import Document
from tests.k8s.pods import check_amounts, count_cpus, gib
from tests.k8s.shapes import STAYS

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LONGEST_NAME = {"RayCluster": 53, "RayService": 47, "RayJob": 47}
LEAST_S = {"grid": 24 * 3600, "tune": 24 * 3600, "score": 24 * 3600}
"""Networks and archives take days; a deadline below one is a number in other units."""
ENDPOINT = {"name": "hipray-endpoint-serve-svc", "port": {"number": 8000}}


def ray_version() -> str:
    """Return the Ray version that everything else must name."""
    pins = (ROOT / "cluster/constraints.txt").read_text("utf-8")
    (version,) = re.findall(r"^ray==(\S+)$", pins, re.M)
    return str(version)


def work_in_driver() -> set[str]:
    """Return the entries whose driver does work: on the head they would have two CPUs."""
    runbook = (ROOT / "cluster/README.md").read_text("utf-8")
    (named,) = re.findall(r"Drivers of (.+?) do work themselves", runbook, re.S)
    return set(re.findall(r"`(\w+)`", named))


def cluster_of(document: Document) -> Document:
    """Return the RayCluster spec inside a ray.io document."""
    spec = document["spec"]
    inside = {"RayCluster": spec, "RayJob": spec.get("rayClusterSpec")}
    return dict(inside.get(document["kind"], spec.get("rayClusterConfig")) or {})


def check_ray(document: Document) -> Iterator[str]:
    name, cluster = document["metadata"]["name"], cluster_of(document)
    if not DNS_1035.fullmatch(name) or len(name) > LONGEST_NAME[document["kind"]]:
        yield f"name {name} is not DNS-1035 or too long"
    if cluster["rayVersion"] != ray_version():
        yield f"Ray {cluster['rayVersion']} is not the image's {ray_version()}"
    yield from check_amounts("the autoscaler", cluster["autoscalerOptions"]["resources"])
    head, groups = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    names = [group["groupName"] for group in groups]
    if len(set(names)) < len(names):
        yield "has two groups of one name"
    if _target(head["template"]["spec"]["containers"][0]) is Target.GPU:
        yield "has a head with CUDA"
    annotations = head["template"]["metadata"].get("annotations")
    if document["kind"] == "RayJob" and annotations != STAYS:
        yield "may lose its head to a scale-down"
    for group in (head, *groups):
        if group["template"]["spec"].get("restartPolicy") != "Never":
            yield "autoscaler v2 needs restartPolicy Never"
    for group in groups:
        yield from _check_group(group)


def _check_group(group: Document) -> Iterator[str]:
    name, least, most = group["groupName"], group["minReplicas"], group["maxReplicas"]
    if not least <= group["replicas"] <= most:
        yield f"group {name} starts outside of its bounds"
    if group["template"]["metadata"]["labels"]["app.kubernetes.io/component"] != name:
        yield f"group {name} is labelled as another"
    if group["replicas"] != least:
        yield f"group {name} starts nodes that nobody asked for"
    for container in group["template"]["spec"]["containers"]:
        asks = "nvidia.com/gpu" in container["resources"]["limits"]
        if asks and _target(container) is Target.CPU:
            yield f"group {name} asks for a GPU with the CPU image"
        if not asks and _target(container) is Target.GPU:
            yield f"group {name} has the GPU image and asks for no GPU"


def _target(container: Document) -> Target | None:
    own = read_image(container["image"])
    return own.target if own else None


def check_job(document: Document) -> Iterator[str]:
    spec, command = document["spec"], document["spec"]["entrypoint"]
    groups = spec["rayClusterSpec"]["workerGroupSpecs"]
    yield from check_submitter(spec["submitterPodTemplate"], "ray-job-submitter")
    yield from check_entrypoint(command)
    yield from check_demand(command, groups)
    yield from check_archive(command)
    stem = command.partition(".py")[0].rpartition("/")[2]
    if spec["activeDeadlineSeconds"] < LEAST_S.get(stem, 0):
        yield f"{stem} is ended after {spec['activeDeadlineSeconds']} s"
    if document["metadata"]["name"] != f"hipray-{stem}":
        yield f"{document['metadata']['name']} is no name of {stem}"
    own = spec.get("entrypointNumCpus", 0)
    if (own >= 1) != (stem in work_in_driver()):
        yield f"{stem} works on the wrong machine"
    most = max(_count_cpus(group) for group in groups)
    if own > most:
        yield f"its driver wants more than the {most:g} CPUs of a worker"
    (head,) = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    yield from check_head_memory(command, gib(head["resources"]["limits"]["memory"]))


def check_submitter(template: Document, container: str) -> Iterator[str]:
    if template["metadata"]["labels"].get("app.kubernetes.io/component") != "submit":
        yield "has a submitter that no policy knows"
    if [each["name"] for each in template["spec"]["containers"]] != [container]:
        yield f"has no container {container}"
    if template["spec"].get("restartPolicy") != "Never":
        yield "restarts its submitter"


def _count_cpus(group: Document) -> float:
    return count_cpus(_limits(group)["cpu"])


def _limits(group: Document) -> Document:
    return dict(group["template"]["spec"]["containers"][0]["resources"]["limits"])


def check_service(spec: Document) -> Iterator[str]:
    (group,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    config, nodes = yaml.safe_load(spec["serveConfigV2"]), group["maxReplicas"]
    if wrong := [*find_serve_problems(config, nodes=nodes)]:
        yield from wrong
        return
    http = config["http_options"]
    if (http["host"], http["port"]) != ("0.0.0.0", ENDPOINT["port"]["number"]):
        yield "listens where its Service does not look"
    if spec["rayClusterDeletionDelaySeconds"] <= http["request_timeout_s"]:
        yield "takes the old cluster away from requests that it still answers"
    if config["proxy_location"] != "EveryNode":
        yield "answers on the head only, where nobody asks"
    cpus, (application,) = _count_cpus(group), config["applications"]
    run = ServeRun.model_validate(application["args"])
    if 4 * run.cpus_per_stage > cpus:  # three stages, the ingress and its decoders
        yield f"a node of {cpus:g} CPUs does not hold one replica of each stage"
    told = application.get("deployments", [])
    scales = [each["autoscaling_config"] for each in told if "autoscaling_config" in each]
    least = max(
        [each["min_replicas"] for each in scales]
        + [getattr(run.scaling, stage).min_replicas for stage in STAGES]
    )
    if count_upgrade_cpus(run, least) > cpus * nodes:
        yield f"{nodes} nodes of {cpus:g} CPUs do not hold a new version beside the old one"
    gpus = nodes * float(_limits(group).get("nvidia.com/gpu", 0))
    if count_upgrade_gpus(run, least) > gpus:
        yield f"{nodes} nodes with {gpus:g} GPUs do not hold the networks of two versions"
    if any(each["target_ongoing_requests"] != run.batch for each in scales):
        yield "scales by something else than a full batch"
