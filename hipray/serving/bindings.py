"""What Serve is given: which deployments a release needs, and how each of them scales.

`describe_setup` alone reads the store; what is described can be deployed, and put back, without it.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig

from hipray.config.jobs import ServeRun
from hipray.config.serving import ReplicaBounds
from hipray.digests import digest_of
from hipray.releases.engines import choose_engine
from hipray.releases.release import Release, read_servable
from hipray.serving.access import check_exposure
from hipray.serving.applications import INGRESS, STAGES_PREFIX
from hipray.serving.ingress import Ingress, count_running
from hipray.serving.plan import StagePlan, list_stages
from hipray.serving.problems import RETRY_AFTER_S
from hipray.serving.running import ENVIRONMENT
from hipray.serving.source import FilmSource
from hipray.serving.stages import StageSetup
from hipray.storage import open_store
from hipray.vocab import Device

DOOR_SLACK = 32
"""Requests above the queue that reach the ingress, so that it can answer them with a 503 itself
and health checks pass while the queue is full."""

CONSTRUCTOR_RETRIES = 1
"""A stage that cannot load its bundles will not load them by trying again."""

SURGE_PERCENT = 100
"""New replicas start before old ones end: a changed application answers all the while, and one
that does not start leaves the old one alone."""

DRAIN_SLACK_S = 10.0
"""Seconds above its time limit that a request of a replica that ends may take."""

HOME = "HIPRAY_STAGES"
"""Environment variable of the ingress: the application of its stages."""

_ENVIRONMENT = {"runtime_env": {"env_vars": ENVIRONMENT}}
"""What replicas run with on any Ray, however that was started."""


def read_served(config: ServeRun) -> Release:
    """Return the release of a configuration after every check that needs no Ray."""
    check_exposure(config.host, guarded=config.guarded)
    FilmSource(
        config.allowed_prefixes,
        config.storage,
        max_bytes=config.limits.max_file_bytes,
        archives=config.pacs,
    )
    store, allowed = open_store(config.workspace, config.storage), config.allow_phantom_release
    return read_servable(store, config.release, allow_phantom=allowed)


def name_stages(config: ServeRun, setup: StageSetup) -> str:
    """Return the application that holds these stages: other settings are other stages."""
    told = {"release": setup.release.digest, "fused": config.fused, "scaling": config.scaling}
    told |= {"batch": setup.batch, "wait_s": setup.batch_wait_s, "cpus": setup.cpus}
    told |= {"gpus": config.gpus_per_stage, "most": config.max_replicas, "queue": config.queue}
    told |= {"engine": asdict(setup.engine), "memory_gib": setup.memory_gib}
    return STAGES_PREFIX + digest_of(told)[:12]


def build_stages(config: ServeRun, setup: StageSetup) -> Application:
    """Return an application of the model stages alone; it has no route.

    The release is pinned: every deployment gets its text and none reads its name again.
    """
    stages = bind_stages(config, setup)
    return stages[_root_of(stages)]


def build_door(config: ServeRun, setup: StageSetup, *, from_file: bool = False) -> Application:
    """Return an application of the ingress over stages that are deployed already.

    A replica of the ingress knows one release for its whole life, so that no request meets two.
    One that is deployed from a Serve config file ends the stages of releases before itself.
    """
    names = {key: stage.name for key, stage in list_stages(config, setup.release).items()}
    home = name_stages(config, setup)
    handles = {key: serve.get_deployment_handle(name, home) for key, name in names.items()}
    ingress = serve.deployment(serve.ingress()(Ingress)).options(**_ingress_options(config, home))
    return ingress.bind(config, setup, keeps=home if from_file else None, **handles)


def describe_setup(config: ServeRun, release: Release) -> StageSetup:
    """Return what each deployment of a release is built from; reads its bundles' descriptions."""
    store = open_store(config.workspace, config.storage)
    device = Device.CUDA if config.gpus_per_stage else Device.CPU
    return StageSetup(
        workspace=store.uri,
        storage=config.storage,
        release_text=release.model_dump_json(),
        batch=config.batch,
        batch_wait_s=config.batch_wait_s,
        cpus=config.stage_cpus,
        engine=choose_engine(store, release, config, device=device),
        memory_gib=config.memory_gib,
    )


def bind_stages(config: ServeRun, setup: StageSetup) -> dict[str, Application]:
    """Return the model stages that a release needs, by the names the ingress takes them."""
    bound: dict[str, Application] = {}
    plans = list_stages(config, setup.release)
    for key, plan in plans.items():
        deployment = serve.deployment(plan.kind).options(**_stage_options(config, plan))
        # Serve deploys what the root of an application names
        named = {"beside": tuple(bound.values())} if key == _root_of(plans) and bound else {}
        bound[key] = deployment.bind(setup, **named)
    return bound


def _root_of(stages: Mapping[str, Any]) -> str:
    return [*stages][-1]


def _stage_options(config: ServeRun, plan: StagePlan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "ray_actor_options": {
            "num_cpus": config.cpus_per_stage,
            "num_gpus": plan.gpus,
            **_ENVIRONMENT,
        },
        "max_ongoing_requests": 2 * config.batch,
        "max_queued_requests": config.queue,
        **_live(config),
        **_scale(config, plan.bounds, target=config.batch),
    }


def _ingress_options(config: ServeRun, home: str) -> dict[str, Any]:
    running = count_running(config)
    # Serve gives a file that it has seen the same version again and would keep replicas that ask
    # other stages; another environment is another version
    environment = {"runtime_env": {"env_vars": {**ENVIRONMENT, HOME: home}}}
    return {
        "name": INGRESS,
        "ray_actor_options": {"num_cpus": config.cpus_per_ingress, **environment},
        "max_ongoing_requests": running + config.queue + DOOR_SLACK,
        "max_queued_requests": config.queue,
        "backpressure_config": BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
        **_live(config),
        **_scale(config, config.scaling.ingress, target=running),
    }


def _live(config: ServeRun) -> dict[str, Any]:
    """How replicas begin and end."""
    return {
        "max_constructor_retry_count": CONSTRUCTOR_RETRIES,
        "max_surge_percent": SURGE_PERCENT,
        "graceful_shutdown_timeout_s": config.request_timeout_s + DRAIN_SLACK_S,
    }


def _scale(config: ServeRun, bounds: ReplicaBounds, *, target: int) -> dict[str, Any]:
    least, most = bounds.limit(config.max_replicas)
    spread: dict[str, Any] = {}
    if bounds.max_replicas_per_node is not None:
        spread = {"max_replicas_per_node": bounds.max_replicas_per_node}
    if least == most:
        return {"num_replicas": least, **spread}
    return {
        **spread,
        "autoscaling_config": AutoscalingConfig(
            min_replicas=least,
            max_replicas=most,
            target_ongoing_requests=target,
            look_back_period_s=config.scaling.look_back_s,
            upscale_delay_s=config.scaling.upscale_delay_s,
            downscale_delay_s=config.scaling.downscale_delay_s,
        ),
    }
