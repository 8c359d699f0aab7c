"""What the documents of an overlay and of its jobs have to agree on, whatever a hospital sets."""

import re
from collections.abc import Iterator
from typing import Any

import boto3
import yaml

from tests.cluster.serve_files import OF_PHANTOMS
from tests.k8s.entrypoints import ROOT, check_demand, read_config
from tests.k8s.images import OwnImage, read_image
from tests.k8s.kustomize import Document, read_documents
from tests.k8s.nightly import read_night
from tests.k8s.pods import PORTS_OF_OPERATOR, list_pods

BASE = ROOT / "k8s/base"
READ_TIMEOUT = "nginx.ingress.kubernetes.io/proxy-read-timeout"
ROLE = "eks.amazonaws.com/role-arn"
ROLE_NAME = re.compile(r"arn:aws[\w-]*:iam::\d{12}:role/[\w+=,.@/-]+")


def find_overlay_problems(standing: list[Document], jobs: list[Document]) -> Iterator[str]:
    """Yield where what stands and its jobs name different places, images or releases."""
    spaces = {each["metadata"].get("namespace") for each in standing + jobs} - {None}
    if len(spaces) != 1:
        yield f"lives in {sorted(map(str, spaces))}"
    images = [_place_of(each) for each in list_own_images(standing + jobs)]
    if len(set(images)) != 1:
        yield f"takes its image from {sorted(set(images))}"
    settings, run = read_settings(standing), read_endpoint(standing)
    workspace = settings["HIPRAY_WORKSPACE"]
    store = settings.get("AWS_ENDPOINT_URL", "https://")
    if not store.startswith("https://") and not workspace.startswith(OF_PHANTOMS):
        yield f"sends films to {store} in the clear"
    if run["workspace"] != workspace:
        yield f"answers from {run['workspace']} and works in {workspace}"
    if run["release"] != settings["HIPRAY_RELEASE"]:
        yield f"answers with {run['release']} and scores with {settings['HIPRAY_RELEASE']}"
    for name in ("HIPRAY_ARCHIVE", "HIPRAY_INCOMING"):
        if not settings[name].startswith(f"{workspace}/"):
            yield f"{name} is not below the workspace, which is all that the role reaches"
    roles = {name: read_role(standing, name) for name in ("hipray-head", "hipray-worker")}
    if len(set(roles.values())) != 1:
        yield f"has two roles for one prefix: {roles}"
    if not all(role is None or ROLE_NAME.fullmatch(role) for role in roles.values()):
        yield f"has no role: {roles}"
    yield from _check_runs(jobs)
    yield from _check_phantoms(standing, jobs)
    yield from _check_night(standing)
    yield from _check_waits(standing)
    yield from _check_base(standing)
    yield from find_unnamed_ports(standing + jobs)
    yield from find_region_problems(standing)


def _check_runs(jobs: list[Document]) -> Iterator[str]:
    trained, reported = _read_job(jobs, "grid").run, _read_job(jobs, "report").run
    if trained != reported:
        yield f"trains {trained} and reports on {reported}"
    search = _read_job(jobs, "tune")
    if search.run == trained or search.grid not in (None, trained):
        yield f"searches in {search.run} for {search.grid}, and trains {trained}"


def _check_phantoms(standing: list[Document], jobs: list[Document]) -> Iterator[str]:
    """Yield where releases of phantoms score a hospital's films, or dev waits for such films."""
    of_phantoms = read_settings(standing)["HIPRAY_WORKSPACE"].startswith(OF_PHANTOMS)
    if _read_job(jobs, "score").allow_phantom_release is not of_phantoms:
        yield "scores with releases of phantoms, or refuses the only ones"
    if read_endpoint(standing).get("allow_phantom_release", False) is not of_phantoms:
        yield "answers with releases of phantoms, or refuses the only ones"
    if _read_spec(standing, "CronJob").get("suspend", False) is not of_phantoms:
        yield "scores no nights, or nights to which nobody sends films"


def _check_night(standing: list[Document]) -> Iterator[str]:
    """Yield where a night asks for what the overlay's own cluster has not; it need not in dev."""
    night, cluster = _read_spec(standing, "CronJob"), _read_spec(standing, "RayCluster")
    if not night.get("suspend"):
        yield from check_demand(read_night(night), cluster["workerGroupSpecs"])


