"""A list of keys instead of a listing: a CSV or Parquet file that names what to score."""

import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from hipray.config.storage import StorageSettings
from hipray.errors import DataError
from hipray.scoring.shards import Entry
from hipray.storage import InvalidKeyError, Store, open_store

KEY_COLUMN = "key"
ASKED_AHEAD = 32
"""Objects that are asked for at once: a list names no sizes and etags."""
PARQUET_MAGIC = b"PAR1"


def read_key_list(address: str, settings: StorageSettings, archive: Store) -> Iterator[str]:
    """Yield the listed keys in their order, each once, relative to `archive`.

    Raises DataError for a file that is no table, has no keys, or names another archive's object.
    """
    column = _read_column(address, settings)
    keys = pc.unique(column.cast(pa.large_string()).combine_chunks()).drop_null()
    if not len(keys):
        raise DataError(f"keys in {address}", "none", "check the file")
    # by code point, as a listing and the ranges of the index are sorted
    ordered = keys.take(pc.array_sort_indices(keys))
    return (_relative(key.as_py(), archive) for key in ordered)


def _read_column(address: str, settings: StorageSettings) -> pa.ChunkedArray:
    folder, _, name = address.rpartition("/")
    data = open_store(folder or ".", settings).read(name)
    try:
        table = _parse(data)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            "a CSV or Parquet file of keys", f"{address}: {error}", "check it"
        ) from None
    return table.column(KEY_COLUMN if KEY_COLUMN in table.column_names else 0)


def _parse(data: bytes) -> pa.Table:
    if data.startswith(PARQUET_MAGIC):
        return pq.read_table(io.BytesIO(data))
    return pyarrow.csv.read_csv(io.BytesIO(data))


def _relative(key: str, archive: Store) -> str:
    root = f"{archive.uri.rstrip('/')}/"
    if key.startswith(root):
        return key.removeprefix(root)
    if urlsplit(key).scheme == "s3":
        raise DataError(f"keys in {archive.uri}", f"'{key}'", "score each archive for itself")
    return key.removeprefix("./")


def describe_keys(archive: Store, keys: Iterable[str]) -> Iterator[Entry]:
    """Yield an entry for each key, in order; one without an object has size 0 and no etag."""
    with ThreadPoolExecutor(ASKED_AHEAD) as pool:
        source = iter(keys)
        while chunk := list(islice(source, ASKED_AHEAD)):
            yield from pool.map(lambda key: _describe(archive, key), chunk)


def _describe(archive: Store, key: str) -> Entry:
    try:
        info = archive.info(key)
    except InvalidKeyError:
        info = None
    return Entry(key, 0, "") if info is None else Entry(key, info.size, info.etag)
