"""Films out of a store: read a few ahead, and refused where the store will never give them."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import TypeVar

from hipray.data.refusals import Refusal
from hipray.errors import NotFoundError
from hipray.storage.store import InvalidKeyError, ObjectTooLargeError
from hipray.vocab import RefusalCode

LISTED_AND_GONE = "listed, and gone when it was read"
LISTING_DETECTOR = "listing"
"""What refuses an object that is gone or not as it was listed: it may be restored later."""

ResultT = TypeVar("ResultT")


def refuse_object(error: ObjectTooLargeError | InvalidKeyError | NotFoundError) -> Refusal:
    """Return why an object is never read; other errors of a store may pass."""
    if isinstance(error, ObjectTooLargeError):
        return Refusal(RefusalCode.TOO_LARGE, "file_size", error.found)
    if isinstance(error, InvalidKeyError):
        return Refusal(RefusalCode.UNREADABLE, "key", "its key is no plain relative path")
    return Refusal(RefusalCode.MISSING_OBJECT, LISTING_DETECTOR, LISTED_AND_GONE)


def in_order(jobs: Iterable[Future[ResultT]], *, ahead: int) -> Iterator[ResultT]:
    """Yield results in order while at most `ahead` are under way: memory stays flat."""
    source = iter(jobs)
    waiting = list(islice(source, ahead))
    while waiting:
        yield waiting.pop(0).result()
        waiting.extend(islice(source, 1))
