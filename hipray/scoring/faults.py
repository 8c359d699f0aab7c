"""Films that could not be had, mostly for the store's sake: why, and when they are too many.

They are counted and kept as dead letters, and are never rows: trying again may help.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from hipray.errors import (
    AccessDeniedError,
    ArchivedError,
    BucketMissingError,
    DamagedAnswerError,
    HiprayError,
    NotFoundError,
    ProcessLostError,
    StorageError,
    StoreThrottledError,
    StoreTimeoutError,
    StoreUnavailableError,
    all_errors,
)
from hipray.scoring.index import ListingTotals
from hipray.scoring.shards import Entry

MIN_FILES_SEEN = 256
"""Films of a submission before the share of failed ones says anything."""
MOST_IN_A_ROW = 2000
"""Films that fail one after the other before a store is asked whether it gives anything at all:
the share of a large archive would take a million."""


class Fault(StrEnum):
    """Why a film could not be had now."""

    THROTTLED = "throttled"
    TIMED_OUT = "timed_out"
    UNREACHABLE = "unreachable"  # no connection, or an error of the store's own
    CORRUPT = "corrupt"  # bytes that broke off or do not have their checksum
    DENIED = "denied"
    ARCHIVED = "archived"  # in a tier from which it must be restored first
    MISSING = "missing"  # the bucket; a missing object is a row
    PROCESS_LOST = "process_lost"  # what decoded or scored its shard died of it, again and again
    OTHER = "other"

    @property
    def may_pass(self) -> bool:
        """Whether trying again within a minute may help."""
        return self in (Fault.THROTTLED, Fault.TIMED_OUT, Fault.UNREACHABLE, Fault.CORRUPT)

    @property
    def is_alarming(self) -> bool:
        """Whether many such films are a sign of a store or policy that fails, and stop a run."""
        return self is not Fault.ARCHIVED


FAULT_OF: dict[type[HiprayError], Fault] = {
    StoreThrottledError: Fault.THROTTLED,
    StoreTimeoutError: Fault.TIMED_OUT,
    DamagedAnswerError: Fault.CORRUPT,
    StoreUnavailableError: Fault.UNREACHABLE,
    AccessDeniedError: Fault.DENIED,
    ArchivedError: Fault.ARCHIVED,
    BucketMissingError: Fault.MISSING,
    NotFoundError: Fault.MISSING,
    ProcessLostError: Fault.PROCESS_LOST,
}
"""The class of each error; a kind comes before what it is a kind of."""


def count_alarming(faults: Mapping[Fault, int]) -> int:
    """Return how many of counted faults speak against the store."""
    return sum(count for fault, count in faults.items() if fault.is_alarming)


def classify_fault(error: HiprayError) -> Fault:
    """Return the class of an error."""
    kinds = (fault for kind, fault in FAULT_OF.items() if isinstance(error, kind))
    return next(kinds, Fault.OTHER)


@dataclass(frozen=True)
class FailedFilm:
    """A dead letter: one film that could not be had."""

    entry: Entry
    fault: Fault
    exception: str
    """Name of the error's class."""
    expected: str
    found: str
    remedy: str
    tries: int
    """Rounds over the shard in which the film was asked for."""

    @classmethod
    def of(cls, entry: Entry, error: HiprayError, *, tries: int) -> "FailedFilm":
        """Return the dead letter of an error."""
        return cls(
            entry, classify_fault(error), type(error).__name__,
            error.expected, error.found, error.remedy, tries,
        )  # fmt: skip

    @property
    def error(self) -> HiprayError:
        """The error again, of its own class where that is a public one."""
        kinds = {kind.__name__: kind for kind in all_errors()}
        kind = kinds.get(self.exception, StorageError)
        return kind(self.expected, self.found, self.remedy)


def dump_letters(letters: Iterable[FailedFilm]) -> str:
    """Return letters as the JSON text that `parse_letters` reads."""
    return json.dumps([asdict(letter) for letter in letters])


def parse_letters(text: str | bytes) -> list[FailedFilm]:
    """Return the letters of a text; raises ValueError, KeyError or TypeError where it is none."""
    return [
        FailedFilm(**{**fields, "entry": Entry(**fields["entry"]), "fault": Fault(fields["fault"])})
        for fields in json.loads(text)
    ]


@dataclass
class FailureWatch:
    """Watches the films that failed in one submission: when are they too many of all there are."""

    max_fraction: float
    """Share of the archive's films that may fail."""
    count_listed: Callable[[], ListingTotals] = ListingTotals
    """Asked what the archive holds where too many of the films seen so far have failed."""
    still_gives: Callable[[], bool] = lambda: True
    """Asked after MOST_IN_A_ROW whether the store gives a film that it gave before."""
    seen: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)
    unlike_listed: int = 0
    """Films that were gone or changed when they were read: rows, but many speak as faults do. As
    many as listings found changed were to be expected, and are read anew."""
    last: HiprayError | None = None
    """The last alarming error."""
    _listed: ListingTotals = field(default_factory=ListingTotals)
    _in_a_row: int = 0

    @property
    def failed(self) -> int:
        """Films that failed."""
        return self.faults.total()

    def add(self, *, files: int, letters: Sequence[FailedFilm], unlike_listed: int = 0) -> None:
        """Take one part's outcome; raises its error where too many films have failed.

        Too many of all that are listed: what a submission sees may be the few that failed before.
        So may those that fail in a row, or lie in one folder: the store is asked then.
        """
        self.seen += files
        self.faults.update(letter.fault for letter in letters)
        self.unlike_listed += unlike_listed
        alarming = [letter for letter in letters if letter.fault.is_alarming]
        self.last = alarming[-1].error if alarming else self.last
        self._in_a_row = 0 if len(letters) < files else self._in_a_row + len(alarming)
        self._check_row()
        if self.seen >= MIN_FILES_SEEN and self._is_too_much(self.faults, *self._expected()):
            self._listed = self.count_listed()
            unlike_listed, files = self._expected()
            self.check_all(self.faults, unlike_listed=unlike_listed, files=files)

    def _check_row(self) -> None:
        if self._in_a_row < MOST_IN_A_ROW or self.max_fraction == 1:
            return
        if self.last is not None and not self.still_gives():
            raise self.last
        self._in_a_row = 0

    def _expected(self) -> tuple[int, int]:
        """Films that no listing found changed, though they were not as listed; and all films."""
        unforeseen = max(0, self.unlike_listed - self._listed.replaced)
        return unforeseen, max(self.seen, self._listed.current)

    def check_all(self, faults: Mapping[Fault, int], *, unlike_listed: int, files: int) -> None:
        """Raise an error of this submission where too many of `files` failed.

        Of all files so far: a submission's own may be few, and one that fails of three is no sign
        of a store that is gone. One without any failure of its own is not to blame.
        """
        if self.last is None and not self.unlike_listed:
            return
        if self._is_too_much(faults, unlike_listed, files):
            raise self.last or StorageError(
                f"at most {self.max_fraction:.0%} of {files} films gone or changed since they were "
                "listed",
                f"{unlike_listed}",
                "see what deletes or rewrites them, then submit again; if it has to be so, raise "
                "max_failed_fraction",
            )

    def _is_too_much(self, faults: Mapping[Fault, int], unlike_listed: int, files: int) -> bool:
        return count_alarming(faults) + unlike_listed > self.max_fraction * files
