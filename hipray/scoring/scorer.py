"""The last stage of scoring: a decoded shard through the endpoint's pipeline, and published."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import pyarrow as pa
import torch

from hipray.config.jobs import ScoreRun
from hipray.errors import DataError, HiprayError, StoreUnavailableError
from hipray.inference import start_pipeline
from hipray.pipeline import Pipeline
from hipray.releases.engines import choose_engine
from hipray.releases.release import Release, parse_release
from hipray.runtime.devices import is_device_error, torch_device
from hipray.runtime.engine import Engine, count_threads
from hipray.scoring.begun import BegunWork
from hipray.scoring.duplicates import KnownAnswers, fingerprint
from hipray.scoring.faults import FailedFilm, dump_letters, parse_letters
from hipray.scoring.films import UNLIKE_LISTED, ReadFilm
from hipray.scoring.outputs import open_output, open_patient_output
from hipray.scoring.packing import unpack_films
from hipray.scoring.parts import PartSet, is_retry, write_part
from hipray.scoring.retries import adds_nothing
from hipray.scoring.rows import (
    CPU_DEVICE,
    Origin,
    Row,
    build_file_columns,
    build_hip_columns,
    build_table,
)
from hipray.scoring.stage_tables import OUTCOME_SCHEMA, build_stage_row
from hipray.scoring.unpublished import Unpublished
from hipray.scoring.work import Work, parse_work
from hipray.storage import open_store
from hipray.vocab import Device

BATCH_FILMS = {Device.CPU: 16, Device.CUDA: 32}
"""Films that are answered together: it bounds the memory of a shard, and on CPUs numbers do not
depend on it. Most films have one hip, so on a GPU these fill one forward pass (`FILMS_AT_ONCE`)."""
GPU_LOST_EXIT_CODE = 75
"""EX_TEMPFAIL: the GPU is at fault, not the work."""

logger = logging.getLogger(__name__)


class ShardScorer:
    """Scores one shard at a time and publishes its part; holds the release's networks."""

    def __init__(self, payload: str, release_text: str, was_restarted: Callable[[], bool]) -> None:
        config = ScoreRun.model_validate_json(payload)
        release = parse_release(release_text.encode(), "the release of the run")
        self._output = open_patient_output(config)
        self._parts = PartSet.of(release, config)
        self._config = config
        self._pipeline = _load_pipeline(config, release)
        known = KnownAnswers(self._output, self._parts.folder) if config.deduplicate else None
        self._known = known
        self._begun = BegunWork(open_output(config), self._parts.folder, "scorer")
        self._unpublished = Unpublished(self._output, self._parts)
        self._restarted = was_restarted()

    def __call__(self, decoded: pa.Table) -> pa.Table:
        """Return what became of the work.

        Raises what kept the release from loading, and what will keep every part from being
        written: a store that is full, read-only or gone.
        """
        if isinstance(self._pipeline, HiprayError):
            raise self._pipeline
        work = parse_work(decoded["work"][0].as_py())
        letters = parse_letters(decoded["letters"][0].as_py())
        films: list[ReadFilm] = []
        if len(letters) < len(work.entries):
            pixels = memoryview(decoded["pixels"][0].as_buffer())
            films = unpack_films(decoded["notes"][0].as_py(), pixels)
            letters = self._score(work, films, letters)
        published = len(letters) < len(work.entries) or not work.entries
        if not published:
            self._note(work, letters)
        return build_stage_row(
            OUTCOME_SCHEMA,
            {
                "part": work.part,
                "files": len(work.entries),
                "letters": dump_letters(letters),
                "published": published,
                "unlike_listed": sum(map(is_unlike_listed, films)),
            },
        )

    def _score(
        self, work: Work, films: Sequence[ReadFilm], letters: list[FailedFilm]
    ) -> list[FailedFilm]:
        """Score and publish what was decoded; return the dead letters of the whole work.

        Ends the process where its GPU fails, for Ray to start another one with the same work.
        """
        with self._begun.noted(work, restarted=self._restarted) as given_up:
            try:
                return given_up or letters + self._publish(work, films, letters)
            except Exception as error:
                # under the note: it may be these films that break the GPU each time
                if is_device_error(error):
                    _leave(error)
                raise

    def _publish(
        self, work: Work, films: Sequence[ReadFilm], letters: Sequence[FailedFilm]
    ) -> list[FailedFilm]:
        """Write the part; return dead letters for all its films where the store did not answer.

        A part that is there already came from a process that was lost later.
        """
        try:
            table = score_films(self._pipeline_ready, films, self._origin, self._known)
            check_complete(work, table, letters)
            if is_retry(work.part) and adds_nothing(
                self._output, self._parts, work, table, letters
            ):
                self._unpublished.note(work.part, [])
            else:
                write_part(self._output, self._parts.key(work.part), table, letters)
        except StoreUnavailableError as error:
            return [FailedFilm.of(film.entry, error, tries=1) for film in films]
        return []

    def _note(self, work: Work, letters: Sequence[FailedFilm]) -> None:
        """Note what failed; without the note the work counts as lost and is done again."""
        with suppress(StoreUnavailableError):
            self._unpublished.note(work.part, letters)

    @property
    def _origin(self) -> Origin:
        return describe_origin(self._config, self._pipeline_ready)

    @property
    def _pipeline_ready(self) -> Pipeline:
        assert isinstance(self._pipeline, Pipeline), "its error was raised before"
        return self._pipeline


