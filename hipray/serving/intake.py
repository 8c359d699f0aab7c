"""What one of Serve's proxies takes in before an ingress reads it: bodies of a bounded size.

A proxy queues all that a caller sends, however long the request waits for a replica. Here a body is
counted while it arrives, and so are the bodies of all requests that have no answer yet.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers

from hipray.config.jobs import ServeRun
from hipray.serving.bounds import FORM_OVERHEAD_BYTES, MAX_BATCH_JSON_BYTES, too_large
from hipray.serving.problems import Problem, come_later

BODY_VARIABLE = "HIPRAY_MAX_BODY_BYTES"
HELD_VARIABLE = "HIPRAY_MAX_HELD_BYTES"

FULL = come_later("too many films are on their way into this service")


@dataclass(frozen=True)
class IntakeLimits:
    """Bytes that a proxy takes in."""

    body: int
    """Of one request."""
    held: int
    """Of all requests that have no answer yet; one body fits always."""

    @classmethod
    def of(cls, config: ServeRun) -> "IntakeLimits":
        """Return what an endpoint needs of its proxies."""
        body = max(config.limits.max_file_bytes + FORM_OVERHEAD_BYTES, MAX_BATCH_JSON_BYTES)
        return cls(body, max(body, config.max_held_bytes))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "IntakeLimits":
        """Return those of a proxy's process; by default those of a default endpoint."""
        usual = cls.of(ServeRun())
        return cls(
            int(environment.get(BODY_VARIABLE, usual.body)),
            int(environment.get(HELD_VARIABLE, usual.held)),
        )

    def as_environment(self) -> dict[str, str]:
        """Return the variables that tell them to a proxy's process."""
        return {BODY_VARIABLE: str(self.body), HELD_VARIABLE: str(self.held)}


class Intake:
    """Counts the bytes of all requests of one proxy; used in its event loop only."""

    def __init__(self, limits: IntakeLimits) -> None:
        self._limits = limits
        self._held = 0

    def refuse_announced(self, headers: Headers) -> Problem | None:
        """Return why a body of the stated length cannot be taken; None where it can."""
        announced = headers.get("content-length", "")
        return self._refuse(int(announced)) if announced.isdecimal() else None

    def take(self, count: int, *, so_far: int) -> Problem | None:
        """Take more bytes of a body that has `so_far`, or return why they cannot be taken."""
        if so_far + count > self._limits.body:
            return too_large(self._limits.body).problem
        problem = self._refuse(count)
        if problem is None:
            self._held += count
        return problem

    def give_back(self, count: int) -> None:
        """Forget the bytes of a request that has its answer."""
        self._held -= count

    def _refuse(self, count: int) -> Problem | None:
        if count > self._limits.body:
            return too_large(self._limits.body).problem
        return FULL if self._held + count > self._limits.held else None
