"""Which objects of an archive are films to score."""

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from fnmatch import translate
from itertools import islice

from hipray.config.scoring import Selection
from hipray.data.listing import is_aside, is_film
from hipray.errors import DataError
from hipray.storage import Store

FIRST_KEYS = 20_000
"""Keys that are looked through for a film before work begins: 20 pages of S3, some seconds."""


class LeftOut(StrEnum):
    """Why a key of the archive is no film to score."""

    TABLE = "table"  # or an annotation
    HIDDEN = "hidden"  # or the archive's own note
    OTHER_SUFFIX = "other_suffix"  # than `select.suffixes`
    EXCLUDED = "excluded"
    NOT_INCLUDED = "not_included"


def build_sieve(select: Selection) -> Callable[[str], LeftOut | None]:
    """Return what tells of a key why it is left out, if it is; the key alone decides."""
    suffixes = tuple(suffix.lower() for suffix in select.suffixes)
    include, exclude = _compile(select.include), _compile(select.exclude)

    def sift(key: str) -> LeftOut | None:
        if suffixes and not key.lower().endswith(suffixes):
            return LeftOut.OTHER_SUFFIX
        if not suffixes and not is_film(key):
            return LeftOut.HIDDEN if is_aside(key) else LeftOut.TABLE
        if exclude and exclude.match(key):
            return LeftOut.EXCLUDED
        return None if include is None or include.match(key) else LeftOut.NOT_INCLUDED

    return sift


def build_folder_sieve(select: Selection) -> Callable[[str], LeftOut | None]:
    """Return what tells of a folder, by its key with a closing slash, why it is left out whole.

    It is where every key in it would be for that reason.
    """
    # what follows a folder's key is matched by a star at the end, whatever it is
    exclude = _compile([pattern for pattern in select.exclude if pattern.endswith("*")])

    def sift(folder: str) -> LeftOut | None:
        if exclude and exclude.match(folder):
            return LeftOut.EXCLUDED
        return LeftOut.HIDDEN if not select.suffixes and is_aside(folder) else None

    return sift


def find_first_film(archive: Store, select: Selection) -> str | None:
    """Return the first key that is taken, or None where it is none of FIRST_KEYS.

    Raises DataError where the archive has none.
    """
    sift, sift_folder = build_sieve(select), build_folder_sieve(select)
    listed = archive.list(passes_by=lambda folder: sift_folder(folder) is not None)
    for info in islice(listed, FIRST_KEYS):
        if sift(info.key) is None:
            return info.key
    if next(listed, None) is not None:
        return None
    raise DataError(f"films in {archive.uri}", "none", "check the path and `select`")


def _compile(patterns: Sequence[str]) -> re.Pattern[str] | None:
    """One expression for all patterns: a listing asks it once a key."""
    return re.compile("|".join(map(translate, patterns))) if patterns else None
