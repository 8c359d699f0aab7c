"""The model stages as deployments: each loads and golden-checks only its own bundles.

A stage refuses messages of another release or past their deadline before they enter a batch, so
that they cannot hold up or spoil the others. Models run in a thread: the replica goes on
accepting messages and answering health checks.

A further stage begins in `pipeline` (its place in `Stages`, `load_stages` and `run_stages`), which
is all that batch scoring and the fused deployment ask; `Release` pins its settings. Deployed by
itself it has a class here, what it gets and gives in `messages` and `joining`, its turn in
`SplitGraph` of `graph` with a `Step` of `clock`, a line in `list_stages` of `plan` (and a word in
`has_networks` there if it holds none), whose key is a keyword of `Ingress`, bounds in
`EndpointScaling` of `config.serving`, replicas in `cluster/serve.yaml` and the Serve files of
`k8s/`, and its name in `STAGES` of `tests/cluster/serve_files.py`.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from ray.serve.handle import DeploymentHandle

from hipray.answers import HipNumbers
from hipray.bundles.loading import Loading
from hipray.config.storage import StorageSettings
from hipray.errors import ConfigError, HiprayError
from hipray.inference import (
    HIPS_OF_A_FILM,
    blank_hips,
    blank_views,
    count_tried_hips,
    open_gauge,
    start_stages,
)
from hipray.pipeline import (
    Cutter,
    Ensemble,
    Explanations,
    FramedHips,
    Probabilities,
    Stages,
    Views,
    load_ensemble,
    load_segmenter,
    run_stages,
)
from hipray.releases.release import Release, check_preprocessing, parse_release
from hipray.runtime.devices import claim_cpus, is_device_error
from hipray.runtime.engine import Engine
from hipray.runtime.memory import EXPLANATION, MemoryGauge
from hipray.segmentation.segmenter import Segmentation
from hipray.serving.batching import BatchedModel
from hipray.serving.joining import (
    join_films,
    join_views,
    split_probabilities,
    split_segmentation,
    split_views,
)
from hipray.serving.logs import TOLD, open_logs
from hipray.serving.messages import (
    AskedFilm,
    Message,
    PackedSegmentation,
    ScoredFilm,
    SegmentedFrames,
    check_hips,
    check_message,
)
from hipray.serving.metrics import batch_metrics
from hipray.serving.stage_errors import GpuFaultError, GpuLostError
from hipray.serving.together import StageMemory, measure_replica
from hipray.storage import Store, open_store
from hipray.vocab import Device

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageSetup:
    """What a stage is built from; the release travels as text, pinned when it is deployed."""

    workspace: str
    storage: StorageSettings
    release_text: str
    batch: int
    """Most films in one forward pass."""
    batch_wait_s: float
    cpus: float
    engine: Engine
    """What computes the networks; pinned like the release."""
    memory_gib: float | None

    @property
    def release(self) -> Release:
        """The pinned release, which this hipray may not be able to serve."""
        return parse_release(self.release_text.encode(), "the deployed release")

    def read_release(self) -> Release:
        """Return the pinned release; raises BundleError where this hipray cannot serve it."""
        release = self.release
        check_preprocessing(release)
        return release

    def open_store(self) -> Store:
        """Return the workspace."""
        return open_store(self.workspace, self.storage)

    def claim(self) -> Loading:
        """Take the assigned CPUs or GPU; raises ConfigError where torch sees no GPU."""
        if self.engine.device is Device.CUDA and not torch.cuda.is_available():
            raise ConfigError(
                "a GPU that torch can use", "none", "set gpus_per_stage = 0 or repair the driver"
            )
        claim_cpus(self.engine, self.cpus)
        gauge = open_gauge(self.engine, self.memory_gib)
        return Loading(self.engine, explaining=True, gauge=gauge)


class Attendant:
    """Attends to the messages that a stage gets, and knows whether its GPU still works.

    After an error of CUDA nothing in the process can use its GPU any more, and the replica would
    fail fast and be asked the more. So it refuses, its callers ask another one, and it fails
    Serve's health checks: after three in a row, every ten seconds, Serve puts a new one in its
    place and tries until one starts.
    """

    def __init__(self, release_digest: str, stage: str) -> None:
        self._digest = release_digest
        self._stage = stage
        self._fault: str | None = None

    @contextmanager
    def __call__(self, message: Message[Any]) -> Iterator[None]:
        """Check a message, and log by its request's id why it has no answer.

        Raises GpuFaultError where the block loses the GPU, GpuLostError where another one did.
        """
        told = {"request_id": message.request_id, "stage": self._stage}
        try:
            self.check_health()
            check_message(message, self._digest)
            yield
        except HiprayError as error:
            logger.warning("message refused", extra={TOLD: {**told, "kind": type(error).__name__}})
            raise
        except Exception as error:
            logger.error("stage failed", exc_info=error, extra={TOLD: told})
            if not is_device_error(error):
                raise
            self._fault = str(error).partition("\n")[0]
            raise GpuFaultError(*self._explain(self._fault)) from error

    def check_health(self) -> None:
        """Raise GpuLostError where the GPU failed."""
        if self._fault is not None:
            raise GpuLostError(*self._explain(self._fault))

    def _explain(self, fault: str) -> tuple[str, str, str]:
        return (
            f"a {self._stage} whose GPU works",
            fault,
            "another replica takes its place; if it comes again, see the node's driver log",
        )


class SegmenterStage:
    """Frames -> masks; absent where the release has no segmenter."""

    def __init__(self, setup: StageSetup) -> None:
        open_logs()
        release, loading = setup.read_release(), setup.claim()
        segmenter = load_segmenter(setup.open_store(), release, loading)
        assert segmenter is not None, "this stage is deployed for releases with segmenters"
        self._segmenter = segmenter
        self._attend = Attendant(release.digest, "segmenter")
        self._side = release.working_px
        frames = blank_hips(release, count_tried_hips(setup.engine, setup.batch)).frames
        self._gauge = loading.gauge
        self._gauge.try_batch(lambda: segmenter(frames))
        self._batched = BatchedModel(self._run, size=setup.batch, wait_s=setup.batch_wait_s)

    async def __call__(self, message: Message[FramedHips]) -> Message[PackedSegmentation]:
        """Return the masks of one film's hips."""
        with self._attend(message):
            check_hips(message.body, self._side)
            return message.with_body(await self._batched(message.body))

    def check_health(self) -> None:
        """Raise GpuLostError where Serve should put another replica in this one's place."""
        self._attend.check_health()

    def tell_memory(self) -> StageMemory:
        """Say what this replica takes."""
        return measure_replica(self._gauge)

    def _run(self, films: list[FramedHips]) -> list[PackedSegmentation]:
        batch_metrics().observe("segmenter", len(films))
        hips, places = join_films(films)
        parts = split_segmentation(self._segmenter(hips.frames), places)
        return [PackedSegmentation.pack(part) for part in parts]


