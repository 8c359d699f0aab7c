"""Submitting: the same run twice is one run, and exit codes tell a scheduler what to do."""

import importlib.util
import os
import shlex
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import aiohttp
import pytest
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobType

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def submit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("submit", ROOT / "cluster/submit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _known(submission_id: str, status: JobStatus) -> JobDetails:
    return JobDetails(
        type=JobType.SUBMISSION, submission_id=submission_id, status=status, entrypoint="python x"
    )


def test_the_same_job_with_the_same_arguments_has_the_same_name(submit: ModuleType) -> None:
    name = submit.name_submission("grid", ["--preset", "grid"])
    assert name == submit.name_submission("grid", ["--preset", "grid"])
    assert name.startswith("hipray-grid-")
    assert name != submit.name_submission("grid", ["--preset", "paper"])
    assert name != submit.name_submission("tune", ["--preset", "grid"])


def test_a_live_submission_is_followed_and_an_ended_one_counted(submit: ModuleType) -> None:
    known = [
        _known("hipray-grid-abc-1", JobStatus.FAILED),
        _known("hipray-grid-abc-2", JobStatus.RUNNING),
        _known("hipray-grid-def-7", JobStatus.RUNNING),
        _known("someone-elses", JobStatus.RUNNING),
    ]
    assert submit.count_attempts("hipray-grid-abc", known) == (2, "hipray-grid-abc-2")
    assert submit.count_attempts("hipray-grid-abc", known[:1]) == (1, None)
    assert submit.count_attempts("hipray-grid-xyz", known) == (0, None)


@pytest.mark.parametrize(
    ("status", "driver", "code"),
    [
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.FAILED, 2, 2),
        (JobStatus.FAILED, 75, 75),
        (JobStatus.FAILED, None, 75),
        (JobStatus.FAILED, -9, 75),
        (JobStatus.FAILED, 0, 1),
        (JobStatus.STOPPED, None, 143),
    ],
)
def test_a_scheduler_is_told_what_the_job_said(
    submit: ModuleType, status: JobStatus, driver: int | None, code: int
) -> None:
    assert submit.read_exit_code(status, driver) == code


def test_the_package_travels_with_the_job_unless_the_image_has_it(submit: ModuleType) -> None:
    arguments = ["--set", "a=b c"]
    shipped = submit.describe_job("grid", arguments, installed=False)
    assert Path(shipped["runtime_env"]["working_dir"], "grid.py").exists()
    assert Path(shipped["runtime_env"]["py_modules"][0], "__init__.py").exists()
    assert shlex.split(shipped["entrypoint"]) == ["python", "grid.py", "--set", "a=b c"]
    installed = submit.describe_job("grid", arguments, installed=True)
    assert installed["runtime_env"].keys() == {"env_vars"}
    assert installed["entrypoint"].startswith("python /opt/hipray/jobs/grid.py")


