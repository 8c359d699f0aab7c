"""What each container starts with and is told: by its name, whatever document it is in."""

import ast
from collections.abc import Iterator

import botocore.session
from botocore import xform_name

from tests.k8s.kustomize import Document
from tests.k8s.pods import SETTINGS, check_amounts, check_place

PROBES = {"readinessProbe", "livenessProbe", "startupProbe"}
TOKEN = {"secretKeyRef": {"name": "hipray-ray-token", "key": "auth_token"}}
SUBMITTER_ENV = [
    {"name": "RAY_API_SERVER_ADDRESS", "value": "http://hipray-head-svc:8265"},
    {"name": "RAY_AUTH_MODE", "value": "token"},
    {"name": "RAY_AUTH_TOKEN", "valueFrom": TOKEN},
]
ENV: dict[str, list[Document]] = {
    "submit": SUBMITTER_ENV,
    "redis": [
        {
            "name": "REDIS_PASSWORD",
            "valueFrom": {"secretKeyRef": {"name": "hipray-redis", "key": "password"}},
        }
    ],
    "minio": [
        {"name": "MINIO_BROWSER", "value": "off"},
        *(
            {"name": name, "valueFrom": {"secretKeyRef": {"name": "hipray-store", "key": key}}}
            for name, key in (
                ("MINIO_ROOT_USER", "AWS_ACCESS_KEY_ID"),
                ("MINIO_ROOT_PASSWORD", "AWS_SECRET_ACCESS_KEY"),
            )
        ),
    ],
}
"""All variables that a container has by itself. On Ray's own the operator's, token and all, would
no longer count; anywhere else a value would be a secret in plain text."""
STORE = {"secretRef": {"name": "hipray-store"}}
KEYS_OF_A_STORE = {"secretRef": {"name": "hipray-store", "optional": True}}
NODE = [SETTINGS, KEYS_OF_A_STORE]
ENV_FROM = {
    "ray-head": NODE, "ray-worker": NODE, "ray-job-submitter": [SETTINGS], "submit": [SETTINGS],
    "bucket": [SETTINGS, STORE],
}  # fmt: skip
"""Settings and Secrets by the lump: who submits has no keys of the store."""
PROBED = {"redis": ("readinessProbe", "livenessProbe"), "minio": ("readinessProbe",)}
SHELLS = {
    "submit": ["/bin/sh", "-c"], "redis": ["/bin/sh", "-c"], "bucket": ["python", "-c"],
}  # fmt: skip
ARGUMENTS = {"minio": ["server", "/data", "--address", ":9000"]}
"""What follows an image's own command; the scripts of a shell are looked at where they belong."""


def check_pod(pod: Document) -> Iterator[str]:
    spec = pod["spec"]
    (container,) = spec["containers"]
    if spec["automountServiceAccountToken"] is not (container["name"] == "ray-head"):
        yield "mounts a Kubernetes token that it does not need, or lacks one"
    yield from _check_container(container)
    yield from check_place(pod)


def _check_container(container: Document) -> Iterator[str]:
    name = container["name"]
    if container.get("command") != SHELLS.get(name):
        yield f"{name} starts with {container.get('command')}"
    if name not in SHELLS and container.get("args") != ARGUMENTS.get(name):
        yield f"{name} starts with the arguments {container.get('args')}"
    if name == "bucket":
        yield from _check_python(container.get("args", [""]))
    if container.get("env") != ENV.get(name):
        yield f"{name} has other variables, or none"
    if container.get("envFrom") != ENV_FROM.get(name):
        yield f"{name} is told too much or too little"
    for probe in PROBED.get(name, ()):
        if probe not in container:
            yield f"has no {probe}"
    yield from check_amounts(name, container["resources"])
    if name in ("ray-head", "ray-worker"):
        if container["resources"]["requests"] != container["resources"]["limits"]:
            yield "Ray counts limits that are not requested"
        if PROBES & set(container):
            yield "a probe by hand switches the operator's own off"


def _check_python(lines: list[str]) -> Iterator[str]:
    try:
        tree = ast.parse("\n".join(lines))
    except SyntaxError as error:
        yield f"its script is no Python: {error.msg}"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and ast.unparse(node) != "import boto3":
            yield f"its script has {ast.unparse(node)}"
        if isinstance(node, ast.Call) and not _is_asked_of_s3(node):
            yield f"its script calls {ast.unparse(node)}, which S3's client does not know"


def _is_asked_of_s3(call: ast.Call) -> bool:
    """Whether a call makes the client, or is one of its methods with arguments that it has."""
    if ast.unparse(call) == "boto3.client('s3')":
        return True
    model = botocore.session.get_session().get_service_model("s3")
    operations = {f"s3.{xform_name(name)}": name for name in model.operation_names}
    operation = operations.get(ast.unparse(call.func))
    if operation is None or call.args:
        return False
    shape = model.operation_model(operation).input_shape
    known, needed = set(shape.members), set(shape.required_members)
    return needed <= {each.arg for each in call.keywords} <= known
