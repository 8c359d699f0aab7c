"""One request after its reading: fetch, decode, model stages, answer.

Knows no requests and responses; what stops a film is an error, which the interface explains.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

from hipray.answers import StudyAnswer, answer_as_dict, build_answer
from hipray.bundles.golden import GREY_LEVELS, draw_golden_film, largest_difference
from hipray.data.images import ReadResult, read_hips
from hipray.data.person import NOBODY
from hipray.dicom_objects import MOST_PIXELS
from hipray.errors import DataError
from hipray.pipeline import FramedHips
from hipray.releases.release import Release
from hipray.runtime.engine import Engine
from hipray.serving.clock import Step, StepClock
from hipray.serving.fetchers import FetcherPool
from hipray.serving.films import FilmRequest, ScoreRequest, UploadedFilm
from hipray.serving.graph import Graph
from hipray.serving.messages import NUMBERS_ONLY, Extras, ScoredFilm
from hipray.serving.pacs import DICOMWEB_SCHEME
from hipray.serving.pictures import Drawn, draw_pictures, write_objects
from hipray.serving.problems import ProblemError, come_later, reject
from hipray.serving.readers import ReaderPool
from hipray.serving.source import ByteBudget, FilmSource

ARCHIVE_FETCHES = 4
"""Films that are read from picture archives at a time; one that hangs keeps nobody from S3."""

EXPLAINED = 2
"""Films whose heat maps are drawn at a time: they share replicas with the films that wait for
numbers alone."""

DRAWERS = 2
"""Answers that get pictures at a time: they take a core."""

WRITERS = 1
"""Answers that get DICOM objects at a time: they take a core and memory for the whole film."""

NO_OBJECTS = (
    "DICOM objects name the patient, and this service makes them of films that are sent to it, not "
    "of those at a uri; ask without dicom=true or send the film"
)

TOO_LARGE_FOR_OBJECTS = (
    f"DICOM objects are made of films of up to {MOST_PIXELS / 1e6:.0f} million pixels, and this "
    "one has more; ask without dicom=true"
)

WARM_UP_S = 600.0
"""Seconds that the first pass may take; it waits for stages that still load."""


@dataclass(frozen=True)
class ServiceLimits:
    """What one request may take."""

    timeout_s: float
    fetches: int
    """Films named by their addresses that are read from the store, wait for a decoder or are with
    one, over all requests: what is held in memory, however many films a batch has."""
    batch_at_once: int
    """Films of one batch that are worked on at a time."""
    max_batch_bytes: int
    """Bytes of all films of one batch."""
    dicom_of_named_films: bool
    """Whether films that callers name may be answered as DICOM objects."""


@dataclass(frozen=True)
class FilmAnswer:
    """The answer for one film of a request."""

    study: StudyAnswer
    timings_ms: dict[str, float]
    drawn: Drawn = field(default_factory=Drawn)

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as JSON values."""
        answer = {**answer_as_dict(self.study), **self.drawn.members}
        for hip in answer["hips"]:
            for region in hip["regions"]:
                region |= self.drawn.regions.get(
                    (hip["index"], region["region"], region["label_type"]), {}
                )
        return {**answer, "timings_ms": self.timings_ms}


@dataclass(frozen=True)
class _ReadFilm:
    """A film that was fetched and decoded."""

    result: ReadResult
    hips: FramedHips | None
    """None where it has none that networks could take."""
    data: bytes
    """Its bytes where they are asked for again."""

    @property
    def pixels(self) -> int:
        """Pixels of the film itself; 0 where it has no hips."""
        info = self.result.film_info if self.hips is not None else None
        return 0 if info is None else info.height * info.width


