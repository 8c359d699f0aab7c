"""The summary of an output: its counts and distributions, as JSON for programs and as a page.

summary.json  summary.html     what the parts add up to, counted from the parts
dead-letters/letters.parquet   films that the store would not give, with the reason
"""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hipray import RESEARCH_NOTICE
from hipray.errors import StoreFullError
from hipray.releases.release import Release
from hipray.scoring.drift import measure_drift
from hipray.scoring.faults import FailedFilm
from hipray.scoring.page import write_page
from hipray.scoring.parts import PartSet
from hipray.scoring.rows import SCHEMA_VERSION
from hipray.scoring.tally import Tally
from hipray.storage import Store
from hipray.storage.local import explained

SUMMARY_KEY = "summary.json"
PAGE_KEY = "summary.html"
LETTERS_KEY = "dead-letters/letters.parquet"
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
SHOWN_BINS = 20
"""Bars of a distribution."""
LETTERS_AT_ONCE = 10_000
"""Dead letters that are in memory at a time."""
LETTER_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), metadata={"description": "key of the object"}),
        pa.field("etag", pa.string(), metadata={"description": "its etag when it was listed"}),
        pa.field("size", pa.int64(), metadata={"description": "its bytes when it was listed"}),
        pa.field("fault", pa.string(), metadata={"description": "class of the reason"}),
        pa.field("exception", pa.string(), metadata={"description": "class of the exception"}),
        pa.field("message", pa.string(), metadata={"description": "what it said"}),
        pa.field("tries", pa.int32(), metadata={"description": "rounds in which it was tried"}),
        pa.field("shard", pa.string(), metadata={"description": "shard that holds the key"}),
    ]
)


def build_summary(
    release: Release,
    parts: PartSet,
    tally: Tally,
    *,
    images: str,
    listed: int,
    left_out: dict[str, int] | None,
) -> dict[str, Any]:
    """Return the counts and the distributions of an output as JSON values."""
    return {
        "images": images,
        "files": {
            "listed": listed,
            "scored": tally.scored,
            "refused": tally.refused,
            "failed": tally.failed,
        },
        "left_out": left_out,
        "refusals": dict(sorted(tally.refusals.items())),
        "hip_refusals": dict(sorted(tally.hip_refusals.items())),
        "failures": {fault.value: count for fault, count in sorted(tally.faults.items())},
        "findings": dict(sorted(tally.findings.items())),
        "hips": {"scored": tally.hips, "headline_abnormal": tally.abnormal},
        "headline_threshold": release.headline_threshold,
        "distributions": {name: _describe(tally, name) for name in tally.columns},
        "drift": {d.column: d.as_dict() for d in measure_drift(release, tally.histograms)},
        "rows": tally.rows,
        "parts": {"count": tally.parts, "pattern": parts.pattern},
        "seconds": {
            "fetching": tally.fetch_seconds,
            "decoding": tally.decode_seconds,
            "networks": tally.model_seconds,
        },
        "release": {"name": release.name, "digest": release.digest},
        "data_source": release.data_source.value,
        "schema_version": SCHEMA_VERSION,
        "research_notice": RESEARCH_NOTICE,
    }


def _describe(tally: Tally, column: str) -> dict[str, Any]:
    histogram = tally.histograms.get(column)
    if histogram is None or not histogram.total:
        return {"hips": 0, "quantiles": {}, "bins": [0] * SHOWN_BINS}
    return {
        "hips": histogram.total,
        "quantiles": {str(level): histogram.quantile(level) for level in QUANTILES},
        "bins": histogram.merge(SHOWN_BINS).tolist(),
    }


def write_summary(output: Store, summary: dict[str, Any]) -> None:
    """Write the summary of the latest submission, as JSON and as a page."""
    output.write(PAGE_KEY, write_page(summary, letters=LETTERS_KEY).encode())
    output.write(SUMMARY_KEY, json.dumps(summary, indent=1).encode())


def write_letters(output: Store, letters: Iterable[tuple[str, FailedFilm]]) -> None:
    """Write the films that failed, each with its shard, as one Parquet table in flat memory.

    Raises StoreFullError where the disk has no room for the table on its way to the output.
    """
    rows, scratch = _letter_rows(letters), _find_scratch()
    with explained(scratch), TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder) / "letters.parquet"
        with pq.ParquetWriter(path, LETTER_SCHEMA, compression="zstd") as writer:
            while group := list(islice(rows, LETTERS_AT_ONCE)):
                writer.write_table(pa.Table.from_pylist(group, schema=LETTER_SCHEMA))
        output.write_file(path, LETTERS_KEY)


def _find_scratch() -> Path:
    try:
        return Path(gettempdir())
    except FileNotFoundError as error:  # Python's word for: no folder takes a byte
        raise StoreFullError(
            "room in a folder for temporary files", str(error.strerror),
            "free some space or set TMPDIR",
        ) from error  # fmt: skip


def _letter_rows(letters: Iterable[tuple[str, FailedFilm]]) -> Iterator[dict[str, object]]:
    for shard, letter in letters:
        yield {
            "key": letter.entry.key,
            "etag": letter.entry.etag,
            "size": letter.entry.size,
            "fault": letter.fault.value,
            "exception": letter.exception,
            "message": str(letter.error),
            "tries": letter.tries,
            "shard": shard,
        }
