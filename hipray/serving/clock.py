"""How long each step of a request took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum


class Step(StrEnum):
    """The steps of a request, as `timings_ms` names them."""

    FETCH = "fetch"  # from S3, or from the body of the request
    DECODE = "decode"
    SEGMENT = "segment"
    MATTE = "matte"
    CLASSIFY = "classify"
    MODEL = "model"  # the three before, in a fused deployment
    EXPLAIN = "explain"  # the heat maps, where asked for
    DRAW = "draw"  # the pictures, where asked for
    TOTAL = "total"


class StepClock:
    """Collects the milliseconds of each step of one request."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._spent_s: dict[Step, float] = {}

    @contextmanager
    def measure(self, step: Step) -> Iterator[None]:
        """Add the time spent inside to a step."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self._spent_s[step] = self._spent_s.get(step, 0.0) + spent

    def elapsed_s(self) -> float:
        """Return the seconds since the clock was made."""
        return time.perf_counter() - self._started

    def timings_ms(self) -> dict[str, float]:
        """Return the steps so far and the time since the clock was made, in milliseconds."""
        spent = {**self._spent_s, Step.TOTAL: self.elapsed_s()}
        return {step.value: round(seconds * 1000, 2) for step, seconds in spent.items()}
