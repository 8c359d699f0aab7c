"""The ledger of fits: who works on what, what is done, what failed and why.

    fits/claims/<digest>/...         leases of the lanes that try
    fits/work/<digest>/<attempt>/    files of one attempt, checkpoints beside them
    fits/done/<digest>.json          the commit: one conditional PUT, the first one wins
    fits/failed/<digest>/<n>.json    a failed attempt with its traceback

Fits are content-addressed and shared by all runs of a workspace.
"""

import json
import time
import uuid
from dataclasses import asdict, dataclass
from typing import Any

from hipray.digests import digest_bytes
from hipray.errors import BundleError
from hipray.storage import Lease, Store, acquire, holder
from hipray.training.checkpoints import CheckpointStore
from hipray.training.plan import PlannedFit, describe_fit
from hipray.vocab import FitState


@dataclass(frozen=True)
class DoneFit:
    """The committed result of a fit."""

    digest: str
    name: str
    fit: dict[str, Any]
    prefix: str
    """Where its files lie."""
    files: dict[str, str]
    """File name to sha256."""
    summary: dict[str, Any]
    seconds: float
    attempt: int
    lane: str


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
        done = {_digest_of_key(info.key) for info in self._store.list("done/")}
        failures: dict[str, int] = {}
        for info in self._store.list("failed/"):
            _, digest, name = info.key.split("/")
            if name.startswith(f"{self._submission}-"):
                weight = self._max_attempts if name.endswith("-final.json") else 1
                failures[digest] = failures.get(digest, 0) + weight
        failed = {d for d, count in failures.items() if count >= self._max_attempts} - done
        return Snapshot(frozenset(done), frozenset(failed))

    def claim(self, planned: PlannedFit, lane: str) -> Lease | None:
        """Return a lease on `planned`, or None while another lane holds it."""
        return acquire(
            self._store, f"claims/{planned.digest}", ttl_s=self._lease_s, owner_note=lane
        )

    def is_claimed(self, digest: str) -> bool:
        """Whether a live lane works on the fit."""
        return holder(self._store, f"claims/{digest}") is not None

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
            fit=describe_fit(planned.fit),
            prefix=prefix,
            files={name: digest_bytes(data) for name, data in files.items()},
            summary=summary,
            seconds=seconds,
            attempt=attempt,
            lane=lane,
        )
        first = self._store.create(f"done/{planned.digest}.json", _dump(asdict(done)))
        if first:
            self.checkpoints(planned).clear()
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
        return DoneFit(**json.loads(self._store.read(key))) if self._store.exists(key) else None

    def read_failures(self, digest: str) -> list[FailedAttempt]:
        """Return the failed attempts of a fit, oldest first."""
        keys = [info.key for info in self._store.list(f"failed/{digest}/")]
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

    def state(self, digest: str, snapshot: Snapshot) -> FitState:
        """Return where one fit stands."""
        if digest in snapshot.done:
            return FitState.DONE
        if digest in snapshot.failed:
            return FitState.FAILED
        return FitState.RUNNING if self.is_claimed(digest) else FitState.WAITING


def _digest_of_key(key: str) -> str:
    return key.rsplit("/", 1)[-1].removesuffix(".json")


def _dump(values: dict[str, Any]) -> bytes:
    return json.dumps(values, indent=1, sort_keys=True).encode()
