"""Which objects of an archive are films: the one rule of ingest and of batch scoring."""

from pathlib import PurePosixPath

ANNOTATION_SUFFIX = ".json"
TABLE_SUFFIXES = (".csv", ".tsv", ".json")
FILM_SUFFIXES = (".dcm", ".dicom", ".ima", ".png", ".jpg", ".jpeg", ".tif", ".tiff")
"""Endings that are no part of a film's name; a DICOM UID has dots of its own."""
ARCHIVE_NOTE = "archive.json"
"""File of an archive that says what it is; phantom archives carry it."""


def is_film(key: str) -> bool:
    """Return whether `key` is to be read as a film; its content may still turn out otherwise.

    Tables, annotations and notes are not. The key alone decides, so a listing can be streamed.
    """
    return not key.lower().endswith(TABLE_SUFFIXES) and not is_aside(key)


def is_json(key: str) -> bool:
    """Return whether `key` may be an annotation: a JSON file."""
    return key.lower().endswith(ANNOTATION_SUFFIX)


def is_aside(key: str) -> bool:
    """Return whether a file is a note about the archive: hidden, or its archive.json."""
    parts = PurePosixPath(key).parts
    return any(part.startswith(".") for part in parts) or parts[-1:] == (ARCHIVE_NOTE,)


def stem(key: str) -> str:
    """Return `key` without a film's or a table's suffix: what a film and its annotation share."""
    path = PurePosixPath(key)
    known = path.suffix.lower() in (*FILM_SUFFIXES, *TABLE_SUFFIXES)
    return str(path.with_suffix("")) if known else key
