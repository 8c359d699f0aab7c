import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hipray.errors import RunBusyError, StorageError
from hipray.storage import (
    Store,
    acquire,
    acquire_when_silent,
    check_still_held,
    holder,
    leases,
)
from hipray.storage.processes import current_process, has_ended

HOUR_S = 3600.0

HOLDER = """
import pickle, sys, time
from hipray.storage import acquire
store = pickle.loads(bytes.fromhex(sys.argv[1]))
lease = acquire(store, "runs/a", ttl_s=3600, owner_note="grid paper")
lease.__enter__()
print("held", flush=True)
time.sleep(600)
"""


@contextmanager
def holding_process(store: Store) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", HOLDER, pickle.dumps(store).hex()]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def rewrite_claim(store: Store, change: Callable[[dict], None]) -> None:
    """Make the first claim look as if another machine had made it."""
    claim = json.loads(store.read("runs/a/1.json"))
    change(claim)
    store.write("runs/a/1.json", json.dumps(claim).encode())


def test_a_free_lease_is_acquired_and_a_held_one_is_not(store: Store) -> None:
    lease = acquire(store, "runs/a", ttl_s=HOUR_S, owner_note="grid paper")
    assert lease is not None
    assert lease.attempt == 1
    assert lease.is_current()
    assert acquire(store, "runs/a", ttl_s=HOUR_S) is None
    assert acquire(store, "runs/ab", ttl_s=HOUR_S) is not None


def test_the_holder_is_known_by_host_process_and_time(store: Store) -> None:
    assert holder(store, "runs/a") is None
    lease = acquire(store, "runs/a", ttl_s=HOUR_S, owner_note="grid paper")
    assert lease is not None
    found = holder(store, "runs/a")
    assert found == lease.info
    assert f"process {os.getpid()}, since 20" in str(found)
    assert str(found).endswith("(grid paper)")
    lease.release()
    assert holder(store, "runs/a") is None


def test_a_released_lease_is_acquired_at_once_as_the_next_attempt(store: Store) -> None:
    for attempt in range(1, 12):  # past 9, where the order of names is not that of numbers
        lease = acquire(store, "runs/a", ttl_s=HOUR_S)
        assert lease is not None
        assert lease.attempt == attempt
        lease.release()
        lease.release()


def test_of_eight_claimants_exactly_one_gets_the_lease(store: Store) -> None:
    barrier = threading.Barrier(8)

    def claim(_: int) -> bool:
        barrier.wait()
        return acquire(store, "runs/a", ttl_s=HOUR_S) is not None

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(claim, range(8))).count(True) == 1


def test_the_lease_of_a_killed_process_is_taken_over_at_once(store: Store) -> None:
    with holding_process(store) as process:
        assert acquire(store, "runs/a", ttl_s=HOUR_S) is None
        assert f"process {process.pid}," in str(holder(store, "runs/a"))
        process.kill()
        deadline = time.monotonic() + 10
        while (lease := acquire(store, "runs/a", ttl_s=HOUR_S)) is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert lease.attempt == 2


def test_a_holder_that_stops_beating_loses_the_lease_after_its_time(store: Store) -> None:
    first = acquire(store, "runs/a", ttl_s=1.0)
    assert first is not None
    assert acquire(store, "runs/a", ttl_s=HOUR_S) is None
    time.sleep(1.1)
    assert holder(store, "runs/a") is None
    second = acquire(store, "runs/a", ttl_s=HOUR_S)
    assert second is not None
    assert (first.is_current(), second.is_current()) == (False, True)
    first.release()  # a late sleeper does not release the lease of its successor
    assert acquire(store, "runs/a", ttl_s=HOUR_S) is None


def test_a_heartbeat_keeps_the_lease_of_another_machine(store: Store) -> None:
    lease = acquire(store, "runs/a", ttl_s=1.5)
    assert lease is not None
    rewrite_claim(store, lambda claim: claim["process"].update(host="elsewhere", pid=1))
    with lease:
        for _ in range(10):
            time.sleep(0.25)
            assert acquire(store, "runs/a", ttl_s=1.5) is None
    assert not lease.taken
    assert acquire(store, "runs/a", ttl_s=1.5) is not None


