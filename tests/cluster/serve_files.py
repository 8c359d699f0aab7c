"""How a Serve config file is checked: its closed shape, Ray's own schema, hipray's settings."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from pydantic import ValidationError

from tests.cluster.shapes_of_serving import MOST_REPLICAS, SERVE

ROOT = Path(__file__).resolve().parent.parent.parent
STAGES = ("segmenter", "matting", "ensemble")
OWN_FOLDERS = {"bundles", "data", "releases", "report", "runs", "scores", "splits", "weights"}
"""What hipray itself keeps below a workspace: nothing of it is a caller's film."""
OF_PHANTOMS = "s3://hipray-dev/"
"""The one store whose releases are of phantoms."""


def find_serve_problems(config: dict[str, Any], *, nodes: int = 1) -> Iterator[str]:
    """Yield what is wrong with a Serve config file for a cluster that grows to some nodes."""
    from ray.serve.schema import ServeDeploySchema

    errors = [*Draft202012Validator(SERVE).iter_errors(config)]
    if errors:
        yield from (f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in errors)
        return
    try:
        ServeDeploySchema.model_validate(config)
    except ValidationError as error:
        yield f"Serve refuses it: {error}"
        return
    for application in config["applications"]:
        yield from _check_application(application, config["http_options"])
        for deployment in application.get("deployments", []):
            yield from _check_spread(deployment, application["args"], nodes)
        yield from _check_places(application["args"], nodes)


def _check_application(application: dict[str, Any], http: dict[str, Any]) -> Iterator[str]:
    from hipray.config.jobs import ServeRun

    host = http["host"]
    yield from _check_import_path(application)
    try:
        run = ServeRun.model_validate(application["args"])
    except ValidationError as error:
        yield f"hipray refuses its arguments: {error.errors()[0]['loc']}"
        return
    if run.host != host:
        yield f"listens on {host} and tells hipray {run.host}"
    if not run.guarded:  # on loopback too: not all who have a shell on the head are callers
        yield "answers everyone"
    if http["request_timeout_s"] <= run.request_timeout_s:
        yield "the proxy gives up before hipray has said why"
    if http["keep_alive_timeout_s"] <= run.request_timeout_s:
        yield "connections end before their answers"
    films = re.escape(f"{run.workspace}/") + r"(\w[\w.-]*)(/\w[\w.-]*)*"
    folders = [re.fullmatch(films, prefix) for prefix in run.allowed_prefixes]
    if len(folders) != 1 or folders[0] is None or folders[0][1] in OWN_FOLDERS:
        yield f"lets callers read {list(run.allowed_prefixes)} instead of one folder of films"
    if run.allow_phantom_release and not run.workspace.startswith(OF_PHANTOMS):
        yield "answers with what was learned on phantoms"
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


def _check_spread(
    deployment: dict[str, Any], arguments: dict[str, Any], nodes: int
) -> Iterator[str]:
    """Old and new replicas share a node's places while an application is upgraded."""
    places, most = deployment.get("max_replicas_per_node"), arguments["max_replicas"]
    if places is not None and places * nodes <= most:
        yield f"{deployment['name']}: at {most} replicas a new version finds no place to start"


def _check_places(arguments: dict[str, Any], nodes: int) -> Iterator[str]:
    """The stages of two releases are two deployments, which share no places."""
    for stage, bounds in arguments.get("scaling", {}).items():
        places = bounds.get("max_replicas_per_node") if isinstance(bounds, dict) else None
        if places is not None and places * nodes < arguments["max_replicas"]:
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
        return
    if scale["min_replicas"] > scale["max_replicas"]:
        yield f"{deployment['name']} has no sensible maximum of replicas"
    if scale["max_replicas"] != run.max_replicas:
        yield f"{deployment['name']} differs from max_replicas of the arguments"
