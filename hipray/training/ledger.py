"""The ledger of fits: who works on what, what is done, what failed and why.

    fits/claims/<digest>/...         leases of the lanes that try
    fits/work/<digest>/<attempt>/    files of one attempt, checkpoints beside them
    fits/done/<digest>.json          the commit: one conditional PUT, the first one wins
    fits/failed/<digest>/<submission>-<time>-<id>.json   a failed attempt with its traceback

Fits are content-addressed and shared by all runs of a workspace, see `hipray.training.run_keys`.
"""

import json
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from hipray.digests import digest_bytes
from hipray.errors import BundleError
from hipray.storage import (
    Lease,
    LeaseInfo,
    Store,
    acquire,
    holder,
    list_held,
    list_unreleased,
    read_claim,
)
from hipray.storage.processes import current_process
from hipray.training.checkpoints import CheckpointStore
from hipray.training.plan import PlannedFit
from hipray.vocab import Fit, SegmenterFit

CLAIMS = "claims"


@dataclass(frozen=True)
class DoneFit:
    """The committed result of a fit."""

    digest: str
    name: str
    fit: Fit | SegmenterFit
    prefix: str
    """Where its files lie."""
    files: dict[str, str]
    """File name to sha256."""
    summary: dict[str, Any]
    seconds: float
    attempt: int
    lane: str


_DONE = TypeAdapter(DoneFit)


@dataclass(frozen=True)
class FailedAttempt:
    """One attempt that raised."""

    digest: str
    name: str
    submission: str
    error: str
    traceback: str
    final: bool
    """Whether trying again cannot help: the data or the configuration is at fault."""


@dataclass(frozen=True)
class Snapshot:
    """The state of every fit at one moment."""

    done: frozenset[str]
    failed: frozenset[str]


