"""Where a run stands, in words."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath

import numpy as np

from hipray.data.leakage import LeakKind, describe_leaks
from hipray.progress import describe_duration
from hipray.storage import LeaseInfo, Store
from hipray.training.driver import find_driver
from hipray.training.lane_notes import LaneNote, read_notes
from hipray.training.ledger import Ledger
from hipray.training.plan import PlannedFit
from hipray.training.results import open_reader
from hipray.training.run_keys import RunKeys
from hipray.training.run_plan import read_run_plan
from hipray.training.tally import Tally, describe_counts, tally_fits
from hipray.vocab import Fit, FitState

SHOWN = 8
"""Lanes and failed fits that are named."""
SAMPLED = 5
"""Finished fits of one kind whose seconds are read for the time left."""


def describe_status(store: Store, run: str) -> str:
    """Return counts, lanes, failures and the time left of a run; of a search its networks.

    Raises DataError naming the runs there are.
    """
    if store.exists(RunKeys(run).search):
        return _describe_search(store, run)
    run_plan = read_run_plan(store, run)
    plan = run_plan.fits
    ledger = open_reader(store)
    finished = ledger.finished()
    open_fits = [p.digest for p in plan if p.digest not in finished]
    claims = ledger.live_claims(open_fits)
    failed = ledger.failed_digests() & set(open_fits) - set(claims)
    tally = tally_fits(plan, done=finished.keys(), failed=failed, running=claims.keys())
    driver = find_driver(store, run)
    own = [when for digest, when in finished.items() if digest in tally.states]
    lines = [
        f"run {run}: {len(plan)} fits: {describe_counts(tally.fits)}",
        f"cells: {tally.cells.total()}: {describe_counts(tally.cells)}",
        *_describe_leaks(run_plan.leaks),
        f"driver: {driver or 'none is running'}",
        *_describe_rate(own, driver),
        *_time_left(ledger, plan, tally, lanes=len(claims)),
        *_describe_lanes(plan, claims, read_notes(store, run)),
        *_describe_failures(ledger, plan, tally),
    ]
    return "\n".join(lines)


def _describe_leaks(counts: Mapping[LeakKind, int]) -> list[str]:
    kinds = describe_leaks(counts)
    return [f"pairs on both sides of a fold: {kinds}; results are too good"] if kinds else []


def _describe_search(store: Store, run: str) -> str:
    begun = store.list_folders(RunKeys(run).ray_tune)
    networks = [PurePosixPath(folder).name for folder in begun]
    return "\n".join(
        [
            f"search {run}: {len(networks)} networks begun",
            f"driver: {find_driver(store, run) or 'none is running'}",
            *(f"{network}: {_describe_trials(store, run, network)}" for network in networks),
        ]
    )


def _describe_trials(store: Store, run: str, network: str) -> str:
    keys = RunKeys(run)
    if store.exists(keys.study(network)):
        return "finished"
    begun = sum(1 for _ in store.list_folders(f"{keys.ray_tune}/{network}"))
    return f"{begun} trials begun"


def _describe_rate(finished: list[datetime], driver: LeaseInfo | None) -> list[str]:
    if driver is None:
        return []
    since = [when for when in finished if when.timestamp() >= driver.claimed_s]
    if not since:
        return []
    seconds = max(1.0, time.time() - driver.claimed_s)
    rate = len(since) / seconds * 3600
    return [f"rate: {len(since)} fits in {describe_duration(seconds)}, {rate:.0f} an hour"]


def _time_left(
    ledger: Ledger, plan: Sequence[PlannedFit], tally: Tally, *, lanes: int
) -> list[str]:
    """An estimate from the mean seconds of finished fits of the same kind."""
    seconds: dict[str, list[float]] = {}
    for planned in plan:
        known = seconds.setdefault(_kind(planned), [])
        if tally.states[planned.digest] is FitState.DONE and len(known) < SAMPLED:
            done = ledger.read_done(planned.digest)
            known += [done.seconds] if done is not None else []
    measured = [s for values in seconds.values() for s in values]
    left = [p for p in plan if tally.states[p.digest] is not FitState.DONE]
    if not measured or not left:
        return []
    total = sum(float(np.mean(seconds[_kind(p)] or measured)) for p in left)
    lanes = max(1, lanes)
    plural = "lane" if lanes == 1 else "lanes"
    return [f"time left: about {describe_duration(total / lanes)} on {lanes} {plural}"]


def _kind(planned: PlannedFit) -> str:
    fit = planned.fit
    return f"{fit.cell.backbone}-{fit.cell.variant}" if isinstance(fit, Fit) else fit.arch


def _describe_lanes(
    plan: Sequence[PlannedFit], claims: Mapping[str, LeaseInfo], notes: Mapping[str, LaneNote]
) -> list[str]:
    """One line for each lane: what it works on, how far, since when."""
    names = {p.digest: p.name for p in plan}
    busy = {info.note: (names[digest], info) for digest, info in claims.items()}
    lines = [
        f"  running: {fit} on lane {lane}{_epochs(notes.get(lane), fit)}, "
        f"since {_clock(info.claimed_s)} on {info.process.host}"
        for lane, (fit, info) in sorted(busy.items())
    ]
    lines += [
        f"  waiting for a fit: lane {lane}, since {_clock(note.since_s)} on {note.host}"
        for lane, note in sorted(notes.items())
        if lane not in busy and not note.ended and not note.fit
    ]
    more = [f"  and {len(lines) - SHOWN} more lanes"] if len(lines) > SHOWN else []
    return lines[:SHOWN] + more


def _epochs(note: LaneNote | None, fit: str) -> str:
    if note is None or note.fit != fit or not note.epochs:
        return ""
    return f", epoch {note.epoch} of {note.epochs}"


def _describe_failures(ledger: Ledger, plan: Sequence[PlannedFit], tally: Tally) -> list[str]:
    failed = [p for p in plan if tally.states[p.digest] is FitState.FAILED]
    lines = []
    for planned in failed[:SHOWN]:
        failures = ledger.read_failures(planned.digest)
        lines.append(f"  failed: {planned.name} ({len(failures)} attempts): {failures[-1].error}")
    return lines + ([f"  and {len(failed) - SHOWN} more failed"] if len(failed) > SHOWN else [])


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S UTC")
