"""Films out of a store: read a few ahead, and refused where the store will never give them."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from hipray.data.refusals import Refusal
from hipray.errors import (
    AccessDeniedError,
    ArchivedError,
    NotFoundError,
    StorageError,
    StoreUnavailableError,
)
from hipray.storage.store import InvalidKeyError, ObjectTooLargeError, Store
from hipray.vocab import RefusalCode

LISTED_AND_GONE = "listed, and gone when it was read"
LISTING_DETECTOR = "listing"
"""What refuses an object that is gone or not as it was listed: it may be restored later."""
STORE_DETECTOR = "store"
"""What refuses an object that is there and that the store does not give: it may do so later."""
ACCESS_DENIED = "the store denies access to it"

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def refuse_object(error: StorageError) -> Refusal:
    """Return why this one object cannot be read; an error that may pass is no reason."""
    if isinstance(error, ObjectTooLargeError):
        return Refusal(RefusalCode.TOO_LARGE, "file_size", error.found)
    if isinstance(error, InvalidKeyError):
        return Refusal(RefusalCode.UNREADABLE, "key", "its key is no plain relative path")
    if isinstance(error, NotFoundError):
        return Refusal(RefusalCode.MISSING_OBJECT, LISTING_DETECTOR, LISTED_AND_GONE)
    evidence = "the store does not give it"
    if isinstance(error, ArchivedError):
        evidence = "it lies in an archive tier: restore it first"
    if isinstance(error, AccessDeniedError):
        evidence = ACCESS_DENIED
    return Refusal(RefusalCode.UNREADABLE, STORE_DETECTOR, evidence)


def fetch_object(archive: Store, key: str, *, max_bytes: int) -> bytes | Refusal:
    """Return a listed file, or why this one cannot be had.

    Raises StorageError where it is the whole archive that cannot.
    """
    try:
        data, _ = archive.read_object(key, max_bytes=max_bytes)
    except (ObjectTooLargeError, InvalidKeyError) as error:
        return refuse_object(error)
    except StoreUnavailableError:
        raise
    except StorageError as error:
        archive.check_root()  # raises where bucket or disk is lost, not this object
        archive.next_key("")  # and here where credentials are
        return refuse_object(error)
    return data


def map_ahead(
    call: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, threads: int
) -> Iterator[ResultT]:
    """Yield what `call` returns of each item in order, by threads that are all kept busy."""
    with ThreadPoolExecutor(threads) as pool:
        yield from in_order((pool.submit(call, item) for item in items), ahead=threads)


def in_order(jobs: Iterable[Future[ResultT]], *, ahead: int) -> Iterator[ResultT]:
    """Yield results in order while at most `ahead` are under way: memory stays flat."""
    source = iter(jobs)
    waiting = list(islice(source, ahead))
    while waiting:
        yield waiting.pop(0).result()
        waiting.extend(islice(source, 1))
