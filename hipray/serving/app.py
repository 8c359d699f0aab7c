"""The application: which deployments a release needs, and how each of them scales."""

from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig

from hipray.config.jobs import ServeRun
from hipray.releases.release import Release, check_preprocessing, check_servable, read_release
from hipray.serving.access import check_exposure
from hipray.serving.ingress import Ingress, count_running
from hipray.serving.problems import RETRY_AFTER_S
from hipray.serving.source import FilmSource
from hipray.serving.stages import (
    EnsembleStage,
    FusedStage,
    MattingStage,
    SegmenterStage,
    StageSetup,
)
from hipray.storage import open_store
from hipray.vocab import View

DOOR_SLACK = 32
"""Requests above the queue that reach the ingress, so that it can answer them with a 503 itself
and health checks pass while the queue is full."""

CONSTRUCTOR_RETRIES = 1
"""A stage that cannot load its bundles will not load them by trying again."""

UPSCALE_DELAY_S = 5.0
"""Overload lasting this long starts a replica."""

DOWNSCALE_DELAY_S = 120.0
"""Idleness lasting this long ends a replica; loading models again is dear."""


def build_app(config: ServeRun) -> Application:
    """Return the Serve application of a configuration, as `import_path` of a Serve config file.

    There host and port are those of the file's `http_options`; give the same host here, so that
    an open service without tokens is refused. Raises ConfigError and BundleError.
    """
    return build_application(config, read_servable(config))


def read_servable(config: ServeRun) -> Release:
    """Return the release of a configuration after every check that needs no Ray."""
    check_exposure(config.host, guarded=bool(config.token_sha256 or config.token_file))
    FilmSource(config.allowed_prefixes, config.storage, max_bytes=config.limits.max_file_bytes)
    release = read_release(open_store(config.workspace, config.storage), config.release)
    check_servable(release, allow_phantom=config.allow_phantom_release)
    check_preprocessing(release)
    return release


def build_application(config: ServeRun, release: Release) -> Application:
    """Return the Serve application of a release; nothing is deployed yet.

    The release is pinned: every deployment gets its text and none reads its name again.
    """
    ingress = serve.deployment(serve.ingress()(Ingress)).options(**_ingress_options(config))
    return ingress.bind(config, describe_setup(config, release), **bind_stages(config, release))


def describe_setup(config: ServeRun, release: Release) -> StageSetup:
    """Return what each deployment of a release is built from."""
    return StageSetup(
        workspace=open_store(config.workspace, config.storage).uri,
        storage=config.storage,
        release_text=release.model_dump_json(),
        batch=config.batch,
        batch_wait_s=config.batch_wait_s,
        cpus=config.cpus_per_stage,
        gpus=config.gpus_per_stage,
    )


def bind_stages(config: ServeRun, release: Release) -> dict[str, Application]:
    """Return the model stages that a release needs, by the names the ingress takes them."""
    setup = describe_setup(config, release)
    model = _stage_options(config, gpus=config.gpus_per_stage)
    if config.fused:
        return {"fused": _bind(FusedStage, "pipeline", setup, model)}
    stages = {"classify": _bind(EnsembleStage, "ensemble", setup, model)}
    if release.segmenters:
        stages["segment"] = _bind(SegmenterStage, "segmenter", setup, model)
        if release.view is View.MATTED:
            plain = _stage_options(config, gpus=0)
            stages["matte"] = _bind(MattingStage, "matting", setup, plain)
    return stages


def _bind(stage: type, name: str, setup: StageSetup, options: dict[str, Any]) -> Application:
    return serve.deployment(stage).options(name=name, **options).bind(setup)


def _stage_options(config: ServeRun, *, gpus: float) -> dict[str, Any]:
    return {
        "ray_actor_options": {"num_cpus": config.cpus_per_stage, "num_gpus": gpus},
        "max_ongoing_requests": 2 * config.batch,
        "max_queued_requests": config.queue,
        "max_constructor_retry_count": CONSTRUCTOR_RETRIES,
        **_scale(config, target=config.batch),
    }


def _ingress_options(config: ServeRun) -> dict[str, Any]:
    running = count_running(config)
    return {
        "name": "ingress",
        "ray_actor_options": {"num_cpus": config.cpus_per_stage},
        "max_ongoing_requests": running + config.queue + DOOR_SLACK,
        "max_queued_requests": config.queue,
        "max_constructor_retry_count": CONSTRUCTOR_RETRIES,
        "backpressure_config": BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
        **_scale(config, target=running),
    }


def _scale(config: ServeRun, *, target: int) -> dict[str, Any]:
    if config.max_replicas == 1:
        return {"num_replicas": 1}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=1,
            max_replicas=config.max_replicas,
            target_ongoing_requests=target,
            upscale_delay_s=UPSCALE_DELAY_S,
            downscale_delay_s=DOWNSCALE_DELAY_S,
        )
    }
