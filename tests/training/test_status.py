"""Where a run stands, in words."""

import json
from dataclasses import replace

import pytest

from hipray.errors import DataError
from hipray.storage import acquire, open_store
from hipray.training.lane_notes import LaneNotes
from hipray.training.ledger import Ledger
from hipray.training.status import describe_status


@pytest.fixture
def store(small_grid, tmp_path):
    """The plan of the small grid with nothing done."""
    store = open_store(str(tmp_path))
    store.write("runs/small/plan.json", small_grid.store.read("runs/small/plan.json"))
    return store


def test_a_finished_run_has_nothing_left(small_grid) -> None:
    text = describe_status(small_grid.store, "small")
    assert "run small: 9 fits: 0 waiting, 0 running, 9 done, 0 failed" in text
    assert "cells: 2: 0 waiting, 0 running, 2 done, 0 failed" in text
    assert "driver: none is running" in text
    assert "time left" not in text


def test_leaks_that_were_let_through_are_told(small_grid, store) -> None:
    key = "runs/small/plan.json"
    plan = json.loads(store.read(key))
    assert "both sides" not in describe_status(store, "small")
    plan["leaks"]["same_patient"] = 7
    store.write(key, json.dumps(plan).encode())
    assert "both sides of a fold: 7 same_patient" in describe_status(store, "small")


def test_running_and_failed_fits_are_named_with_their_cause(small_grid, store) -> None:
    plan = small_grid.preparation.plan
    ledger = Ledger(store, submission="s")
    ledger.record_failure(plan[1], error="out of films", traceback="", final=True)
    with ledger.claim(plan[0], "lane-0"):
        text = describe_status(store, "small")
    assert "7 waiting, 1 running, 0 done, 1 failed" in text
    assert "cells: 2: 2 waiting, 0 running, 0 done, 0 failed" in text
    assert "running: unet-all-r0f0 on lane lane-0, since " in text
    assert "failed: unet-all-r0f1 (1 attempts): out of films" in text


def test_the_time_left_follows_the_finished_fits(small_grid, store) -> None:
    plan = small_grid.preparation.plan
    ledger = Ledger(store, submission="s")
    for planned in plan[:2]:
        ledger.commit(planned, {}, summary={}, seconds=10.0, attempt=1, lane="a")
    assert "time left: about 70 s on 1 lane\n" in describe_status(store, "small") + "\n"
    with ledger.claim(plan[2], "lane-0"), ledger.claim(plan[3], "lane-1"):
        assert "time left: about 35 s on 2 lanes" in describe_status(store, "small")


def test_a_lane_is_shown_with_its_fit_its_epoch_and_since_when(small_grid, store) -> None:
    planned = small_grid.preparation.plan[0]
    busy, idle, ended = (LaneNotes(store, "small", f"s-{n}") for n in range(3))
    busy.begin(planned.name)
    busy._note = replace(busy._note, written_s=0.0)
    busy.report(3, 8)
    idle.wait()
    ended.wait()
    ended.end()
    with Ledger(store, submission="s").claim(planned, "s-0"):
        text = describe_status(store, "small")
    assert f"running: {planned.name} on lane s-0, epoch 3 of 8, since " in text
    assert "waiting for a fit: lane s-1" in text
    assert "s-2" not in text


def test_the_rate_counts_what_was_finished_since_the_driver_started(small_grid, store) -> None:
    plan = small_grid.preparation.plan
    ledger = Ledger(store, submission="s")
    with acquire(store, "runs/small/driver", ttl_s=60):
        for planned in plan[:3]:
            ledger.commit(planned, {}, summary={}, seconds=10.0, attempt=1, lane="a")
        assert "rate: 3 fits in " in describe_status(store, "small")


def test_no_rate_is_told_before_a_fit_has_ended(store) -> None:
    with acquire(store, "runs/small/driver", ttl_s=60):
        assert "rate:" not in describe_status(store, "small")


def test_a_live_driver_is_named(store) -> None:
    with acquire(store, "runs/small/driver", ttl_s=60, owner_note="hipray grid"):
        assert "(hipray grid)" in describe_status(store, "small")


def test_an_unknown_run_is_a_data_error(store) -> None:
    with pytest.raises(DataError, match=r"found runs small"):
        describe_status(store, "other")