class ScoringService:
    """Answers films with one release."""

    def __init__(
        self,
        release: Release,
        graph: Graph,
        *,
        engine: Engine,
        source: FilmSource,
        readers: ReaderPool,
        limits: ServiceLimits,
    ) -> None:
        self.release = release
        self.engine = engine
        self.limits = limits
        self._graph = graph
        self._source = source
        self._readers = readers
        self._fetchers = FetcherPool(limits.fetches, name="hipray-fetch")
        self._archive_fetchers = FetcherPool(ARCHIVE_FETCHES, name="hipray-pacs")
        self._explaining = asyncio.Semaphore(EXPLAINED)
        self._drawers = ThreadPoolExecutor(DRAWERS, thread_name_prefix="hipray-draw")
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="hipray-dicom")
        self._warm = False

    async def warm_up(self) -> None:
        """Start the decoders and send a phantom film through them and all stages, once.

        Raises DataError where they do not decode it as this process does.
        """
        if self._warm:
            return
        await self._readers.start()
        film = await asyncio.to_thread(draw_golden_film)
        result, hips = await self._readers.read(
            film, name="warm-up", side=None, person=NOBODY, working_px=self.release.working_px
        )
        if hips is None:
            raise DataError("a phantom film that decodes", f"{result.refusal}", "repair decoders")
        known = await asyncio.to_thread(
            read_hips, film, name="warm-up", preprocessing=self.release.preprocessing
        )
        difference = largest_difference(result.hips[0].pixels, known.hips[0].pixels)
        if difference > GREY_LEVELS:
            raise DataError(
                f"decoders that give the pixels of a phantom film within {GREY_LEVELS}",
                f"a difference of {difference:.4g}",
                "repair their environment",
            )
        await self._graph(hips, timeout_s=WARM_UP_S, clock=StepClock())
        self._warm = True

    async def score(
        self,
        film: FilmRequest,
        *,
        request_id: str,
        clock: StepClock,
        extras: Extras = NUMBERS_ONLY,
        budget: ByteBudget | None = None,
    ) -> FilmAnswer:
        """Return the answer for one film; a refused film is an answer, too.

        `budget` are the bytes of all films of its batch. Raises ProblemError, StorageError and
        whatever calling a stage raises.
        """
        if extras.dicom and isinstance(film, ScoreRequest) and not self.limits.dicom_of_named_films:
            raise reject(HTTPStatus.FORBIDDEN, NO_OBJECTS)
        read = await self._obtain(film, request_id, clock, budget, keep=extras.dicom)
        if extras.dicom and read.pixels > MOST_PIXELS:
            raise reject(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TOO_LARGE_FOR_OBJECTS)
        scored = None if read.hips is None else await self._ask_stages(read.hips, clock, extras)
        rows = scored.rows if scored else []
        study = build_answer(self.release, self.engine, read.result, rows)
        drawn = Drawn()
        if extras != NUMBERS_ONLY:
            with clock.measure(Step.DRAW):
                drawn = await self._draw_extras(study, extras, read, scored)
        return FilmAnswer(study, clock.timings_ms(), drawn)

    async def score_batch(
        self, films: Sequence[ScoreRequest], *, request_id: str, clock: StepClock
    ) -> list[FilmAnswer | Exception]:
        """Return for each film, in their order, its answer or why it has none.

        Films that are not done when the time is over have a TimeoutError.
        """
        slots = asyncio.Semaphore(self.limits.batch_at_once)
        budget = ByteBudget(self.limits.max_batch_bytes)

        async def score_one(film: ScoreRequest) -> FilmAnswer | Exception:
            own = StepClock()
            try:
                async with asyncio.timeout(self._time_left(clock)), slots:
                    return await self.score(film, request_id=request_id, clock=own, budget=budget)
            except Exception as error:  # of this film alone
                return error

        return await asyncio.gather(*map(score_one, films))

    async def _obtain(
        self,
        film: FilmRequest,
        request_id: str,
        clock: StepClock,
        budget: ByteBudget | None,
        *,
        keep: bool,
    ) -> "_ReadFilm":
        """Fetch and decode a film; `keep` its bytes."""
        async with AsyncExitStack() as held:
            if isinstance(film, ScoreRequest):
                with clock.measure(Step.FETCH):
                    fetching = self._fetch(film.uri, budget, clock)
                    film = UploadedFilm(await held.enter_async_context(fetching), film)
            with clock.measure(Step.DECODE):
                result, hips = await self._readers.read(
                    film.data, name=request_id, side=film.stated.side,
                    person=film.stated.person, working_px=self.release.working_px,
                )  # fmt: skip
        return _ReadFilm(result, hips, film.data if keep else b"")

    async def _ask_stages(self, hips: FramedHips, clock: StepClock, extras: Extras) -> ScoredFilm:
        async with self._explaining if extras.explain else nullcontext():
            left_s = self._time_left(clock)
            return await self._graph(hips, timeout_s=left_s, clock=clock, extras=extras)

    async def _draw_extras(
        self, study: StudyAnswer, extras: Extras, read: "_ReadFilm", scored: ScoredFilm | None
    ) -> Drawn:
        shared: dict[str, Any] = {
            "result": read.result, "scored": scored, "working_px": self.release.working_px
        }  # fmt: skip
        loop = asyncio.get_running_loop()
        draw = partial(draw_pictures, study, extras, **shared)
        drawn = await loop.run_in_executor(self._drawers, draw)
        if extras.dicom:
            write = partial(write_objects, study, film=read.data, **shared)
            drawn |= await loop.run_in_executor(self._writers, write)
        return drawn

    def _time_left(self, clock: StepClock) -> float:
        return self.limits.timeout_s - clock.elapsed_s()

    def _fetch(
        self, uri: str, budget: ByteBudget | None, clock: StepClock
    ) -> AbstractAsyncContextManager[bytes]:
        """Give the bytes of a film, which count as held until they are left."""
        archived = uri.startswith(DICOMWEB_SCHEME)
        if archived and budget is None and self._archive_fetchers.is_busy:
            # waiting here would hold a place at the door that films in other stores need
            raise ProblemError(come_later("the picture archives are busy with other films"))
        pool = self._archive_fetchers if archived else self._fetchers
        return pool.fetch(lambda: self._source.read(uri, budget, timeout_s=self._time_left(clock)))

    def describe(self) -> dict[str, Any]:
        """Return what is served, as JSON values."""
        return {"digest": self.release.digest, **self.release.model_dump(mode="json")}

    def close(self) -> None:
        """End the decoder processes and the fetching threads."""
        for pool in (self._readers, self._fetchers, self._archive_fetchers):
            pool.close()
        for threads in (self._drawers, self._writers):
            threads.shutdown(wait=False, cancel_futures=True)