class MattingStage:
    """Frames and masks -> one view per region; absent where members look at the whole film."""

    def __init__(self, setup: StageSetup) -> None:
        open_logs()
        release = setup.read_release()
        claim_cpus(setup.engine, setup.cpus)  # it gets no GPU, whatever the engine has
        self._cutter = Cutter(release)
        self._attend = Attendant(release.digest, "matting")
        self._side = release.working_px

    async def __call__(self, message: Message[SegmentedFrames]) -> Message[Views]:
        """Return the views of one film."""
        with self._attend(message):
            check_hips(message.body.hips, self._side)
            return message.with_body(await asyncio.to_thread(self._run, message.body))

    def _run(self, film: SegmentedFrames) -> Views:
        return self._cutter(film.hips, film.segmentation.unpack().masks)


class ExplainingThread:
    """Draws heat maps beside an ensemble's forward passes: one film at a time per replica."""

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble = ensemble
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hipray-explain")

    async def __call__(self, message: Message[Views]) -> Message[Explanations]:
        """Return the heat maps of one film; a caller who has gone leaves the line."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._run, message)

    def _run(self, message: Message[Views]) -> Message[Explanations]:
        check_message(message, message.release_digest)  # its time may have passed in the line
        return message.with_body(self._ensemble.explain(message.body))


def try_explanation(ensemble: Ensemble, release: Release, gauge: MemoryGauge) -> None:
    """Count what the heat maps of one film take; raises MemoryLimitError."""
    views = blank_views(release, HIPS_OF_A_FILM)
    gauge.try_batch(lambda: ensemble.explain(views), name=EXPLANATION)


class EnsembleStage:
    """Views -> calibrated probabilities.

    `beside` are the other stages of the release, for Serve to deploy with this one, its root.
    """

    def __init__(self, setup: StageSetup, *, beside: Sequence[DeploymentHandle] = ()) -> None:
        open_logs()
        release, loading = setup.read_release(), setup.claim()
        self._ensemble = load_ensemble(setup.open_store(), release, loading)
        self._attend = Attendant(release.digest, "ensemble")
        self._explaining = ExplainingThread(self._ensemble)
        views = blank_views(release, count_tried_hips(setup.engine, setup.batch))
        self._gauge = loading.gauge
        self._gauge.try_batch(lambda: self._ensemble(views))
        try_explanation(self._ensemble, release, self._gauge)
        self._batched = BatchedModel(self._run, size=setup.batch, wait_s=setup.batch_wait_s)

    async def __call__(self, message: Message[Views]) -> Message[Probabilities]:
        """Return the probabilities of one film's views."""
        with self._attend(message):
            return message.with_body(await self._batched(message.body))

    async def explain(self, message: Message[Views]) -> Message[Explanations]:
        """Return the heat maps of one film's views."""
        with self._attend(message):
            return await self._explaining(message)

    def check_health(self) -> None:
        """Raise GpuLostError where Serve should put another replica in this one's place."""
        self._attend.check_health()

    def tell_memory(self) -> StageMemory:
        """Say what this replica takes."""
        return measure_replica(self._gauge)

    def _run(self, films: list[Views]) -> list[Probabilities]:
        batch_metrics().observe("ensemble", len(films))
        views, places = join_views(films)
        return split_probabilities(self._ensemble(views), places)


