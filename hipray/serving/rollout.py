"""Putting a release in the place of another without losing a request or mixing the two.

The new stages load and pass their golden checks in an application of their own. Then new replicas
of the ingress start on them, send a film through, and take over; the old ones end what they have
begun, and only then the old stages end. Whatever fails before leaves the old release answering.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager

import ray
from ray import serve
from ray.serve import Application
from ray.serve.schema import ApplicationStatus, ServeStatus

from hipray.config.jobs import ServeRun
from hipray.distributed.cluster import read_nodes
from hipray.errors import HiprayError, RunBusyError
from hipray.releases.release import Release
from hipray.runtime.memory import MemoryLimitError
from hipray.serving.app import (
    APPLICATION,
    DRAIN_SLACK_S,
    INGRESS,
    STAGES_PREFIX,
    build_door,
    build_stages,
    name_stages,
)
from hipray.serving.ingress import DoorPlan
from hipray.serving.plan import list_stages
from hipray.serving.together import ReplicasMemory, StageMemory, require_memory_together

POLL_S = 0.2

LOCK = "hipray-rollout"
LOCK_WAIT_S = 5.0

ASK_S = 30.0
"""Seconds that the running ingress may take to say what it serves, and a stage what it takes."""

QUIET = {"log_level": "WARNING", "enable_access_log": False}
"""Serve's access log has paths and queries; hipray logs request ids instead."""

STOPPED = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)

logger = logging.getLogger(__name__)


class ServingError(HiprayError):
    """The endpoint did not start."""

    exit_code = 9


class RolloutError(ServingError):
    """A release was not put in place; the one before answers on."""

    exit_code = 10


def read_running() -> DoorPlan | None:
    """Return what the application of this Serve was deployed with; None where there is none.

    Raises ServingError where it does not say, or was deployed from a Serve config file.
    """
    application = serve.status().applications.get(APPLICATION)
    if application is None or application.status == ApplicationStatus.DELETING:
        return None
    if set(application.deployments) != {INGRESS}:
        raise ServingError(
            "an application that `hipray serve` deployed",
            "one from a Serve config file, whose stages end with its ingress",
            "change the file and deploy it again",
        )
    try:
        asked = serve.get_app_handle(APPLICATION).tell_plan.remote()
        plan: DoorPlan = asked.result(timeout_s=ASK_S)
    except Exception as error:
        found = f"none within {ASK_S:.0f} s ({type(error).__name__})"
        raise ServingError(
            "an ingress that says what it serves", found, "see its log, or delete the application"
        ) from error
    return plan


def deploy(config: ServeRun, release: Release, *, before: DoorPlan | None = None) -> None:
    """Deploy a release in place of the one before, if any.

    Raises ServingError with a stage's own reason; RolloutError where the one before answers on.
    """
    try:
        _deploy_stages(config, release)
        _run(build_door(config, release), APPLICATION, "/", config.rollout_timeout_s)
    except _NotRunningError as failure:
        raise _undo(failure, config, release, before) from None
    drain_s = max(drain_time(each) for each in (config, *([before.config] if before else [])))
    _wait_for_old_replicas(drain_s)
    end_stages(but=name_stages(config, release), drain_s=drain_s)


def _deploy_stages(config: ServeRun, release: Release) -> None:
    home = name_stages(config, release)
    there = serve.status().applications.get(home)
    if there is None or there.status != ApplicationStatus.RUNNING:
        _run(build_stages(config, release), home, None, config.rollout_timeout_s)
        _check_memory(config, release, home)


def _check_memory(config: ServeRun, release: Release, home: str) -> None:
    told = [
        ReplicasMemory(stage.name, stage.bounds.min_replicas, _ask_memory(stage.name, home))
        for stage in list_stages(config, release).values()
        if stage.has_networks
    ]
    try:
        require_memory_together(told, nodes=len(read_nodes()))
    except MemoryLimitError as error:
        raise _NotRunningError(f'stages of which together is said "{error}"') from None


def _ask_memory(name: str, home: str) -> StageMemory:
    try:
        asked = serve.get_deployment_handle(name, home).tell_memory.remote()
        memory: StageMemory = asked.result(timeout_s=ASK_S)
    except Exception as error:
        told = type(error).__name__
        raise _NotRunningError(f"no {name} that says what memory it takes ({told})") from error
    return memory


def drain_time(config: ServeRun) -> float:
    """Return the seconds that replicas may take to answer what they have begun, and to end."""
    return config.request_timeout_s + 2 * DRAIN_SLACK_S


def end_stages(*, but: str | None = None, drain_s: float) -> None:
    """End the stages of all releases but one."""
    names = [name for name in serve.status().applications if name.startswith(STAGES_PREFIX)]
    end_applications({*names} - {but}, drain_s=drain_s)


