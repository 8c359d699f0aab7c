"""The head of local.sh: token, loopback, one start, a job, and a stop that leaves others alone."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.processes import LOOPBACK, listening_addresses

ROOT = Path(__file__).resolve().parent.parent.parent
PORT = 26390
GUARDED = ("jobs/", "version", "nodes?view=summary", "serve/applications/")
FILMS = ("n_patients=5", "n_second_hips=1", "n_device_a=3", "image_px=128", "decoys=0")


@pytest.fixture
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("h")
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
        "HIPRAY_LOCAL": str(folder), "HIPRAY_LOCAL_PORT": str(PORT), "HIPRAY_LOCAL_CPUS": "2",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    try:
        assert "running at" in _local("start", environment)
        yield environment
    finally:
        _local("stop", environment)


def _local(word: str, environment: dict[str, str]) -> str:
    ended = subprocess.run(
        ["bash", str(ROOT / "cluster/local.sh"), word],
        env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    return ended.stdout + ended.stderr


def _processes(environment: dict[str, str]) -> list[int]:
    lines = Path(environment["HIPRAY_LOCAL"], "processes").read_text("utf-8").splitlines()
    return [int(line.split()[0]) for line in lines]


@pytest.mark.full
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_the_local_head_asks_for_its_token_listens_on_loopback_and_runs_a_job(
    head: dict[str, str], tmp_path: Path
) -> None:
    api = f"http://127.0.0.1:{PORT + 1}/api"
    token = Path(head["HIPRAY_LOCAL"], "auth_token")
    assert token.stat().st_mode & 0o777 == 0o600
    for path in GUARDED:
        assert httpx.get(f"{api}/{path}", timeout=30).status_code == 401
    known = {"Authorization": f"Bearer {token.read_text().strip()}"}
    assert httpx.get(f"{api}/jobs/", headers=known, timeout=30).status_code == 200
    addresses = listening_addresses(_processes(head))
    assert addresses
    assert addresses <= LOOPBACK
    assert "already running" in _local("start", head)
    settings = [part for film in FILMS for part in ("--set", f"phantom.{film}")]
    submitted = subprocess.run(
        [sys.executable, str(ROOT / "cluster/submit.py"), "phantom", "--archive",
         str(tmp_path / "archive"), *settings],
        env={**head, **_exports(head)}, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert list((tmp_path / "archive/films").iterdir())
    before = _processes(head)
    assert "stopped" in _local("stop", head)
    assert not [process for process in before if Path(f"/proc/{process}").exists()]


def _exports(environment: dict[str, str]) -> dict[str, str]:
    words = _local("env", environment).split()
    return dict(word.split("=", 1) for word in words if "=" in word)
