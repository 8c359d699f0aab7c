"""Parts that were not written, for nothing of their films could be had: the dead letters instead.

    unpublished/<as the parts>/<part>.json

A shard without a part stays open. The next submission asks for it again, after all that nobody has
tried; for one of archived films alone only where it retries what failed. A retry that would add
nothing to its shard's parts is noted without letters: it is done.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from hipray.data.fetching import map_ahead
from hipray.errors import NotFoundError
from hipray.scoring.faults import FailedFilm, dump_letters, parse_letters
from hipray.scoring.parts import PartSet, is_retry, shard_of
from hipray.storage import Store

FOLDER = "unpublished"
SUFFIX = ".json"
READ_AHEAD = 16
"""Notes that are read at once."""


class Unpublished:
    """The notes beside one set of parts."""

    def __init__(self, output: Store, parts: PartSet) -> None:
        self._output = output
        self._parts = parts
        self._store = output.child(f"{FOLDER}/{parts.name}")

    def note(self, part: str, letters: Sequence[FailedFilm]) -> None:
        """Note why a part is not written, in place of what was noted of it before."""
        self._store.write(f"{part}{SUFFIX}", dump_letters(letters).encode())

    def names(self) -> Iterator[str]:
        """List the parts that were noted, in order, whatever became of them later."""
        return (info.key.removesuffix(SUFFIX) for info in self._store.list())

    def read(self, shard: str) -> list[FailedFilm]:
        """Return the letters of a shard; none where it was not noted."""
        try:
            return parse_letters(self._store.read(f"{shard}{SUFFIX}"))
        except NotFoundError:
            return []

    def letters(self) -> Iterator[tuple[str, FailedFilm]]:
        """Yield the letters of all shards that have no part, reading ahead."""
        open_shards = (name for name, is_settled in self._settle() if not is_settled)
        for shard, letters in self.read_all(open_shards):
            yield from ((shard, letter) for letter in letters)

    def read_all(self, shards: Iterable[str]) -> Iterator[tuple[str, list[FailedFilm]]]:
        """Yield shards with their letters, as `read` has them, reading ahead."""
        return map_ahead(lambda shard: (shard, self.read(shard)), shards, threads=READ_AHEAD)

    def tidy(self, check_held: Callable[[], None]) -> None:
        """Delete the notes of retries, and of shards that have a part by now."""
        for name, is_settled in self._settle():
            if is_settled:
                check_held()
                self._store.delete(f"{name}{SUFFIX}")

    def _settle(self) -> Iterator[tuple[str, bool]]:
        """Yield each name, and whether its shard's parts say all: both are listed in order."""
        written = self._parts.list_all(self._output)
        latest = next(written, None)
        for name in self.names():
            while latest is not None and shard_of(latest) < shard_of(name):
                latest = next(written, None)
            is_written = latest is not None and shard_of(latest) == shard_of(name)
            yield name, is_retry(name) or is_written
