"""How a Serve config file is checked: Ray's own schema, unknown keys refused, hipray's settings."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from hipray.distributed.loopback import WORKER_HOOK

ROOT = Path(__file__).resolve().parent.parent.parent
QUIET = {"log_level": "WARNING", "enable_access_log": False}
"""Paths and queries of requests may name patients."""
NEEDED = {"proxy_location", "http_options", "logging_config", "applications"}
NEEDED_OF_HTTP = {"host", "port", "request_timeout_s", "keep_alive_timeout_s"}
NEEDED_OF_APPLICATION = {"name", "route_prefix", "import_path", "args"}
NEEDED_OF_ARGUMENTS = {
    "workspace", "release", "host", "allowed_prefixes", "batch", "queue", "request_timeout_s",
    "max_replicas", "cpus_per_stage",
}  # fmt: skip
HOOK = {"worker_process_setup_hook": WORKER_HOOK}
STAGES = ("segmenter", "matting", "ensemble")
MOST_REPLICAS = 16
"""No deployment of this project may grow beyond it; a larger number is a slip."""
BOUNDS: dict[str, tuple[float, float]] = {
    "memory_gib": (1, 128), "port": (8000, 8000), "batch": (1, 64), "batch_wait_s": (0, 1),
    "max_replicas": (1, MOST_REPLICAS), "rollout_timeout_s": (120, 7200), "queue": (1, 1024),
    "max_held_bytes": (250e6, 16e9), "request_timeout_s": (10, 300), "batch_at_once": (1, 64),
    "max_batch_bytes": (250e6, 16e9), "readers": (1, 16), "cpus_per_stage": (0.1, 8),
    "cpus_per_ingress": (0.1, 4), "gpus_per_stage": (0, 1),
}  # fmt: skip
"""Every number of the endpoint and what a node of this project holds, or a caller waits for."""
OWN_FOLDERS = {"bundles", "data", "releases", "report", "runs", "scores", "splits", "weights"}
"""What hipray itself keeps below a workspace: nothing of it is a caller's film."""
OF_PHANTOMS = "s3://hipray-dev/"
"""The one store whose releases are of phantoms."""


def find_serve_problems(config: dict[str, Any], *, nodes: int = 1) -> Iterator[str]:
    """Yield what is wrong with a Serve config file for a cluster that grows to some nodes."""
    from ray.serve.schema import ServeDeploySchema

    try:
        ServeDeploySchema.model_validate(config)
    except (ValidationError, AttributeError) as error:  # the latter where a mapping is none
        yield f"Serve refuses it: {error}"
        return
    yield from _find_unknown_keys(ServeDeploySchema, config, "")
    yield from _find_missing_keys(config)
    if config.get("logging_config") != QUIET:
        yield "writes requests into its log"
    if config.get("proxy_location") == "Disabled":
        yield "answers nobody"
    for application in config["applications"]:
        yield from _check_application(application, config.get("http_options", {}))
        for deployment in application.get("deployments", []):
            yield from _check_spread(deployment, application.get("args", {}), nodes)
        yield from _check_places(application.get("args", {}), nodes)


def _find_unknown_keys(model: type[BaseModel], given: dict[str, Any], where: str) -> Iterator[str]:
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    for key, value in given.items():
        if key not in fields:
            yield f"unknown key {where}{key}"
            continue
        nested = _model_in(fields[key].annotation)
        if nested is None:
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                yield from _find_unknown_keys(nested, each, f"{where}{key}.")


def _find_missing_keys(config: dict[str, Any]) -> Iterator[str]:
    """What has to be said: Ray's and hipray's defaults are those of a laptop."""
    for application in config["applications"]:
        for where, given, needed in (
            ("", config, NEEDED),
            ("http_options.", config.get("http_options", {}), NEEDED_OF_HTTP),
            ("applications.", application, NEEDED_OF_APPLICATION),
            ("applications.args.", application.get("args", {}), NEEDED_OF_ARGUMENTS),
        ):
            yield from (f"{where}{key} is not said" for key in sorted(needed - set(given)))


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(part) for part in get_args(annotation))
    return next((model for model in found if model is not None), None)


