"""What each lane says of itself.

`hipray status` and the driver read it. A note is a remark, not a claim: who works on a fit is
told by its lease alone.
"""

import json
import logging
import time
from dataclasses import asdict, dataclass, replace

from hipray.errors import StorageError
from hipray.storage import Store
from hipray.storage.processes import current_process
from hipray.training.run_keys import RunKeys

NOTE_INTERVAL_S = 5.0
"""Least seconds between two notes on the progress of one fit."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LaneNote:
    """Where a lane is."""

    lane: str
    host: str
    pid: int
    fit: str = ""
    """Name of the fit it works on; empty while it waits for one."""
    epoch: int = 0
    epochs: int = 0
    since_s: float = 0.0
    """Unix time at which the lane took up what it does."""
    written_s: float = 0.0
    ended: bool = False


class LaneNotes:
    """The notes of one lane; a note that cannot be written is left out."""

    def __init__(self, store: Store, run: str, lane: str) -> None:
        process = current_process()
        self._store = store
        self._key = RunKeys(run).lane(lane)
        self._note = LaneNote(lane, process.host, process.pid, since_s=time.time())

    def wait(self) -> None:
        """Note that the lane waits for a fit."""
        if self._note.fit:
            self._note = replace(self._note, fit="", epoch=0, epochs=0, since_s=time.time())
        self._write_now_and_then()

    def begin(self, fit: str) -> None:
        """Note that the lane starts on a fit."""
        self._note = replace(self._note, fit=fit, epoch=0, epochs=0, since_s=time.time())
        self._write()

    def report(self, epoch: int, epochs: int) -> None:
        """Note how far the fit is."""
        self._note = replace(self._note, epoch=epoch, epochs=epochs)
        self._write_now_and_then()

    def end(self) -> None:
        """Note that the lane has ended."""
        self._note = replace(self._note, fit="", epoch=0, epochs=0, ended=True)
        self._write()

    def _write_now_and_then(self) -> None:
        if time.time() - self._note.written_s >= NOTE_INTERVAL_S:
            self._write()

    def _write(self) -> None:
        self._note = replace(self._note, written_s=time.time())
        try:
            self._store.write(self._key, json.dumps(asdict(self._note)).encode())
        except StorageError as error:  # no remark is worth a fit
            logger.warning("a lane's note was not written: %s", error)


def read_notes(store: Store, run: str) -> dict[str, LaneNote]:
    """Return the last note of every lane of a run, by lane."""
    keys = [info.key for info in store.list(RunKeys(run).lanes)]
    notes = [LaneNote(**json.loads(store.read(key))) for key in keys]
    return {note.lane: note for note in notes}


def clear_notes(store: Store, run: str) -> None:
    """Delete the notes of an earlier submission."""
    for info in list(store.list(RunKeys(run).lanes)):
        store.delete(info.key)
