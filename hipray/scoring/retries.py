"""What `retry = "failed"` takes up again: films of published shards that may have another end now.

    retries/<as the parts>/<submission>/<part>.json

They are written down before the submission begins, so that what a lost machine took along is known
by its name, and what fails meanwhile is left to the next submission.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import pyarrow as pa
import pyarrow.compute as pc

from hipray.config.jobs import ScoreRun
from hipray.data.fetching import map_ahead
from hipray.releases.release import Release
from hipray.scoring.faults import FailedFilm, Fault
from hipray.scoring.films import UNLIKE_LISTED
from hipray.scoring.outputs import open_patient_output
from hipray.scoring.parts import Part, PartSet, name_retry, shard_of
from hipray.scoring.rows import SECONDS, Row
from hipray.scoring.shards import Entry
from hipray.scoring.unpublished import Unpublished
from hipray.scoring.work import Work
from hipray.storage import Store
from hipray.vocab import RefusalCode

FOLDER = "retries"
SUFFIX = ".json"
COLUMNS = ["key", "size", "listed_etag", "refusal_code"]
TRIED_AGAIN = (*UNLIKE_LISTED, RefusalCode.DECODER_CRASH)
"""Refusals that may have another end: the object is back, or the machine was short of memory."""
AT_ONCE = 16
"""Objects that are written or read at once."""


class Retries:
    """What one submission reads again."""

    def __init__(self, output: Store, parts: PartSet, submission: int) -> None:
        self._output = output
        self._parts = parts
        self._submission = submission
        self._folder = f"{submission:06d}"
        self._store = output.child(f"{FOLDER}/{parts.name}")

    def plan(self) -> int:
        """Write down what is unsettled of each published shard; return of how many it is."""
        written = map_ahead(self._write, self._list_unsettled(), threads=AT_ONCE)
        return sum(1 for _ in written)

    def _write(self, work: Work) -> None:
        self._store.write(self._key(work.part), work.dump().encode())

    def _key(self, part: str) -> str:
        return f"{self._folder}/{part}{SUFFIX}"

    def _list_unsettled(self) -> Iterator[Work]:
        parts, output = self._parts, self._output
        read = parts.read(output, parts.list_all(output), columns=COLUMNS)
        for shard, rounds in groupby(read, key=lambda part: shard_of(part.name)):
            if unsettled := _list_unsettled(list(rounds)):
                yield Work(name_retry(shard, self._submission), unsettled)

    def open(self) -> list[str]:
        """Return the planned parts that are neither written nor noted as failed."""
        planned = (info.key for info in self._store.list(self._folder))
        left = {key.rpartition("/")[2].removesuffix(SUFFIX) for key in planned}
        if left:
            left.difference_update(self._parts.list_all(self._output))
            left.difference_update(Unpublished(self._output, self._parts).names())
        return sorted(left)

    def read(self, names: Iterable[str]) -> Iterator[str]:
        """Yield the work of planned parts as `Work.dump` writes it, reading ahead."""
        texts = map_ahead(self._store.read, map(self._key, names), threads=AT_ONCE)
        return (text.decode() for text in texts)

    def forget(self) -> None:
        """Delete the plan when its submission has ended, and those of submissions before."""
        for info in self._store.list():
            if info.key.partition("/")[0] <= self._folder:  # a driver that took over has its own
                self._store.delete(info.key)


def list_retry_work(payload: str, release_text: str, submission: int) -> Iterator[str]:
    """Yield what a submission has planned to read again and has not, as `Work.dump` writes it."""
    config = ScoreRun.model_validate_json(payload)
    parts = PartSet.of(Release.model_validate_json(release_text), config)
    output = open_patient_output(config)
    retries = Retries(output, parts, submission)
    yield from retries.read(retries.open())


def _list_unsettled(rounds: Sequence[Part]) -> tuple[Entry, ...]:
    """Return the films of a shard that may have another end now, in the order of their keys."""
    found: dict[str, Entry] = {}
    for part in rounds:
        for key in part.table["key"].to_pylist():
            found.pop(key, None)
        found |= {entry.key: entry for entry in _list_tried_again(part.table)}
    found |= {letter.entry.key: letter.entry for letter in rounds[-1].letters}
    return tuple(found[key] for key in sorted(found))


def _list_tried_again(table: pa.Table) -> Iterator[Entry]:
    is_one = pc.is_in(table["refusal_code"], pa.array(TRIED_AGAIN))
    for row in table.filter(is_one).select(["key", "size", "listed_etag"]).to_pylist():
        yield Entry(row["key"], row["size"], row["listed_etag"])


def adds_nothing(
    output: Store, parts: PartSet, work: Work, table: pa.Table, letters: Sequence[FailedFilm]
) -> bool:
    """Tell whether a retry found each of its films as the parts of its shard have it already."""
    known: dict[str, list[Row] | Fault] = {}
    for part in parts.read(output, parts.list_rounds(output, shard_of(work.part))):
        known |= _describe_ends(part.table, part.letters)
    found = _describe_ends(table, letters)
    return all(known.get(key) == end for key, end in found.items())


def _describe_ends(table: pa.Table, letters: Sequence[FailedFilm]) -> dict[str, list[Row] | Fault]:
    """Return by key what became of films, but for the seconds that it took."""
    rows = sorted(table.drop_columns(list(SECONDS)).to_pylist(), key=itemgetter("key"))
    ends = {key: list(own) for key, own in groupby(rows, key=itemgetter("key"))}
    return ends | {letter.entry.key: letter.fault for letter in letters}
