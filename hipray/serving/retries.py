"""Asking once more where an answer got lost: stages are pure, so that asking twice harms nobody."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError

from hipray.serving.stage_errors import GpuFaultError, GpuLostError

Result = TypeVar("Result")

REPLICA_LOST = (
    RayActorError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    GpuLostError,
)
"""What a call ends with when its replica dies or loses its GPU, or none is there."""

FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 2.0


async def ask_until(ask: Callable[[], Awaitable[Result]], deadline_s: float) -> Result:
    """Return an answer, asking again where a replica was lost, until a Unix time.

    The waits double, with jitter. Raises what the last call raised. A message under which a GPU
    failed is asked of one more replica only: it may break each GPU that it comes to.
    """
    longest, faults = FIRST_WAIT_S, 0
    while True:
        try:
            return await ask()
        except REPLICA_LOST as error:
            faults += isinstance(error, GpuFaultError)
            wait_s = random.uniform(0, longest)
            if faults > 1 or time.time() + wait_s >= deadline_s:
                raise
            await asyncio.sleep(wait_s)
            longest = min(2 * longest, LONGEST_WAIT_S)
