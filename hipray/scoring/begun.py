"""Work that ends the process that does it: noticed, and given up after some tries.

    begun/<as the parts>/<stage>/<part>/<try>      begun by a process that was restarted

Ray restarts a process that died and hands it the same work again. Whether a machine was lost or
the work itself is to blame, say too large for the memory, nobody can tell the first time. So only a
restarted process notes what it begins and takes the note away when it is done: what was begun often
and never ended is not begun again. A GPU that fails ends the process, too.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hipray.errors import ProcessLostError, StoreUnavailableError
from hipray.scoring.faults import FailedFilm
from hipray.scoring.work import Work
from hipray.storage import Store

FOLDER = "begun"
MOST_TRIES = 3
"""Times that restarted processes begin the same work."""


class BegunWork:
    """The notes of one stage of the processes that make one set of parts."""

    def __init__(self, output: Store, parts_folder: str, stage: str) -> None:
        self._stage = stage
        self._store = output.child(f"{FOLDER}/{parts_folder.rpartition('/')[2]}/{stage}")

    @contextmanager
    def noted(self, work: Work, *, restarted: bool) -> Iterator[list[FailedFilm]]:
        """Do the block's work under a note, or give dead letters for its films instead of it.

        Yields no letters where the work is to be done. A block that raises has ended, too.
        """
        if not restarted:
            yield []
            return
        tries, letters = self._begin(work.part), []
        if tries >= MOST_TRIES:
            error = self._explain(work)
            letters = [FailedFilm.of(entry, error, tries=tries + 1) for entry in work.entries]
        try:
            yield letters
        finally:
            with suppress(StoreUnavailableError):
                for number in range(tries + 1):
                    self._store.delete(f"{work.part}/{number}")

    def _begin(self, part: str) -> int:
        """Note that a part is begun; return how often it was before.

        A store out of reach costs the note and not the run: the work itself will tell.
        """
        try:
            tries = sum(1 for _ in self._store.list(part))
            if tries < MOST_TRIES:
                self._store.write(f"{part}/{tries}", b"")
        except StoreUnavailableError:
            return 0
        return tries

    def _explain(self, work: Work) -> ProcessLostError:
        return ProcessLostError(
            f"a {self._stage} that outlives the {len(work.entries)} films of part {work.part}",
            f"{MOST_TRIES + 1} whose process ended with them",
            "give it more memory, lower shard_files or take a machine with a broken GPU away, then "
            "submit again",
        )
