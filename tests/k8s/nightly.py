"""Rules on the CronJob that scores each night's films."""

import re
from collections.abc import Iterator

import yaml

from tests.k8s.entrypoints import ROOT, check_demand, check_entrypoint
from tests.k8s.kustomize import Document
from tests.k8s.ray_documents import check_submitter
from tests.k8s.shapes import LONGEST_TTL_S, MOST_TRIES

NIGHTLY = re.compile(r"[0-5]?\d 0?[0-5] \* \* \*")
NEVER_HELPS = {2, 3, 4, 5, 6, 11}
"""hipray's exit codes that a second try does not change (hipray/errors.py)."""
STOPPED = 143
DRAINED = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
NIGHT = (
    "night=${NIGHT:-$(date -u -d yesterday +%F)}\n",
    '--images "$HIPRAY_INCOMING/$night" --output "$HIPRAY_WORKSPACE/scores/$night"',
)


def check_cron_job(spec: Document) -> Iterator[str]:
    if spec.get("concurrencyPolicy") != "Forbid":
        yield "starts a night beside another"
    if not NIGHTLY.fullmatch(spec["schedule"]):
        yield f"does not run once a night: {spec['schedule']}"
    if spec.get("timeZone") != "Etc/UTC":
        yield f"lives by the clock of {spec['timeZone']}"
    if not 600 <= spec.get("startingDeadlineSeconds", 0) <= LONGEST_TTL_S:
        yield "misses its night after a moment"
    job = spec["jobTemplate"]["spec"]
    if job.get("ttlSecondsAfterFinished", 0) < 24 * 3600 or not spec.get("failedJobsHistoryLimit"):
        yield "leaves nothing of a failed night to read"
    yield from check_submitter(job["template"], "submit")
    (container,) = job["template"]["spec"]["containers"]
    yield from _check_submission("".join(container.get("args", [])))
    for rule in job.get("podFailurePolicy", {}).get("rules", []):
        if rule.get("onExitCodes", {}).get("containerName", "submit") != "submit":
            yield "judges the exit codes of no container"
    if (
        not 3600 <= job.get("activeDeadlineSeconds", 0) <= 24 * 3600
        or not 1 <= job.get("backoffLimit", 0) <= MOST_TRIES
    ):
        yield "has no retry or no end"
    rules = job.get("podFailurePolicy", {}).get("rules", [])
    if {rule["onExitCodes"]["operator"] for rule in rules if "onExitCodes" in rule} != {"In"}:
        yield "takes exit codes for their opposite"
    if DRAINED not in rules:
        yield "counts a drained node as a failure"
    if any(rule != DRAINED and rule["action"] != "FailJob" for rule in rules):
        yield "tries for ever, or again, what would end the same"
    final = {
        code
        for rule in job.get("podFailurePolicy", {}).get("rules", [])
        if rule["action"] == "FailJob"
        for code in rule.get("onExitCodes", {}).get("values", [])
    }
    if final != NEVER_HELPS | {STOPPED}:
        yield f"its exit codes without another try are {sorted(final)}"


def read_night(spec: Document) -> str:
    """Return the command that Ray runs for a CronJob."""
    (container,) = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return _name_script(_split("".join(container["args"]))[1])


def _split(script: str) -> tuple[str, str]:
    """Return what comes before the call of submit.py that ends a shell script, and its words."""
    before, _, call = script.replace("\\\n", " ").partition(
        "exec python cluster/submit.py --installed "
    )
    return before, call


def _name_script(call: str) -> str:
    job, _, arguments = call.partition(" ")
    return f"python /opt/hipray/jobs/{job}.py {arguments}"


def _check_submission(script: str) -> Iterator[str]:
    """Yield what is wrong with the call of submit.py that ends a shell script."""
    before, call = _split(script)
    if not call or before.count("\n") > 1:
        yield "does not end with the exit code of cluster/submit.py"
        return
    if before != NIGHT[0] or " ".join(NIGHT[1].split()) not in " ".join(call.split()):
        yield "scores another night, or all of them"
    (cluster,) = yaml.safe_load_all((ROOT / "k8s/base/ray-cluster.yaml").read_text("utf-8"))
    yield from check_demand(_name_script(call), cluster["spec"]["workerGroupSpecs"])
    yield from check_entrypoint(_name_script(call))
