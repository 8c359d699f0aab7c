"""Serving a release: check it, start Ray Serve, deploy, and wait until every stage has answered."""

import ipaddress
import logging
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import ray
from ray import serve

from hipray.config.jobs import ServeRun
from hipray.distributed.cluster import connect
from hipray.errors import HiprayError
from hipray.releases.release import Release
from hipray.serving.app import build_application, read_servable

APPLICATION = "hipray"

READY_S = 120.0
"""Seconds that a deployed application may take to answer on its port."""

POLL_S = 0.2

TIMEOUT_SLACK_S = 5.0
"""Seconds after its own time limit at which Serve ends a request that did not end itself."""

STOP = (signal.SIGINT, signal.SIGTERM)
"""What a terminal and a container's runtime end a service with."""

QUIET = {"log_level": "WARNING", "enable_access_log": False}
"""Serve's access log has paths and queries; hipray logs request ids instead."""

logger = logging.getLogger(__name__)


class ServingError(HiprayError):
    """The endpoint did not start."""

    exit_code = 9


@dataclass(frozen=True)
class ServedEndpoint:
    """A release that answers at `url`."""

    url: str
    release: str
    release_digest: str
    owns_ray: bool
    """Whether Ray was started for this endpoint and ends with it."""

    def shutdown(self) -> None:
        """Stop answering, and end what was started for it; other Serve applications stay."""
        if not ray.is_initialized():
            return
        serve.delete(APPLICATION)
        if not serve.status().applications:
            serve.shutdown()
        if self.owns_ray:
            ray.shutdown()

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


def run_serve(config: ServeRun, *, announce: Callable[[str], None] = logger.info) -> ServedEndpoint:
    """Serve a release over HTTP; `announce` is told the address once every stage has answered.

    Blocks until interrupted where `config.block` is set. Raises ConfigError for a service that
    would be open to other machines or not servable, BundleError and ServingError.
    """
    release = read_servable(config)
    owns_ray = not ray.is_initialized()
    connect()
    host, port = config.host, config.port or _find_free_port(config.host)
    endpoint = ServedEndpoint(_url_of(host, port), release.name, release.digest, owns_ray)
    try:
        _start_serve(config, host=host, port=port)
        deploy(config, release)
        _wait_until_ready(endpoint)
    except BaseException:
        endpoint.shutdown()
        raise
    announce(f"release {release.name} ({release.digest[:12]}) answers at {endpoint.url}/v1/score")
    if config.block:
        endpoint.wait()
    return endpoint


def _start_serve(config: ServeRun, *, host: str, port: int) -> None:
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    timeout_s = config.request_timeout_s + TIMEOUT_SLACK_S
    http = {"host": host, "port": port, "request_timeout_s": timeout_s}
    serve.start(http_options=http, logging_config=QUIET)


def deploy(
    config: ServeRun, release: Release, *, name: str = APPLICATION, route_prefix: str = "/"
) -> None:
    """Deploy a release on the running Serve; raises ServingError with a stage's own reason."""
    application = build_application(config, release)
    try:
        serve.run(application, name=name, route_prefix=route_prefix, logging_config=QUIET)
    except RuntimeError as error:
        reason = _find_reason(name) or str(error)
        raise ServingError(f"release '{release.name}' to start", reason, "correct that") from None


def _find_reason(name: str) -> str | None:
    """Return the hipray error that a stage of a failed application reports, if it does."""
    application = serve.status().applications.get(name)
    stages = application.deployments.values() if application else ()
    for stage in stages:
        sentences = re.findall(r"hipray\.\S+Error: (.+)", stage.message)
        if sentences:
            return str(sentences[-1]).strip()
    return None


def _wait_until_ready(endpoint: ServedEndpoint) -> None:
    until, found = time.monotonic() + READY_S, "no answer"
    while time.monotonic() < until:
        try:
            answer = httpx.get(f"{endpoint.url}/readyz", timeout=READY_S)
            if answer.status_code == httpx.codes.OK:
                return
            found = f"status {answer.status_code}"
        except httpx.HTTPError as error:
            found = type(error).__name__
        time.sleep(POLL_S)
    raise ServingError(
        f"an answer at {endpoint.url}",
        found,
        "if Ray Serve already runs there with another host or port, name those or shut it down",
    )


def _find_free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _url_of(host: str, port: int) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if address.is_unspecified:  # this machine reaches it by loopback
        return f"http://127.0.0.1:{port}"
    return f"http://[{host}]:{port}" if address.version == 6 else f"http://{host}:{port}"
