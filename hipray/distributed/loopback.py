"""Keeping a Ray that serves one machine on that machine's loopback interface.

Ray binds some ports to every interface whatever address its nodes have. A private Ray and the head
of `cluster/local.sh` run with the switch below; on a cluster of machines nothing here does
anything.
"""

import os
from functools import partial
from typing import Any

from ray._common import tls_utils
from ray._private import ray_constants

SWITCH = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
"""Ray's own variable for laptops that must not open ports; with "0" nodes have 127.0.0.1."""
WORKER_HOOK = "hipray.distributed.loopback.guard_worker"
"""What each worker process calls before anything else."""
ANY_INTERFACE = "[::]:"
LOOPBACK = "127.0.0.1:"


def choose_loopback() -> None:
    """Make a Ray that this process starts, with all its processes, listen on loopback only."""
    os.environ[SWITCH] = "0"  # for the processes that Ray starts
    ray_constants.ENABLE_RAY_CLUSTER = False  # for this one: it was read when Ray was imported


def is_on_loopback() -> bool:
    """Whether the Ray of this process's environment stays on this machine."""
    return os.environ.get(SWITCH) == "0"


def guard_worker() -> None:
    """Bind what a worker process opens to loopback, where its Ray stays on this machine.

    Each Serve replica opens a port for its sister stages, which Ray binds to all interfaces.
    """
    if is_on_loopback():
        tls_utils.add_port_to_grpc_server = partial(_bind_to_loopback, _add_port)


_add_port = tls_utils.add_port_to_grpc_server


def _bind_to_loopback(add_port: Any, server: Any, address: str) -> Any:
    return add_port(server, address.replace(ANY_INTERFACE, LOOPBACK, 1))
