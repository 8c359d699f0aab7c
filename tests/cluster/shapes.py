"""The closed shape of the launcher's files: which keys there are, all of them, and their types.

Ray's own schema is open below its top level, and what is left out it fills in by itself.
"""

from typing import Any

from jsonschema import Draft202012Validator

from tests.k8s.schemas import COUNT, FLAG, TEXT, Schema, array, closed


def exact(**properties: Schema) -> Schema:
    """Return a schema of a mapping with these keys, each of them needed."""
    return closed(tuple(properties), **properties)


def const(value: Any) -> Schema:
    """Return a schema of one value."""
    return {"const": value}


def words(pattern: str) -> Schema:
    """Return a schema of texts with a pattern."""
    return {"type": "string", "pattern": pattern}


SECONDS: Schema = {"type": "number", "exclusiveMinimum": 0}
START_RAY = "export RAY_AUTH_MODE=token; ulimit -n 65536; ray start"
PORTS = "--object-manager-port=8076 --metrics-export-port=8080"
START_HEAD = const(
    [
        "ray stop",
        f"{START_RAY} --head --port=6379 {PORTS} --dashboard-host=127.0.0.1 --num-cpus=0 "
        "--disable-usage-stats --autoscaling-config=~/ray_bootstrap_config.yaml",
    ]
)
START_WORKER = const(["ray stop", f"{START_RAY} --address=$RAY_HEAD_IP:6379 {PORTS}"])
"""Word for word: whatever else stands in a command runs on every node, before anyone is asked."""
REGION = r"[a-z]{2}-[a-z]+-\d"
RUN_OPTIONS = ["--ulimit nofile=65536:65536", "--security-opt no-new-privileges"]
OPTIONS_ON_AWS: Schema = {
    "type": "array", "minItems": 3, "maxItems": 3,
    "prefixItems": [*map(const, RUN_OPTIONS), words(rf"^--env AWS_DEFAULT_REGION={REGION}$")],
}  # fmt: skip
NOTHING: Schema = {"const": []}
"""The image has everything: each of these would run something on every node."""
ADDRESS: Schema = {"type": "string", "format": "ipv4"}
PATH = words(r"^[~/][\w./-]+$")
REGISTRY = r"([\w.-]+(:\d+)?/)*"
CPU_IMAGE = words(rf"^{REGISTRY}hipray:\d[\w.-]*-cpu$")
GPU_IMAGE = words(rf"^{REGISTRY}hipray:\d[\w.-]*-gpu$")

COMMON: dict[str, Schema] = {
    "cluster_name": words("^[a-z][a-z0-9-]*$"),
    "max_workers": {**COUNT, "minimum": 1, "maximum": 20},
    "upscaling_speed": {**SECONDS, "maximum": 2},
    "idle_timeout_minutes": {**SECONDS, "minimum": 2, "maximum": 60},
    "auth": exact(ssh_user=words("^(?!root$)[a-z][a-z0-9_-]*$"), ssh_private_key=PATH),
    "file_mounts": exact(**{"~/.ray/auth_token": const("~/.ray/auth_token")}),
    "initialization_commands": NOTHING, "setup_commands": NOTHING,
    "head_setup_commands": NOTHING, "worker_setup_commands": NOTHING,
    "head_start_ray_commands": START_HEAD, "worker_start_ray_commands": START_WORKER,
}  # fmt: skip
CONTAINER: dict[str, Schema] = {
    "container_name": words(r"^[A-Za-z0-9][\w.-]*\Z"),
    "pull_before_run": FLAG,
}
"""A plain name: the launcher puts it into `docker run` as it is, further options and all."""

