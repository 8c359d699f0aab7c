"""A release made ready in this process: on its engine, within its memory, warmed up."""

import numpy as np

from hipray.bundles.loading import Loading
from hipray.bundles.networks import FILMS_AT_ONCE
from hipray.data.person import NOBODY, encode_people
from hipray.pipeline import FramedHips, Pipeline, Stages, Views, load_stages, run_stages
from hipray.releases.release import Release
from hipray.runtime.devices import claim_cpus
from hipray.runtime.engine import Engine
from hipray.runtime.memory import MemoryGauge
from hipray.storage import Store
from hipray.vocab import Device

HIPS_OF_A_FILM = 2
"""At most."""


def start_pipeline(
    store: Store,
    release: Release,
    engine: Engine,
    *,
    cpus: float | None = None,
    memory_gib: float | None = None,
    batch: int = 1,
) -> Pipeline:
    """Return the pipeline of a release after it has answered as many black hips as are tried.

    `cpus` None takes all that this process may use. Raises BundleError, and MemoryLimitError
    where the networks and one batch do not fit.
    """
    claim_cpus(engine, cpus)
    loading = Loading(engine, gauge=open_gauge(engine, memory_gib))
    return Pipeline(start_stages(store, release, loading, batch=batch))


def start_stages(store: Store, release: Release, loading: Loading, *, batch: int) -> Stages:
    """Return all model stages after the hips that are tried for `batch` films went through."""
    stages = load_stages(store, release, loading)
    hips = blank_hips(release, count_tried_hips(loading.engine, batch))
    loading.gauge.try_batch(lambda: run_stages(stages, hips))
    return stages


def count_tried_hips(engine: Engine, films: int) -> int:
    """Return how many hips of `films` films go through a network at once: what a start tries.

    More of them add their pixels only, which are small beside what a forward pass takes.
    """
    return min(HIPS_OF_A_FILM * films, FILMS_AT_ONCE[engine.device])


def open_gauge(engine: Engine, memory_gib: float | None) -> MemoryGauge:
    """Return what counts the memory of an engine's networks."""
    return MemoryGauge(memory_gib, on_gpu=engine.device is Device.CUDA)


def blank_hips(release: Release, count: int = 1) -> FramedHips:
    """Return black frames of nobody, to warm a model up."""
    frames = np.zeros((count, release.working_px, release.working_px), np.uint8)
    return FramedHips(frames, encode_people([NOBODY] * count))


def blank_views(release: Release, count: int = 1) -> Views:
    """Return the views of black frames in which no region was found."""
    return Views(
        encode_people([NOBODY] * count),
        {
            (region, side): np.zeros((count, side, side), np.uint8)
            for region, side in release.view_sizes
        },
        {region: np.zeros(count, np.bool_) for region in release.regions},
    )
