"""Films that the store would not give: counted, never a row, and a reason to stop when many."""

import json
from dataclasses import dataclass, field

from hipray import errors
from hipray.errors import StorageError

MIN_FILES_SEEN = 256
"""Films before the share of failed ones says anything; the end of a run counts whatever it has."""


def dump_failure(error: StorageError) -> str:
    """Return a storage error as JSON, to travel as data."""
    return json.dumps(
        {
            "kind": type(error).__name__,
            "expected": error.expected,
            "found": error.found,
            "remedy": error.remedy,
        }
    )


def parse_failure(text: str) -> StorageError:
    """Return the error that `dump_failure` wrote, of its own class where that is a public one."""
    fields = json.loads(text)
    kind = getattr(errors, fields.pop("kind"), StorageError)
    error: StorageError = kind(**fields)
    return error


@dataclass
class FailureWatch:
    """Watches the share of films that failed in one submission."""

    max_fraction: float
    """Share of films that may fail."""
    seen: int = 0
    failed: int = 0
    shards: set[str] = field(default_factory=set)
    """Ids of the shards that were not published."""
    last: StorageError | None = None

    def add(self, shard_id: str, *, files: int, failure: str | None) -> None:
        """Take one shard; raises its StorageError where too many films have failed."""
        self.seen += files
        if failure is None:
            return
        self.failed += files
        self.shards.add(shard_id)
        self.last = parse_failure(failure)
        if self.seen >= MIN_FILES_SEEN:
            self.check(self.seen)

    def check(self, files: int) -> None:
        """Raise the last StorageError where more than the allowed share of `files` failed."""
        if self.last is not None and self.failed > self.max_fraction * files:
            raise self.last
