"""Putting a release in the place of another without losing a request or mixing the two.

The new stages load and pass their golden checks in an application of their own. Then new replicas
of the ingress start on them, send a film through, and take over; the old ones end what they have
begun, and only then the old stages end. Whatever fails before leaves the old release answering.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import ray
from ray import serve

from hipray.config.jobs import ServeRun
from hipray.errors import HiprayError, RunBusyError
from hipray.serving.applications import (
    APPLICATION,
    POLL_S,
    end_applications,
    end_stages,
    has_only_new_replicas,
    is_there,
    wait_until,
)
from hipray.serving.bindings import build_door, name_stages
from hipray.serving.deploying import (
    NotRunningError,
    ServingError,
    deploy_stages,
    drain_time,
    last_line,
    run_application,
)
from hipray.serving.ingress import DoorPlan
from hipray.serving.stages import StageSetup

LOCK = "hipray-rollout"
LOCK_WAIT_S = 5.0

ASK_S = 30.0
"""Seconds that the running ingress may take to say what it serves."""

logger = logging.getLogger(__name__)


class RolloutError(ServingError):
    """A release was not put in place; the one before answers on."""

    exit_code = 10


def read_running() -> DoorPlan | None:
    """Return what the application of this Serve was deployed with; None where there is none.

    Raises ServingError where it does not say, or was deployed from a Serve config file.
    """
    if not is_there(serve.status(), APPLICATION):
        return None
    try:
        asked = serve.get_app_handle(APPLICATION).tell_plan.remote()
        plan: DoorPlan = asked.result(timeout_s=ASK_S)
    except Exception as error:
        found = f"none within {ASK_S:.0f} s ({type(error).__name__})"
        raise ServingError(
            "an ingress that says what it serves", found, "see its log, or delete the application"
        ) from error
    if plan.from_file:
        raise ServingError(
            "an application that `hipray serve` deployed",
            "one from a Serve config file, which would take it back",
            "change the file and deploy it again",
        )
    return plan


def deploy(config: ServeRun, setup: StageSetup, *, before: DoorPlan | None = None) -> None:
    """Deploy a release in place of the one before, if any.

    Raises ServingError with a stage's own reason; RolloutError, whatever failed, where the one
    before answers on. What fails or is interrupted is undone without the store, which may be gone;
    without a release before, whoever started Serve for this one ends it all.
    """
    home = name_stages(config, setup)
    with _tell_who_answers(setup, before), ExitStack() as undo:
        if before is not None and name_stages(before.config, before.setup) != home:
            undo.callback(_end_new_stages, home, config)
        deploy_stages(config, setup)
        if before is not None:
            undo.callback(_restore_door, before)
        run_application(build_door(config, setup), APPLICATION, "/", config.rollout_timeout_s)
        undo.pop_all()
    drain_s = max(drain_time(each) for each in (config, *([before.config] if before else [])))
    _wait_for_old_replicas(drain_s)
    end_stages(but=home, drain_s=drain_s)


@contextmanager
def _tell_who_answers(setup: StageSetup, before: DoorPlan | None) -> Iterator[None]:
    """Turn what stops a rollout into what to tell."""
    wanted, mend = f"release '{setup.release.name}' to start", "correct that and serve again"
    kept = "" if before is None else f"release '{before.setup.release.name}' answers on"
    try:
        yield
    except NotRunningError as failure:
        if not kept:
            raise ServingError(wanted, str(failure), mend) from None
        raise RolloutError(wanted, str(failure), f"{kept}; {mend}") from None
    except Exception as failure:
        if not kept:
            raise
        raise RolloutError(wanted, _describe(failure), f"{kept}; {mend}") from failure
    except BaseException:  # interrupted
        if kept:
            logger.warning(kept)
        raise


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


def _describe(failure: Exception) -> str:
    if isinstance(failure, HiprayError):
        return f'a failure that says "{failure}"'
    return f"{type(failure).__name__} ({last_line(str(failure))})"


def _end_new_stages(home: str, config: ServeRun) -> None:
    try:
        end_applications({home}, drain_s=drain_time(config))
    except Exception as error:
        logger.error("%s may stay: %s", home, _describe(error))


def _restore_door(before: DoorPlan) -> None:
    """Make Serve want the old ingress again; its replicas never ended."""
    try:
        door, timeout_s = build_door(before.config, before.setup), before.config.rollout_timeout_s
        run_application(door, APPLICATION, "/", timeout_s)
    except Exception as error:
        logger.error("the old ingress answers and cannot be deployed anew: %s", _describe(error))


def _wait_for_old_replicas(drain_s: float) -> None:
    """Wait until only new replicas of the ingress are left: nobody then asks the old stages."""
    wait_until(lambda status: has_only_new_replicas(status, APPLICATION), drain_s)
