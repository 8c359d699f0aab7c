"""What the parts of a run add up to, counted again from the parts themselves."""

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from hipray import RESEARCH_NOTICE
from hipray.data.manifest import read_table
from hipray.errors import DataError
from hipray.releases.release import Release
from hipray.scoring.parts import PartNames
from hipray.scoring.rows import SCHEMA_VERSION, Outcome
from hipray.storage import Store

SUMMARY_KEY = "summary.json"
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
READ_AHEAD = 16
"""Parts that are read at once."""
COUNTED_COLUMNS = [
    "key", "hip_index", "outcome", "refusal_code", "headline_probability", "headline_abnormal"
]  # fmt: skip


@dataclass
class Tally:
    """Counts over parts; files are scored where any row of theirs is."""

    scored: int = 0
    refused: int = 0
    rows: int = 0
    parts: int = 0
    hips: int = 0
    """Hips with at least one probability."""
    abnormal: int = 0
    """Hips at or above the release's headline threshold."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Refused files by code."""
    headline: list[float] = field(default_factory=list)
    """Headline probability of each scored hip."""

    def add(self, rows: pd.DataFrame) -> None:
        """Count one part."""
        is_scored = rows["outcome"] == Outcome.SCORED
        files = is_scored.groupby(rows["key"]).any()
        refused = rows[~rows["key"].map(files)].drop_duplicates("key")
        hips = rows[is_scored].drop_duplicates(["key", "hip_index"])
        self.parts += 1
        self.rows += len(rows)
        self.scored += int(files.sum())
        self.refused += len(refused)
        self.refusals.update(refused["refusal_code"])
        self.hips += len(hips)
        self.abnormal += int((hips["headline_abnormal"] == True).sum())  # noqa: E712 - may be null
        self.headline.extend(hips["headline_probability"].dropna())

    def quantiles(self) -> dict[str, float]:
        """Return quantiles of the headline probability, by their level."""
        if not self.headline:
            return {}
        values = np.quantile(np.asarray(self.headline), QUANTILES)
        return {str(level): float(value) for level, value in zip(QUANTILES, values, strict=True)}


def count_parts(output: Store, names: PartNames, shard_ids: Sequence[str]) -> Tally:
    """Read the parts of the named shards and count them."""
    tally = Tally()
    keys = iter([names.key(shard_id) for shard_id in shard_ids])
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        while chunk := list(islice(keys, READ_AHEAD)):
            for table in pool.map(lambda key: read_table(output, key), chunk):
                tally.add(table.select(COUNTED_COLUMNS).to_pandas())
    return tally


def check_counts(tally: Tally, *, listed: int, failed: int) -> None:
    """Raise DataError unless listed = scored + refused + failed."""
    if listed != tally.scored + tally.refused + failed:
        raise DataError(
            f"{listed} files listed to be scored, refused or failed",
            f"{tally.scored} scored, {tally.refused} refused and {failed} failed",
            "use another output: parts or the index of this one were altered",
        )


def build_summary(
    release: Release, names: PartNames, tally: Tally, *, listed: int, failed: int
) -> dict[str, Any]:
    """Return the counts and the distribution of a run as JSON values."""
    return {
        "files": {
            "listed": listed,
            "scored": tally.scored,
            "refused": tally.refused,
            "failed": failed,
        },
        "refusals": dict(sorted(tally.refusals.items())),
        "hips": {"scored": tally.hips, "headline_abnormal": tally.abnormal},
        "headline_threshold": release.headline_threshold,
        "headline_quantiles": tally.quantiles(),
        "rows": tally.rows,
        "parts": {"count": tally.parts, "pattern": names.pattern},
        "release": {"name": release.name, "digest": release.digest},
        "data_source": release.data_source.value,
        "schema_version": SCHEMA_VERSION,
        "research_notice": RESEARCH_NOTICE,
    }


def write_summary(output: Store, summary: dict[str, Any]) -> None:
    """Write the summary of the latest submission."""
    output.write(SUMMARY_KEY, json.dumps(summary, indent=1).encode())