def _leave(error: Exception) -> None:
    """End the process, whose GPU nothing in it can use any more."""
    logger.error("the GPU failed and the process ends: %s", str(error).partition("\n")[0])
    os._exit(GPU_LOST_EXIT_CODE)


def is_unlike_listed(film: ReadFilm) -> bool:
    """Tell whether an object was gone or another than the one that was listed.

    One that a list of keys names, and nobody has seen, is not.
    """
    refusal = film.result.refusal
    return refusal is not None and refusal.code in UNLIKE_LISTED and film.entry.etag != ""


def describe_origin(config: ScoreRun, pipeline: Pipeline) -> Origin:
    """Return what rows say of the pipeline that computed them."""
    engine = pipeline.stages.engine
    units = config.gpus_per_actor or count_threads(config.cpus_per_actor)
    return Origin(
        pipeline.stages.release, engine.runtime.value, _name_device(engine),
        engine.precision.value, units,
    )  # fmt: skip


def _load_pipeline(config: ScoreRun, release: Release) -> Pipeline | HiprayError:
    """Load the networks, or return why not: raised in a constructor, Ray hides an error's type."""
    workspace = open_store(config.workspace, config.storage)
    device = Device.CUDA if config.gpus_per_actor else Device.CPU
    try:
        return start_pipeline(
            workspace, release, choose_engine(workspace, release, config, device=device),
            cpus=config.cpus_per_actor, memory_gib=config.memory_gib, batch=BATCH_FILMS[device],
        )  # fmt: skip
    except HiprayError as error:
        return error


def _name_device(engine: Engine) -> str:
    on_gpu = engine.device is Device.CUDA
    return torch.cuda.get_device_name(torch_device(engine)) if on_gpu else CPU_DEVICE


def score_films(
    pipeline: Pipeline,
    films: Sequence[ReadFilm],
    origin: Origin,
    known: KnownAnswers | None = None,
) -> pa.Table:
    """Return the rows of `films` in their order; with `known` answers, equal films are one."""
    rows: list[Row] = []
    about = origin.as_row()
    size = BATCH_FILMS[pipeline.stages.engine.device]
    for start in range(0, len(films), size):
        batch = films[start : start + size]
        started = time.perf_counter()
        answered = _answer_batch(pipeline, batch, known)
        seconds = (time.perf_counter() - started) * origin.units / len(batch)
        for film, hips in zip(batch, answered, strict=True):
            file_columns = build_file_columns(film, model_seconds=seconds)
            rows.extend(about | file_columns | hip for hip in hips)
    return build_table(rows)


def _answer_batch(
    pipeline: Pipeline, batch: Sequence[ReadFilm], known: KnownAnswers | None
) -> list[list[Row]]:
    if known is None:
        return _score_batch(pipeline, batch)
    names = [fingerprint(film) for film in batch]
    firsts = {name: film for name, film in zip(names, batch, strict=True) if name is not None}
    answers = known.find(list(firsts))
    unknown = {name: film for name, film in firsts.items() if name not in answers}
    fresh = dict(zip(unknown, _score_batch(pipeline, list(unknown.values())), strict=True))
    known.keep(fresh)
    answers |= fresh
    return [
        answers[name] if name is not None else _score_batch(pipeline, [film])[0]
        for name, film in zip(names, batch, strict=True)
    ]


def _score_batch(pipeline: Pipeline, batch: Sequence[ReadFilm]) -> list[list[Row]]:
    questions = pipeline.stages.release.questions
    answers = pipeline.answer(
        [film.result for film in batch], stated=[film.person for film in batch]
    )
    return [
        build_hip_columns(film, answer, questions)
        for film, answer in zip(batch, answers, strict=True)
    ]


def check_complete(work: Work, table: pa.Table, letters: Sequence[FailedFilm]) -> None:
    """Raise DataError unless each film of `work` has either rows or a dead letter."""
    wanted = sorted(entry.key for entry in work.entries)
    rows = set(table.column("key").to_pylist())
    found = sorted([*rows, *(letter.entry.key for letter in letters)])
    if found != wanted:
        raise DataError(
            f"rows or letters for the {len(wanted)} films of part {work.part}",
            f"{len(rows & set(wanted))} with rows and {len(letters)} with letters",
            "report this: it is a defect",
        )
