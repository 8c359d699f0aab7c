"""Leases: one process at a time works on a thing, and a dead one's work is taken over.

A lease on `key` is a row of attempts. Attempt n is the object `<key>/<n>.json`, made by an
exclusive create; its holder then rewrites `<key>/<n>.beat` and at the end makes
`<key>/<n>.released`. Who knows that the holder died makes `<key>/<n>.lost`. When attempt n is
dead, whoever creates n + 1 holds the lease.

A lease keeps two processes from doing the same work; it does not keep a result safe, since a
holder that was suspended may wake up after its lease was taken. Results are committed by
`Store.create`, where the first wins.
"""

import json
import logging
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Self

from hipray.errors import NotFoundError, RunBusyError, StorageError
from hipray.storage.processes import ProcessId, current_process, has_ended, is_visible
from hipray.storage.store import Store

BEATS_PER_TTL = 4
"""Heartbeats within one time to live: three may fail before the lease is lost."""

SILENCE_POLL_S = 1.0
"""Seconds between two looks at a silent holder."""

CLOCK_DIFFERENCE_S = 900.0
"""Most seconds between the clocks of two machines: S3 refuses requests of one that is further off
(Amazon S3 API reference, RequestTimeTooSkewed)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeaseInfo:
    """What an attempt says about its holder."""

    attempt: int
    owner: str
    """Random id of this one acquisition."""
    process: ProcessId
    note: str
    claimed_s: float
    """Unix time of the claim by the holder's clock."""
    ttl_s: float
    """Seconds without a heartbeat after which the holder counts as dead."""

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.claimed_s, UTC).isoformat(timespec="seconds")
        note = f" ({self.note})" if self.note else ""
        return f"host {self.process.host}, process {self.process.pid}, since {since}{note}"


class Lease:
    """A lease this process holds; as a context manager it beats in the background."""

    def __init__(self, store: Store, key: str, info: LeaseInfo) -> None:
        self.info = info
        self._store = store
        self._key = key
        self._ended = threading.Event()
        self._taken = threading.Event()
        self._beater: threading.Thread | None = None

    @property
    def attempt(self) -> int:
        """The number of this acquisition: 1 for the first ever, one more after each takeover."""
        return self.info.attempt

    @property
    def taken(self) -> bool:
        """Whether the background heartbeat saw that another process took over; costs nothing."""
        return self._taken.is_set()

    def heartbeat(self) -> None:
        """Say that the holder lives: one write. Raises StorageError."""
        beat = json.dumps({"time_s": time.time()}).encode()
        self._store.write(_attempt_key(self._key, self.attempt, ".beat"), beat)

    def is_current(self) -> bool:
        """Ask the store whether nobody has taken over: one request."""
        taken = self._store.exists(_attempt_key(self._key, self.attempt + 1, ".json"))
        return not taken

    def release(self) -> None:
        """Stop the heartbeat and let others acquire at once; calling it again does nothing."""
        self._ended.set()
        if self._beater is not None:
            self._beater.join()
            self._beater = None
        self._store.create(_attempt_key(self._key, self.attempt, ".released"), b"")

    def declare_lost(self) -> None:
        """Say that the holder died, so that others acquire at once; it stays known as a death."""
        self._store.create(_attempt_key(self._key, self.attempt, ".lost"), b"")

    def __enter__(self) -> Self:
        self._beater = threading.Thread(target=self._beat, name="hipray-lease", daemon=True)
        self._beater.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.release()
        except StorageError as error:  # others only wait longer: no reason to lose the work
            logger.warning("a lease was not released and will run out instead: %s", error)

    def _beat(self) -> None:
        while not self._ended.wait(self.info.ttl_s / BEATS_PER_TTL):
            try:
                self.heartbeat()
                current = self.is_current()
            except StorageError as error:
                logger.warning("a heartbeat failed and will be tried again: %s", error)
                continue
            if not current:
                self._taken.set()
                logger.warning("the lease %s was taken over", self._store.uri_of(self._key))
                return


def acquire(store: Store, key: str, *, ttl_s: float, owner_note: str = "") -> Lease | None:
    """Acquire the lease on `key`, or return None when a live process holds it.

    The latest attempt is dead when it was released; when its process is seen to have ended, which
    only the same machine can see; or when its last heartbeat is older than the `ttl_s` it
    announced. That age compares the wall clocks of two machines: keep them synchronised and
    `ttl_s` well above their difference. A lease nobody holds costs one listing and one create.
    """
    attempt, info = _read_latest(store, key)
    if info is not None and _is_live(store, key, info):
        return None
    claim = LeaseInfo(
        attempt=attempt + 1,
        owner=uuid.uuid4().hex,
        process=current_process(),
        note=owner_note,
        claimed_s=time.time(),
        ttl_s=ttl_s,
    )
    data = json.dumps(asdict(claim)).encode()
    if not store.create(_attempt_key(key, claim.attempt, ".json"), data):
        return None
    return Lease(store, key, claim)


