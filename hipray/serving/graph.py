"""The order of the stages for one film: frames in, the numbers of each hip out.

The ingress calls each stage and hands its answer to the next, so that a slow stage never holds
the replicas of the one before it.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from hipray.pipeline import (
    Cutter,
    Explanations,
    FramedHips,
    Probabilities,
    Views,
    list_rows,
)
from hipray.releases.release import Release
from hipray.serving.clock import Step, StepClock
from hipray.serving.logs import CURRENT_REQUEST
from hipray.serving.messages import (
    NUMBERS_ONLY,
    AskedFilm,
    Extras,
    Message,
    PackedSegmentation,
    ScoredFilm,
    SegmentedFrames,
    check_message,
)
from hipray.serving.retries import ask_until

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")

StageCall = Callable[[Message[Asked]], Awaitable[Message[Answered]]]
"""A stage as its caller sees it: a deployment handle's `remote`, or the stage itself."""


class Graph(Protocol):
    """All model stages of one release."""

    async def __call__(
        self,
        hips: FramedHips,
        *,
        timeout_s: float,
        clock: StepClock,
        extras: Extras = NUMBERS_ONLY,
    ) -> ScoredFilm:
        """Return the numbers of a film's hips, and what else is asked for."""
        ...


def _address(body: Asked, release_digest: str, timeout_s: float) -> Message[Asked]:
    """Return a message of the request that this task works on."""
    return Message(release_digest, time.time() + timeout_s, body, CURRENT_REQUEST.get())


async def call_stage(
    stage: StageCall[Asked, Answered], message: Message[Asked], clock: StepClock, step: Step
) -> Message[Answered]:
    """Return a stage's answer after checking that it belongs to the message's release.

    A replica that dies on it costs time and not the request: another one is asked.
    """
    with clock.measure(step):
        answer = await ask_until(lambda: stage(message), message.deadline_s)
    check_message(answer, message.release_digest)
    return answer


@dataclass(frozen=True)
class FusedGraph:
    """One deployment holds all model stages."""

    release_digest: str
    score: StageCall[AskedFilm, ScoredFilm]
    explain: StageCall[Views, Explanations]

    async def __call__(
        self,
        hips: FramedHips,
        *,
        timeout_s: float,
        clock: StepClock,
        extras: Extras = NUMBERS_ONLY,
    ) -> ScoredFilm:
        """Return the numbers of a film's hips, and what else is asked for."""
        message = _address(AskedFilm(hips, extras), self.release_digest, timeout_s)
        answer = await call_stage(self.score, message, clock, Step.MODEL)
        film = answer.body
        if film.views is None:
            return film
        asked = answer.with_body(film.views)
        heat = (await call_stage(self.explain, asked, clock, Step.EXPLAIN)).body
        return replace(film, views=None, explanations=heat)


@dataclass(frozen=True)
class SplitGraph:
    """One deployment per stage; stages that a release does not need are None."""

    release: Release
    segment: StageCall[FramedHips, PackedSegmentation] | None
    matte: StageCall[SegmentedFrames, Views] | None
    classify: StageCall[Views, Probabilities]
    explain: StageCall[Views, Explanations]

    async def __call__(
        self,
        hips: FramedHips,
        *,
        timeout_s: float,
        clock: StepClock,
        extras: Extras = NUMBERS_ONLY,
    ) -> ScoredFilm:
        """Return the numbers of a film's hips, and what else is asked for."""
        message = _address(hips, self.release.digest, timeout_s)
        packed = None
        if self.segment is not None:
            packed = (await call_stage(self.segment, message, clock, Step.SEGMENT)).body
        views = await self._cut(message, packed, clock)
        seen = message.with_body(views)
        answer = await call_stage(self.classify, seen, clock, Step.CLASSIFY)
        segmentation = packed.unpack() if packed is not None else None
        rows = list_rows(self.release, answer.body, views, segmentation)
        heat = None
        if extras.explain:
            heat = (await call_stage(self.explain, seen, clock, Step.EXPLAIN)).body
        return ScoredFilm(rows, packed, explanations=heat)

    async def _cut(
        self, message: Message[FramedHips], packed: PackedSegmentation | None, clock: StepClock
    ) -> Views:
        if self.matte is None or packed is None:
            return Cutter(self.release)(message.body, None)  # whole films: nothing to compute
        film = message.with_body(SegmentedFrames(message.body, packed))
        return (await call_stage(self.matte, film, clock, Step.MATTE)).body
