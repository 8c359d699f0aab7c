"""The endpoint's applications in Ray Serve: their names, their state, and their end."""

import logging
import time
from collections.abc import Callable, Set

from ray import serve
from ray.serve.schema import ApplicationStatus, ServeStatus

APPLICATION = "hipray"
"""The Serve application that answers."""

STAGES_PREFIX = f"{APPLICATION}-stages-"
"""The Serve applications that hold the model stages of one release each."""

INGRESS = "ingress"

POLL_S = 0.2

logger = logging.getLogger(__name__)


def is_there(status: ServeStatus, name: str) -> bool:
    """Return whether Serve has an application, and not only its end."""
    found = status.applications.get(name)
    return found is not None and found.status != ApplicationStatus.DELETING


def list_stage_applications(status: ServeStatus) -> set[str]:
    """Return the applications that hold stages, those that end left out."""
    names = (name for name in status.applications if name.startswith(STAGES_PREFIX))
    return {name for name in names if is_there(status, name)}


def has_only_new_replicas(status: ServeStatus, name: str) -> bool:
    """Return whether all replicas of an application's ingress run: none starts, none ends."""
    application = status.applications.get(name)
    ingress = application and application.deployments.get(INGRESS)
    return bool(ingress) and set(ingress.replica_states) <= {"RUNNING"}


def wait_until(holds: Callable[[ServeStatus], bool], timeout_s: float) -> ServeStatus | None:
    """Return the first state of Serve for which something holds; None where the time is over."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        status = serve.status()
        if holds(status):
            return status
        time.sleep(POLL_S)
    return None


def end_applications(names: Set[str], *, drain_s: float) -> None:
    """End applications and wait for their replicas; one that stays is only told of.

    Serve goes on ending it, while its own waiting call fails after a minute, which a request may
    outlast.
    """
    ending = names & serve.status().applications.keys()
    for name in ending:
        serve.delete(name, _blocking=False)
    if ending and wait_until(lambda s: not ending & s.applications.keys(), drain_s) is None:
        logger.warning("%s still ends after %.0f s", ", ".join(sorted(ending)), drain_s)


def end_stages(*, but: str | None = None, drain_s: float) -> None:
    """End the stages of all releases but one."""
    names = [name for name in serve.status().applications if name.startswith(STAGES_PREFIX)]
    end_applications({*names} - {but}, drain_s=drain_s)
