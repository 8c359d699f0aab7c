"""One line of JSON per request: whose token asked, about which films, and what happened.

A line never has a key, path, address or file name: they may name a patient. Films are told by the
workspace's pseudonyms, callers by the digest of their token.
"""

import logging
import time
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from hipray.answers import StudyAnswer
from hipray.serving.logs import TOLD
from hipray.serving.paths import NO_ROUTE
from hipray.serving.problems import Problem

logger = logging.getLogger(__name__)


class Outcome(StrEnum):
    """How a request ended."""

    ACCEPTED = "accepted"  # an answer with numbers, a page or a state
    REFUSED = "refused"  # reason codes instead of numbers
    PROBLEM = "problem"  # no answer


def outcome_of(study: StudyAnswer) -> Outcome:
    """Return whether a film's answer has numbers: a film of refused hips alone is refused."""
    refused = study.refusal is not None or all(hip.refusal is not None for hip in study.hips)
    return Outcome.REFUSED if refused else Outcome.ACCEPTED


@dataclass
class AuditLine:
    """What is told of one request; filled in on its way through the service.

    A batch is accepted where one of its films has numbers, or it has no films; else it is a problem
    where one of them has no answer, whatever its status says, and refused where all are.
    """

    request_id: str
    release_digest: str
    """Empty where Serve's proxy answered, which knows no release."""
    route: str = NO_ROUTE
    """Name of the operation; none where the path has none."""
    caller: str = ""
    """First digits of the sha256 of the caller's token; empty where none was asked for or valid."""
    named: list[str] = field(default_factory=list)
    """Pseudonyms of the films that the request names by their address."""
    status: int = 0
    outcome: Outcome = Outcome.PROBLEM
    codes: list[str] = field(default_factory=list)
    """Reason codes of refused films and hips."""
    answered: int = 0
    """Films whose answer has numbers."""
    problem: str | None = None
    """Reason code where there is no answer."""
    problems: list[str] = field(default_factory=list)
    """Reason codes of a batch's films that have no answer."""
    films: int = 0
    """Films that were asked about and have an answer, a refusal or a problem."""
    milliseconds: float = 0.0
    bytes_received: int = 0
    bytes_sent: int = 0
    started_s: float = field(default_factory=time.perf_counter, repr=False)

    def note_answer(self, study: StudyAnswer) -> None:
        """Take what an answer refuses and that it is one."""
        refusals = [study.refusal, *(hip.refusal for hip in study.hips)]
        self.codes += [refusal.code.value for refusal in refusals if refusal is not None]
        self.answered += outcome_of(study) is Outcome.ACCEPTED
        self.films += 1

    def note_problem(self, problem: Problem) -> None:
        """Take that one film of a batch has no answer."""
        self.problems.append(problem.code.value)
        self.films += 1

    def write(self) -> None:
        """Write the line."""
        self.milliseconds = round((time.perf_counter() - self.started_s) * 1000, 2)
        self.outcome = self._judge()
        told = {k: v for k, v in asdict(self).items() if k != "started_s"}
        logger.info("request", extra={TOLD: told})

    def _judge(self) -> Outcome:
        if self.problems and not self.answered:
            return Outcome.PROBLEM
        if self.codes and not self.answered:
            return Outcome.REFUSED
        return Outcome.ACCEPTED if 0 < self.status < 400 else Outcome.PROBLEM
