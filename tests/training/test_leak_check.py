"""The leakage guard on a workspace compares an archive's films once."""

import json

import pytest

from hipray.config.experiment import LeakageSettings, SplitSettings
from hipray.data.manifest import read_manifest
from hipray.storage import open_store
from hipray.training import leak_check
from hipray.training.leak_check import find_duplicates
from hipray.training.preparation import prepare
from tests.small_workspace import EXPERIMENT, grid_config

GRAIN = LeakageSettings().near_duplicate_correlation


@pytest.fixture
def compared(monkeypatch):
    """The number of films of each comparison; a comparison finds the first two alike."""
    counts = []

    def compare(films, *, least_grain):
        counts.append(len(films))
        return [(0, 1)]

    monkeypatch.setattr(leak_check, "find_near_duplicates", compare)
    monkeypatch.setattr(leak_check, "load_films", lambda store, manifest, side: manifest)
    return counts


@pytest.fixture
def manifest(small_workspace):
    return read_manifest(small_workspace.store)


def test_the_films_of_an_archive_are_compared_once(tmp_path, manifest, compared) -> None:
    store = open_store(str(tmp_path))
    first = find_duplicates(store, manifest, least_grain=GRAIN)
    relabelled = manifest.assign(patient_id="p0")
    assert find_duplicates(store, relabelled, least_grain=GRAIN) == first == [(0, 1)]
    assert compared == [len(manifest)]


def test_another_film_or_another_limit_is_compared_anew(tmp_path, manifest, compared) -> None:
    store = open_store(str(tmp_path))
    find_duplicates(store, manifest, least_grain=GRAIN)
    find_duplicates(store, manifest, least_grain=GRAIN / 2)
    find_duplicates(store, manifest.iloc[1:], least_grain=GRAIN)
    changed = manifest.assign(pixel_sha256=["other", *manifest["pixel_sha256"][1:]])
    find_duplicates(store, changed, least_grain=GRAIN)
    assert compared == [len(manifest), len(manifest), len(manifest) - 1, len(manifest)]


def test_another_split_of_known_films_is_checked_without_comparing_them(
    small_workspace, monkeypatch
) -> None:
    store = small_workspace.store
    prepare(store, grid_config(store))
    monkeypatch.setattr(leak_check, "find_near_duplicates", None)
    other = EXPERIMENT.model_copy(update={"split": SplitSettings(folds=4, seed=5)})
    leaks = prepare(store, grid_config(store).model_copy(update={"experiment": other})).leaks
    assert leaks.leaks == ()


def test_the_list_of_leaks_is_written_for_the_reader(small_workspace) -> None:
    store = small_workspace.store
    preparation = prepare(store, grid_config(store))
    report, key = leak_check.check_leaks(preparation.inputs, preparation.data, test_folds=(0,))
    assert json.loads(store.read(key)) == {"leaks": [], "allowed": report.allowed}
