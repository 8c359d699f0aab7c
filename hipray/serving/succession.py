"""Ending the stages of releases before, where nobody waits for a release to be in place.

Deploying a Serve config file returns at once, and its build is over before the new ingress
starts. So a replica of the ingress looks after them, all its life: stages also stay behind where a
later release was deployed and given up.
"""

import logging
import threading
import time

from ray import serve
from ray.serve.schema import ApplicationStatus, ServeStatus

from hipray.serving.applications import has_only_new_replicas, list_stage_applications

LOOK_S = 5.0
"""Seconds between two looks at Serve's applications."""

logger = logging.getLogger(__name__)


def find_left_stages(status: ServeStatus, *, door: str, keeps: str) -> set[str]:
    """Return the applications of stages that nobody asks any more.

    `door` is the application of the ingress, `keeps` that of its stages. While a release is built
    or takes over, the door does not run, and nothing is left.
    """
    application = status.applications.get(door)
    if application is None or application.status != ApplicationStatus.RUNNING:
        return set()
    if not has_only_new_replicas(status, door):
        return set()
    return list_stage_applications(status) - {keeps}


def end_left_stages(*, door: str, keeps: str) -> None:
    """End them without waiting; several replicas may do so at a time."""
    for name in find_left_stages(serve.status(), door=door, keeps=keeps):
        serve.delete(name, _blocking=False)


def watch_left_stages(keeps: str) -> None:
    """Look after them as long as this replica lives, in a thread that ends with it."""
    door = serve.get_replica_context().app_name
    threading.Thread(
        target=_watch, args=(door, keeps), name="hipray-succession", daemon=True
    ).start()


def _watch(door: str, keeps: str) -> None:
    while True:
        try:
            end_left_stages(door=door, keeps=keeps)
        except Exception as error:  # the controller starts anew, or another replica was faster
            logger.warning("looks again after the stages before: %s", type(error).__name__)
        time.sleep(LOOK_S)
