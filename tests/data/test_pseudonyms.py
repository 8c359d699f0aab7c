"""Patient ids leave ingest only as keyed hashes."""

import errno
import os
from pathlib import Path

import pytest

from hipray.data.pseudonyms import KEY_FILE, Pseudonyms, load_pseudonyms
from hipray.errors import StorageError
from hipray.storage import open_store

KEY = b"k" * 32


def test_a_pseudonym_is_stable_and_tells_nothing_of_its_name() -> None:
    names = Pseudonyms(KEY)
    assert names.patient("4711") == Pseudonyms(KEY).patient("4711")
    assert names.patient("4711") != names.patient("4712")
    assert "4711" not in names.patient("4711")


def test_case_and_spaces_around_an_id_do_not_make_another_patient() -> None:
    names = Pseudonyms(KEY)
    assert names.patient(" ab12 ") == names.patient("AB12")


def test_a_file_and_a_patient_of_the_same_name_have_different_pseudonyms() -> None:
    names = Pseudonyms(KEY)
    assert names.patient("X").removeprefix("p-") != names.file("X").removeprefix("f-")


def test_another_key_gives_other_pseudonyms() -> None:
    assert Pseudonyms(KEY).patient("4711") != Pseudonyms(b"x" * 32).patient("4711")


def test_a_workspace_makes_its_key_once_and_two_workspaces_have_different_ones(tmp_path) -> None:
    stores = [open_store(str(tmp_path / name)) for name in "ab"]
    first = [load_pseudonyms(store).patient("4711") for store in stores]
    again = [load_pseudonyms(store).patient("4711") for store in stores]
    assert first == again
    assert first[0] != first[1]
    assert len(stores[0].read(KEY_FILE)) == 32


def test_a_workspace_that_cannot_be_written_gives_its_key_and_explains_why_it_makes_none(
    tmp_path, monkeypatch
) -> None:
    known = load_pseudonyms(open_store(str(tmp_path / "old"))).patient("4711")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("mkdir", "chmod"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr(os, "makedirs", refuse)
    assert load_pseudonyms(open_store(str(tmp_path / "old"))).patient("4711") == known
    with pytest.raises(StorageError, match="Read-only"):
        load_pseudonyms(open_store(str(tmp_path / "new")))


def test_only_its_owner_may_read_the_key(tmp_path) -> None:
    load_pseudonyms(open_store(str(tmp_path)))
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o077 == 0
    assert (tmp_path / KEY_FILE).parent.stat().st_mode & 0o077 == 0
