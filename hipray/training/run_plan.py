"""What a run is made of, as its plan.json says: for lanes, status, report and release."""

from pydantic import ValidationError

from hipray.config.base import Config
from hipray.config.jobs import GridRun
from hipray.data.dataset import DataIdentity
from hipray.data.leakage import LeakKind
from hipray.errors import DataError
from hipray.storage import Store
from hipray.training.plan import PlannedFit
from hipray.training.run_keys import RunKeys, list_runs


class RunPlan(Config):
    """A run as it was submitted last."""

    config: GridRun
    """Its configuration."""
    data: DataIdentity
    """What its fits learn from."""
    leaks: dict[LeakKind, int]
    """Pairs on both sides of a fold, by kind."""
    leaks_allowed: bool
    """Whether the configuration let them through."""
    optimistic: str | None
    """Why its results are better than the truth; None where nothing is known of it."""
    source: str
    """Digest of the source that shapes any fit's numbers."""
    fits: tuple[PlannedFit, ...]
    """Its fits, as planned."""


def write_run_plan(store: Store, plan: RunPlan) -> None:
    """Write the plan of a run over an older one."""
    store.write(RunKeys(plan.config.run).plan, plan.model_dump_json(indent=1).encode())


def read_run_plan(store: Store, run: str) -> RunPlan:
    """Return the plan of a run.

    Raises DataError naming the runs there are, or where another version of hipray wrote it.
    """
    key = RunKeys(run).plan
    if not store.exists(key):
        known = ", ".join(list_runs(store)) or "none"
        raise DataError(f"run '{run}' in {store.uri}", f"runs {known}", "name one of them")
    try:
        return RunPlan.model_validate_json(store.read(key))
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"a plan of this version of hipray in {store.uri_of(key)}",
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            "submit the grid again: fits that would be the same are kept",
        ) from error
