"""A list of keys instead of a listing: a CSV or Parquet file that names what to score."""

import csv
import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from hipray.config.storage import StorageSettings
from hipray.errors import DataError, StorageError
from hipray.scoring.shards import Entry
from hipray.storage import Store, open_file

KEY_COLUMN = "key"
ASKED_AHEAD = 32
"""Objects that are asked for at once: a list names no sizes and etags."""
PARQUET_MAGIC = b"PAR1"


def read_key_list(address: str, settings: StorageSettings, archive: Store) -> Iterator[str]:
    """Yield the listed keys in their order, each once, relative to `archive`.

    Raises DataError for a file that is no table, has no keys, or names another archive's object.
    """
    keys = _relative(_read_column(address, settings).combine_chunks().drop_null(), archive)
    keys = pc.unique(keys.filter(pc.not_equal(keys, "")))
    if not len(keys):
        raise DataError(f"keys in {address}", "none", "check the file")
    # by code point, as a listing and the ranges of the index are sorted
    ordered = keys.take(pc.array_sort_indices(keys))
    return (key.as_py() for key in ordered)


def check_key_list(address: str, settings: StorageSettings) -> None:
    """Raise what reading a key list would raise, before anything is started for it."""
    _read_column(address, settings)


def _read_column(address: str, settings: StorageSettings) -> pa.ChunkedArray:
    store, name = open_file(address, settings)
    data = store.read(name)
    try:
        table = _parse_parquet(data) if data.startswith(PARQUET_MAGIC) else _parse_csv(data)
    except (pa.ArrowInvalid, UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(
            "a CSV or Parquet file of keys", f"{address}: {error}", "check it"
        ) from None
    if KEY_COLUMN not in table.column_names:
        raise DataError(
            f"a column '{KEY_COLUMN}' in {address}",
            f"the columns {', '.join(table.column_names)}",
            "name the column of keys so",
        )
    return table.column(KEY_COLUMN).cast(pa.large_string())


def _parse_parquet(data: bytes) -> pa.Table:
    table = pq.read_table(io.BytesIO(data))
    return table.rename_columns([KEY_COLUMN]) if table.num_columns == 1 else table


def _parse_csv(data: bytes) -> pa.Table:
    """All columns as text, for a key may look like a number; one column needs no header."""
    first = next(csv.reader([data.partition(b"\n")[0].decode("utf-8-sig")]), [])
    names = [name.strip() for name in first]
    headless = len(names) == 1 and names != [KEY_COLUMN] and _is_key(names[0])
    names = [KEY_COLUMN] if headless else names
    return pyarrow.csv.read_csv(
        io.BytesIO(data),
        read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=0 if headless else 1),
        convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )


def _is_key(text: str) -> bool:
    """Whether a first line is a key already and no header: it has a folder or a suffix."""
    return "/" in text or "." in text


def _relative(keys: pa.Array, archive: Store) -> pa.Array:
    root = f"{archive.uri.rstrip('/')}/"
    for prefix in (f"file://{root}", root, "./"):
        short = pc.utf8_slice_codeunits(keys, start=len(prefix))
        keys = pc.if_else(pc.starts_with(keys, prefix), short, keys)
    foreign = keys.filter(pc.match_substring_regex(keys, "^(s3:/|file:/)?/"))
    if len(foreign):
        raise DataError(
            f"keys in {archive.uri}", f"'{foreign[0].as_py()}'", "score each archive for itself"
        )
    return keys


def describe_keys(archive: Store, keys: Iterable[str]) -> Iterator[Entry]:
    """Yield an entry for each key, in order.

    One without an object has size 0 and no etag, as has one that the store would not describe:
    the reading of it says why.
    """
    with ThreadPoolExecutor(ASKED_AHEAD) as pool:
        source = iter(keys)
        while chunk := list(islice(source, ASKED_AHEAD)):
            yield from pool.map(lambda key: _describe(archive, key), chunk)


def _describe(archive: Store, key: str) -> Entry:
    try:
        info = archive.info(key)
    except StorageError:
        info = None
    return Entry(key, 0, "") if info is None else Entry(key, info.size, info.etag)
