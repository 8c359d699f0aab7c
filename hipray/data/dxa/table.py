"""A DXA file as rows of text: encoding, delimiter, header row and JSON records."""

import csv
import io
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hipray.data.dxa.columns import DECISIVE, Column, accepted_names, parse_header
from hipray.errors import DataError

MAX_FILE_BYTES = 64 * 2**20  # a million report rows; more is not a table of one hospital
ENCODINGS = ("utf-8-sig", "cp950", "cp1252", "latin-1")
"""Tried in turn: Unicode, Big5 (Taiwan) and the Western code page with its superset of controls."""
_WESTERN_IN_BIG5 = re.compile(r"[A-Za-z][^\x00-\x7f][A-Za-z]")
"""A Chinese character inside a Western word: an umlaut and its neighbour read as Big5."""
DELIMITERS = (",", ";", "\t", "|")
MAX_NESTED_ROWS = 10_000  # rows that one JSON object may unfold to
HEADER_SEARCH_ROWS = 60  # a report's cover lines come before its table
_EXPORTS = {
    b"PK\x03\x04": "an Excel or zip file",
    b"%PDF": "a PDF file",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
}


@dataclass(frozen=True)
class TextTable:
    """Header and data rows; `cover` is what stands above them, `first_row` counts from 1.

    `delimiter` is empty for a table that was no text of cells.
    """

    columns: tuple[Column, ...]
    rows: Sequence[Sequence[str]]
    cover: Sequence[Sequence[str]]
    first_row: int
    delimiter: str = ""


def read_table(data: bytes, *, name: str) -> TextTable:
    """Return the table in CSV or JSON `data`; raise DataError where there is none."""
    text = _decode(data, name)
    if text.lstrip()[:1] in ("[", "{"):
        return _read_json(text, name)
    return _read_csv(text, name)


def _decode(data: bytes, name: str) -> str:
    if len(data) > MAX_FILE_BYTES:
        raise DataError(
            f"at most {MAX_FILE_BYTES >> 20} MiB", f"{len(data)} bytes in {name}", "split the file"
        )
    for magic, kind in _EXPORTS.items():
        if data.startswith(magic):
            raise DataError("CSV or JSON", f"{kind}: {name}", "export the table as CSV")
    for encoding in _utf16(data) or ENCODINGS:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text and not (encoding == "cp950" and _WESTERN_IN_BIG5.search(text)):
            return text
    raise DataError("text", f"binary data in {name}", "export the table as CSV")


def _utf16(data: bytes) -> tuple[str, ...]:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return ("utf-16",)
    head = data[:200]
    if head and head[1::2].count(0) > len(head) // 4:
        return ("utf-16-le",)
    if head and head[0::2].count(0) > len(head) // 4:
        return ("utf-16-be",)
    return ()


def _read_csv(text: str, name: str) -> TextTable:
    found = [header for mark in DELIMITERS if (header := _find_header(text, mark, name))]
    if not found:
        raise _no_columns(_first_cells(text, name), name)
    _, at, delimiter, columns = max(found, key=lambda header: header[0])
    rows = list(_split(text, delimiter, name))
    return TextTable(columns, rows[at + 1 :], rows[:at], at + 2, delimiter)


def _find_header(
    text: str, delimiter: str, name: str
) -> tuple[int, int, str, tuple[Column, ...]] | None:
    """Return (recognised columns, row, delimiter, columns) of the best header row."""
    best = None
    for at, row in enumerate(_first_rows(text, delimiter, name)):
        columns = parse_header(row)
        known = sum(column.field is not None for column in columns)
        decisive = any(column.field in DECISIVE for column in columns)
        if decisive and known >= 2 and (best is None or known > best[0]):
            best = (known, at, delimiter, columns)
    return best


def _split(text: str, delimiter: str, name: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    except csv.Error as error:
        raise DataError("a readable table", f"{name}: {error}", "export it as CSV again") from None


def _first_rows(text: str, delimiter: str, name: str) -> list[list[str]]:
    rows: list[list[str]] = []
    try:
        for row in itertools.islice(_split(text, delimiter, name), HEADER_SEARCH_ROWS):
            rows.append(row)
    except DataError:
        pass  # quotes are broken under this delimiter; the chosen one is read again in full
    return rows


def _first_cells(text: str, name: str) -> list[str]:
    return max((next(iter(_first_rows(text, mark, name)), []) for mark in DELIMITERS), key=len)


def _no_columns(found: Sequence[str], name: str) -> DataError:
    shown = ", ".join(f"'{cell.strip()[:30]}'" for cell in found[:20]) or "no columns"
    return DataError(
        f"an id or region column and a DXA result ({accepted_names()})",
        f"{shown} in {name}",
        "rename the columns; a region may stand in the name, as in 'total_hip_t_score'",
    )


def _read_json(text: str, name: str) -> TextTable:
    try:
        content = json.loads(text)
        if isinstance(content, dict):
            content = content.get("records", [content])
        if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
            raise ValueError("neither a list of objects nor {'records': [...]}")
        flat = [row for item in content for row in _flatten(item)]
    except (ValueError, RecursionError) as error:
        raise DataError("a list of JSON objects", f"{name}: {error}", "correct the file") from None
    names = list(dict.fromkeys(key for row in flat for key in row))
    columns = parse_header(names)
    if not any(column.field in DECISIVE for column in columns):
        raise _no_columns(names, name)
    return TextTable(columns, [[row.get(key, "") for key in names] for row in flat], [], 1)


def _flatten(item: Mapping[str, object], prefix: str = "") -> list[dict[str, str]]:
    """Return the object as rows: nested objects join their names, a list of objects makes rows."""
    rows: list[dict[str, str]] = [{}]
    for key, value in item.items():
        label = _as_text(f"{prefix} {key}".strip())
        if isinstance(value, dict):
            rows = [{**row, **inner} for row in rows for inner in _flatten(value, label)]
        elif isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
            inner_rows = [inner for entry in value for inner in _flatten(entry)]
            if len(rows) * len(inner_rows) > MAX_NESTED_ROWS:
                raise ValueError(f"lists that multiply to more than {MAX_NESTED_ROWS} rows")
            rows = [{**row, **inner} for row in rows for inner in inner_rows]
        else:
            for row in rows:
                row[label] = _cell_text(value)
    return rows


def _cell_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return _as_text(str(value))


def _as_text(value: str) -> str:
    """A JSON string as text that can be written down: halves of letters are shown as escapes."""
    return value.encode("utf-8", "backslashreplace").decode()