class Ledger:
    """The fits of one workspace."""

    def __init__(
        self, store: Store, *, submission: str, lease_s: float = 60.0, max_attempts: int = 2
    ) -> None:
        self._store = store.child("fits")
        self._submission = submission
        self._lease_s = lease_s
        self._max_attempts = max_attempts

    def snapshot(self) -> Snapshot:
        """Return which fits are done, and which failed for good in this submission."""
        done = self.finished().keys()
        failures: dict[str, int] = {}
        for info in self._store.list("failed/"):
            _, digest, name = info.key.split("/")
            if name.startswith(f"{self._submission}-"):
                weight = self._max_attempts if name.endswith("-final.json") else 1
                failures[digest] = failures.get(digest, 0) + weight
        failed = {d for d, count in failures.items() if count >= self._max_attempts} - done
        return Snapshot(frozenset(done), frozenset(failed))

    def finished(self) -> dict[str, datetime]:
        """Return when each done fit of the workspace was committed."""
        return {_digest_of_key(info.key): info.modified for info in self._store.list("done/")}

    def failed_digests(self) -> frozenset[str]:
        """Return the fits with a failed attempt, in any submission."""
        return frozenset(info.key.split("/")[1] for info in self._store.list("failed/"))

    def claim(self, planned: PlannedFit, lane: str) -> Lease | None:
        """Return a lease on `planned`, or None while another lane holds it."""
        return acquire(self._store, _claims(planned.digest), ttl_s=self._lease_s, owner_note=lane)

    def live_claims(self, digests: Iterable[str]) -> dict[str, LeaseInfo]:
        """Return who works now on which of `digests`; one listing and two reads for each claim."""
        held = {key.removeprefix(f"{CLAIMS}/") for key in list_held(self._store, CLAIMS)}
        wanted = held & set(digests)
        holders = {digest: holder(self._store, f"{CLAIMS}/{digest}") for digest in sorted(wanted)}
        return {digest: info for digest, info in holders.items() if info is not None}

    def release_lane(self, lane: str, digests: Iterable[str]) -> list[str]:
        """Release the fits among `digests` that a dead incarnation of `lane` left claimed.

        Call it only where that process is known to be gone. Should it live on, unseen, two lanes
        do the same work and the first commit wins.
        """
        mine = current_process()
        left = {
            digest: info
            for digest, info in self.live_claims(digests).items()
            if info.note == lane and info.process != mine
        }
        for digest, info in left.items():
            Lease(self._store, f"{CLAIMS}/{digest}", info).declare_lost()
        return list(left)

    def count_deaths(self, planned: PlannedFit, attempt: int) -> int:
        """Count this submission's earlier claims of a fit whose lanes died without a word."""
        dead = list_unreleased(self._store, _claims(planned.digest), before=attempt)
        return sum(info.note.startswith(self._submission) for info in dead)

    def claimed_at(self, done: DoneFit) -> float:
        """Return the Unix time at which the attempt that finished a fit was claimed."""
        return read_claim(self._store, _claims(done.digest), done.attempt).claimed_s

    def checkpoints(self, planned: PlannedFit) -> CheckpointStore:
        """Return the place of the fit's checkpoints, shared by its attempts."""
        return CheckpointStore(self._store.child(f"work/{planned.digest}/checkpoints"))

    def commit(
        self,
        planned: PlannedFit,
        files: dict[str, bytes],
        *,
        summary: dict[str, Any],
        seconds: float,
        attempt: int,
        lane: str,
    ) -> bool:
        """Publish a finished fit; return False where another attempt was first."""
        prefix = f"work/{planned.digest}/{uuid.uuid4().hex}"
        for name, data in files.items():
            self._store.write(f"{prefix}/{name}", data)
        done = DoneFit(
            digest=planned.digest,
            name=planned.name,
            fit=planned.fit,
            prefix=prefix,
            files={name: digest_bytes(data) for name, data in files.items()},
            summary=summary,
            seconds=seconds,
            attempt=attempt,
            lane=lane,
        )
        first = self._store.create(f"done/{planned.digest}.json", _dump(asdict(done)))
        self.checkpoints(planned).clear()  # whoever was first: the fit is done
        return first

    def record_failure(
        self, planned: PlannedFit, *, error: str, traceback: str, final: bool
    ) -> None:
        """Write down an attempt that raised."""
        failure = FailedAttempt(
            planned.digest, planned.name, self._submission, error, traceback, final
        )
        suffix = "final" if final else uuid.uuid4().hex[:8]
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        key = f"failed/{planned.digest}/{self._submission}-{stamp}-{suffix}.json"
        self._store.write(key, _dump(asdict(failure)))

    def read_done(self, digest: str) -> DoneFit | None:
        """Return the committed result of a fit, or None."""
        key = f"done/{digest}.json"
        return _DONE.validate_json(self._store.read(key)) if self._store.exists(key) else None

    def read_failures(self, digest: str) -> list[FailedAttempt]:
        """Return the failed attempts of a fit, oldest first."""
        keys = sorted((info.key for info in self._store.list(f"failed/{digest}/")), key=_stamp_of)
        return [FailedAttempt(**json.loads(self._store.read(key))) for key in keys]

    def read_file(self, done: DoneFit, name: str) -> bytes:
        """Return one file of a finished fit; raises BundleError where it was altered."""
        data = self._store.read(f"{done.prefix}/{name}")
        if digest_bytes(data) != done.files[name]:
            raise BundleError(
                f"{name} of {done.name} as it was committed",
                "other bytes",
                f"delete {self._store.uri_of(f'done/{done.digest}.json')} and run the grid again",
            )
        return data

    def read_by_fold(self, digests: Iterable[str], name: str) -> dict[int, list[bytes]] | None:
        """Return one file of each of these fits by their folds; None where one is not done."""
        wanted = [self.read_done(digest) for digest in digests]
        done = [fit for fit in wanted if fit is not None]
        if len(done) < len(wanted):
            return None
        files: dict[int, list[bytes]] = {}
        for each in done:
            files.setdefault(each.fit.fold, []).append(self.read_file(each, name))
        return files


def _claims(digest: str) -> str:
    return f"{CLAIMS}/{digest}"


def _stamp_of(key: str) -> str:
    """When a failure was written: `<submission>-<stamp>-<suffix>.json`."""
    return key.rsplit("/", 1)[-1].partition("-")[2]


def _digest_of_key(key: str) -> str:
    return key.rsplit("/", 1)[-1].removesuffix(".json")


def _dump(values: dict[str, Any]) -> bytes:
    return json.dumps(values, indent=1, sort_keys=True).encode()
