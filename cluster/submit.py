"""Submit a job so that submitting it again is harmless: python cluster/submit.py grid --preset grid

The submission id comes from the job and its arguments: hipray-JOB-DIGEST-ATTEMPT. While a
submission with the same digest runs, another one follows that one; after it ended, another one is
a new attempt, which does only what is missing. The exit code is the job's own, so that a scheduler
can act on it: 75 means that trying again may help.
"""

import argparse
import asyncio
import hashlib
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

ROOT = Path(__file__).resolve().parent.parent
IN_IMAGE = Path("/opt/hipray/jobs")
"""Where cluster/Dockerfile puts the jobs."""

ADDRESS = "http://127.0.0.1:8265"
"""Ray's dashboard on this machine, or the near end of a tunnel to it."""

TRY_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h: the cluster or the job's driver is gone, its results are not."""
STOPPED = 143
"""128 + SIGTERM: someone stopped the job; a scheduler leaves it so."""
REFUSED = 2
"""The cluster does not accept the token or the request, as for a wrong configuration."""

POLL_S = 3.0
PATIENCE_S = 300.0
"""Seconds that a head may be silent (a restart) before its job counts as lost."""


UNHEARD = (OSError, RuntimeError, aiohttp.ClientError)
"""How a head out of reach shows: requests' errors are OSErrors, a bad status is a RuntimeError."""
SERVER_FAULT = re.compile(r"status code 5\d\d")


def is_refusal(error: Exception) -> bool:
    """Whether the head heard and declined; one that failed or was not reached may be back soon."""
    if isinstance(error, OSError | aiohttp.ClientError):
        return False
    return SERVER_FAULT.search(str(error)) is None


def name_submission(job: str, arguments: Sequence[str]) -> str:
    """Return the part of the submission id that equal submissions share."""
    digest = hashlib.sha256(json.dumps([job, *arguments]).encode()).hexdigest()
    return f"hipray-{job}-{digest[:12]}"


def count_attempts(name: str, known: Iterable[JobDetails]) -> tuple[int, str | None]:
    """Return the number of earlier attempts and the submission id of a live one."""
    attempts, live = 0, None
    for details in known:
        stem, _, number = (details.submission_id or "").rpartition("-")
        if stem != name or not number.isdigit():
            continue
        attempts = max(attempts, int(number))
        if not details.status.is_terminal():
            live = details.submission_id
    return attempts, live


def read_exit_code(status: JobStatus, driver: int | None) -> int:
    """Return what a scheduler is told of a job that has ended."""
    if status is JobStatus.SUCCEEDED:
        return 0
    if status is JobStatus.STOPPED:
        return STOPPED
    if driver is None or driver < 0:  # lost with its node, or killed there
        return TRY_AGAIN
    return driver or 1


def describe_job(job: str, arguments: Sequence[str], *, installed: bool) -> dict[str, Any]:
    """Return entrypoint and runtime environment; the checkout's package travels along by default.

    With `installed` the cluster's image has hipray and nothing is uploaded.
    """
    script = str(IN_IMAGE / f"{job}.py") if installed else f"{job}.py"
    # workers import the package too, and albumentations would look for updates online
    environment: dict[str, Any] = {"env_vars": {"NO_ALBUMENTATIONS_UPDATE": "1"}}
    if not installed:
        environment["working_dir"] = str(ROOT / "jobs")
        environment["py_modules"] = [str(ROOT / "hipray")]
    return {"entrypoint": shlex.join(["python", script, *arguments]), "runtime_env": environment}


def submit_once(client: JobSubmissionClient, name: str, request: dict[str, Any]) -> str:
    """Return the id of the live submission of this name, starting one where there is none."""
    attempts, live = count_attempts(name, client.list_jobs())
    if live is not None:
        return live
    try:
        return str(client.submit_job(submission_id=f"{name}-{attempts + 1}", **request))
    except RuntimeError:  # another submission may have taken this attempt's id in between
        _, live = count_attempts(name, client.list_jobs())
        if live is None:
            raise
        return live


def follow(client: JobSubmissionClient, submission_id: str) -> int:
    """Show a job's output until it ends and return its exit code."""
    asyncio.run(_show_output(client, submission_id))
    heard = time.monotonic()  # after the output, which may last for days
    while time.monotonic() - heard < PATIENCE_S:
        try:
            info = client.get_job_info(submission_id)
        except UNHEARD:
            time.sleep(POLL_S)
            continue
        heard = time.monotonic()
        if info.status.is_terminal():
            return read_exit_code(info.status, info.driver_exit_code)
        time.sleep(POLL_S)
    return TRY_AGAIN


async def _show_output(client: JobSubmissionClient, submission_id: str) -> None:
    try:
        async for lines in client.tail_job_logs(submission_id):
            sys.stdout.write(lines)
            sys.stdout.flush()
    except UNHEARD:  # the job's state decides, not its output
        return


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit one job and return an exit code."""
    options = _read_options(arguments)
    name = name_submission(options.job, options.arguments)
    request = describe_job(options.job, options.arguments, installed=options.installed)
    request["entrypoint_num_cpus"] = options.cpus
    # Ray prefers its variables to what it is given: an --address of this call must count
    os.environ["RAY_API_SERVER_ADDRESS"] = options.address
    os.environ.pop("RAY_ADDRESS", None)
    try:
        client = JobSubmissionClient(options.address)
        submission_id = submit_once(client, name, request)
    except (AuthenticationError, *UNHEARD) as error:
        refused = is_refusal(error)
        said = "refused" if refused else "did not answer"
        sys.stderr.write(f"{options.address} {said}: {error}\n")
        return REFUSED if refused else TRY_AGAIN
    sys.stderr.write(f"submission {submission_id}\n")
    return 0 if options.no_wait else follow(client, submission_id)


def _read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    address = os.environ.get("RAY_API_SERVER_ADDRESS", ADDRESS)
    parser.add_argument("--address", default=address, help="default: RAY_API_SERVER_ADDRESS")
    parser.add_argument("--installed", action="store_true", help="the image has hipray")
    parser.add_argument("--cpus", type=float, default=0, metavar="N",
                        help="CPUs of the driver; above 0 it runs on a worker")  # fmt: skip
    parser.add_argument("--no-wait", action="store_true", help="do not follow the job")
    parser.add_argument("job", choices=sorted(path.stem for path in (ROOT / "jobs").glob("*.py")))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the job's own")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