def end_applications(names: Set[str], *, drain_s: float) -> None:
    """End applications and wait for their replicas; one that stays is only told of.

    Serve goes on ending it, while its own waiting call fails after a minute, which a request may
    outlast.
    """
    ending = names & serve.status().applications.keys()
    for name in ending:
        serve.delete(name, _blocking=False)
    if ending and _wait_until(lambda s: not ending & s.applications.keys(), drain_s) is None:
        logger.warning("%s still ends after %.0f s", ", ".join(sorted(ending)), drain_s)


@contextmanager
def hold_rollout() -> Iterator[None]:
    """Let one process at a time roll out on this Ray; raises RunBusyError where another does.

    The lock is a named actor: it ends with the process that made it, however that ends.
    """
    lock = _take_lock()
    try:
        yield
    finally:
        if ray.is_initialized():
            ray.kill(lock)


class _Lock:
    """Holds a name."""


def _take_lock() -> ray.actor.ActorHandle:
    until = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return ray.remote(_Lock).options(name=LOCK, namespace=LOCK, num_cpus=0).remote()
        except ValueError:  # taken; or ended just now, which Ray notices a moment later
            if time.monotonic() > until:
                raise RunBusyError(
                    "an endpoint that nobody is rolling out",
                    "another rollout at work",
                    "wait for it",
                ) from None
        time.sleep(POLL_S)


class _NotRunningError(Exception):
    """An application that was deployed does not run; its text is what was found instead."""


def _run(application: Application, name: str, route: str | None, timeout_s: float) -> None:
    """Deploy an application and wait until each of its deployments has what it asks for."""
    target = serve.RunTarget(application, name, route, QUIET)
    serve.run_many(
        [target],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )

    def is_settled(status: ServeStatus) -> bool:
        found = status.applications[name].status
        return found == ApplicationStatus.RUNNING or found in STOPPED

    settled = _wait_until(is_settled, timeout_s)
    if settled is None:
        told = _find_delay(serve.status(), name)
        raise _NotRunningError(f"no answer of its stages within {timeout_s:.0f} s ({told})")
    if settled.applications[name].status != ApplicationStatus.RUNNING:
        raise _NotRunningError(f'a stage that says "{_find_reason(settled, name)}"')


def _wait_until(holds: Callable[[ServeStatus], bool], timeout_s: float) -> ServeStatus | None:
    """Return the first state of Serve for which something holds; None where the time is over."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        status = serve.status()
        if holds(status):
            return status
        time.sleep(POLL_S)
    return None


def _find_reason(status: ServeStatus, name: str) -> str:
    """The hipray error that a stage of a failed application reports, else what Serve says."""
    application = status.applications[name]
    messages = [stage.message for stage in application.deployments.values()]
    for message in messages:
        sentences = re.findall(r"hipray\.\S+Error: (.+)", message)
        if sentences:
            return str(sentences[-1]).strip()
    return next((last_line(text) for text in messages if text), application.message)


def _find_delay(status: ServeStatus, name: str) -> str:
    """What Serve says of an application that neither runs nor failed."""
    stages = status.applications[name].deployments.values()
    told = [" ".join(stage.message.split()) for stage in stages if stage.message]
    return " ".join(told) or "Ray Serve says nothing of why"


def last_line(text: str) -> str:
    """Return the last line that says something."""
    return ([line.strip() for line in text.splitlines() if line.strip()] or [""])[-1]


def _undo(
    failure: _NotRunningError, config: ServeRun, release: Release, before: DoorPlan | None
) -> ServingError:
    """Leave things as they were, and return what to tell."""
    home = name_stages(config, release)
    wanted, found = f"release '{release.name}' to start", str(failure)
    if before is None:
        return ServingError(wanted, found, "correct that and serve again")
    kept = before.read_release()
    _restore_door(before)
    if name_stages(before.config, kept) != home:
        end_applications({home}, drain_s=drain_time(config))
    return RolloutError(
        wanted, found, f"release '{kept.name}' answers on; correct that and serve again"
    )


def _restore_door(before: DoorPlan) -> None:
    """Make Serve want the old ingress again; its replicas never ended."""
    application = serve.status().applications[APPLICATION]
    if application.status == ApplicationStatus.RUNNING:
        return
    release = before.read_release()
    try:
        _run(build_door(before.config, release), APPLICATION, "/", before.config.rollout_timeout_s)
    except _NotRunningError as failure:
        logger.error("the old ingress answers and cannot be deployed anew: %s", failure)


def _wait_for_old_replicas(drain_s: float) -> None:
    """Wait until only new replicas of the ingress are left: nobody then asks the old stages."""

    def are_gone(status: ServeStatus) -> bool:
        return set(status.applications[APPLICATION].deployments[INGRESS].replica_states) <= {
            "RUNNING"
        }

    _wait_until(are_gone, drain_s)
