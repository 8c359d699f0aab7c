"""Where a run stands, in words."""

import json
from collections import Counter
from typing import Any

import numpy as np

from hipray.storage import Store, holder
from hipray.training.ledger import Ledger
from hipray.training.results import open_reader, read_plan
from hipray.vocab import FitState

SHOWN = 8


def describe_status(store: Store, run: str) -> str:
    """Return counts, running fits, failures and the time left of a run.

    Raises DataError naming the runs there are.
    """
    plan = read_plan(store, run)
    ledger = open_reader(store)
    snapshot = ledger.snapshot()
    states = {fit["digest"]: ledger.state(fit["digest"], snapshot) for fit in plan["fits"]}
    states |= {d: FitState.FAILED for d, s in states.items() if _has_failed(ledger, d, s)}
    counts = Counter(states.values())
    driver = holder(store, f"runs/{run}/driver")
    lines = [
        f"run {run}: {len(plan['fits'])} fits: "
        + ", ".join(f"{counts.get(state, 0)} {state}" for state in FitState),
        f"driver: {driver or 'none is running'}",
        *_time_left(ledger, plan, states, lanes=plan["config"]["scaling"]["lanes"]),
    ]
    for state in (FitState.RUNNING, FitState.FAILED):
        named = [fit for fit in plan["fits"] if states[fit["digest"]] is state]
        lines += [f"  {state}: {_describe(ledger, fit, state)}" for fit in named[:SHOWN]]
        if len(named) > SHOWN:
            lines.append(f"  and {len(named) - SHOWN} more {state}")
    return "\n".join(lines)


def _has_failed(ledger: Ledger, digest: str, state: FitState) -> bool:
    return state is FitState.WAITING and bool(ledger.read_failures(digest))


def _describe(ledger: Ledger, fit: dict[str, Any], state: FitState) -> str:
    if state is FitState.RUNNING:
        return str(fit["name"])
    failures = ledger.read_failures(fit["digest"])
    why = failures[-1].error if failures else "unknown"
    return f"{fit['name']} ({len(failures)} attempts): {why}"


def _time_left(
    ledger: Ledger, plan: dict[str, Any], states: dict[str, FitState], *, lanes: int
) -> list[str]:
    """An estimate from the mean seconds of finished fits of the same network."""
    seconds: dict[str, list[float]] = {}
    for fit in plan["fits"]:
        done = ledger.read_done(fit["digest"]) if states[fit["digest"]] is FitState.DONE else None
        if done is not None:
            seconds.setdefault(_kind(fit), []).append(done.seconds)
    if not seconds:
        return []
    overall = float(np.mean([s for values in seconds.values() for s in values]))
    left = [fit for fit in plan["fits"] if states[fit["digest"]] is not FitState.DONE]
    total = sum(float(np.mean(seconds.get(_kind(fit), [overall]))) for fit in left)
    return [f"time left: about {total / lanes:.0f} s on {lanes} lanes"] if left else []


def _kind(fit: dict[str, Any]) -> str:
    return json.dumps(fit["fit"].get("arch") or fit["fit"]["cell"]["backbone"])
