"""Parts: one Parquet object per shard, written by one exclusive create; resume is one listing.

    parts/scored_by=<release>-<config>-<runtime>/<shard>.parquet
                                                 <shard>.r001.parquet  what was read again

A part says in its metadata which films of its shard the store would not give: rows and dead
letters are one commit. The folder is a Hive partition, so DuckDB, pandas and Spark read `parts/`
as one table with the column `scored_by`.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from hipray.config.jobs import ScoreRun
from hipray.data.fetching import map_ahead
from hipray.data.images import PREPROCESSING_VERSION
from hipray.digests import digest_of
from hipray.errors import DataError
from hipray.releases.release import Release
from hipray.scoring.faults import FailedFilm, dump_letters, parse_letters
from hipray.scoring.rows import SCHEMA_VERSION
from hipray.storage import Store

FOLDER = "parts"
SUFFIX = ".parquet"
LETTERS = b"dead_letters"
"""Key of a part's metadata: the dead letters as JSON."""
READ_AHEAD = 16
"""Parts that are read at once."""


@dataclass(frozen=True)
class Part:
    """A part as it was read."""

    name: str
    """Its name without the suffix."""
    table: pa.Table
    letters: tuple[FailedFilm, ...]


@dataclass(frozen=True)
class PartSet:
    """The parts that one release makes of shards under one configuration and runtime."""

    folder: str

    @classmethod
    def of(cls, release: Release, config: ScoreRun) -> "PartSet":
        """Return the parts of a release, the settings that shape rows, and the runtime."""
        on_gpu = config.gpus_per_actor > 0
        settings = [config.limits, PREPROCESSING_VERSION, SCHEMA_VERSION, on_gpu, config.precision]
        made_by = f"{release.digest[:12]}-{digest_of(settings)[:8]}-{config.runtime}"
        return cls(f"{FOLDER}/scored_by={made_by}")

    @property
    def name(self) -> str:
        """What other folders about these parts are named after."""
        return self.folder.rpartition("/")[2]

    @property
    def pattern(self) -> str:
        """The glob of these parts below the output."""
        return f"{self.folder}/*{SUFFIX}"

    def key(self, name: str) -> str:
        """Return the key of a part."""
        return f"{self.folder}/{name}{SUFFIX}"

    def list_between(self, output: Store, first: str, last: str) -> Iterator[str]:
        """List the parts from one position to another in order, those of retries among them."""
        for name in self._list(output, start_after=f"{self.folder}/{first}"):
            if name[: len(last)] > last:
                return
            yield name

    def list_rounds(self, output: Store, shard: str) -> Iterator[str]:
        """List the part of a shard and those of its retries, in order."""
        for name in self._list(output, start_after=f"{self.folder}/{shard}"):
            if shard_of(name) != shard:
                return
            yield name

    def list_all(self, output: Store) -> Iterator[str]:
        """List all parts in order."""
        return self._list(output, start_after=None)

    def _list(self, output: Store, *, start_after: str | None) -> Iterator[str]:
        names = (
            info.key.removeprefix(f"{self.folder}/").removesuffix(SUFFIX)
            for info in output.list(self.folder, start_after=start_after)
            if info.key.endswith(SUFFIX)
        )
        for _, rounds in groupby(names, key=shard_of):
            yield from sorted(rounds, key=_round_of)  # r1000 comes after r999

    def read(
        self, output: Store, names: Iterable[str], *, columns: list[str] | None = None
    ) -> Iterator[Part]:
        """Yield parts in order, reading ahead, with all columns or some.

        Raises DataError where one is no part.
        """
        read = partial(read_part, output, self, columns=columns)
        return map_ahead(read, names, threads=READ_AHEAD)


def shard_of(part: str) -> str:
    """Return the name of the shard whose films a part holds."""
    return part.partition(".")[0]


def is_retry(part: str) -> bool:
    """Tell whether a part holds what failed of a shard before."""
    return shard_of(part) != part


def name_retry(shard: str, number: int) -> str:
    """Return the part of what is read again of a shard in a submission of some number."""
    return f"{shard}.r{number:03d}"


def _round_of(part: str) -> int:
    return int(part.partition(".r")[2] or 0)


def write_part(
    output: Store, key: str, table: pa.Table, letters: Sequence[FailedFilm] = ()
) -> bool:
    """Write one part whole; return False where it was there already, which changes nothing.

    Films that are read again later leave it: `retraction` writes it anew without them.
    """
    return output.create(key, dump_part(table, letters))


def dump_part(table: pa.Table, letters: Sequence[FailedFilm]) -> bytes:
    """Return a part's bytes: the same for the same rows and letters."""
    metadata = {**(table.schema.metadata or {}), LETTERS: dump_letters(letters).encode()}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
    return buffer.getvalue()


def read_part(
    output: Store, parts: PartSet, name: str, *, columns: list[str] | None = None
) -> Part:
    """Read one part, with all columns or some; raises DataError where it is no part."""
    key = parts.key(name)
    data = output.read(key)
    try:
        table = pq.read_table(io.BytesIO(data), columns=columns, use_threads=False)
        letters = parse_letters((table.schema.metadata or {})[LETTERS])
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            "a part as it was written", f"{output.uri_of(key)}: {error}", "delete it and run again"
        ) from None
    return Part(name, table, tuple(letters))
