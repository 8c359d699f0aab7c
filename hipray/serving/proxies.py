"""Serve's proxies: started as an endpoint needs them, or checked where they run already.

They take time limit, guard and bounds when they start, and keep them.
"""

import logging
from collections.abc import Sequence

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.context import _get_global_client  # no public call tells the proxies' address

from hipray.config.jobs import ServeRun
from hipray.serving.deploying import QUIET, ServingError
from hipray.serving.intake import IntakeLimits
from hipray.serving.proxy import ProxyGuard
from hipray.serving.running import ENVIRONMENT

TIMEOUT_SLACK_S = 5.0
"""Seconds after its own time limit at which Serve ends a request that did not end itself."""

ASK_S = 30.0
"""Seconds that the proxies may take to say how they were started."""

RESTART = "lower it, or end the endpoint (`serve shutdown` where it is not its own) and serve again"

logger = logging.getLogger(__name__)


def start_proxies(config: ServeRun) -> None:
    """Start Serve with proxies that keep a configuration's limits; one that runs stays as it is."""
    timeout_s = config.request_timeout_s + TIMEOUT_SLACK_S
    environment = {**ENVIRONMENT, **IntakeLimits.of(config).as_environment()}
    serve.start(
        http_options={"host": config.host, "port": config.port, "request_timeout_s": timeout_s},
        # the controller starts the proxies, which get its environment on any Ray
        controller_options={"runtime_env": {"env_vars": environment}},
        logging_config=QUIET,
    )


def check_proxies(config: ServeRun) -> None:
    """Raise ServingError where the proxies that run would cut off what a configuration allows."""
    _check_all(config, _ask_proxies())


def _ask_proxies() -> list[HTTPOptions]:
    client = _get_global_client()
    try:
        handles = ray.get(client._controller.get_proxies.remote(), timeout=ASK_S)
        asked = [handle._get_http_options.remote() for handle in handles.values()]
        found: list[HTTPOptions] = ray.get(asked, timeout=ASK_S)
    except (ray.exceptions.RayError, TimeoutError) as error:
        raise ServingError(
            "proxies of Ray Serve that say how they were started",
            f"none within {ASK_S:.0f} s ({type(error).__name__})",
            "shut it down (`serve shutdown`) and serve again",
        ) from error
    return found


def _check_all(config: ServeRun, proxies: Sequence[HTTPOptions]) -> None:
    wanted_s = config.request_timeout_s + TIMEOUT_SLACK_S
    limits_s = [proxy.request_timeout_s for proxy in proxies if proxy.request_timeout_s]
    if limits_s and min(limits_s) < wanted_s:
        raise ServingError(
            f"request_timeout_s of {min(limits_s) - TIMEOUT_SLACK_S:g} or less, for Serve's "
            f"proxies were started to end requests after {min(limits_s):g} s",
            f"{config.request_timeout_s:g}",
            RESTART,
        )
    wanted, found = IntakeLimits.of(config), [_limits_of(proxy) for proxy in proxies]
    guarded = [limits for limits in found if limits is not None]
    least = min((limits.body for limits in guarded), default=wanted.body)
    if least < wanted.body:
        raise ServingError(
            f"limits.max_file_bytes for bodies of {least} bytes, the most that Serve's proxies "
            "were started to take in",
            f"one for bodies of {wanted.body}",
            RESTART,
        )
    others = sorted({limits.held for limits in guarded} - {wanted.held})
    if others:
        logger.warning(
            "max_held_bytes stays at %s for each proxy, as Ray Serve was started with; shut it "
            "down (`serve shutdown`) and serve again to have %s", others, wanted.held,
        )  # fmt: skip
    if None in found:
        path = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
        logger.warning(
            "Ray Serve was started without hipray's guard: its proxies queue bodies without a "
            "limit, and answer 500 where a replica is lost; shut it down (`serve shutdown`) and "
            "serve again, or start it with %s=%s", path, ENVIRONMENT[path],
        )  # fmt: skip


def _limits_of(proxy: HTTPOptions) -> IntakeLimits | None:
    """The limits of the guard round a proxy; None where it has none."""
    found = (guard.kwargs["limits"] for guard in proxy.middlewares if guard.cls is ProxyGuard)
    return next(found, None)
