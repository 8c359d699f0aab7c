"""Applications that do not run, and why."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from ray.serve.schema import ApplicationStatusOverview, DeploymentStatusOverview, ServeStatus

from hipray.config.jobs import ServeRun
from hipray.releases.release import Release
from hipray.runtime.memory import GIB
from hipray.serving import deploying
from hipray.serving.bindings import _live
from hipray.serving.deploying import (
    NotRunningError,
    _ask_memory,
    _check_memory,
    drain_time,
    last_line,
    run_application,
)
from hipray.serving.together import StageMemory
from tests.serving.fake_serve import FakeServe


def test_replicas_may_drain_for_as_long_as_serve_lets_them() -> None:
    config = ServeRun(request_timeout_s=300)
    assert drain_time(config) > _live(config)["graceful_shutdown_timeout_s"] > 300


def test_an_application_that_starts_too_slowly_is_told_with_serves_reason(
    fake_serve: Callable[..., FakeServe], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fake_serve(looks=0)
    waiting = DeploymentStatusOverview("UPDATING", "CONFIG", {}, "waits for\n{GPU: 1}")
    status = ServeStatus(
        applications={"app": ApplicationStatusOverview("DEPLOYING", "", 0, {"one": waiting})}
    )
    monkeypatch.setattr(fake, "status", lambda: status)
    monkeypatch.setattr(fake, "RunTarget", lambda *_: None, raising=False)
    monkeypatch.setattr(fake, "run_many", lambda *_, **__: None, raising=False)
    with pytest.raises(NotRunningError, match=r"within 0 s \(waits for {GPU: 1}\)"):
        run_application(SimpleNamespace(), "app", None, 0.01)  # type: ignore[arg-type]


def test_stages_that_do_not_fit_together_are_not_put_behind_the_door(
    matted: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def tell(name: str, home: str) -> StageMemory:
        asked.append(name)
        return StageMemory(("here",), 2 * GIB, GIB, GIB)

    monkeypatch.setattr(deploying, "_ask_memory", tell)
    monkeypatch.setattr(deploying, "read_nodes", lambda: [None])
    with pytest.raises(NotRunningError, match=r"4\.00 GiB or more \(1 x segmenter 2\.00, 1 x ens"):
        _check_memory(ServeRun(), matted, "home")
    assert asked == ["segmenter", "ensemble"]
    _check_memory(ServeRun(fused=True), matted, "home")


def test_a_stage_that_does_not_say_its_memory_does_not_run(
    fake_serve: Callable[..., FakeServe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: str) -> None:
        raise TimeoutError

    monkeypatch.setattr(fake_serve(looks=0), "get_deployment_handle", fail, raising=False)
    with pytest.raises(NotRunningError, match=r"no pipeline .* \(TimeoutError\)"):
        _ask_memory("pipeline", "home")


def test_the_last_line_of_a_message_is_the_one_that_says_something() -> None:
    assert last_line("Traceback\n  File\nValueError: no\n\n") == "ValueError: no"
    assert last_line("") == ""
