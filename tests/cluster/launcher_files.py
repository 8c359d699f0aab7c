"""How a launcher file is checked: its shape, Ray's own checks, EC2's request shape, and rules."""

import copy
import shlex
from functools import cache
from ipaddress import ip_address
from typing import Any

from tests.cluster.policies import Place
from tests.cluster.shapes import find_shape_errors
from tests.k8s.images import read_image

MOST_NODES = 64
"""No cluster of this project may grow beyond it; a larger number is a slip."""
DEFAULTS_OF_RAY = ("setup_commands", "head_setup_commands", "head_start_ray_commands",
                   "worker_start_ray_commands", "idle_timeout_minutes", "docker")  # fmt: skip
"""What the launcher would otherwise fill in: a nightly Ray, an open dashboard."""


def _prepare(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return dict(prepared)


@cache
def _model() -> Any:
    import botocore.session

    return botocore.session.get_session().get_service_model("ec2")


@cache
def _request_shape() -> Any:
    return _model().operation_model("RunInstances").input_shape


@cache
def _machines() -> frozenset[str]:
    """Every kind of machine that EC2 has."""
    return frozenset(_model().shape_for("InstanceType").enum)


def _request_errors(node_config: dict[str, Any]) -> str:
    from botocore.validate import ParamValidator

    # SubnetIds is the launcher's own word: it tries one after the other
    request = {key: value for key, value in node_config.items() if key != "SubnetIds"}
    request |= {"MinCount": 1, "MaxCount": 1}
    return str(ParamValidator().validate(request, _request_shape()).generate_report())


def find_launcher_problems(config: dict[str, Any], place: Place) -> list[str]:
    """Return what is wrong with a launcher file."""
    if wrong := find_shape_errors(config):
        return wrong
    try:
        prepared = _prepare(config)
    except Exception as error:
        return [f"the launcher refuses it: {error}"]
    problems = [f"leaves {key} to Ray" for key in DEFAULTS_OF_RAY if key not in config]
    commands = config.get("head_start_ray_commands", []) + config.get(
        "worker_start_ray_commands", []
    )
    for command in commands:
        if "ray start" not in command:
            continue
        problems += find_option_errors(command)
        if not command.startswith("export RAY_AUTH_MODE=token;"):
            problems.append("starts without a token")
        if "--head" in command and "--dashboard-host=127.0.0.1" not in command:
            problems.append("shows its dashboard")
        if "--head" in command and "--num-cpus=0" not in command:
            problems.append("works on its head")
    if config.get("file_mounts") != {"~/.ray/auth_token": "~/.ray/auth_token"}:
        problems.append("does not carry the token")
    if not 1 <= prepared["max_workers"] <= MOST_NODES:
        problems.append(f"grows to {prepared['max_workers']} nodes")
    problems += _image_problems(config)
    if config["provider"]["type"] == "aws":
        problems += _aws_problems(config, place)
    else:
        workers = len(config["provider"]["worker_ips"])
        machines = [config["provider"]["head_ip"], *config["provider"]["worker_ips"]]
        problems += [f"{each} is no machine" for each in machines if not _is_machine(each)]
        if config["provider"]["head_ip"] in config["provider"]["worker_ips"]:
            problems.append("its head is a worker too")
        if not config.get("min_workers") == config.get("max_workers") == workers:
            problems.append("min_workers and max_workers are not the number of machines")
    return problems


def _is_machine(address: str) -> bool:
    """Whether an address can be one machine's in a network."""
    told = ip_address(address)
    none = told.is_unspecified or told.is_loopback or told.is_multicast or told.is_link_local
    return not none and int(told) != 2**32 - 1


def find_option_errors(command: str) -> list[str]:
    """Return what `ray start` itself would say of its options, without starting anything."""
    import click
    from ray.scripts.scripts import start

    words = shlex.split(command.partition("ray start")[2], comments=True)
    try:
        start.make_context("start", words)
    except click.ClickException as error:
        return [error.format_message()]
    return []


def _aws_problems(config: dict[str, Any], place: Place) -> list[str]:
    problems = []
    provider, types = config["provider"], config["available_node_types"]
    if provider.get("cache_stopped_nodes") is not False:
        problems.append("keeps disks of stopped nodes")
    if provider.get("use_internal_ips") is not True:
        problems.append("uses public addresses")
    if "security_group" in provider:
        problems.append("lets the launcher open a security group")
    if provider["region"] != place.region or config["cluster_name"] != place.cluster:
        problems.append("starts where, or names what, iam/head.json does not allow")
    if f"--env AWS_DEFAULT_REGION={provider['region']}" not in config["docker"]["run_options"]:
        problems.append("containers ask S3 of another region")
    for key in ("SecurityGroupIds", "SubnetIds", "KeyName", "ImageId"):
        if len({str(node["node_config"].get(key)) for node in types.values()}) > 1:
            problems.append(f"nodes that do not reach each other, or differ: {key}")
    for name, node in types.items():
        own = node["node_config"]
        is_head = name == config["head_node_type"]
        found = _request_errors(own)
        problems += [f"{name}: {found}"] if found else []
        if own["InstanceType"] not in _machines():
            problems.append(f"{name}: EC2 has no {own['InstanceType']}")
        if not own.get("SecurityGroupIds") or not own.get("SubnetIds"):
            problems.append(f"{name}: leaves its network to the launcher")
        profile = "hipray-head" if is_head else "hipray-worker"
        if own.get("IamInstanceProfile") != {"Name": profile}:
            problems.append(f"{name}: has another instance profile")
        if own.get("MetadataOptions", {}).get("HttpTokens") != "required":
            problems.append(f"{name}: answers IMDSv1")
        disks = own.get("BlockDeviceMappings", [])
        if not disks or not all(disk["Ebs"].get("Encrypted") is True for disk in disks):
            problems.append(f"{name}: disks are not encrypted")
        if is_head and "InstanceMarketOptions" in own:
            problems.append(f"{name}: spot, and every job with it")
        cpus = node["resources"].get("CPU")
        if not is_head and cpus != count_cpus(own["InstanceType"]):
            problems.append(f"{name}: {cpus} CPUs are not those of {own['InstanceType']}")
        if node.get("min_workers", 0) != 0:
            problems.append(f"{name}: does not start from zero")
        if not is_head and not 1 <= node.get("max_workers", 0) <= MOST_NODES:
            problems.append(f"{name}: has no sensible maximum")
    if types[config["head_node_type"]]["resources"].get("CPU") != 0:
        problems.append("the head takes work")
    return problems


def _image_problems(config: dict[str, Any]) -> list[str]:
    """Images of several registries or versions: Ray does not mix versions in a cluster."""
    docker = config["docker"]
    named = [docker.get(key) for key in ("image", "head_image", "worker_image")]
    named += [
        node.get("docker", {}).get("worker_image")
        for node in config.get("available_node_types", {}).values()
    ]
    own = [read_image(image) for image in named if image]
    places = {(image.registry, image.version) for image in own if image}
    return [] if len(places) == 1 else [f"takes its images from {sorted(places)}"]


def count_cpu_nodes(config: dict[str, Any]) -> int:
    """Return how many nodes a launcher file has for work that takes no GPU."""
    kinds = config["available_node_types"]
    most = sum(kind["max_workers"] for name, kind in kinds.items() if name.startswith("cpu-"))
    return min(int(config["max_workers"]), most)


def count_cpus(machine: str) -> int:
    """Return the CPUs of an EC2 machine, four for each x in the name of its size."""
    size = machine.partition(".")[2].removesuffix("large")
    return {"": 2, "x": 4}.get(size) or 4 * int(size.removesuffix("x"))


def count_gib(machine: str) -> int:
    """Return the memory in GiB of an EC2 machine of the families c, m and r."""
    return {"c": 2, "m": 4, "r": 8}[machine[0]] * count_cpus(machine)
