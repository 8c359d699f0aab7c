"""What an S3 store's error codes mean to a user (Amazon S3 API reference, "Error responses")."""

from http import HTTPStatus

from hipray.errors import (
    AccessDeniedError,
    ArchivedError,
    BucketMissingError,
    NotFoundError,
    StorageError,
    StoreFullError,
    StoreThrottledError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from hipray.storage.store import InvalidKeyError, object_changed

THROTTLE_CODES = frozenset(
    {
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestLimitExceeded",
        "TooManyRequests",
        "TooManyRequestsException",
        "BandwidthLimitExceeded",
    }
)
"""Codes that ask for fewer requests, whatever status they come with (some stores say 403)."""

TIMEOUT_CODES = frozenset({"RequestTimeout", "RequestTimeoutException", "GatewayTimeout"})
"""Codes by which a store or a proxy before it says that something took too long."""

PASSING_CODES = frozenset(
    {"InternalError", "ServiceUnavailable", "OperationAborted", "ConditionalRequestConflict"}
)
"""Other codes that pass by themselves."""

FULL_CODES = frozenset(
    {
        "QuotaExceeded",
        "XMinioStorageFull",
        "XMinioAdminBucketQuotaExceeded",
        "InsufficientStorage",
    }
)
"""Codes by which S3-compatible stores say that disk or quota is full."""

KEY_CODES = frozenset({"XMinioInvalidObjectName", "InvalidObjectName", "KeyTooLongError"})
"""Codes by which stores say that they hold no object of such a key."""

ARCHIVED_CODE = "InvalidObjectState"

DENIALS = {
    "AccessDenied": "the credentials do not allow this",
    "AllAccessDisabled": "all access to this bucket is turned off",
    "InvalidAccessKeyId": "the store does not know this access key id",
    "SignatureDoesNotMatch": "the secret key does not belong to this access key id",
    "ExpiredToken": "the temporary credentials have expired",
    "InvalidToken": "the session token is not valid",
    "RequestTimeTooSkewed": "this machine's clock differs too much from the store's",
}
"""Why a store refuses, by its code."""


def explain_failure(code: str, status: int, *, message: str, uri: str, bucket: str) -> StorageError:
    """Return the error for an answer of S3; `message` is used only where nothing else is known."""
    if code == "NoSuchBucket":
        return BucketMissingError(
            "an existing bucket", f"no bucket '{bucket}'", "check the name and the endpoint"
        )
    if code in FULL_CODES or status == HTTPStatus.INSUFFICIENT_STORAGE:
        return StoreFullError(
            f"room for {uri}", f"{status} {code}", "free space or raise the quota"
        )
    if code in KEY_CODES:
        return InvalidKeyError("a key that this store can hold", f"{uri} ({code})", "correct it")
    if code == ARCHIVED_CODE:
        return ArchivedError(f"an object that can be read at {uri}", "an archived one",
                             "restore it first")  # fmt: skip
    if status == HTTPStatus.PRECONDITION_FAILED:
        return object_changed(uri)
    if code == "NotImplemented":
        return StorageError(f"a store that can do this ({uri})", f"501 {message}", "use another")
    passing = _passing_kind(code, status)
    if passing is not None:
        return passing(f"an answer for {uri}", f"{status} {code}", "try again later")
    if code in DENIALS or status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return _denied(code, status, uri)
    if status == HTTPStatus.NOT_FOUND:
        return NotFoundError("an object", f"none at {uri}", "check the address")
    return StorageError(f"success for {uri}", f"{status} {code}: {message}", "see the S3 settings")


def _passing_kind(code: str, status: int) -> type[StoreUnavailableError] | None:
    """Return the kind of an error that may be gone at the next try."""
    if code in THROTTLE_CODES or status == HTTPStatus.TOO_MANY_REQUESTS:
        return StoreThrottledError
    if code in TIMEOUT_CODES or status == HTTPStatus.GATEWAY_TIMEOUT:
        return StoreTimeoutError
    return StoreUnavailableError if code in PASSING_CODES or status >= 500 else None


def _denied(code: str, status: int, uri: str) -> AccessDeniedError:
    reason = DENIALS.get(code, "the credentials do not allow this, or they are wrong")
    return AccessDeniedError(
        f"access to {uri}", f"{status} {code} ({reason})", "check the AWS credentials and policy"
    )
