"""Where an endpoint listens: at the address of the Ray Serve that runs, or at a free one."""

import ipaddress
import socket
from random import SystemRandom

from ray.serve.context import _get_global_client  # no public call tells the proxies' address

from hipray.config.jobs import ServeRun
from hipray.serving.access import check_exposure
from hipray.serving.deploying import ServingError
from hipray.serving.proxies import check_proxies

FREE_PORTS = range(20_000, 32_000)
"""Where a free port is sought: below the ports that systems deal out to outgoing connections, one
of which may take a port between its choice and Serve's start."""


def choose_address(config: ServeRun) -> ServeRun:
    """Return the configuration with the address of Serve's proxies, or a free one for new ones."""
    running = _get_global_client(raise_if_no_controller_running=False)
    if running is None:
        if config.port and not _is_free(config.host, config.port):
            raise ServingError(
                f"port {config.port} of {config.host} to be free",
                "a program on it that is no endpoint of this workspace",
                "end that one, choose another port, or take port = 0 for a free one",
            )  # fmt: skip
        return config.model_copy(update={"port": config.port or find_free_port(config.host)})
    http = running.http_config
    if not http.host or not http.port:
        raise ServingError(
            "Ray Serve with an HTTP proxy on a port that it says",
            "one that runs without",
            "shut it down (`serve shutdown`) and serve again",
        )
    return take_address(config, http.host, http.port)


def take_address(config: ServeRun, host: str, port: int) -> ServeRun:
    """Return the configuration with the address at which Serve listens already.

    Raises ServingError where another port was asked for or its proxies keep other limits,
    ConfigError where it is too open.
    """
    if "port" in config.model_fields_set and config.port not in (0, port):
        raise ServingError(
            f"an endpoint on port {config.port}",
            f"Ray Serve at {url_of(host, port)}",
            "name that port or shut it down",
        )
    check_exposure(host, guarded=config.guarded)
    check_proxies(config)
    return config.model_copy(update={"host": host, "port": port})


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def find_free_port(host: str) -> int:
    """Return a port of `host` that nobody listens on now; raises ServingError without any."""
    for port in SystemRandom().sample(FREE_PORTS, len(FREE_PORTS)):
        if _is_free(host, port):
            return port
    raise ServingError(
        f"a free port of {host}",
        f"none in {FREE_PORTS.start} to {FREE_PORTS.stop - 1}",
        "name one with --port",
    )


def url_of(host: str, port: int) -> str:
    """Return how this machine reaches an endpoint."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if address.is_unspecified:  # this machine reaches it by loopback
        return f"http://127.0.0.1:{port}"
    return f"http://[{host}]:{port}" if address.version == 6 else f"http://{host}:{port}"