def _check_application(application: dict[str, Any], http: dict[str, Any]) -> Iterator[str]:
    from hipray.config.jobs import ServeRun

    host = http.get("host")
    yield from _check_import_path(application)
    if application.get("runtime_env", HOOK) != HOOK:
        yield "has a runtime environment of its own"
    try:
        run = ServeRun.model_validate(application.get("args", {}))
    except ValidationError as error:
        yield f"hipray refuses its arguments: {error.errors()[0]['loc']}"
        return
    if run.host != host:
        yield f"listens on {host} and tells hipray {run.host}"
    if not run.guarded:  # on loopback too: not all who have a shell on the head are callers
        yield "answers everyone"
    if http.get("request_timeout_s", 0) <= run.request_timeout_s:
        yield "the proxy gives up before hipray has said why"
    if http.get("keep_alive_timeout_s", 0) <= run.request_timeout_s:
        yield "connections end before their answers"
    if application.get("route_prefix") != "/":
        yield "answers under another path than the ingress asks"
    films = re.escape(f"{run.workspace}/") + r"(\w[\w.-]*)(/\w[\w.-]*)*"
    folders = [re.fullmatch(films, prefix) for prefix in run.allowed_prefixes]
    if len(folders) != 1 or folders[0] is None or folders[0][1] in OWN_FOLDERS:
        yield f"lets callers read {list(run.allowed_prefixes)} instead of one folder of films"
    for name, (least, most) in BOUNDS.items():
        value = getattr(run, name)
        if value is not None and not least <= value <= most:
            yield f"{name} is {value:g}, not {least:g} to {most:g}"
    if run.allow_phantom_release and not run.workspace.startswith(OF_PHANTOMS):
        yield "answers with what was learned on phantoms"
    endpoint = run.storage.endpoint_url
    if run.storage.anonymous or (endpoint and not endpoint.startswith("https://")):
        yield "reads its store without keys, or in the clear"
    for deployment in application.get("deployments", []):
        yield from _check_scale(deployment, run)
    for stage in STAGES:
        least, most = getattr(run.scaling, stage).limit(run.max_replicas)
        if least > run.max_replicas or most > MOST_REPLICAS:
            yield f"{stage} has no sensible bounds of replicas"


def _check_import_path(application: dict[str, Any]) -> Iterator[str]:
    """Read the module instead of importing it: that would load torch."""
    module, _, name = application["import_path"].partition(":")
    path = ROOT / f"{module.replace('.', '/')}.py"
    tree = ast.parse(path.read_text("utf-8") if path.exists() else "")
    builders = {
        node.name: ast.unparse(node.args) for node in tree.body if isinstance(node, ast.FunctionDef)
    }
    if builders.get(name) != "config: ServeRun":
        yield f"{application['import_path']} is not a function of a ServeRun"
    for deployment in application.get("deployments", []):
        if deployment["name"] != "ingress":
            yield f"{module} deploys no {deployment['name']} in this application"


def _check_spread(
    deployment: dict[str, Any], arguments: dict[str, Any], nodes: int
) -> Iterator[str]:
    """Old and new replicas share a node's places while an application is upgraded."""
    places, most = deployment.get("max_replicas_per_node"), arguments.get("max_replicas")
    if isinstance(places, int) and isinstance(most, int) and places * nodes <= most:
        yield f"{deployment['name']}: at {most} replicas a new version finds no place to start"


def _check_places(arguments: dict[str, Any], nodes: int) -> Iterator[str]:
    """The stages of two releases are two deployments, which share no places."""
    for stage, bounds in arguments.get("scaling", {}).items():
        places = bounds.get("max_replicas_per_node") if isinstance(bounds, dict) else None
        if isinstance(places, int) and places * nodes < arguments.get("max_replicas", 1):
            yield f"{stage}: {nodes} nodes have no places for all replicas"


def count_upgrade_cpus(run: Any, replicas: int = 1) -> float:
    """Return the CPUs that an upgrade in place needs: a new replica starts beside each old one."""
    return float(2 * replicas * (len(STAGES) * run.cpus_per_stage + run.cpus_per_ingress))


def count_upgrade_gpus(run: Any, replicas: int = 1) -> float:
    """Return the GPUs that it needs: cutting out regions (matting) takes none."""
    return float(2 * replicas * (len(STAGES) - 1) * (run.gpus_per_stage or 0))


def _check_scale(deployment: dict[str, Any], run: Any) -> Iterator[str]:
    scale = deployment.get("autoscaling_config")
    if scale is None:
        if not 1 <= deployment.get("num_replicas", 1) <= MOST_REPLICAS:
            yield f"{deployment['name']} has no sensible number of replicas"
        return
    if not scale.get("min_replicas", 1) <= scale.get("max_replicas", 0) <= MOST_REPLICAS:
        yield f"{deployment['name']} has no sensible maximum of replicas"
    if scale.get("max_replicas") != run.max_replicas:
        yield f"{deployment['name']} differs from max_replicas of the arguments"
