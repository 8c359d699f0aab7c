"""Answers for what went wrong: `application/problem+json` (RFC 9457), one clear sentence each.

A detail never quotes the caller's address, key or file, nor a text of the store: answers and logs
carry the request id instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)

from hipray import RESEARCH_NOTICE
from hipray.errors import (
    AccessDeniedError,
    DataError,
    NotFoundError,
    StorageError,
    StoreUnavailableError,
)
from hipray.serving.messages import DeadlinePassedError, ForeignReleaseError
from hipray.storage import InvalidKeyError, ObjectTooLargeError

PROBLEM_TYPE = "application/problem+json"

RETRY_AFTER_S = 2
"""Seconds after which a caller who was told to come later may try again."""


@dataclass(frozen=True)
class Problem:
    """Why a request has no answer."""

    status: HTTPStatus
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self, request_id: str) -> dict[str, Any]:
        """Return the members of the problem document (RFC 9457, section 3.1)."""
        return {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
            "request_id": request_id,
            "research_notice": RESEARCH_NOTICE,
        }


class ProblemError(Exception):
    """Carries a problem to the one place that answers with it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def reject(status: HTTPStatus, detail: str) -> ProblemError:
    """Build the exception that answers with this problem; the caller raises it."""
    return ProblemError(Problem(status, detail))


def come_later(detail: str) -> Problem:
    """Return a 503 that says when to try again."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": str(RETRY_AFTER_S)})


TOO_SLOW = Problem(HTTPStatus.GATEWAY_TIMEOUT, "no answer within the time limit of this service")
DEFECT = Problem(
    HTTPStatus.INTERNAL_SERVER_ERROR, "a defect of this service; report the request id"
)

PROBLEMS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Problem], ...] = (
    (
        InvalidKeyError,
        Problem(HTTPStatus.BAD_REQUEST, "the key of the uri is no plain path below its bucket"),
    ),
    (
        ObjectTooLargeError,
        Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the object exceeds the size limit"),
    ),
    (NotFoundError, Problem(HTTPStatus.NOT_FOUND, "there is no object at this uri")),
    (StoreUnavailableError, come_later("the store throttles or is out of reach")),
    (
        AccessDeniedError,
        Problem(HTTPStatus.BAD_GATEWAY, "the store denies this service access; tell its operator"),
    ),
    (
        StorageError,
        Problem(HTTPStatus.BAD_GATEWAY, "the store could not answer; tell the operator"),
    ),
    (DataError, come_later("no decoder process can be started; tell the operator")),
    ((DeadlinePassedError, TimeoutError), TOO_SLOW),
    (ForeignReleaseError, come_later("another release is being deployed")),
    (BackPressureError, come_later("a model stage is at its limit")),
    (
        (RayActorError, DeploymentUnavailableError, ReplicaUnavailableError),
        come_later("a model stage is being restarted"),
    ),
)
"""What each failure means to a caller; the first line that fits counts."""


def explain(error: BaseException) -> Problem:
    """Return what `error` means to a caller; DEFECT where it means nothing to them."""
    if isinstance(error, ProblemError):
        return error.problem
    return next((problem for kinds, problem in PROBLEMS if isinstance(error, kinds)), DEFECT)
