"""Image, scripts and runbooks: one version everywhere, nothing that is not there."""

import re
import subprocess
from pathlib import Path

import pytest

from hipray import __version__
from tests.k8s.rules import ray_version

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = (ROOT / "cluster/Dockerfile").read_text("utf-8")
TEXTS = [
    path
    for folder in ("cluster", "k8s")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and "__pycache__" not in path.parts and path.name != "constraints.txt"
]
RUNBOOKS = [ROOT / "cluster/README.md", ROOT / "k8s/README.md"]


@pytest.mark.parametrize("path", [p for p in TEXTS if p.suffix == ".sh"], ids=lambda p: p.name)
def test_a_script_is_valid_and_stops_at_errors(path: Path) -> None:
    assert subprocess.run(["bash", "-n", str(path)], timeout=20).returncode == 0
    assert "set -euo pipefail" in path.read_text("utf-8")
    assert path.stat().st_mode & 0o100


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_ray_and_hipray_have_one_version_everywhere(path: Path) -> None:
    text = path.read_text("utf-8")
    versions = set(re.findall(r"(?:rayVersion: |ray==|[Rr]ay )(\d+\.\d+\.\d+)", text))
    assert versions <= {ray_version()}
    assert set(re.findall(r"hipray:(\d[\w.]*)-[cg]pu", text)) <= {__version__}


def test_no_script_stops_ray_by_name() -> None:
    for path in TEXTS:
        if path.suffix == ".sh":
            assert not re.search(r"pkill|killall|ray stop", path.read_text("utf-8")), path.name


def test_the_image_is_pinned_has_both_targets_and_no_root() -> None:
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?", DOCKERFILE, re.M)
    assert {"cpu", "gpu"} <= {name for _, name in stages}
    runtime = DOCKERFILE.split(" AS runtime")[1]
    assert re.findall(r"^USER (.+)$", runtime, re.M) == ["1000:1000"]
    assert DOCKERFILE.count("-c cluster/constraints.txt") == 2
    known = {name for _, name in stages} | {"python:${PYTHON}"}
    assert {base for base, _ in stages} <= known
    assert not re.search(r"https?://|index-url|:latest", DOCKERFILE)
    assert (ROOT / ".python-version").exists() or "ARG PYTHON=3.11" in DOCKERFILE


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    ignored = (ROOT / "cluster/Dockerfile.dockerignore").read_text("utf-8")
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, source


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda p: p.parent.name)
def test_a_runbook_names_files_that_exist_and_says_what_this_is_not(path: Path) -> None:
    text = path.read_text("utf-8")
    assert "not a medical device" in text.split("## ")[0]
    named = set(re.findall(r"(?<![\w/.-])(?:cluster|k8s|jobs|hipray|tests)/[\w./-]*[\w/]", text))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda p: p.parent.name)
def test_a_runbook_has_a_place_for_every_emergency(path: Path) -> None:
    text = path.read_text("utf-8").lower()
    for word in ("first deployment", "upgrade", "rollback", "head dies", "preempted", "throttles",
                 "bad bundle", "air-gapped"):  # fmt: skip
        assert word in text, word
