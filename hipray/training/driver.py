"""The driver of a run: one process at a time, whichever job it is of."""

from hipray.storage import Lease, LeaseInfo, Store, hold, holder
from hipray.training.run_keys import RunKeys


def hold_run(store: Store, run: str, *, ttl_s: float, owner_note: str) -> Lease:
    """Return the lease on a run; raises RunBusyError naming a live driver."""
    thing = f"run '{run}'"
    return hold(store, RunKeys(run).driver, ttl_s=ttl_s, owner_note=owner_note, thing=thing)


def find_driver(store: Store, run: str) -> LeaseInfo | None:
    """Return who drives a run now, or None."""
    return holder(store, RunKeys(run).driver)
