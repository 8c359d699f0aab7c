"""Fetching and decoding the films of a shard.

What can never be read is a refusal; what the store would not give now, or no decoder could be
started for, is a dead letter.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from hipray.data.fetching import LISTED_AND_GONE, LISTING_DETECTOR, in_order, refuse_object
from hipray.data.images import ReadResult
from hipray.data.isolation import IsolatedReader
from hipray.data.person import Person, person_on
from hipray.data.pseudonyms import Pseudonyms
from hipray.data.refusals import Refusal
from hipray.errors import (
    AccessDeniedError,
    DataError,
    HiprayError,
    NotFoundError,
    ProcessLostError,
    StorageError,
)
from hipray.scoring.faults import FailedFilm, classify_fault
from hipray.scoring.shards import Entry
from hipray.storage import (
    InvalidKeyError,
    ObjectChangedError,
    ObjectInfo,
    ObjectTooLargeError,
    Store,
)
from hipray.vocab import RefusalCode

FETCHED_AHEAD = 4
"""Films that are fetched while one is decoded."""
UNLIKE_LISTED = (RefusalCode.MISSING_OBJECT, RefusalCode.CHANGED_OBJECT)
"""Refusals of films that were not as they had been listed: another reading may end otherwise."""
FIRST_PAUSE_S = 1.0
"""Seconds before a second round over films that the store would not give; it doubles."""
MOST_FAULTS = 2 * FETCHED_AHEAD
"""Films that fail one after the other for what may pass before a round is given up: with all its
attempts and timeouts a shard would otherwise take hours to say that a store is silent."""
OUTAGE_PAUSE_S = 60.0
"""Seconds before the next round then: a store that is restarted is back by that time."""
FETCH_S = 300.0
"""Seconds that a film may take beside those for its bytes: all tries of the S3 client's defaults,
each with its timeout."""
SLOWEST_BYTES_PER_S = 100_000
"""Pace at which its bytes must come, 20 MB within 200 s: an answer that trickles holds a decoder no
longer."""


@dataclass(frozen=True)
class FetchedFilm:
    """What the store gave for an entry: bytes, or why there are none for ever."""

    data: bytes | Refusal
    etag: str | None
    """Etag of the object that was read; None where none was."""
    seconds: float = 0.0
    """Seconds until the store had given it."""


@dataclass(frozen=True)
class ReadFilm:
    """One film of a shard: its hips or why there are none, and who it may be traced to."""

    entry: Entry
    etag: str | None
    """Etag of the object that was read; None where none was."""
    file_id: str
    """Pseudonym of the key."""
    patient_id: str | None
    """Pseudonym of the patient; None where the file names none."""
    person: Person
    """What the film states of the patient."""
    result: ReadResult
    """Without its `film_info` behind `packing`: what answers need of a header is `person`."""
    fetch_seconds: float
    """Seconds until the store had given it; FETCHED_AHEAD films are waited for at a time."""
    decode_seconds: float
    """Seconds of a core that decoding it took."""


@dataclass
class ReadFilms:
    """The films of a shard in its order, and what the store would not give of it."""

    films: list[ReadFilm] = field(default_factory=list)
    letters: list[FailedFilm] = field(default_factory=list)


@dataclass(frozen=True)
class _Round:
    """What one round over films could not fetch."""

    failed: dict[Entry, HiprayError]
    given_up: bool = False
    """The store gave nothing for a while, or no decoder starts: the films that were left have the
    last one's error."""

    @property
    def may_pass(self) -> bool:
        """Whether a further round may help."""
        return any(classify_fault(error).may_pass for error in self.failed.values())


