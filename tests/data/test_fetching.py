"""One object that a store withholds is a refusal; a store that is lost is an error."""

import pytest

from hipray.data.fetching import fetch_object
from hipray.data.refusals import Refusal
from hipray.errors import (
    AccessDeniedError,
    ArchivedError,
    BucketMissingError,
    NotFoundError,
    StorageError,
    StoreUnavailableError,
)
from hipray.storage.local import LocalStore
from hipray.vocab import RefusalCode

WORDS = ("an answer", "another one", "see the settings")


def fetch(folder, monkeypatch, error, *, at_listing=None):
    """Fetch an object that answers with `error`, from a store whose listing may fail, too."""

    def fail(with_error):
        if with_error is not None:
            raise with_error(*WORDS)

    (folder / "b.dcm").touch()
    monkeypatch.setattr(LocalStore, "read_object", lambda *_, **__: fail(error))
    monkeypatch.setattr(LocalStore, "next_key", lambda *_: fail(at_listing))
    return fetch_object(LocalStore(str(folder)), "a.dcm", max_bytes=9)


@pytest.mark.parametrize(
    ("error", "code", "evidence"),
    [
        (ArchivedError, RefusalCode.UNREADABLE, "it lies in an archive tier: restore it first"),
        (AccessDeniedError, RefusalCode.UNREADABLE, "the store denies access to it"),
        (StorageError, RefusalCode.UNREADABLE, "the store does not give it"),
        (NotFoundError, RefusalCode.MISSING_OBJECT, "listed, and gone when it was read"),
    ],
)
def test_an_object_that_the_store_withholds_is_refused(
    tmp_path, monkeypatch, error, code, evidence
) -> None:
    refusal = fetch(tmp_path, monkeypatch, error)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.evidence) == (code, evidence)


def test_a_store_out_of_reach_refuses_no_object(tmp_path, monkeypatch) -> None:
    with pytest.raises(StoreUnavailableError):
        fetch(tmp_path, monkeypatch, StoreUnavailableError)


@pytest.mark.parametrize("lost", [AccessDeniedError, BucketMissingError])
def test_a_store_that_no_longer_lists_refuses_no_object(tmp_path, monkeypatch, lost) -> None:
    with pytest.raises(lost):
        fetch(tmp_path, monkeypatch, lost, at_listing=lost)


def test_a_folder_whose_disk_is_gone_refuses_no_object(tmp_path) -> None:
    with pytest.raises(BucketMissingError, match="check that its disk is mounted"):
        fetch_object(LocalStore(str(tmp_path)), "a.dcm", max_bytes=9)
