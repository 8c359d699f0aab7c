"""The closed shape of the launcher's files: which keys there are, all of them, and their types.

Ray's own schema is open below its top level, and what is left out it fills in by itself.
"""

from typing import Any

from jsonschema import Draft202012Validator

from tests.k8s.schemas import COUNT, FLAG, TEXT, TEXTS, Schema, array, closed


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
COMMANDS = array(TEXT)
NOTHING: Schema = {"const": []}
"""The image has everything: each of these would run something on every node."""
PATH = words(r"^~/\.ssh/[\w.-]+$")
IMAGE = words(r"^\S+:\d[\w.]*-[cg]pu$")

COMMON: dict[str, Schema] = {
    "cluster_name": const("hipray"),  # iam/head.json ends the nodes of this name only
    "max_workers": COUNT,
    "upscaling_speed": SECONDS,
    "idle_timeout_minutes": SECONDS,
    "auth": exact(ssh_user=TEXT, ssh_private_key=PATH),
    "file_mounts": exact(**{"~/.ray/auth_token": const("~/.ray/auth_token")}),
    "initialization_commands": NOTHING, "setup_commands": NOTHING,
    "head_setup_commands": NOTHING, "worker_setup_commands": NOTHING,
    "head_start_ray_commands": COMMANDS, "worker_start_ray_commands": COMMANDS,
}  # fmt: skip
CONTAINER = {
    "container_name": TEXT,
    "pull_before_run": FLAG,
    "run_options": {**array(words("^--")), "contains": const("--security-opt no-new-privileges")},
}

DISK = exact(
    DeviceName=words("^/dev/"),
    Ebs=exact(
        VolumeSize={**COUNT, "minimum": 64}, VolumeType=const("gp3"), Encrypted=const(True),
        DeleteOnTermination=const(True),
    ),
)  # fmt: skip
TAGS = exact(ResourceType=const("instance"), Tags=array(exact(Key=TEXT, Value=TEXT)))
MACHINE: dict[str, Schema] = {
    "InstanceType": words(r"^[a-z]\w*\.\d*x?large$"),
    "ImageId": words("^ami-[0-9a-f]{8,17}$"),
    "KeyName": TEXT,
    "SecurityGroupIds": array(words("^sg-[0-9a-f]{8,17}$")),
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
ONE_GPU = exact(CPU=COUNT, GPU=const(1))
NODES: Schema = {
    "type": "object", "required": ["head"], "additionalProperties": False,
    "properties": {"head": exact(
        resources=exact(CPU=const(0)), min_workers=const(0), max_workers=const(0),
        node_config=exact(**MACHINE),
    )},
    "patternProperties": {
        "^gpu-": exact(
            resources=ONE_GPU, min_workers=const(0), max_workers=COUNT,
            node_config=exact(**MACHINE, **SPOT),
        ),
        "^cpu-": exact(
            resources=exact(CPU=COUNT), min_workers=const(0), max_workers=COUNT,
            docker=exact(worker_image=words("-cpu$")), node_config=exact(**MACHINE, **SPOT),
        ),
    },
}  # fmt: skip

SHAPES: dict[str, Schema] = {
    "aws": exact(
        **COMMON,
        provider=exact(
            type=const("aws"), region=words(r"^[a-z]{2}-[a-z]+-\d$"),
            cache_stopped_nodes=const(False), use_internal_ips=const(True),
        ),
        docker=exact(head_image=IMAGE, worker_image=IMAGE, **CONTAINER),
        head_node_type=const("head"), available_node_types=NODES,
    ),
    "local": exact(
        **COMMON, min_workers=COUNT,
        provider=exact(
            type=const("local"), head_ip=words(r"^[\d.]+$"), worker_ips=array(words(r"^[\d.]+$"))
        ),
        docker=exact(image=IMAGE, worker_run_options=TEXTS, **CONTAINER),
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
        for error in Draft202012Validator(shape).iter_errors(config)
    ]