def _check_waits(standing: list[Document]) -> Iterator[str]:
    """Yield where the ingress controller gives up before the endpoint has said why."""
    wait = yaml.safe_load(_read_spec(standing, "RayService")["serveConfigV2"])["http_options"]
    for each in standing:
        told = each["metadata"].get("annotations", {}).get(READ_TIMEOUT)
        if told is not None and int(told) <= wait["request_timeout_s"]:
            yield f"the ingress waits {told} s for what takes {wait['request_timeout_s']} s"


def _check_base(standing: list[Document]) -> Iterator[str]:
    """Yield where an overlay tells pods something of its own, or has other alerts than the base."""
    (settings,) = read_documents(BASE / "settings.yaml")
    if unknown := set(read_settings(standing)) - {*settings["data"], "AWS_ENDPOINT_URL"}:
        yield f"tells every pod {sorted(unknown)}"
    (rule,) = read_documents(BASE / "prometheus-rule.yaml")
    if _read_spec(standing, "PrometheusRule") != rule["spec"]:
        yield "has other alerts than the base"


def _read_spec(documents: list[Document], kind: str) -> Document:
    (spec,) = [each["spec"] for each in documents if each["kind"] == kind]
    return dict(spec)


def find_region_problems(standing: list[Document]) -> Iterator[str]:
    """Yield where every pod is told a region that AWS does not have, in any of its partitions."""
    session = boto3.Session()
    known = {
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("s3", partition)
    }
    region = read_settings(standing)["AWS_DEFAULT_REGION"]
    if region not in known:
        yield f"asks S3 in the region '{region}'"


def _read_job(jobs: list[Document], name: str) -> Any:
    """Return what hipray reads from the command of a job."""
    (command,) = [
        each["spec"]["entrypoint"] for each in jobs if each["metadata"]["name"] == f"hipray-{name}"
    ]
    return read_config(command)


def list_own_images(documents: list[Document]) -> list[OwnImage]:
    """Return the project's images among all containers, one entry per container."""
    found = (
        read_image(container["image"])
        for each in documents
        for _, pod in list_pods(each)
        for container in pod["spec"]["containers"]
    )
    return [image for image in found if image is not None]


def _place_of(image: OwnImage) -> str:
    return f"{image.registry}hipray:{image.version}"


def read_settings(standing: list[Document]) -> dict[str, str]:
    """Return what every pod of an overlay is told."""
    (settings,) = [each["data"] for each in standing if each["kind"] == "ConfigMap"]
    return dict(settings)


def read_endpoint(standing: list[Document]) -> dict[str, Any]:
    """Return hipray's arguments of the endpoint."""
    (service,) = [each["spec"] for each in standing if each["kind"] == "RayService"]
    (application,) = yaml.safe_load(service["serveConfigV2"])["applications"]
    return dict(application["args"])


def read_role(standing: list[Document], account: str) -> str | None:
    """Return the cloud's role of a service account."""
    (found,) = [
        each["metadata"].get("annotations", {}).get(ROLE)
        for each in standing
        if each["kind"] == "ServiceAccount" and each["metadata"]["name"] == account
    ]
    return found


def list_roles(standing: list[Document]) -> dict[str, str]:
    """Return the cloud's roles of all service accounts that have one, by `namespace:name`."""
    accounts = [each["metadata"] for each in standing if each["kind"] == "ServiceAccount"]
    return {
        f"{each['namespace']}:{each['name']}": each["annotations"][ROLE]
        for each in accounts
        if ROLE in each.get("annotations", {})
    }


def find_unnamed_ports(documents: list[Document]) -> Iterator[str]:
    """Yield each port that a PodMonitor asks by a name that pods it selects do not have."""
    for monitor in documents:
        if monitor["kind"] != "PodMonitor":
            continue
        kind = monitor["spec"]["selector"]["matchLabels"]["ray.io/node-type"]
        asked = {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]}
        pods = [c for each in documents for c in _ray_containers(each, f"ray-{kind}")]
        if not pods:
            yield f"{monitor['metadata']['name']} selects no pod"
        for container in pods:
            named = {each["name"] for each in container.get("ports", [])} | set(PORTS_OF_OPERATOR)
            if asked - named:
                yield f"{monitor['metadata']['name']} asks {sorted(asked - named)} of no pod"


def _ray_containers(document: Document, name: str) -> Iterator[Document]:
    for _, pod in list_pods(document):
        yield from (each for each in pod["spec"]["containers"] if each["name"] == name)
