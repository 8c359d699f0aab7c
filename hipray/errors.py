"""Errors a user can act on: each says what was expected, what was found and what to do.

Raised where the cause is known; only the command line turns them into one sentence and an exit
code. Anything else that escapes is a defect and keeps its traceback.
"""


class HiprayError(Exception):
    """A user's problem in one sentence; `exit_code` tells a scheduler whether to try again."""

    exit_code = 1

    def __init__(self, expected: str, found: str, remedy: str) -> None:
        super().__init__(f"expected {expected}, found {found}; {remedy}")
        self.expected = expected
        self.found = found
        self.remedy = remedy

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.expected, self.found, self.remedy)


class ConfigError(HiprayError):
    """The configuration cannot mean what was intended."""

    exit_code = 2


class DataError(HiprayError):
    """The data does not have the form or content that the step needs."""

    exit_code = 3


class LeakageError(DataError):
    """The split would let a test result be learned from its own training set."""

    exit_code = 4


class StorageError(HiprayError):
    """The store refused or could not do what was asked."""

    exit_code = 5


class NotFoundError(StorageError):
    """The bucket, folder or object does not exist."""


class BucketMissingError(NotFoundError):
    """The bucket itself does not exist, or a local store's folder, or its disk is not mounted."""


class AccessDeniedError(StorageError):
    """The credentials are wrong or do not allow this."""


class ArchivedError(StorageError):
    """The object lies in an archive tier, from which it must be restored before it is read."""


class StoreUnavailableError(StorageError):
    """The store throttles, times out or is out of reach: trying again may help."""

    exit_code = 75  # EX_TEMPFAIL: a scheduler may run the same job again


class ClusterUnavailableError(HiprayError):
    """The Ray cluster is out of reach: trying again may help."""

    exit_code = 75


class StoreThrottledError(StoreUnavailableError):
    """The store asks for fewer requests."""


class StoreTimeoutError(StoreUnavailableError):
    """The store did not answer in time."""


class DamagedAnswerError(StoreUnavailableError):
    """The bytes that arrived are fewer than announced, or do not have their checksum."""


class ProcessLostError(HiprayError):
    """The processes that had some work ended one after the other, without a word."""

    exit_code = 12


class StoreFullError(StorageError):
    """The disk or quota is full."""


class BundleError(HiprayError):
    """A bundle or release is incomplete, altered or does not reproduce its golden answers."""

    exit_code = 6


class RunBusyError(HiprayError):
    """Another process works on the same run."""

    exit_code = 7


class FitsFailedError(HiprayError):
    """Some fits of a grid failed; all others are finished and kept."""

    exit_code = 8


def all_errors() -> list[type[HiprayError]]:
    """Return every kind of error, to rebuild one that another process reported by name."""
    kinds = [HiprayError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return kinds
