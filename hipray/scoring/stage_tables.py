"""What one stage of scoring hands to the next: Arrow tables of one row, a whole shard."""

from typing import Any

import pyarrow as pa

WORK_SCHEMA = pa.schema([("work", pa.string())])
"""From the lister: films to score into one part."""
DECODED_SCHEMA = pa.schema(
    [
        ("work", pa.string()),
        ("notes", pa.large_string()),
        ("pixels", pa.large_binary()),
        ("letters", pa.large_string()),
    ]
)
"""From a decoder: its films as `packing` packs them, and letters for those it could not have."""
OUTCOME_SCHEMA = pa.schema(
    [
        ("part", pa.string()),
        ("files", pa.int64()),
        ("letters", pa.large_string()),
        ("published", pa.bool_()),
        ("unlike_listed", pa.int64()),
    ]
)
"""From a scorer: what became of the work, whose rows are in the part."""


def build_stage_row(schema: pa.Schema, row: dict[str, Any]) -> pa.Table:
    """Return a table of one row; absent columns are null."""
    return pa.Table.from_pylist([row], schema=schema)
