"""Parts: one Parquet object per shard, written by one exclusive create; resume is one listing.

    parts/scored_by=<release>-<config>-<runtime>/<shard>.parquet
                                                 <shard>.r001.parquet  what was read again

A part says in its metadata which films of its shard the store would not give: rows and dead
letters are one commit. The folder is a Hive partition, so DuckDB, pandas and Spark read `parts/`
as one table with the column `scored_by`.
"""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hipray.config.jobs import ScoreRun
from hipray.data.images import PREPROCESSING_VERSION
from hipray.digests import digest_of
from hipray.errors import DataError
from hipray.releases.release import Release
from hipray.scoring.faults import FailedFilm, dump_letters, parse_letters
from hipray.scoring.films import UNLIKE_LISTED
from hipray.scoring.rows import SCHEMA_VERSION
from hipray.scoring.shards import Entry
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
        for info in output.list(self.folder, start_after=start_after):
            if info.key.endswith(SUFFIX):
                yield info.key.removeprefix(f"{self.folder}/").removesuffix(SUFFIX)

    def read(self, output: Store, names: Iterator[str]) -> Iterator[Part]:
        """Yield parts in order, reading ahead; raises DataError where one is no Parquet."""
        with ThreadPoolExecutor(READ_AHEAD) as pool:
            while chunk := list(islice(names, READ_AHEAD)):
                yield from pool.map(lambda name: read_part(output, self, name), chunk)


def shard_of(part: str) -> str:
    """Return the name of the shard whose films a part holds."""
    return part.partition(".")[0]


def is_retry(part: str) -> bool:
    """Tell whether a part holds what failed of a shard before."""
    return shard_of(part) != part


def write_part(
    output: Store, key: str, table: pa.Table, letters: Sequence[FailedFilm] = ()
) -> bool:
    """Write one part whole; return False where it was there already, which changes nothing."""
    return output.create(key, dump_part(table, letters))


def dump_part(table: pa.Table, letters: Sequence[FailedFilm]) -> bytes:
    """Return a part's bytes: the same for the same rows and letters."""
    metadata = {**(table.schema.metadata or {}), LETTERS: dump_letters(letters).encode()}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
    return buffer.getvalue()


def read_part(output: Store, parts: PartSet, name: str) -> Part:
    """Read one part; raises DataError where it is no part."""
    key = parts.key(name)
    data = output.read(key)
    try:
        table = pq.read_table(io.BytesIO(data))
        letters = parse_letters((table.schema.metadata or {})[LETTERS])
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            "a part as it was written", f"{output.uri_of(key)}: {error}", "delete it and run again"
        ) from None
    return Part(name, table, tuple(letters))


def list_retries(output: Store, parts: PartSet) -> Iterator[tuple[str, tuple[Entry, ...]]]:
    """Yield the part to write and the films for what is unsettled of each published shard.

    Round n + 1 takes up what failed in round n and what was not as it was listed, so a retry is
    never done twice and nothing needs to be deleted for it.
    """
    read = parts.read(output, parts.list_all(output))
    for shard, rounds in groupby(read, key=lambda part: shard_of(part.name)):
        tried = list(rounds)
        if unsettled := _list_unsettled(tried):
            yield f"{shard}.r{len(tried):03d}", unsettled


def _list_unsettled(rounds: Sequence[Part]) -> tuple[Entry, ...]:
    """Return the films of a shard that may have another end now, in the order of their keys."""
    found: dict[str, Entry] = {}
    for part in rounds:
        for key in part.table["key"].to_pylist():
            found.pop(key, None)
        found |= {entry.key: entry for entry in _list_unlike_listed(part.table)}
    found |= {letter.entry.key: letter.entry for letter in rounds[-1].letters}
    return tuple(found[key] for key in sorted(found))


def _list_unlike_listed(table: pa.Table) -> Iterator[Entry]:
    is_one = pc.is_in(table["refusal_code"], pa.array(UNLIKE_LISTED))
    for row in table.filter(is_one).select(["key", "size", "listed_etag"]).to_pylist():
        yield Entry(row["key"], row["size"], row["listed_etag"])