def test_a_job_that_runs_for_days_ends_with_its_own_code(
    submit: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        def get_job_info(self, submission_id: str) -> JobDetails:
            done = _known(submission_id, JobStatus.SUCCEEDED)
            return done.model_copy(update={"driver_exit_code": 0})

    async def last_for_days(client: Client, submission_id: str) -> None:
        clock[0] += 3 * 86400

    clock = [0.0]
    monkeypatch.setattr(submit, "_show_output", last_for_days)
    monkeypatch.setattr(submit.time, "monotonic", lambda: clock[0])
    assert submit.follow(Client(), "hipray-grid-abc-1") == 0


def test_a_cluster_out_of_reach_is_worth_another_try(
    submit: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert submit.main(["--address", address, "status", "grid"]) == 75
    assert address in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AuthenticationError("no token"), 2),
        (RuntimeError("Request failed with status code 400: bad"), 2),
        (RuntimeError("Request failed with status code 503: starting"), 75),
        (requests.exceptions.ConnectionError("reset"), 75),
    ],
)
def test_a_head_that_declines_is_told_from_one_that_may_be_back(
    error: Exception, code: int, submit: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        def __init__(self, address: str) -> None: ...

        def list_jobs(self) -> None:
            raise error

    monkeypatch.setattr(submit, "JobSubmissionClient", Client)
    assert submit.main(["status", "grid"]) == code


@pytest.mark.parametrize(
    "error", [requests.exceptions.ConnectionError("reset"), aiohttp.ServerDisconnectedError()]
)
def test_a_head_that_starts_anew_is_waited_for(
    error: Exception, submit: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = SimpleNamespace(status=JobStatus.SUCCEEDED, driver_exit_code=0)
    answers = [error, error, done]

    class Client:
        def get_job_info(self, submission_id: str) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        async def tail_job_logs(self, submission_id: str) -> AsyncIterator[str]:
            yield "a line"
            raise error

    monkeypatch.setattr(submit, "POLL_S", 0.0)
    assert submit.follow(Client(), "hipray-grid-abc-1") == 0


def test_a_job_that_does_not_exist_is_refused(submit: ModuleType) -> None:
    with pytest.raises(SystemExit) as ended:
        submit.main(["gird"])
    assert ended.value.code == 2


class Head:
    """A head that notes what it is asked.

    It knows jobs, and how each later look at one ends.
    """

    def __init__(self, known: list[JobDetails], looks: list[Any], taken: bool = False) -> None:
        self.known, self.looks, self.taken = known, looks, taken
        self.asked: list[dict[str, Any]] = []

    def list_jobs(self) -> list[JobDetails]:
        return list(self.known)

    def submit_job(self, **request: Any) -> str:
        self.asked.append(request)
        if self.taken:  # by another at the same moment
            self.known.append(_known(request["submission_id"], JobStatus.RUNNING))
            raise RuntimeError("Request failed with status code 500: exists")
        return str(request["submission_id"])

    def get_job_info(self, submission_id: str) -> Any:
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, Exception):
            raise look
        return SimpleNamespace(status=look, driver_exit_code=0)

    async def tail_job_logs(self, submission_id: str) -> AsyncIterator[str]:
        yield "a line"


@pytest.mark.parametrize("words", [[], ["--installed"], ["--cpus", "8"], ["--no-wait"]])
def test_what_is_said_reaches_the_head_that_is_named(
    words: list[str], submit: ModuleType, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://here:1")
    head, named = Head([], [JobStatus.FAILED]), []
    monkeypatch.setattr(submit, "JobSubmissionClient", lambda a: named.append(a) or head)
    code = submit.main([*words, "status", "grid"])
    (asked,) = head.asked
    stem = submit.name_submission("status", ["grid"])
    assert named == ["http://here:1"]
    assert code == (0 if "--no-wait" in words else 1)
    assert asked["submission_id"] == f"{stem}-1"
    assert asked["entrypoint_num_cpus"] == (8 if "--cpus" in words else 0)
    assert asked["entrypoint"].endswith("status.py grid")
    assert ("working_dir" in asked["runtime_env"]) is ("--installed" not in words)
    assert asked["runtime_env"]["env_vars"] == {"NO_ALBUMENTATIONS_UPDATE": "1"}
    assert f"submission {stem}-1" in capsys.readouterr().err


def test_a_named_address_counts_more_than_the_environment(
    submit: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://here:1")
    monkeypatch.setattr(submit, "JobSubmissionClient", lambda a: Head([], [JobStatus.SUCCEEDED]))
    assert submit.main(["--address", "http://there:2", "status", "grid"]) == 0
    assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://there:2", "Ray itself asks this one"


@pytest.mark.parametrize("taken", [False, True])
def test_two_at_once_are_one_submission(taken: bool, submit: ModuleType) -> None:
    known = [] if taken else [_known("hipray-grid-abc-1", JobStatus.RUNNING)]
    head = Head(known, [], taken=taken)
    assert submit.submit_once(head, "hipray-grid-abc", {}) == "hipray-grid-abc-1"
    assert len(head.asked) == taken


def test_a_refused_submission_is_no_submission(submit: ModuleType) -> None:
    head = Head([], [], taken=True)
    head.list_jobs = list  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        submit.submit_once(head, "hipray-grid-abc", {})


@pytest.mark.parametrize(("looks", "code", "minutes"), [
    ([JobStatus.RUNNING] * 400 + [JobStatus.SUCCEEDED], 0, 20),
    ([OSError("gone")] * 80 + [JobStatus.SUCCEEDED], 0, 5),
    ([OSError("gone")], 75, 6),
])  # fmt: skip
def test_a_silent_head_is_lost_after_five_minutes_and_a_running_job_never(
    looks: list[Any], code: int, minutes: int, submit: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(submit.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(submit.time, "sleep", lambda s: clock.__setitem__(0, clock[0] + s))
    assert submit.follow(Head([], list(looks)), "hipray-grid-abc-1") == code
    assert clock[0] <= minutes * 60
