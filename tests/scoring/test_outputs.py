from collections.abc import Iterator
from pathlib import Path

import pytest

from hipray.errors import StoreUnavailableError
from hipray.scoring import outputs
from hipray.scoring.outputs import PatientOutput
from hipray.storage import ObjectInfo, open_store
from hipray.storage.local import LocalStore


def test_a_long_listing_comes_in_pages_and_outlives_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path))
    keys = [f"a/{number}" for number in range(7)]
    for key in keys:
        store.write(key, b"")
    listed, starts = LocalStore.list, list[str | None]()

    def fail_once(
        own: LocalStore, prefix: str = "", *, start_after: str | None = None
    ) -> Iterator[ObjectInfo]:
        starts.append(start_after)
        if len(starts) == 2:
            raise StoreUnavailableError("a store", "silence", "wait")
        return listed(own, prefix, start_after=start_after)

    monkeypatch.setattr(outputs, "PAGE", 3)
    monkeypatch.setattr("hipray.storage.retrying.FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(LocalStore, "list", fail_once)
    assert [info.key for info in PatientOutput(store, patience_s=5).list("a")] == keys
    assert starts == [None, "a/2", "a/2", "a/5", "a/6"]
