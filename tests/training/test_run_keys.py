"""Where the files of a run lie: below its own name, apart from those of every other run."""

import inspect

from hipray.storage import open_store
from hipray.training.run_keys import RunKeys, list_runs


def keys_of(run: str) -> list[str]:
    keys = RunKeys(run)
    members = [getattr(keys, name) for name in vars(RunKeys) if not name.startswith("_")]
    return [m if isinstance(m, str) else m(*inspect.signature(m).parameters) for m in members]


def test_all_that_a_run_owns_lies_in_its_folder_and_no_two_things_share_a_place() -> None:
    keys = keys_of("first")
    assert len(set(keys)) == len(keys) > 10
    assert all(key.startswith("runs/first/") for key in keys)
    assert not set(keys) & set(keys_of("second"))


def test_the_runs_of_a_workspace_are_told_whatever_they_are_of(tmp_path) -> None:
    store = open_store(str(tmp_path))
    assert list_runs(store) == []
    store.write(RunKeys("search").search, b"{}")
    store.write(RunKeys("grid").plan, b"{}")
    store.write("fits/done/a.json", b"{}")
    assert list_runs(store) == ["grid", "search"]
