"""The head of local.sh: token, loopback, one start, a job, and a stop that leaves others alone."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cluster.local_head import ROOT, LocalHead, running_local_head
from tests.processes import LOOPBACK, listening_addresses

GUARDED = ("jobs/", "version", "nodes?view=summary", "serve/applications/")
FILMS = ("n_patients=5", "n_second_hips=1", "n_device_a=3", "image_px=128", "decoys=0")


@pytest.fixture
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHead]:
    with running_local_head(tmp_path_factory.mktemp("h")) as running:
        yield running


def submit(head: LocalHead, *arguments: str) -> str:
    submitted = subprocess.run(
        [sys.executable, str(ROOT / "cluster/submit.py"), *arguments],
        env=head.client_environment, capture_output=True, text=True, timeout=2400,
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stdout[-3000:] + submitted.stderr[-3000:]
    return submitted.stdout


@pytest.mark.full
@pytest.mark.cluster
@pytest.mark.timeout(3600)
def test_one_submission_trains_the_papers_whole_grid_and_a_second_nothing(
    head: LocalHead, tmp_path: Path
) -> None:
    archive, work = str(tmp_path / "archive"), str(tmp_path / "work")
    preset = ("--preset", "paper-mini")
    submit(head, "phantom", *preset, "--archive", archive)
    submit(head, "ingest", *preset, "--images", archive, "--workspace", work)
    grid = ("grid", *preset, "--workspace", work)
    assert "112 of 112 fits done, 112 trained now" in submit(head, *grid)
    submit(head, "report", "paper-mini", "--workspace", work)
    report = (tmp_path / "work/report/report.md").read_text("utf-8")
    assert all(f"Table {number}" in report for number in (1, 5, 6, 7, 8, 9, 10))
    again = submit(head, *grid)
    assert "112 of 112 fits done, 0 trained now" in again


@pytest.mark.full
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_the_local_head_asks_for_its_token_listens_on_loopback_and_runs_a_job(
    head: LocalHead, tmp_path: Path
) -> None:
    assert (head.folder / "auth_token").stat().st_mode & 0o777 == 0o600
    for path in GUARDED:
        assert httpx.get(f"{head.dashboard}/api/{path}", timeout=30).status_code == 401
    known = {"Authorization": f"Bearer {head.token}"}
    assert httpx.get(f"{head.dashboard}/api/jobs/", headers=known, timeout=30).status_code == 200
    addresses = listening_addresses(head.processes)
    assert addresses
    assert addresses <= LOOPBACK
    assert "already running" in head.call("start")
    settings = [part for film in FILMS for part in ("--set", f"phantom.{film}")]
    submit(head, "phantom", "--archive", str(tmp_path / "archive"), *settings)
    assert list((tmp_path / "archive/films").iterdir())
    before = head.processes
    assert "stopped" in head.call("stop")
    assert not [process for process in before if Path(f"/proc/{process}").exists()]
