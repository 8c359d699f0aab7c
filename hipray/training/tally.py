"""How many fits and cells of a run wait, run, are done or have failed."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hipray.training.plan import PlannedFit
from hipray.vocab import Cell, Fit, FitState


@dataclass(frozen=True)
class Tally:
    """The state of a run at one moment."""

    states: Mapping[str, FitState]
    """State of each fit, by digest."""
    fits: Counter[FitState]
    cells: Counter[FitState]
    """A cell is done when all its fits are, and failed when one of them is."""

    @property
    def open(self) -> list[str]:
        """Digests of the fits that are neither done nor failed."""
        return [d for d, s in self.states.items() if s in (FitState.WAITING, FitState.RUNNING)]


def tally_fits(
    plan: Sequence[PlannedFit],
    *,
    done: Collection[str],
    failed: Collection[str],
    running: Collection[str],
) -> Tally:
    """Count fits and cells; `running` are the claimed ones."""
    states = {p.digest: _state(p.digest, done, failed, running) for p in plan}
    cells: dict[Cell, list[FitState]] = {}
    for planned in plan:
        if isinstance(planned.fit, Fit):
            cells.setdefault(planned.fit.cell, []).append(states[planned.digest])
    return Tally(states, Counter(states.values()), Counter(map(_cell_state, cells.values())))


def _state(
    digest: str, done: Collection[str], failed: Collection[str], running: Collection[str]
) -> FitState:
    if digest in done:
        return FitState.DONE
    if digest in failed:
        return FitState.FAILED
    return FitState.RUNNING if digest in running else FitState.WAITING


def _cell_state(fits: Iterable[FitState]) -> FitState:
    seen = set(fits)
    if seen == {FitState.DONE}:
        return FitState.DONE
    if FitState.FAILED in seen:
        return FitState.FAILED
    return FitState.WAITING if seen == {FitState.WAITING} else FitState.RUNNING


def describe_counts(counts: Mapping[FitState, int]) -> str:
    """Return `2 waiting, 1 running, 6 done, 0 failed`."""
    return ", ".join(f"{counts.get(state, 0)} {state}" for state in FitState)
