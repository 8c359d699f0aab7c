"""Fetching and decoding the films of a shard; what can never be read is a refusal."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from hipray.data.images import ReadResult
from hipray.data.isolation import IsolatedReader
from hipray.data.person import NOBODY, Person
from hipray.data.pseudonyms import Pseudonyms
from hipray.data.refusals import Refusal
from hipray.errors import NotFoundError
from hipray.scoring.shards import Entry, Shard
from hipray.storage import InvalidKeyError, ObjectTooLargeError, Store
from hipray.vocab import RefusalCode

FETCHED_AHEAD = 4
"""Films that are fetched while one is decoded."""
LISTING_DETECTOR = "listing"

Fetched = tuple[bytes | Refusal, float]
"""A film's bytes or why there are none, and the seconds it took."""


@dataclass(frozen=True)
class ReadFilm:
    """One film of a shard: its hips or why there are none, and who it may be traced to."""

    entry: Entry
    file_id: str
    """Pseudonym of the key."""
    patient_id: str | None
    """Pseudonym of the patient; None where the file names none."""
    person: Person
    """What the film states of the patient."""
    result: ReadResult
    seconds: float
    """Time spent on fetching and decoding."""


class FilmReader:
    """Reads the films of a shard; a poison file ends as a refusal."""

    def __init__(self, archive: Store, reader: IsolatedReader, pseudonyms: Pseudonyms) -> None:
        self._archive = archive
        self._reader = reader
        self._pseudonyms = pseudonyms

    def read(self, shard: Shard) -> list[ReadFilm]:
        """Return the shard's films in its order; raises StorageError where the store gives up."""
        with ThreadPoolExecutor(FETCHED_AHEAD) as pool:
            jobs = (pool.submit(self._fetch, entry) for entry in shard.entries)
            fetched = zip(shard.entries, _in_order(jobs), strict=True)
            return [self._decode(entry, *got) for entry, got in fetched]

    def _fetch(self, entry: Entry) -> Fetched:
        started = time.perf_counter()
        data = fetch_film(self._archive, entry, max_file_bytes=self._reader.limits.max_file_bytes)
        return data, time.perf_counter() - started

    def _decode(self, entry: Entry, data: bytes | Refusal, fetch_s: float) -> ReadFilm:
        started = time.perf_counter()
        if isinstance(data, Refusal):
            result = ReadResult(entry.key, refusal=data)
        else:
            result = self._reader.read_hips(data, name=entry.key)
        info = result.film_info
        return ReadFilm(
            entry,
            self._pseudonyms.file(entry.key),
            self._pseudonyms.patient(info.patient_key) if info and info.patient_key else None,
            Person(info.sex, info.age) if info else NOBODY,
            result,
            fetch_s + time.perf_counter() - started,
        )


def fetch_film(archive: Store, entry: Entry, *, max_file_bytes: int) -> bytes | Refusal:
    """Return the bytes that were listed, or why there are none for ever.

    Raises StorageError for what may pass: throttling, timeouts, denied access, a lost bucket.
    """
    if entry.size > max_file_bytes:
        evidence = f"{entry.size} bytes, at most {max_file_bytes}"
        return Refusal(RefusalCode.TOO_LARGE, "file_size", evidence)
    try:
        data, found = archive.read_object(entry.key, max_bytes=max_file_bytes)
    except ObjectTooLargeError:
        return _changed("it grew beyond the limit of bytes")
    except InvalidKeyError:
        return Refusal(RefusalCode.UNREADABLE, "key", "its key is no plain relative path")
    except NotFoundError:
        return _explain_absence(archive, entry)
    return data if found.etag == entry.etag else _changed("its etag is another")


def _explain_absence(archive: Store, entry: Entry) -> Refusal:
    if archive.info(entry.key) is not None:  # raises where the bucket is gone, not the object
        return _changed("it was gone and came back")
    evidence = "listed, and gone when it was read"
    return Refusal(RefusalCode.MISSING_OBJECT, LISTING_DETECTOR, evidence)


def _changed(how: str) -> Refusal:
    return Refusal(RefusalCode.CHANGED_OBJECT, LISTING_DETECTOR, f"after it was listed {how}")


def _in_order(jobs: Iterable[Future[Fetched]]) -> Iterator[Fetched]:
    """Results in order while few are under way: raw films would fill the memory."""
    source = iter(jobs)
    waiting = list(islice(source, FETCHED_AHEAD))
    while waiting:
        yield waiting.pop(0).result()
        waiting.extend(islice(source, 1))
