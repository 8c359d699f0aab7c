"""Reading back what a run produced."""

import pytest

from hipray.errors import DataError
from hipray.storage import open_store
from hipray.training.results import read_run
from hipray.vocab import REGIONS


def test_a_finished_run_comes_back_with_all_its_parts(small_grid) -> None:
    results = read_run(small_grid.store, "small")
    assert (len(results.classifiers), len(results.segmenters), results.open_fits) == (6, 3, 0)
    assert results.config == small_grid.config
    assert len(results.fits) == 6
    assert len(results.mask_scores) == 34 * len(REGIONS)


def test_training_scores_never_reach_a_report(small_grid) -> None:
    predictions = read_run(small_grid.store, "small").predictions
    assert set(predictions["part"]) == {"inner", "test"}


def test_every_hip_is_tested_once_by_each_cell(small_grid) -> None:
    predictions = read_run(small_grid.store, "small").predictions
    whole = predictions[(predictions["variant"] == "original") & (predictions["part"] == "test")]
    assert whole["hip_id"].is_unique
    assert len(whole) == 34


def test_a_run_without_a_finished_fit_is_refused(small_grid, tmp_path) -> None:
    store = open_store(str(tmp_path))
    store.write("runs/small/plan.json", small_grid.store.read("runs/small/plan.json"))
    with pytest.raises(DataError, match=r"finished fits in run 'small', found none"):
        read_run(store, "small")
