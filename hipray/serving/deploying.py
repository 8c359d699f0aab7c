"""Deploying an application and waiting until it runs; first of all the stages of a release."""

import re

from ray import serve
from ray.serve import Application
from ray.serve.schema import ApplicationStatus, ServeStatus

from hipray.config.jobs import ServeRun
from hipray.distributed.cluster import read_nodes
from hipray.errors import HiprayError
from hipray.releases.release import Release
from hipray.runtime.memory import MemoryLimitError
from hipray.serving.applications import wait_until
from hipray.serving.bindings import DRAIN_SLACK_S, build_stages, name_stages
from hipray.serving.plan import list_stages
from hipray.serving.stages import StageSetup
from hipray.serving.together import ReplicasMemory, StageMemory, require_memory_together

ASK_S = 30.0
"""Seconds that a stage may take to say what memory it takes."""

QUIET = {"log_level": "WARNING", "enable_access_log": False}
"""Serve's access log has paths and queries; hipray logs request ids instead."""

STOPPED = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)


class ServingError(HiprayError):
    """The endpoint did not start."""

    exit_code = 9


class NotRunningError(Exception):
    """An application that was deployed does not run; its text is what was found instead."""


def drain_time(config: ServeRun) -> float:
    """Return the seconds that replicas may take to answer what they have begun, and to end."""
    return config.request_timeout_s + 2 * DRAIN_SLACK_S


def deploy_stages(config: ServeRun, setup: StageSetup) -> None:
    """Deploy the stages of a release, unless they run, and wait until all of them run.

    Raises NotRunningError with a stage's own reason.
    """
    home = name_stages(config, setup)
    there = serve.status().applications.get(home)
    if there is None or there.status != ApplicationStatus.RUNNING:
        run_application(build_stages(config, setup), home, None, config.rollout_timeout_s)
        _check_memory(config, setup.release, home)


def _check_memory(config: ServeRun, release: Release, home: str) -> None:
    told = [
        ReplicasMemory(
            stage.name, stage.bounds.min_replicas, _ask_memory(stage.name, home), stage.gpus
        )
        for stage in list_stages(config, release).values()
        if stage.has_networks
    ]
    try:
        require_memory_together(told, nodes=len(read_nodes()))
    except MemoryLimitError as error:
        raise NotRunningError(f'stages of which together is said "{error}"') from None


def _ask_memory(name: str, home: str) -> StageMemory:
    try:
        asked = serve.get_deployment_handle(name, home).tell_memory.remote()
        memory: StageMemory = asked.result(timeout_s=ASK_S)
    except Exception as error:
        told = type(error).__name__
        raise NotRunningError(f"no {name} that says what memory it takes ({told})") from error
    return memory


def run_application(
    application: Application, name: str, route: str | None, timeout_s: float
) -> None:
    """Deploy an application and wait until each of its deployments has what it asks for.

    Raises NotRunningError.
    """
    target = serve.RunTarget(application, name, route, QUIET)
    serve.run_many(
        [target],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )

    def is_settled(status: ServeStatus) -> bool:
        found = status.applications.get(name)
        return found is None or found.status in (ApplicationStatus.RUNNING, *STOPPED)

    settled = wait_until(is_settled, timeout_s)
    if settled is None:
        told = _find_delay(serve.status(), name)
        raise NotRunningError(f"no answer of its stages within {timeout_s:.0f} s ({told})")
    if name not in settled.applications:
        raise NotRunningError("stages that somebody else has ended")
    if settled.applications[name].status != ApplicationStatus.RUNNING:
        raise NotRunningError(f'a stage that says "{_find_reason(settled, name)}"')


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
    found = status.applications.get(name)
    stages = found.deployments.values() if found else ()
    told = [" ".join(stage.message.split()) for stage in stages if stage.message]
    return " ".join(told) or "Ray Serve says nothing of why"


def last_line(text: str) -> str:
    """Return the last line that says something."""
    return ([line.strip() for line in text.splitlines() if line.strip()] or [""])[-1]
