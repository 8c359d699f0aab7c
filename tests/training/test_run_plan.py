"""What a run is made of, written down and read back."""

import json

import pytest

from hipray.errors import DataError
from hipray.storage import open_store
from hipray.training.preparation import describe_run
from hipray.training.run_plan import read_run_plan


def test_a_plan_comes_back_as_it_was_written(small_grid) -> None:
    written = describe_run(small_grid.config, small_grid.preparation)
    assert read_run_plan(small_grid.store, "small") == written


def test_an_unknown_run_names_the_known_ones(small_grid) -> None:
    with pytest.raises(DataError, match=r"run 'smal' in .*, found runs .*small"):
        read_run_plan(small_grid.store, "smal")


def test_a_plan_of_another_version_is_named_with_what_is_amiss(small_grid, tmp_path) -> None:
    store = open_store(str(tmp_path))
    plan = json.loads(small_grid.store.read("runs/small/plan.json"))
    del plan["leaks_allowed"]
    store.write("runs/small/plan.json", json.dumps(plan).encode())
    with pytest.raises(DataError, match=r"this version of hipray .*leaks_allowed: Field required"):
        read_run_plan(store, "small")
