"""One request after its reading: fetch, decode, model stages, answer. Knows nothing of HTTP."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hipray.answers import answer_as_dict, build_answer
from hipray.releases.release import Release
from hipray.serving.body import FilmRequest, ScoreRequest, UploadedFilm
from hipray.serving.clock import Step, StepClock
from hipray.serving.graph import Graph
from hipray.serving.readers import ReaderPool
from hipray.serving.source import FilmSource
from hipray.serving.stages import blank_hips

WARM_UP_S = 60.0
"""Seconds that the first pass through all stages may take."""


class ScoringService:
    """Answers films with one release."""

    def __init__(
        self,
        release: Release,
        graph: Graph,
        *,
        source: FilmSource,
        readers: ReaderPool,
        timeout_s: float,
        fetches: int,
    ) -> None:
        """`fetches` is how many objects are read from the store at a time."""
        self.release = release
        self.timeout_s = timeout_s
        self._graph = graph
        self._source = source
        self._readers = readers
        self._fetchers = ThreadPoolExecutor(fetches, thread_name_prefix="hipray-fetch")
        self._warm = False

    async def warm_up(self) -> None:
        """Start the decoders and send a black frame through all stages, once."""
        if self._warm:
            return
        await self._readers.start()
        await self._graph(blank_hips(self.release), timeout_s=WARM_UP_S, clock=StepClock())
        self._warm = True

    async def score(
        self, film: FilmRequest, *, request_id: str, clock: StepClock
    ) -> dict[str, Any]:
        """Return the answer for one film as JSON values; a refused film is an answer, too.

        Raises ProblemError, StorageError and whatever calling a stage raises.
        """
        if isinstance(film, ScoreRequest):
            with clock.measure(Step.FETCH):
                film = UploadedFilm(await self._fetch(film.uri), film)
        with clock.measure(Step.DECODE):
            result, hips = await self._readers.read(
                film.data, name=request_id, side=film.stated.side,
                person=film.stated.person, working_px=self.release.working_px,
            )  # fmt: skip
        rows = []
        if hips is not None:
            rows = await self._graph(hips, timeout_s=self.timeout_s, clock=clock)
        answer = answer_as_dict(build_answer(self.release, result, rows))
        return {**answer, "request_id": request_id, "timings_ms": clock.timings_ms()}

    async def _fetch(self, uri: str) -> bytes:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._fetchers, self._source.read, uri)

    def describe(self) -> dict[str, Any]:
        """Return what is served, as JSON values."""
        return {"digest": self.release.digest, **self.release.model_dump(mode="json")}

    def close(self) -> None:
        """End the decoder processes and the fetching threads."""
        self._readers.close()
        self._fetchers.shutdown(wait=False, cancel_futures=True)