class FusedStage:
    """Frames -> the numbers of each hip: all model stages in one replica."""

    def __init__(self, setup: StageSetup) -> None:
        open_logs()
        release, loading = setup.read_release(), setup.claim()
        self._stages: Stages = start_stages(setup.open_store(), release, loading, batch=setup.batch)
        self._attend = Attendant(release.digest, "pipeline")
        self._side = release.working_px
        self._gauge = loading.gauge
        try_explanation(self._stages.ensemble, release, self._gauge)
        self._explaining = ExplainingThread(self._stages.ensemble)
        self._batched = BatchedModel(self._run, size=setup.batch, wait_s=setup.batch_wait_s)

    async def __call__(self, message: Message[AskedFilm]) -> Message[ScoredFilm]:
        """Return the numbers of one film's hips, and what else is asked for."""
        with self._attend(message):
            check_hips(message.body.hips, self._side)
            return message.with_body(await self._batched(message.body))

    async def explain(self, message: Message[Views]) -> Message[Explanations]:
        """Return the heat maps of one film's views."""
        with self._attend(message):
            return await self._explaining(message)

    def check_health(self) -> None:
        """Raise GpuLostError where Serve should put another replica in this one's place."""
        self._attend.check_health()

    def tell_memory(self) -> StageMemory:
        """Say what this replica takes."""
        return measure_replica(self._gauge)

    def _run(self, films: list[AskedFilm]) -> list[ScoredFilm]:
        batch_metrics().observe("pipeline", len(films))
        hips, places = join_films([film.hips for film in films])
        scored = run_stages(self._stages, hips)
        views = split_views(scored.views, places)
        masks: list[Segmentation | None] = [None] * len(films)
        if scored.segmentation is not None:
            masks = [*split_segmentation(scored.segmentation, places)]
        return [
            _keep_asked(film, scored.rows[place], seen, found)
            for film, place, seen, found in zip(films, places, views, masks, strict=True)
        ]


def _keep_asked(
    film: AskedFilm, rows: list[HipNumbers], views: Views, masks: Segmentation | None
) -> ScoredFilm:
    """The numbers of one film, with masks and views only where somebody will look at them."""
    packed = PackedSegmentation.pack(masks) if masks and film.extras.needs_masks else None
    return ScoredFilm(rows, packed, views if film.extras.explain else None)