class FilmReader:
    """Reads the films of a shard; a poison file ends as a refusal."""

    def __init__(
        self, archive: Store, reader: IsolatedReader, pseudonyms: Pseudonyms, *, rounds: int = 1
    ) -> None:
        self._archive = archive
        self._reader = reader
        self._pseudonyms = pseudonyms
        self._rounds = rounds

    def read(self, entries: Sequence[Entry]) -> ReadFilms:
        """Return the films, and dead letters for those that no round could fetch."""
        found: dict[Entry, ReadFilm] = {}
        last = self._read_round(entries, found)
        tries = 1
        while tries < self._rounds and last.may_pass:
            time.sleep(OUTAGE_PAUSE_S if last.given_up else FIRST_PAUSE_S * 2 ** (tries - 1))
            last = self._read_round([e for e in entries if e in last.failed], found)
            tries += 1
        return ReadFilms(
            [found[entry] for entry in entries if entry in found],
            [FailedFilm.of(e, last.failed[e], tries=tries) for e in entries if e in last.failed],
        )

    def _read_round(self, entries: Sequence[Entry], found: dict[Entry, ReadFilm]) -> "_Round":
        """Read what can be had into `found` and return what could not."""
        failed: dict[Entry, HiprayError] = {}
        faults = 0

        def give_up(error: HiprayError) -> _Round:
            left = [e for e in entries if e not in found and e not in failed]
            return _Round(failed | dict.fromkeys(left, error), given_up=True)

        with ThreadPoolExecutor(FETCHED_AHEAD) as pool:
            jobs = (pool.submit(self._fetch, entry) for entry in entries)
            for entry, fetched in zip(entries, in_order(jobs, ahead=FETCHED_AHEAD), strict=True):
                if isinstance(fetched, StorageError):
                    failed[entry] = fetched
                    faults += classify_fault(fetched).may_pass
                    if faults == MOST_FAULTS:
                        return give_up(fetched)
                    continue
                try:
                    found[entry] = self._decode(entry, fetched)
                except ProcessLostError as error:
                    return give_up(error)
                faults = 0
        return _Round(failed)

    def _fetch(self, entry: Entry) -> FetchedFilm | StorageError:
        started = time.perf_counter()
        try:
            film = fetch_film(
                self._archive, entry, max_file_bytes=self._reader.limits.max_file_bytes
            )
        except StorageError as error:
            return error
        return FetchedFilm(film.data, film.etag, time.perf_counter() - started)

    def _decode(self, entry: Entry, fetched: FetchedFilm) -> ReadFilm:
        started = time.perf_counter()
        if isinstance(fetched.data, Refusal):
            result = ReadResult(entry.key, refusal=fetched.data)
        else:
            result = self._read_hips(fetched.data, entry)
        info = result.film_info
        patient = info.patient_key if info else ""
        return ReadFilm(
            entry=entry,
            etag=fetched.etag,
            file_id=self._pseudonyms.file(entry.key),
            patient_id=self._pseudonyms.patient(patient) if patient else None,
            person=person_on(info),
            result=result,
            fetch_seconds=fetched.seconds,
            decode_seconds=time.perf_counter() - started,
        )

    def _read_hips(self, data: bytes, entry: Entry) -> ReadResult:
        """Read a film; raises ProcessLostError where this machine starts no decoder."""
        try:
            return self._reader.read_hips(data, name=entry.key)
        except DataError as error:
            raise ProcessLostError(error.expected, error.found, error.remedy) from error


def fetch_film(archive: Store, entry: Entry, *, max_file_bytes: int) -> FetchedFilm:
    """Return the bytes that were listed, or why there are none for ever.

    Raises StorageError for what may pass: throttling, timeouts, denied access, and an archive that
    is gone as a whole. Ingest's `data.fetching.fetch_object` knows no listing to compare with, and
    refuses a film that is denied: nobody retries it.
    """
    if entry.size > max_file_bytes:
        evidence = f"{entry.size} bytes, at most {max_file_bytes}"
        return FetchedFilm(Refusal(RefusalCode.TOO_LARGE, "file_size", evidence), None)
    most_bytes = entry.size if entry.etag else max_file_bytes  # else nobody could say its size
    read = partial(
        archive.read_object,
        entry.key,
        max_bytes=max_file_bytes,
        timeout_s=FETCH_S + most_bytes / SLOWEST_BYTES_PER_S,
    )
    try:
        data, found = _read_listed(archive, entry, read)
    except ObjectChangedError:
        return FetchedFilm(_changed("its etag is another"), None)
    except ObjectTooLargeError as error:
        if not entry.etag:  # nobody could say its size before
            return FetchedFilm(refuse_object(error), None)
        return FetchedFilm(_changed("it grew beyond the limit of bytes"), None)
    except InvalidKeyError as error:
        return FetchedFilm(refuse_object(error), None)
    except NotFoundError:
        return FetchedFilm(_explain_absence(archive, entry), None)
    same = (
        found.etag == entry.etag
        or not entry.etag
        or _is_listed_so(archive, entry, found.size, unlisted=False)
    )
    return FetchedFilm(data if same else _changed("its etag is another"), found.etag)


def _read_listed(
    archive: Store, entry: Entry, read: Callable[..., tuple[bytes, ObjectInfo]]
) -> tuple[bytes, ObjectInfo]:
    """Read a film; raise ObjectChangedError where it changed and the store can tell beforehand.

    Else each film of an archive that was rewritten would be transferred twice: as its older
    listing has it, for nothing, and as its later one has it.
    """
    try:
        return read(etag=entry.etag or None)
    except ObjectChangedError:
        if not _is_listed_so(archive, entry, entry.size, unlisted=True):
            raise
        return read()


def _is_listed_so(archive: Store, entry: Entry, size: int, *, unlisted: bool) -> bool:
    """Tell whether a listing still says of a film what it said, though its reading does not.

    Some stores give an object one etag in listings and another with its bytes, such as that of
    its encrypted form. One listing can only be compared with another then. `unlisted` is the answer
    for who may read and not list, and took the keys from elsewhere.
    """
    try:
        listed = archive.info_as_listed(entry.key)
    except AccessDeniedError:
        return unlisted
    return listed is not None and (listed.size, listed.etag) == (size, entry.etag)


def _explain_absence(archive: Store, entry: Entry) -> Refusal:
    if archive.info(entry.key) is not None:
        return _changed("it was gone and came back")
    archive.check_root()  # asked last: it was there when the film was not
    evidence = LISTED_AND_GONE if entry.etag else "no object of this key"
    return Refusal(RefusalCode.MISSING_OBJECT, LISTING_DETECTOR, evidence)


def _changed(how: str) -> Refusal:
    return Refusal(RefusalCode.CHANGED_OBJECT, LISTING_DETECTOR, f"after it was listed {how}")
