"""Where a run stands, in words."""

import json

import pytest

from hipray.errors import DataError
from hipray.storage import acquire, open_store
from hipray.training.ledger import Ledger
from hipray.training.status import describe_status


@pytest.fixture
def store(small_grid, tmp_path):
    """The plan of the small grid with nothing done."""
    store = open_store(str(tmp_path))
    store.write("runs/small/plan.json", small_grid.store.read("runs/small/plan.json"))
    return store


def test_a_finished_run_has_nothing_left(small_grid):
    text = describe_status(small_grid.store, "small")
    assert "run small: 9 fits: 0 waiting, 0 running, 9 done, 0 failed" in text
    assert "driver: none is running" in text
    assert "time left" not in text


def test_running_and_failed_fits_are_named_with_their_cause(small_grid, store):
    plan = small_grid.preparation.plan
    ledger = Ledger(store, submission="s")
    ledger.record_failure(plan[1], error="out of films", traceback="", final=True)
    with ledger.claim(plan[0], "lane-0"):
        text = describe_status(store, "small")
    assert "7 waiting, 1 running, 0 done, 1 failed" in text
    assert "running: unet-all-r0f0" in text
    assert "failed: unet-all-r0f1 (1 attempts): out of films" in text


def test_the_time_left_follows_the_finished_fits(small_grid, store):
    ledger = Ledger(store, submission="s")
    for planned in small_grid.preparation.plan[:2]:
        ledger.commit(planned, {}, summary={}, seconds=10.0, attempt=1, lane="a")
    lanes = json.loads(store.read("runs/small/plan.json"))["config"]["scaling"]["lanes"]
    assert f"time left: about {7 * 10 / lanes:.0f} s on {lanes} lanes" in (
        describe_status(store, "small")
    )


def test_a_live_driver_is_named(store):
    with acquire(store, "runs/small/driver", ttl_s=60, owner_note="hipray grid"):
        assert "(hipray grid)" in describe_status(store, "small")


def test_an_unknown_run_is_a_data_error(store):
    with pytest.raises(DataError, match=r"found runs small"):
        describe_status(store, "other")