def acquire_when_silent(
    store: Store, key: str, *, ttl_s: float, owner_note: str = ""
) -> Lease | None:
    """Acquire as `acquire` does, but wait for a silent holder's time to live to run out.

    Returns None at the first sign of life: a heartbeat, or a running process on this machine. So
    a job that died on another machine may be submitted again at once. A holder on another machine
    is watched for two heartbeats, as its clock may be behind by more than its time to live, unless
    its last beat is older than clocks may differ.
    """
    first: tuple[int, float] | None = None
    began = time.monotonic()
    while True:
        attempt, info = _read_latest(store, key)
        if info is None or is_visible(info.process):
            return acquire(store, key, ttl_s=ttl_s, owner_note=owner_note)
        sign = (attempt, _read_beat(store, key, info))
        if sign != (first or sign):
            return None
        first = sign
        watched = time.monotonic() - began > 2 * info.ttl_s / BEATS_PER_TTL
        if watched or time.time() - sign[1] > info.ttl_s + CLOCK_DIFFERENCE_S:
            lease = acquire(store, key, ttl_s=ttl_s, owner_note=owner_note)
            if lease is not None:
                return lease
        time.sleep(SILENCE_POLL_S)


def hold(store: Store, key: str, *, ttl_s: float, owner_note: str, thing: str) -> Lease:
    """Acquire as `acquire_when_silent` does; raise RunBusyError naming who holds `thing`."""
    lease = acquire_when_silent(store, key, ttl_s=ttl_s, owner_note=owner_note)
    if lease is None:
        raise RunBusyError(
            f"{thing} to be free",
            f"a live driver: {_read_latest(store, key)[1] or 'one that ended just now'}",
            "wait for it, watch it with `hipray status`, or name another",
        )
    return lease


def check_still_held(lease: Lease, *, thing: str) -> None:
    """Raise RunBusyError where another driver took `thing` over because this one was silent."""
    if lease.taken:
        raise RunBusyError(
            f"{thing} to stay this driver's",
            "another that took over when this one was silent",
            "let that one finish",
        )


def holder(store: Store, key: str) -> LeaseInfo | None:
    """Return who holds the lease on `key` now, or None; `str()` of it is fit for a message."""
    _, info = _read_latest(store, key)
    return info if info is not None and _is_live(store, key, info) else None


def list_held(store: Store, prefix: str) -> set[str]:
    """Return the leases below a folder with a claim that has not ended; one listing.

    Its holder may be dead all the same.
    """
    claimed: set[tuple[str, str]] = set()
    ended: set[tuple[str, str]] = set()
    for found in store.list(prefix):
        key, _, name = found.key.rpartition("/")
        attempt, _, kind = name.partition(".")
        if kind == "json":
            claimed.add((key, attempt))
        elif kind in ("released", "lost"):
            ended.add((key, attempt))
    return {key for key, _ in claimed - ended}


def list_unreleased(store: Store, key: str, *, before: int) -> list[LeaseInfo]:
    """Return the claims before an attempt whose holders never released them: they died."""
    names = {PurePosixPath(found.key).name for found in store.list(key)}
    silent = [n for n in range(1, before) if f"{n}.released" not in names]
    return [read_claim(store, key, attempt) for attempt in silent]


def read_claim(store: Store, key: str, attempt: int) -> LeaseInfo:
    """Return what the holder of an attempt said when it claimed; raises StorageError."""
    return _read_claim(store, _attempt_key(key, attempt, ".json"))


def _attempt_key(key: str, attempt: int, suffix: str) -> str:
    return f"{key}/{attempt}{suffix}"


def _read_latest(store: Store, key: str) -> tuple[int, LeaseInfo | None]:
    """Return the number of the latest attempt, 0 for none, and its claim unless it has ended."""
    names = {PurePosixPath(found.key).name for found in store.list(key)}
    stems = (name.removesuffix(".json") for name in names if name.endswith(".json"))
    attempt = max((int(stem) for stem in stems if stem.isdecimal()), default=0)
    if attempt == 0 or names & {f"{attempt}.released", f"{attempt}.lost"}:
        return attempt, None
    return attempt, read_claim(store, key, attempt)


def _read_claim(store: Store, key: str) -> LeaseInfo:
    try:
        fields = json.loads(store.read(key))
        return LeaseInfo(**{**fields, "process": ProcessId(**fields["process"])})
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            "a lease claim", f"something else at {store.uri_of(key)} ({error})", "delete it"
        ) from error


def _is_live(store: Store, key: str, info: LeaseInfo) -> bool:
    if has_ended(info.process):
        return False
    if time.time() - info.claimed_s <= info.ttl_s:
        return True
    return time.time() - _read_beat(store, key, info) <= info.ttl_s


def _read_beat(store: Store, key: str, info: LeaseInfo) -> float:
    """Return the Unix time of the last sign of life by the holder's clock."""
    try:
        beat = json.loads(store.read(_attempt_key(key, info.attempt, ".beat")))
    except NotFoundError:
        return info.claimed_s
    return float(beat["time_s"])
