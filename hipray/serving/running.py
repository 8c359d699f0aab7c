"""Where an endpoint on this machine runs, so that a later `hipray serve` finds its Ray.

A private Ray has an address that nobody else knows; it is noted in the workspace while it serves.
"""

import json
import logging
import os
import socket

import httpx
from pydantic import ValidationError

from hipray.config.base import Config
from hipray.config.jobs import ServeRun
from hipray.errors import NotFoundError, StorageError
from hipray.storage import Store, open_store

ASK_S = 5.0

ENVIRONMENT = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "hipray.serving.proxy:list_middlewares",
    # how often replicas and callers tell their load, in seconds; Serve's own 10 adapts late
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
    # seconds, thrice in a row, after which Serve kills a proxy that still starts; its own 5 are too
    # few on a busy machine
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "20",
}
"""What Serve's controller, proxies and replicas run with."""

logger = logging.getLogger(__name__)


class RunningEndpoint(Config):
    """An endpoint and the Ray that it runs on."""

    url: str
    """Where it answers on this machine."""
    ray_address: str
    """Address of its Ray."""


def join_endpoint(config: ServeRun) -> None:
    """Point Ray at the endpoint that runs on the configured port of this machine, if one does.

    Ray reads these variables when it is imported, so this module does without it.
    """
    if "RAY_ADDRESS" in os.environ:
        return
    found = find_endpoint(open_store(config.workspace, config.storage), config.port)
    if found is not None:
        os.environ["RAY_ADDRESS"] = found.ray_address
        if found.ray_address.startswith("127."):  # as loopback.choose_loopback, which needs Ray
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        # on where Ray starts itself, and to be asked for where it is joined
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def note_endpoint(store: Store, note: RunningEndpoint, port: int) -> None:
    """Note that an endpoint answers on a port of this machine."""
    try:
        store.write(_key_of(port), note.model_dump_json().encode())
    except StorageError as error:  # a workspace may be read-only; the endpoint serves all the same
        logger.warning("a later `hipray serve` will not find this endpoint: %s", error)


def forget_endpoint(store: Store, port: int) -> None:
    """Take the note back."""
    try:
        store.delete(_key_of(port))
    except StorageError as error:
        logger.warning("the note of an endpoint stays: %s", type(error).__name__)


def find_endpoint(store: Store, port: int) -> RunningEndpoint | None:
    """Return the endpoint that is noted for a port of this machine, if it answers."""
    try:
        note = RunningEndpoint.model_validate(json.loads(store.read(_key_of(port))))
        if not all(map(_is_here, (httpx.URL(note.url).host, note.ray_address.rpartition(":")[0]))):
            return None  # whoever may write the workspace may not send a token elsewhere
        httpx.get(f"{note.url}/healthz", timeout=ASK_S, trust_env=False).raise_for_status()
    except (NotFoundError, ValidationError, ValueError, httpx.HTTPError):
        return None
    return note


def _is_here(host: str) -> bool:
    """Whether an address is one of this machine's own."""
    address = host.strip("[]")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _key_of(port: int) -> str:
    return f"serving/{socket.gethostname()}-{port}.json"
