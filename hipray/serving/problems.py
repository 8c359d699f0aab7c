"""Answers for what went wrong: `application/problem+json` (RFC 9457), one clear sentence each.

A detail never quotes the caller's address, key or file, nor a text of the store: answers and logs
carry the request id instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from ray.serve.exceptions import BackPressureError

from hipray import RESEARCH_NOTICE
from hipray.data.refusals import Refusal
from hipray.errors import (
    AccessDeniedError,
    ArchivedError,
    BucketMissingError,
    DataError,
    NotFoundError,
    StorageError,
    StoreUnavailableError,
)
from hipray.serving.retries import REPLICA_LOST
from hipray.serving.stage_errors import DeadlinePassedError, ForeignReleaseError
from hipray.storage import InvalidKeyError, ObjectTooLargeError
from hipray.vocab import RefusalCode

PROBLEM_TYPE = "application/problem+json"

RETRY_AFTER_S = 2
"""Seconds after which a caller who was told to come later may try again."""


class ProblemCode(StrEnum):
    """Why a request has no answer, for programs; details are for people."""

    INVALID_REQUEST = "invalid_request"
    UNAUTHORIZED = "unauthorized"
    MISDIRECTED = "misdirected"
    FORBIDDEN_URI = "forbidden_uri"
    NO_SUCH_PATH = "no_such_path"
    NO_SUCH_METHOD = "no_such_method"
    MISSING_OBJECT = "missing_object"
    ARCHIVED_OBJECT = "archived_object"
    TOO_LARGE = "too_large"
    UNSUPPORTED_TYPE = "unsupported_type"
    OVERLOADED = "overloaded"
    TOO_SLOW = "too_slow"
    SLOW_BODY = "slow_body"
    REPLICA_LOST = "replica_lost"
    RELEASE_CHANGES = "release_changes"
    STORE_UNAVAILABLE = "store_unavailable"
    STORE_DENIES = "store_denies"
    STORE_FAILS = "store_fails"
    NO_DECODER = "no_decoder"
    NO_METRICS = "no_metrics"
    CALLER_GONE = "caller_gone"
    DEFECT = "defect"


CODE_OF_STATUS = {
    HTTPStatus.BAD_REQUEST: ProblemCode.INVALID_REQUEST,
    HTTPStatus.UNAUTHORIZED: ProblemCode.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN: ProblemCode.FORBIDDEN_URI,
    HTTPStatus.NOT_FOUND: ProblemCode.NO_SUCH_PATH,
    HTTPStatus.METHOD_NOT_ALLOWED: ProblemCode.NO_SUCH_METHOD,
    HTTPStatus.REQUEST_TIMEOUT: ProblemCode.SLOW_BODY,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ProblemCode.TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: ProblemCode.UNSUPPORTED_TYPE,
    HTTPStatus.MISDIRECTED_REQUEST: ProblemCode.MISDIRECTED,
    HTTPStatus.SERVICE_UNAVAILABLE: ProblemCode.OVERLOADED,
    HTTPStatus.INTERNAL_SERVER_ERROR: ProblemCode.DEFECT,
}
"""What a status means where nothing more is known."""


@dataclass(frozen=True)
class Problem:
    """Why a request has no answer."""

    status: HTTPStatus
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    named: ProblemCode | RefusalCode | None = None

    @property
    def code(self) -> ProblemCode | RefusalCode:
        """The code of this problem, or that of its status."""
        return self.named or CODE_OF_STATUS.get(self.status, ProblemCode.INVALID_REQUEST)

    def as_dict(self, request_id: str) -> dict[str, Any]:
        """Return the members of the problem document (RFC 9457, section 3.1)."""
        return {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "code": self.code.value,
            "detail": self.detail,
            "request_id": request_id,
            "research_notice": RESEARCH_NOTICE,
        }


FILE_REFUSALS = frozenset(
    {
        RefusalCode.UNREADABLE,
        RefusalCode.TOO_LARGE,
        RefusalCode.TOO_SMALL,
        RefusalCode.NOT_AN_IMAGE,
        RefusalCode.WRONG_MODALITY,
        RefusalCode.NOT_A_RADIOGRAPH,
        RefusalCode.MULTI_FRAME,
        RefusalCode.DECODER_CRASH,
    }
)
"""Refusals of files that are no film: a fault of the request. A film that is refused for what it
shows has an answer."""


def explain_refusal(refusal: Refusal | None) -> Problem | None:
    """Return what is wrong with a request whose file is no film; None where it is one."""
    if refusal is None or refusal.code not in FILE_REFUSALS:
        return None
    status = (
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        if refusal.code is RefusalCode.TOO_LARGE
        else HTTPStatus.UNPROCESSABLE_ENTITY
    )
    detail = f"the file is no film that can be scored ({refusal.evidence}); send a radiograph"
    return Problem(status, detail, {}, refusal.code)


class ProblemError(Exception):
    """Carries a problem to the one place that answers with it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def reject(status: HTTPStatus, detail: str) -> ProblemError:
    """Build the exception that answers with this problem; the caller raises it."""
    return ProblemError(Problem(status, detail))


def come_later(detail: str, code: ProblemCode = ProblemCode.OVERLOADED) -> Problem:
    """Return a 503 that says when to try again."""
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers, code)


def blame_store(detail: str, code: ProblemCode) -> Problem:
    """Return a 502: neither the caller nor waiting can help."""
    return Problem(HTTPStatus.BAD_GATEWAY, detail, {}, code)


TOO_SLOW = come_later("no answer within the time limit of this service", ProblemCode.TOO_SLOW)
SLOW_BODY = Problem(
    HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time; send it faster, or a smaller file"
)
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
    (
        BucketMissingError,
        blame_store(
            "a bucket of this service is missing; tell its operator", ProblemCode.STORE_FAILS
        ),
    ),
    (
        NotFoundError,
        Problem(
            HTTPStatus.NOT_FOUND, "there is no object at this uri", {}, ProblemCode.MISSING_OBJECT
        ),
    ),
    (
        ArchivedError,
        Problem(
            HTTPStatus.CONFLICT,
            "the object is archived and must be restored before it is read",
            {},
            ProblemCode.ARCHIVED_OBJECT,
        ),
    ),
    (
        StoreUnavailableError,
        come_later("the store throttles or is out of reach", ProblemCode.STORE_UNAVAILABLE),
    ),
    (
        AccessDeniedError,
        blame_store(
            "the store denies this service access; tell its operator", ProblemCode.STORE_DENIES
        ),
    ),
    (
        StorageError,
        blame_store("the store could not answer; tell the operator", ProblemCode.STORE_FAILS),
    ),
    (
        DataError,
        come_later("no decoder process can be started; tell the operator", ProblemCode.NO_DECODER),
    ),
    ((DeadlinePassedError, TimeoutError), TOO_SLOW),
    (
        ForeignReleaseError,
        come_later("another release is being deployed", ProblemCode.RELEASE_CHANGES),
    ),
    (BackPressureError, come_later("a model stage is at its limit")),
    (REPLICA_LOST, come_later("a model stage is being restarted", ProblemCode.REPLICA_LOST)),
)
"""What each failure means to a caller; the first line that fits counts."""


def explain(error: BaseException) -> Problem:
    """Return what `error` means to a caller; DEFECT where it means nothing to them."""
    if isinstance(error, ProblemError):
        return error.problem
    return next((problem for kinds, problem in PROBLEMS if isinstance(error, kinds)), DEFECT)
