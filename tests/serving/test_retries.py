import asyncio
import time

import pytest
from ray.exceptions import RayActorError

from hipray.serving import retries
from hipray.serving.retries import ask_until
from hipray.serving.stage_errors import GpuFaultError, GpuLostError


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.001)


class LosingStage:
    """Dies on the first requests."""

    def __init__(self, losses: int, error: Exception) -> None:
        self.losses, self.error, self.asked = losses, error, 0

    async def __call__(self) -> str:
        self.asked += 1
        if self.asked <= self.losses:
            raise self.error
        return "answer"


@pytest.mark.parametrize("error", [RayActorError(), GpuLostError("a", "b", "c")], ids=type)
def test_a_lost_answer_is_asked_for_again(error: Exception) -> None:
    stage = LosingStage(3, error)
    assert asyncio.run(ask_until(stage, time.time() + 60)) == "answer"
    assert stage.asked == 4


def test_a_message_under_which_gpus_fail_is_asked_of_one_more_replica_only() -> None:
    stage = LosingStage(3, GpuFaultError("a", "b", "c"))
    with pytest.raises(GpuFaultError):
        asyncio.run(ask_until(stage, time.time() + 60))
    assert stage.asked == 2


def test_after_the_deadline_nobody_asks_again() -> None:
    stage = LosingStage(3, RayActorError())
    with pytest.raises(RayActorError):
        asyncio.run(ask_until(stage, time.time() - 1))
    assert stage.asked == 1


def test_an_error_of_the_stage_itself_is_not_tried_again() -> None:
    stage = LosingStage(3, ValueError())
    with pytest.raises(ValueError):
        asyncio.run(ask_until(stage, time.time() + 60))
    assert stage.asked == 1
