"""The middle stage of scoring: the films of a shard fetched, decoded and packed.

Nothing here needs torch: a decoder's process stays small.
"""

from collections.abc import Callable
from functools import lru_cache

import pyarrow as pa

from hipray.config.jobs import ScoreRun
from hipray.config.storage import RetryMode
from hipray.data.isolation import IsolatedReader
from hipray.errors import StorageError
from hipray.releases.release import Release
from hipray.scoring.begun import BegunWork
from hipray.scoring.claim import load_claimed_pseudonyms
from hipray.scoring.faults import FailedFilm, dump_letters
from hipray.scoring.films import FilmReader, ReadFilms
from hipray.scoring.outputs import open_output
from hipray.scoring.packing import pack_films
from hipray.scoring.parts import PartSet
from hipray.scoring.stage_tables import DECODED_SCHEMA, build_stage_row
from hipray.scoring.work import Work, parse_work
from hipray.storage import open_store


class ShardDecoder:
    """Fetches and decodes one shard at a time, with an isolated reader of its own."""

    def __init__(self, payload: str, release_text: str, was_restarted: Callable[[], bool]) -> None:
        config = ScoreRun.model_validate_json(payload)
        release = Release.model_validate_json(release_text)
        # each process sends less while it is throttled, so that all of them together do
        storage = config.storage.model_copy(update={"retries": RetryMode.ADAPTIVE})
        output = open_output(config)
        self._open_films = lru_cache(maxsize=1)(
            # with the first shard: a store that fails a constructor would end the whole run
            lambda: FilmReader(
                open_store(config.images, storage),
                IsolatedReader(config.limits, release.preprocessing),
                load_claimed_pseudonyms(config, output),
                rounds=config.fetch_rounds,
            )
        )
        folder = PartSet.of(release, config).folder
        self._begun = BegunWork(output, folder, "decoder")
        self._restarted = was_restarted()

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return the films of one row's work, and letters for those the store would not give."""
        (row,) = rows.to_pylist()
        read = self._read(parse_work(row["work"]))
        notes, pixels = pack_films(read.films)
        letters = dump_letters(read.letters)
        return build_stage_row(
            DECODED_SCHEMA, row | {"notes": notes, "pixels": pixels, "letters": letters}
        )

    def _read(self, work: Work) -> ReadFilms:
        with self._begun.noted(work, restarted=self._restarted) as letters:
            if letters:
                return ReadFilms(letters=letters)
            try:
                films = self._open_films()
            except StorageError as error:  # what is denied to this machine, others may have
                return ReadFilms(letters=[FailedFilm.of(e, error, tries=1) for e in work.entries])
            return films.read(work.entries)