DISK = exact(
    DeviceName=const("/dev/sda1"),
    Ebs=exact(
        VolumeSize={**COUNT, "minimum": 64, "maximum": 500}, VolumeType=const("gp3"),
        Encrypted=const(True),
        DeleteOnTermination=const(True),
    ),
)  # fmt: skip
TAG = exact(
    Key=words(r"^(?!ray-|aws:)[\w.:/+=@-]{1,128}\Z"), Value=words(r"^[\w .:/+=@-]{0,256}\Z")
)
"""The launcher knows its nodes by tags of its own, and iam/head.json what its role may end."""
TAGS = exact(ResourceType=const("instance"), Tags=array(TAG))
CPU_FAMILY = "[cmr][5-9][adin]*"
"""Machines with x86 processors (no g in the name), as the image is built for."""
MACHINE: dict[str, Schema] = {
    "InstanceType": words(rf"^{CPU_FAMILY}\.[24]?xlarge$"),
    "ImageId": words("^ami-[0-9a-f]{8,17}$"),
    "KeyName": words(r"^[\w.-]+$"),
    "SecurityGroupIds": {**array(words("^sg-[0-9a-f]{8,17}$")), "maxItems": 1},
    "SubnetIds": array(words("^subnet-[0-9a-f]{8,17}$")),
    "IamInstanceProfile": exact(Name=TEXT),
    "MetadataOptions": exact(
        HttpTokens=const("required"),
        HttpPutResponseHopLimit=const(1),
        HttpEndpoint=const("enabled"),
    ),
    "BlockDeviceMappings": array(DISK),
    "TagSpecifications": array(TAGS),
}
SPOT = {"InstanceMarketOptions": exact(MarketType=const("spot"))}
GPU_MACHINE = words(r"^(g4dn|g5|g6e?)\.(|2|4|8|16)xlarge$")
"""Machines of one GPU, which is all that a lane packs."""
CPU_MACHINE = words(rf"^{CPU_FAMILY}\.(|2|4|8|12|16|24)xlarge$")


def workers(machine: Schema, resources: Schema, **more: Schema) -> Schema:
    """Return a schema of a node type of workers, on spot or on demand."""
    node = MACHINE | {"InstanceType": machine}
    return exact(
        resources=exact(CPU=COUNT, **resources),
        min_workers=const(0),
        max_workers={**COUNT, "maximum": 16},
        node_config=closed(tuple(node), **node, **SPOT),
        **more,
    )


NODES: Schema = {
    "type": "object", "required": ["head"], "additionalProperties": False,
    "properties": {"head": exact(
        resources=exact(CPU=const(0)), min_workers=const(0), max_workers=const(0),
        node_config=exact(**MACHINE),
    )},
    "patternProperties": {
        "^gpu-": workers(GPU_MACHINE, {"GPU": const(1)}),
        "^cpu-": workers(CPU_MACHINE, {}, docker=exact(worker_image=CPU_IMAGE)),
    },
}  # fmt: skip

SHAPES: dict[str, Schema] = {
    "aws": exact(
        **COMMON,
        provider=exact(
            type=const("aws"), region=words(f"^{REGION}$"),
            cache_stopped_nodes=const(False), use_internal_ips=const(True),
        ),
        docker=exact(
            head_image=CPU_IMAGE, worker_image=GPU_IMAGE, run_options=OPTIONS_ON_AWS, **CONTAINER,
        ),
        head_node_type=const("head"), available_node_types=NODES,
    ),
    "local": exact(
        **COMMON, min_workers=COUNT,
        provider=exact(
            type=const("local"), head_ip=ADDRESS, worker_ips={**array(ADDRESS), "uniqueItems": True}
        ),
        docker={"oneOf": [
            exact(
                image=image, worker_run_options=const(gpus), **CONTAINER,
                run_options=const([*RUN_OPTIONS, "--env-file /etc/hipray/store.env"]),
            )
            for image, gpus in ((GPU_IMAGE, ["--gpus all"]), (CPU_IMAGE, []))
        ]},
    ),
}  # fmt: skip


def find_shape_errors(config: dict[str, Any]) -> list[str]:
    """Return where a launcher file differs from its shape."""
    provider = config.get("provider")
    shape = SHAPES.get(str(provider.get("type"))) if isinstance(provider, dict) else None
    if shape is None:
        return ["another provider"]
    return [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"
        for error in Draft202012Validator(
            shape, format_checker=Draft202012Validator.FORMAT_CHECKER
        ).iter_errors(config)
    ]
