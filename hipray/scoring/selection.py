"""Which objects of an archive are films to score."""

import re
from collections.abc import Callable, Sequence
from fnmatch import translate

from hipray.config.scoring import Selection
from hipray.data.listing import is_film


def build_filter(select: Selection) -> Callable[[str], bool]:
    """Return what tells of a key whether it is taken; the key alone decides."""
    suffixes = tuple(suffix.lower() for suffix in select.suffixes)
    include, exclude = _compile(select.include), _compile(select.exclude)

    def takes(key: str) -> bool:
        named = key.lower().endswith(suffixes) if suffixes else is_film(key)
        if not named or (exclude and exclude.match(key)):
            return False
        return include is None or bool(include.match(key))

    return takes


def _compile(patterns: Sequence[str]) -> re.Pattern[str] | None:
    """One expression for all patterns: a listing asks it once a key."""
    return re.compile("|".join(map(translate, patterns))) if patterns else None
