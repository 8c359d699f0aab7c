"""Whether hipray takes a command of a manifest, and whether a worker holds what it asks for."""

import re
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from functools import cache, reduce
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Any

import yaml

from hipray import cli
from hipray.config.jobs import GridRun, ScoreRun
from hipray.config.tuning import TuneRun
from hipray.errors import HiprayError
from tests.k8s.kustomize import Document

ROOT = Path(__file__).resolve().parent.parent.parent
HEAD_GIB, LANE_GIB = 2.0, 1.5
"""GiB of the driver's node: Ray and the driver; and for each lane of a grid its host process and
Ray Train's controller (1.0) and Train's other actors (0.5, with torch for CUDA imported)."""
MOST_FAILED = 0.5
"""With more than half of the films unread, what a night or an archive says is of the other half."""
DEMANDS = {
    "grid": ("scaling.cpus_per_lane", "scaling.gpus_per_lane"),
    "tune": ("resources.cpus_per_trial", "resources.gpus_per_trial"),
    "score": ("cpus_per_actor", "gpus_per_actor"),
}
COUNTS = {"grid": "scaling.lanes", "tune": "resources.max_concurrent", "score": "actors"}
"""How many of these a job may have at a time."""
PLACES = {
    name: f"s3://place/{name}"
    for name in ("HIPRAY_WORKSPACE", "HIPRAY_ARCHIVE", "HIPRAY_INCOMING", "HIPRAY_RELEASE")
}
"""Stand for the variables of places and of the release, so that what comes by one is told from what
is written out."""
NO_OTHERS: Mapping[str, str] = MappingProxyType({})
"""The settings' own places."""


@cache
def read_settings() -> dict[str, str]:
    """Return the variables of every pod, as the base has them."""
    text = (ROOT / "k8s/base/settings.yaml").read_text("utf-8")
    return dict(yaml.safe_load(text)["data"])


def check_entrypoint(command: str) -> Iterator[str]:
    """Yield what is wrong with `python /opt/hipray/jobs/x.py ...` as hipray itself reads it."""
    unknown = set(re.findall(r"\$\{?([A-Z]\w+)", command)) - set(read_settings())
    if unknown:
        yield f"asks for {sorted(unknown)}, which nobody sets"
    words = _read_words(command)
    if words[0] != "python" or not words[1].startswith("/opt/hipray/jobs/"):
        yield f"entrypoint {words[:2]} is not in the image"
        return
    script = ROOT / words[1].removeprefix("/opt/hipray/")
    if not script.exists():
        yield f"{script.name} does not exist"
        return
    try:
        read_config(command)
    except (HiprayError, SystemExit) as error:
        yield f"hipray refuses the entrypoint: {error}"


def check_demand(command: str, groups: list[Document]) -> Iterator[str]:
    """Yield where a lane, trial or actor fits on no worker, leaves its GPUs idle, is one of more
    than all workers hold, or works outside the workspace."""
    words = _read_words(command)
    stem = Path(words[1]).stem
    if "--dry-run" in words:
        yield "plans its work and does none"
    try:
        config = read_config(command, PLACES)
    except (HiprayError, SystemExit, FileNotFoundError):
        return  # said by check_entrypoint
    yield from _check_places(config)
    if stem in DEMANDS:
        yield from _check_workers(stem, config, groups)
    if isinstance(config, TuneRun) and "max_concurrent" not in config.resources.model_fields_set:
        yield "does not say how many trials run at a time"


def _check_workers(stem: str, config: Any, groups: list[Document]) -> Iterator[str]:
    cpus, gpus = (_look_up(config, path) if path else 0 for path in DEMANDS[stem])
    limits = [group["template"]["spec"]["containers"][0]["resources"]["limits"] for group in groups]
    if not gpus and all("nvidia.com/gpu" in each for each in limits):
        yield f"{stem} asks for none of the GPUs that its workers have"
    rooms = [_count_places(each, cpus, gpus) for each in limits]
    if not any(rooms):
        yield f"{stem} asks for {cpus:g} CPUs and {gpus:g} GPUs at a time, which no worker has"
    most = sum(room * group["maxReplicas"] for room, group in zip(rooms, groups, strict=True))
    asked = _look_up(config, COUNTS[stem])
    if asked is not None and asked > most:
        yield f"{stem} asks for {asked} at a time, and all its workers hold {most}"


def _check_places(config: Any) -> Iterator[str]:
    """Yield where a job reads or writes elsewhere than the settings of every pod say."""
    workspace = PLACES["HIPRAY_WORKSPACE"]
    if getattr(config, "workspace", None) != workspace:
        yield "writes to a disk that goes with its pod"
    if config.storage.endpoint_url is not None:
        yield f"asks {config.storage.endpoint_url} instead of the store of the settings"
    if not isinstance(config, ScoreRun):
        return
    if config.release != PLACES["HIPRAY_RELEASE"]:
        yield f"scores with {config.release} instead of the release of the settings"
    if not 0 < config.max_failed_fraction <= MOST_FAILED:
        yield f"goes on until {config.max_failed_fraction:.0%} of the films have failed"
    if config.output is not None and not config.output.startswith(f"{workspace}/"):
        yield f"writes its scores to {config.output}"
    if config.max_actors is not None:
        yield "has a second number of actors, which no worker is counted for"


def check_archive(command: str) -> Iterator[str]:
    """Yield where a job scores anything but the archive of the settings."""
    try:
        config = read_config(command, PLACES)
    except (HiprayError, SystemExit, FileNotFoundError):
        return  # said by check_entrypoint
    if isinstance(config, ScoreRun) and config.images != PLACES["HIPRAY_ARCHIVE"]:
        yield f"scores {config.images} instead of the archive"


def _look_up(config: Any, path: str) -> Any:
    return reduce(getattr, path.split("."), config)


def _count_places(limits: Document, cpus: float, gpus: float) -> int:
    """Return how many things that take some CPUs and GPUs one worker holds."""
    asked = ((cpus, limits.get("cpu", 0)), (gpus, limits.get("nvidia.com/gpu", 0)))
    return min((int(float(has) / takes) for takes, has in asked if takes), default=0)


def check_head_memory(command: str, gib: float) -> Iterator[str]:
    """Yield where the lanes of a grid have more processes beside its driver than memory holds."""
    try:
        config = read_config(command)
    except (HiprayError, SystemExit, FileNotFoundError):
        return  # said by check_entrypoint
    if not isinstance(config, GridRun):
        return
    if config.scaling.lanes is None:
        yield "leaves the number of its lanes to the cluster: no head is large enough for any"
        return
    needed = HEAD_GIB + LANE_GIB * config.scaling.lanes
    if gib < needed:
        yield f"{config.scaling.lanes} lanes need a head of {needed:g} GiB, not {gib:g}"


def read_config(command: str, places: Mapping[str, str] = NO_OTHERS) -> Any:
    """Return the configuration that hipray reads from a command, with the settings' own places or
    with others.

    Raises:
        HiprayError: the configuration is refused.
        SystemExit: an argument is unknown or missing.
    """
    _, script, *arguments = _read_words(command, places)
    options = _parser().parse_args([Path(script).stem, *arguments])
    return cli._read_config(cli.COMMANDS[Path(script).stem], options)


@cache
def _parser() -> ArgumentParser:
    return cli._build_parser()


def _read_words(command: str, places: Mapping[str, str] = NO_OTHERS) -> list[str]:
    """Return the words of a command as the pod's shell makes them."""
    return shlex.split(Template(command).safe_substitute(read_settings(), **places))
