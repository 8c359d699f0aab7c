"""Parts: one Parquet object per shard, written by one exclusive create; resume is one listing.

part-<shard>-<release>-<settings>.parquet
"""

import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from hipray.config.images import ImageLimits
from hipray.data.images import PREPROCESSING_VERSION
from hipray.digests import digest_of
from hipray.releases.release import Release
from hipray.scoring.rows import SCHEMA_VERSION
from hipray.storage import Store

PREFIX = "part-"
"""Marks a part beside the index and the summary of an output."""


@dataclass(frozen=True)
class PartNames:
    """The names of the parts that one release and its settings make of shards."""

    suffix: str

    @classmethod
    def of(cls, release: Release, limits: ImageLimits) -> "PartNames":
        """Return the names for a release and the settings that shape rows."""
        settings = digest_of([limits, PREPROCESSING_VERSION, SCHEMA_VERSION])
        return cls(f"-{release.digest[:12]}-{settings[:8]}.parquet")

    @property
    def pattern(self) -> str:
        """The glob of these parts below the output."""
        return f"{PREFIX}*{self.suffix}"

    def key(self, shard_id: str) -> str:
        """Return the key of a shard's part."""
        return f"{PREFIX}{shard_id}{self.suffix}"

    def list_finished(self, output: Store) -> frozenset[str]:
        """Return the ids of the shards that have a part."""
        found = (
            info.key
            for info in output.list()
            if info.key.startswith(PREFIX) and info.key.endswith(self.suffix)
        )
        return frozenset(key.removeprefix(PREFIX).removesuffix(self.suffix) for key in found)


def write_part(output: Store, key: str, table: pa.Table) -> bool:
    """Write one part whole; return False where it was there already, which changes nothing."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return output.create(key, buffer.getvalue())
