"""A list of keys instead of a listing: a CSV or Parquet file that names what to score."""

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from hipray.config.storage import StorageSettings
from hipray.data.fetching import map_ahead
from hipray.errors import DataError, StorageError, StoreUnavailableError
from hipray.scoring.shards import Entry
from hipray.storage import ANY_SCHEME, Scheme, Store, open_file

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
    """Raise what is wrong with the head of a key list, before anything is started for it."""
    data = _read_bytes(address, settings)
    with _explained(address):
        header = _read_header(data)
    _check_column(header, address)


@dataclass(frozen=True)
class _Header:
    """How a list names its columns."""

    names: list[str]
    """With KEY_COLUMN for the only column of a list that needs no name."""
    lines: int = 1
    """Lines of a CSV file before its first key."""


def _read_column(address: str, settings: StorageSettings) -> pa.ChunkedArray:
    data = _read_bytes(address, settings)
    with _explained(address):
        header = _read_header(data)
    _check_column(header, address)
    with _explained(address):
        is_parquet = data.startswith(PARQUET_MAGIC)
        column = _parse_parquet(data, header) if is_parquet else _parse_csv(data, header)
        return column.cast(pa.large_string())


def _read_bytes(address: str, settings: StorageSettings) -> bytes:
    store, name = open_file(address, settings)
    return store.read(name)


@contextmanager
def _explained(address: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(
            "a CSV or Parquet file of keys", f"{address}: {error}", "check it"
        ) from None


def _check_column(header: _Header, address: str) -> None:
    if KEY_COLUMN not in header.names:
        raise DataError(
            f"a column '{KEY_COLUMN}' in {address}",
            f"the columns {', '.join(header.names)}",
            "name the column of keys so",
        )


def _read_header(data: bytes) -> _Header:
    """One column of a Parquet file needs no name, and one of a CSV file no header."""
    if data.startswith(PARQUET_MAGIC):
        schema = pq.read_schema(io.BytesIO(data))
        header = _Header([KEY_COLUMN] if len(schema) == 1 else schema.names)
        if KEY_COLUMN in header.names:
            kind = schema.field(header.names.index(KEY_COLUMN)).type
            pa.array([], kind).cast(pa.large_string())  # raises for what is no text
        return header
    first = next(csv.reader([data.partition(b"\n")[0].decode("utf-8-sig")]), [])
    names = [name.strip() for name in first]
    headless = len(names) == 1 and names != [KEY_COLUMN] and _is_key(names[0])
    return _Header([KEY_COLUMN], lines=0) if headless else _Header(names)


def _parse_parquet(data: bytes, header: _Header) -> pa.ChunkedArray:
    file = pq.ParquetFile(io.BytesIO(data))
    column = file.schema_arrow.names[header.names.index(KEY_COLUMN)]
    return file.read(columns=[column]).column(column)


def _parse_csv(data: bytes, header: _Header) -> pa.ChunkedArray:
    """Keys are text, for one may look like a number."""
    table = pyarrow.csv.read_csv(
        io.BytesIO(data),
        read_options=pyarrow.csv.ReadOptions(column_names=header.names, skip_rows=header.lines),
        # a block that ends within a quoted key with a newline would cut it in two otherwise
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={KEY_COLUMN: pa.string()}, include_columns=[KEY_COLUMN]
        ),
    )
    return table.column(KEY_COLUMN)


def _is_key(text: str) -> bool:
    """Whether a first line is a key already and no header: it has a folder or a suffix."""
    return "/" in text or "." in text


def _relative(keys: pa.Array, archive: Store) -> pa.Array:
    keys = _unquote_files(keys)
    root = f"{archive.uri.rstrip('/')}/"
    is_address = pc.match_substring_regex(keys, f"^({ANY_SCHEME}|/)")
    # behind its root, a key of a bucket may begin with a slash of its own
    long_root = f"{Scheme.FILE}{root}"
    is_own = pc.or_(pc.starts_with(keys, root), pc.starts_with(keys, long_root))
    foreign = keys.filter(pc.and_not(is_address, is_own))
    if len(foreign):
        raise DataError(
            f"keys in {archive.uri}", f"'{foreign[0].as_py()}'", "score each archive for itself"
        )
    for prefix in (long_root, root, "./"):
        short = pc.utf8_slice_codeunits(keys, start=len(prefix))
        keys = pc.if_else(pc.starts_with(keys, prefix), short, keys)
    return keys


def _unquote_files(keys: pa.Array) -> pa.Array:
    """Return the keys with `%20` and the like in URLs of files as the characters they stand for."""
    is_file = pc.starts_with(keys, Scheme.FILE)
    if not pc.any(is_file).as_py():
        return keys
    return pc.replace_with_mask(
        keys,
        is_file,
        pa.array(map(unquote, keys.filter(is_file).to_pylist()), keys.type),
    )


def describe_keys(archive: Store, keys: Iterable[str]) -> Iterator[Entry]:
    """Yield an entry for each key, in order.

    One without an object has size 0 and no etag, as has one that the store would not describe:
    the reading of it says why. Raises StoreUnavailableError where asking again may help.
    """
    return map_ahead(partial(_describe, archive), keys, threads=ASKED_AHEAD)


def _describe(archive: Store, key: str) -> Entry:
    try:
        info = archive.info(key)
    except StoreUnavailableError:
        raise
    except StorageError:
        info = None
    return Entry(key, 0, "") if info is None else Entry(key, info.size, info.etag)