def test_the_background_heartbeat_ends_with_the_lease(store: Store) -> None:
    lease = acquire(store, "runs/a", ttl_s=0.2)
    assert lease is not None
    with lease:
        assert "hipray-lease" in [thread.name for thread in threading.enumerate()]
        time.sleep(0.2)
    assert "hipray-lease" not in [thread.name for thread in threading.enumerate()]
    beats = store.read("runs/a/1.beat")
    time.sleep(0.2)
    assert store.read("runs/a/1.beat") == beats


def test_a_holder_notices_that_it_was_taken_over(store: Store) -> None:
    lease = acquire(store, "runs/a", ttl_s=0.2)
    assert lease is not None
    with lease:
        check_still_held(lease, thing="run 'a'")
        assert store.create("runs/a/2.json", store.read("runs/a/1.json"))
        deadline = time.monotonic() + 10
        while not lease.taken:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(RunBusyError, match="run 'a' to stay this driver's"):
            check_still_held(lease, thing="run 'a'")


def test_a_process_on_another_machine_is_not_judged_by_its_number(store: Store) -> None:
    assert acquire(store, "runs/a", ttl_s=HOUR_S) is not None
    for change in ({"host": "elsewhere"}, {"boot_id": "other"}, {"pid_namespace": "pid:[1]"}):
        rewrite_claim(store, lambda claim, c=change: claim["process"].update(c, pid=2**22 + 1))
        assert acquire(store, "runs/a", ttl_s=HOUR_S) is None


def test_a_reused_process_number_is_not_taken_for_the_holder(store: Store) -> None:
    assert acquire(store, "runs/a", ttl_s=HOUR_S) is not None
    rewrite_claim(store, lambda claim: claim["process"].update(started=1))
    assert acquire(store, "runs/a", ttl_s=HOUR_S) is not None


def test_a_killed_process_that_nobody_waited_for_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    identity = replace(current_process(), pid=child.pid, started=int(fields[19]))
    assert not has_ended(identity)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the table
    assert has_ended(identity)
    child.wait()
    assert has_ended(identity)


def test_a_claim_that_is_none_is_explained(store: Store) -> None:
    store.write("runs/a/1.json", b"{}")
    with pytest.raises(StorageError, match="lease claim"):
        acquire(store, "runs/a", ttl_s=HOUR_S)


def test_acquiring_a_free_lease_costs_one_listing_and_one_create(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("list", "create", "read_object", "write", "info", "delete"):
        original = getattr(store, name)
        monkeypatch.setattr(
            store, name, lambda *a, n=name, f=original, **k: (calls.append(n), f(*a, **k))[1]
        )
    assert acquire(store, "runs/a", ttl_s=HOUR_S) is not None
    assert calls == ["list", "create"]


def test_a_holder_of_another_machine_is_waited_for_until_its_lease_runs_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "SILENCE_POLL_S", 0.02)
    monkeypatch.setattr(leases, "is_visible", lambda _: False)
    monkeypatch.setattr(leases, "has_ended", lambda _: False)
    first = acquire(store, "run", ttl_s=0.3)
    assert first is not None
    second = acquire_when_silent(store, "run", ttl_s=8)  # the first one never beats
    assert second is not None
    assert second.attempt == first.attempt + 1
    with second:  # which beats
        assert acquire_when_silent(store, "run", ttl_s=8) is None


def test_a_holder_whose_clock_is_behind_is_not_evicted_while_it_beats(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = acquire(store, "runs/a", ttl_s=60)
    assert first is not None
    elsewhere = {"host": "elsewhere", "pid": 1}
    rewrite_claim(store, lambda claim: claim["process"].update(elsewhere))
    rewrite_claim(store, lambda claim: claim.update(claimed_s=time.time() - 100))

    def beat_behind(_: float) -> None:
        store.write("runs/a/1.beat", json.dumps({"time_s": time.time() - 90}).encode())

    monkeypatch.setattr(leases.time, "sleep", beat_behind)
    assert holder(store, "runs/a") is None, "by the clock it is silent"
    assert acquire_when_silent(store, "runs/a", ttl_s=60) is None
