"""Serving a release: check it, start Ray Serve, deploy, and wait until every stage has answered."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import ray
from ray import serve

from hipray.config.jobs import ServeRun
from hipray.distributed.cluster import connect, read_nodes
from hipray.releases.release import Release
from hipray.runtime.engine import count_threads
from hipray.serving.access import TokenCheck
from hipray.serving.address import choose_address, take_address, url_of
from hipray.serving.applications import APPLICATION, end_applications, end_stages
from hipray.serving.bindings import describe_setup, name_stages, read_served
from hipray.serving.deploying import ServingError, drain_time
from hipray.serving.ingress import DoorPlan
from hipray.serving.inheritance import inherit_settings, tell_inherited
from hipray.serving.plan import count_cpus, list_stages, require_room, size_stages, tell_wait
from hipray.serving.proxies import start_proxies
from hipray.serving.rollout import deploy, hold_rollout, read_running
from hipray.serving.running import RunningEndpoint, forget_endpoint, note_endpoint
from hipray.serving.stages import StageSetup
from hipray.storage import Store, open_store

READY_S = 120.0
"""Seconds that a deployed application may take to answer on its port."""

POLL_S = 0.2

STOP = (signal.SIGINT, signal.SIGTERM)
"""What a terminal and a container's runtime end a service with."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedEndpoint:
    """A release that answers at `url`."""

    url: str
    release: str
    release_digest: str
    drain_s: float
    """Seconds that its replicas may take to end."""
    owns_ray: bool
    """Whether this process connected to Ray for this endpoint and leaves it with it."""
    note: tuple[Store, int] | None = None
    """The workspace and port under which the endpoint is noted."""

    def shutdown(self) -> None:
        """Stop answering, and end what was started for it; other Serve applications stay."""
        if not ray.is_initialized():
            return
        with ExitStack() as steps:  # the last one first, and each even where one before it fails
            if self.owns_ray:
                steps.callback(ray.shutdown)
            steps.callback(_leave_serve)
            steps.callback(end_stages, drain_s=self.drain_s)
            steps.callback(end_applications, {APPLICATION}, drain_s=self.drain_s)
            if self.owns_ray and self.note is not None:
                steps.callback(forget_endpoint, *self.note)

    def wait(self) -> None:
        """Serve until the process gets SIGINT or SIGTERM, then shut down.

        Call it in the main thread, which alone receives signals.
        """
        stopped = threading.Event()
        before = {number: signal.signal(number, lambda *_: stopped.set()) for number in STOP}
        try:
            while not stopped.wait(1):  # a wait without an end would not see the signal
                pass
        finally:
            self.shutdown()
            for number, handler in before.items():
                signal.signal(number, handler)


def _leave_serve() -> None:
    if not serve.status().applications:
        serve.shutdown()


def run_serve(config: ServeRun, *, announce: Callable[[str], None] = logger.info) -> ServedEndpoint:
    """Serve a release over HTTP; `announce` is told the address once every stage has answered.

    Where an endpoint answers already, the release takes its place and its settings but for those
    that `config` sets, and the call returns; else it blocks until interrupted where `config.block`
    is set. Raises ConfigError for a service that would be open to other machines, not servable or
    without room, RunBusyError where another rolls out, BundleError, ServingError and RolloutError.
    """
    release = read_served(config)
    TokenCheck(config.token_sha256, config.token_file)  # a file that the ingress could not read
    store = open_store(config.workspace, config.storage)
    owns_ray = not ray.is_initialized()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    connect(min_cpus=count_cpus(config, release))
    with hold_rollout():
        before, told = read_running(), ""
        if before is not None:
            told = tell_inherited(config, before.config)
            config = inherit_settings(config, before.config)
            release = read_served(config)
        config = size_stages(config, release, read_nodes())
        setup = describe_setup(config, release)
        named = _describe(config, setup)
        _check_room(config, setup, before)
        if before is not None:
            endpoint = _replace(config, setup, before, owns_ray=owns_ray)
            old = _name(before.setup.release) + (told and f"; it {told}")
            announce(f"{named} answers at {endpoint.url}/v1/score in place of {old}")
            return endpoint
        config = choose_address(config)
        url, port = url_of(config.host, config.port), config.port
        endpoint = ServedEndpoint(
            url, release.name, release.digest, drain_time(config), owns_ray, (store, port)
        )
        try:
            start_proxies(config)
            deploy(config, setup)
            _wait_until_ready(endpoint)
        except BaseException:
            endpoint.shutdown()
            raise
    if owns_ray:
        address = ray.get_runtime_context().gcs_address
        note_endpoint(store, RunningEndpoint(url=url, ray_address=address), port)
    announce(f"{named} answers at {endpoint.url}/v1/score")
    if config.block:
        endpoint.wait()
    return endpoint


def _replace(
    config: ServeRun, setup: StageSetup, before: DoorPlan, *, owns_ray: bool
) -> ServedEndpoint:
    """Put a release in the place of the one that answers; the process that serves it serves on."""
    config = take_address(config, before.config.host, before.config.port)
    url, release = url_of(config.host, config.port), setup.release
    endpoint = ServedEndpoint(url, release.name, release.digest, drain_time(config), owns_ray)
    try:
        deploy(config, setup, before=before)
        _wait_until_ready(endpoint)
    finally:
        if owns_ray:
            ray.shutdown()
    return endpoint


def _check_room(config: ServeRun, setup: StageSetup, before: DoorPlan | None) -> None:
    """Refuse or tell of stages without a place beside those of the release before."""
    stages = list_stages(config, setup.release).values()
    if before is None:
        require_room([*stages])
    elif name_stages(before.config, before.setup) != name_stages(config, setup):  # else they stay
        require_room([*stages, *list_stages(before.config, before.setup.release).values()])
        tell_wait(config, setup.release)


def _describe(config: ServeRun, setup: StageSetup) -> str:
    """A release and what computes each stage of it."""
    engine, threads = setup.engine, count_threads(setup.cpus)
    share = f", {config.gpus_per_stage:g} GPU" if config.gpus_per_stage else ""
    return (
        f"release {_name(setup.release)}, each stage with {engine.runtime} on {engine.device} "
        f"({threads} {'thread' if threads == 1 else 'threads'}{share}),"
    )


def _name(release: Release) -> str:
    return f"{release.name} ({release.digest[:12]})"


def _wait_until_ready(endpoint: ServedEndpoint) -> None:
    until, found = time.monotonic() + READY_S, "no answer"
    while time.monotonic() < until:
        try:
            answer = httpx.get(f"{endpoint.url}/readyz", timeout=READY_S, trust_env=False)
            if answer.status_code != httpx.codes.OK:
                found = f"status {answer.status_code}"
            elif answer.json()["release_digest"] != endpoint.release_digest:
                found = "another release"
            else:
                return
        except httpx.HTTPError as error:
            found = type(error).__name__
        time.sleep(POLL_S)
    raise ServingError(
        f"an answer at {endpoint.url} within {READY_S:.0f} s", found, "see the log of Ray Serve"
    )
