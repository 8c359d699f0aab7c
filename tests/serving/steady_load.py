"""Callers who do not stop asking, and what each of them was told."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

ANSWER_S = 120.0
PAUSE_S = 0.1
"""Between an answer and the next request: what is asked for beside them needs the cores too."""


@dataclass(frozen=True)
class Told:
    """One answer: what was asked, its status, and its JSON."""

    number: int
    status: int
    body: dict[str, Any]
    retry_after: str | None
    seconds: float


@dataclass
class SteadyLoad:
    """Sends requests until its block ends; what is no JSON of this interface is a loss."""

    url: str
    requests: Sequence[dict[str, Any]]
    callers: int = 2
    told: list[Told] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask_on, args=(n,)) for n in range(self.callers)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _ask_on(self, first: int) -> None:
        with httpx.Client(timeout=ANSWER_S) as client:
            number = first
            while not self._stopped.is_set():
                self._ask(client, number % len(self.requests))
                number += 1
                self._stopped.wait(PAUSE_S)

    def _ask(self, client: httpx.Client, number: int) -> None:
        started = time.monotonic()
        try:
            answer = client.post(f"{self.url}/v1/score", **self.requests[number])
        except httpx.HTTPError as error:
            self.lost.append(repr(error))
            return
        seconds = time.monotonic() - started
        try:
            body = answer.json()
        except ValueError:
            self.lost.append(f"status {answer.status_code} with {answer.text[:80]!r}")
            return
        retry_after = answer.headers.get("retry-after")
        self.told.append(Told(number, answer.status_code, body, retry_after, seconds))

    def wait_for(self, holds: Callable[[Told], bool], *, count: int = 1, timeout_s: float) -> None:
        """Wait until so many answers from now on are as wanted."""
        begun, until = len(self.told), time.monotonic() + timeout_s
        while sum(map(holds, self.told[begun:])) < count:
            assert time.monotonic() < until, f"told {self.statuses} and lost {self.lost[:3]}"
            time.sleep(0.1)

    @property
    def statuses(self) -> Counter[int]:
        return Counter(told.status for told in self.told)


def is_answered(told: Told) -> bool:
    return told.status == 200 and told.body["refusal"] is None


def assert_nobody_was_lost(load: SteadyLoad) -> None:
    """Each caller got an answer, or was told when to come again by a problem."""
    assert load.told
    assert load.lost == []
    for told in load.told:
        assert told.status in (200, 503), told
        if told.status == 503:
            assert told.retry_after is not None
            assert told.body["status"] == 503
            assert told.body["code"] != "defect"
