"""What the parts of a run add up to, counted again from the parts themselves in flat memory."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from hipray.errors import DataError
from hipray.releases.release import Release
from hipray.scoring.faults import FailedFilm, Fault
from hipray.scoring.films import UNLIKE_LISTED
from hipray.scoring.parts import Part, shard_of
from hipray.scoring.rows import SECONDS, Outcome, probability_column

BINS = 1000
"""Bins of equal width in which probabilities are counted: quantiles are exact to one of them."""
PARTS_AT_ONCE = 64
"""Parts that are counted together."""
HEADLINE = "headline_probability"

Counts = npt.NDArray[np.int64]


def probability_columns(release: Release) -> list[str]:
    """Return the columns of probabilities that a release fills, the headline first."""
    questions = [probability_column(label, region) for region, label in release.questions]
    return [HEADLINE, *questions]


@dataclass
class Histogram:
    """Probabilities counted in BINS bins of 0..1, and between the edges of a reference."""

    edges: Sequence[float] = ()
    """Sorted; a value at an edge lies above it, as in the reference."""
    counts: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))
    between: Counts = field(init=False)
    """Counts below the first edge, between edges, and above the last: however close they lie."""

    def __post_init__(self) -> None:
        self.between = np.zeros(len(self.edges) + 1, np.int64)

    def add(self, values: "pd.Series[float]") -> None:
        """Count values; null ones are left out."""
        known = values.dropna().to_numpy(np.float64)
        places = np.minimum((known * BINS).astype(np.int64), BINS - 1)
        self.counts += np.bincount(places, minlength=BINS)
        above = np.searchsorted(self.edges, known, side="right")
        self.between += np.bincount(above, minlength=len(self.between))

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def quantile(self, level: float) -> float | None:
        """Return the middle of the bin in which a quantile lies; None without values."""
        if not self.total:
            return None
        place = int(np.searchsorted(self.counts.cumsum(), max(1.0, level * self.total)))
        return (min(place, BINS - 1) + 0.5) / BINS

    def merge(self, bins: int) -> Counts:
        """Return the counts in fewer bins of equal width."""
        return np.asarray(self.counts.reshape(bins, -1).sum(axis=1))


@dataclass
class Tally:
    """Counts over parts; a file is scored where any hip of it is."""

    columns: list[str]
    """Columns of probabilities that are counted."""
    edges: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """What some of them are held against."""
    scored: int = 0
    refused: int = 0
    rows: int = 0
    parts: int = 0
    hips: int = 0
    """Scored hips."""
    abnormal: int = 0
    """Hips at or above the release's headline threshold."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Refused files by code."""
    unlike_listed: int = 0
    """Objects that a listing saw and that were gone or others when they were read."""
    hip_refusals: Counter[str] = field(default_factory=Counter)
    """Refused hips of files whose other hip is scored, by code."""
    findings: Counter[str] = field(default_factory=Counter)
    faults: Counter[Fault] = field(default_factory=Counter)
    """Films that the store would not give, by class."""
    fetch_seconds: float = 0.0
    decode_seconds: float = 0.0
    model_seconds: float = 0.0
    histograms: dict[str, Histogram] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Films that the store would not give."""
        return self.faults.total()

    @property
    def files(self) -> int:
        """Films of which something is known."""
        return self.scored + self.refused + self.failed

    @property
    def read_columns(self) -> list[str]:
        """The columns of a part that are looked at."""
        counted = [
            "key", "outcome", "refusal_code", "listed_etag", "headline_abnormal", "findings"
        ]  # fmt: skip
        return [*counted, *SECONDS, *self.columns]

    def add(self, *tables: pa.Table) -> None:
        """Count the rows of some parts: of many at once, for pandas takes long to begin."""
        if not tables:
            return
        rows = pa.concat_tables(table.select(self.read_columns) for table in tables).to_pandas()
        rows["part"] = np.repeat(range(len(tables)), list(map(len, tables)))
        scored = rows["outcome"] == Outcome.SCORED
        is_scored = scored.groupby([rows["part"], rows["key"]]).transform("any").astype(bool)
        files = rows.drop_duplicates(["part", "key"])
        refused = files[~is_scored[files.index]]
        self.parts += len(tables)
        self.rows += len(rows)
        self.scored += len(files) - len(refused)
        self.refused += len(refused)
        self.refusals.update(refused["refusal_code"])
        is_unlike = refused["refusal_code"].isin(UNLIKE_LISTED) & (refused["listed_etag"] != "")
        self.unlike_listed += int(is_unlike.sum())
        self.hip_refusals.update(rows["refusal_code"][~scored & is_scored])
        self.hips += int(scored.sum())
        self.abnormal += int((rows["headline_abnormal"] == True).sum())  # noqa: E712 - may be null
        self.findings.update(f for listed in rows["findings"].dropna() for f in listed)
        self.fetch_seconds += float(files["fetch_seconds"].sum())
        self.decode_seconds += float(files["decode_seconds"].sum())
        self.model_seconds += float(files["model_seconds"].sum())
        for column in self.columns:
            if column not in self.histograms:
                self.histograms[column] = Histogram(self.edges.get(column, ()))
            self.histograms[column].add(rows[column])


def count_parts(parts: Iterable[Part], tally: Tally) -> Iterator[tuple[str, FailedFilm]]:
    """Count parts, sorted by name, and yield the dead letters that no retry has settled."""
    waiting: list[pa.Table] = []
    for shard, rounds in groupby(parts, key=lambda part: shard_of(part.name)):
        letters: tuple[FailedFilm, ...] = ()
        for part in rounds:
            waiting.append(part.table)
            letters = part.letters
        if len(waiting) >= PARTS_AT_ONCE:
            tally.add(*waiting)
            waiting.clear()
        tally.faults.update(letter.fault for letter in letters)
        yield from ((shard, letter) for letter in letters)
    tally.add(*waiting)


def check_counts(tally: Tally, *, listed: int) -> None:
    """Raise DataError unless listed = scored + refused + failed."""
    if listed != tally.files:
        raise DataError(
            f"{listed} files listed to be scored, refused or failed",
            f"{tally.scored} scored, {tally.refused} refused and {tally.failed} failed",
            "use another output: parts or the index of this one were altered",
        )
