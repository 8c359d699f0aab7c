"""What an S3 store's error codes mean to a user (Amazon S3 API reference, "Error responses")."""

from http import HTTPStatus

from hipray.errors import (
    AccessDeniedError,
    NotFoundError,
    StorageError,
    StoreFullError,
    StoreUnavailableError,
)

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
        "RequestTimeout",
        "InternalError",
        "ServiceUnavailable",
        "OperationAborted",
        "ConditionalRequestConflict",
    }
)
"""Codes that pass by themselves, whatever status they come with (some stores say 403)."""

FULL_CODES = frozenset(
    {
        "QuotaExceeded",
        "XMinioStorageFull",
        "XMinioAdminBucketQuotaExceeded",
        "InsufficientStorage",
    }
)
"""Codes by which S3-compatible stores say that disk or quota is full."""

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
        return NotFoundError(
            "an existing bucket", f"no bucket '{bucket}'", "check the name and the endpoint"
        )
    if code in FULL_CODES or status == HTTPStatus.INSUFFICIENT_STORAGE:
        return StoreFullError(
            f"room for {uri}", f"{status} {code}", "free space or raise the quota"
        )
    if code == "NotImplemented":
        return StorageError(f"a store that can do this ({uri})", f"501 {message}", "use another")
    if code in THROTTLE_CODES or status == HTTPStatus.TOO_MANY_REQUESTS or status >= 500:
        return StoreUnavailableError(f"an answer for {uri}", f"{status} {code}", "try again later")
    if code in DENIALS or status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return _denied(code, status, uri)
    if status == HTTPStatus.NOT_FOUND:
        return NotFoundError("an object", f"none at {uri}", "check the address")
    return StorageError(f"success for {uri}", f"{status} {code}: {message}", "see the S3 settings")


def _denied(code: str, status: int, uri: str) -> AccessDeniedError:
    reason = DENIALS.get(code, "the credentials do not allow this, or they are wrong")
    return AccessDeniedError(
        f"access to {uri}", f"{status} {code} ({reason})", "check the AWS credentials and policy"
    )
