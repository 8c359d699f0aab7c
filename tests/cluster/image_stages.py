"""The image's recipe stage by stage: its settings, its arguments, what it copies and starts."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

from hipray.serving.running import ENVIRONMENT

ROOT = Path(__file__).resolve().parent.parent.parent
Instruction = tuple[str, str]
ARGUMENTS = {"": ["PYTHON"], "build": ["UV"]}
"""Before the first stage and in it; a second one of a name would count instead."""
SETTINGS: dict[str, dict[str, str]] = {
    "build": {"UV_COMPILE_BYTECODE": "1"},
    "runtime": {
        "PATH": "/opt/venv/bin:$PATH", "HOME": "/home/hipray", "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1", "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0",
        "NO_ALBUMENTATIONS_UPDATE": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1", **ENVIRONMENT,
    },
    "gpu": {
        "NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    },
}  # fmt: skip
"""All that the image sets: a token would lie in its history, and any other is one that nobody asked
for."""
TARGETS = ("cpu", "gpu")
DIRECTIVE = re.compile(r"^#\s*(?:syntax|escape|check)\s*=", re.M | re.I)


def find_stage_problems(text: str) -> list[str]:
    """Return where stages of the recipe set, take or start something else."""
    stages = _read_stages(text)
    problems = [f"is read by {line}" for line in DIRECTIVE.findall(text)]
    for name in sorted({*stages, *ARGUMENTS, *SETTINGS}):
        problems += _check_settings(name, stages.get(name, []))
    for target in TARGETS:
        copied = _list(stages.get(target, []), "COPY")
        if copied != [f"--from=build-{target} /opt/venv /opt/venv"]:
            problems.append(f"{target} copies {copied}")
    starts = [each for lines in stages.values() for each in lines if each[0] in STARTS]
    return problems + [p for _, words in starts for p in _check_start(words)]


STARTS = {"CMD", "ENTRYPOINT"}


def _read_stages(text: str) -> dict[str, list[Instruction]]:
    """Return the instructions of each stage by its name; what comes before the first has none."""
    text = re.sub(r"^ *#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    stages: dict[str, list[Instruction]] = {"": []}
    name = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word.upper() == "FROM":
            name = rest.split()[-1]
            stages.setdefault(name, [])
        else:
            stages[name].append((word.upper(), rest.strip()))
    return stages


def _list(lines: list[Instruction], word: str) -> list[str]:
    return [rest for each, rest in lines if each == word]


def _check_settings(stage: str, lines: list[Instruction]) -> Iterator[str]:
    asked = [rest.partition("=")[0] for rest in _list(lines, "ARG")]
    if asked != ARGUMENTS.get(stage, []):
        yield f"{stage or 'the file'} is built with {asked}"
    settings = [pair for rest in _list(lines, "ENV") for pair in _read_pairs(rest)]
    known = SETTINGS.get(stage, {})
    if dict(settings) != known or len(settings) != len(known):
        yield f"{stage or 'the file'} sets {settings}"


def _read_pairs(rest: str) -> list[tuple[str, str]]:
    """Return what an ENV sets in either of its forms: `A=1 B=2` or `A 1`."""
    name, _, value = rest.partition(" ")
    if "=" not in name:
        return [(name, value.strip())]
    return [(key, each) for key, _, each in (word.partition("=") for word in shlex.split(rest))]


def _check_start(words: str) -> Iterator[str]:
    """Yield where a container starts with what no installation brings, or by a shell."""
    try:
        command = json.loads(words)
    except ValueError:
        command = []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    if not isinstance(command, list) or not {*command[:1]} & {*project["scripts"]}:
        yield f"starts with {words}"
