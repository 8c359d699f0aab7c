"""Films that were scored before: answers kept by what the networks see.

    answers/<as the parts>/<digest>.json     the rows of a film, without what tells its file

Two films of equal pixels, side and person have equal answers, so one is computed and both are
reported. Which actor comes first does not matter.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from hipray.digests import digest_of
from hipray.errors import NotFoundError
from hipray.scoring.films import ReadFilm
from hipray.scoring.rows import Row
from hipray.storage import Store

FOLDER = "answers"
ASKED_AHEAD = 16
"""Answers that are asked for at once."""


def fingerprint(film: ReadFilm) -> str | None:
    """Return what tells films of different answers apart; None for a film without hips."""
    if not film.result.hips:
        return None
    hips = [
        [hip.pixel_sha256, hip.side, hip.flipped, list(hip.findings)] for hip in film.result.hips
    ]
    return digest_of([hips, asdict(film.person)])


class KnownAnswers:
    """The answers of one set of parts, shared by all its actors through the output."""

    def __init__(self, output: Store, parts_folder: str) -> None:
        self._store = output.child(f"{FOLDER}/{parts_folder.rpartition('/')[2]}")

    def find(self, fingerprints: Sequence[str]) -> dict[str, list[Row]]:
        """Return the rows of those that are known."""
        with ThreadPoolExecutor(ASKED_AHEAD) as pool:
            found = zip(fingerprints, pool.map(self._read, fingerprints), strict=True)
            return {name: rows for name, rows in found if rows is not None}

    def keep(self, answers: dict[str, list[Row]]) -> None:
        """Keep rows for the films to come; those that are known stay as they are."""
        texts = [json.dumps(rows).encode() for rows in answers.values()]
        with ThreadPoolExecutor(ASKED_AHEAD) as pool:
            tuple(pool.map(self._store.create, map(_key, answers), texts))

    def _read(self, name: str) -> list[Row] | None:
        try:
            rows: list[Row] = json.loads(self._store.read(_key(name)))
        except NotFoundError:
            return None
        return rows


def _key(name: str) -> str:
    return f"{name[:2]}/{name}.json"
