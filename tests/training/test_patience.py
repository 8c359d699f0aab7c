"""A store out of reach for a while costs a lane time and no fit."""

import pickle
import threading
import time

import pytest

from hipray.config.storage import StorageSettings
from hipray.errors import NotFoundError, StoreUnavailableError
from hipray.storage import open_store
from hipray.training import patience
from hipray.training.context import FitContext
from hipray.training.lane import LaneSettings, drain
from hipray.training.ledger import Ledger
from hipray.training.patience import PatientStore
from hipray.training.plan import PlannedFit
from hipray.vocab import Cell, Fit, LabelType, Region, Variant
from tests.small_workspace import BACKBONE
from tests.training.outage import FailingS3

CELL = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, BACKBONE, Variant.ORIGINAL)
OUTAGE_S = 2.0


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(patience, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(patience, "LONGEST_WAIT_S", 0.2)
    server = FailingS3()
    yield server
    server.close()


def open_patient(server, patience_s):
    settings = StorageSettings(endpoint_url=server.s3.endpoint_url, max_attempts=1)
    return PatientStore(
        open_store(f"s3://{server.s3.new_bucket()}", settings), patience_s=patience_s
    )


def fail_for(server, seconds):
    server.down = True
    threading.Timer(seconds, lambda: setattr(server, "down", False)).start()


def test_every_operation_waits_until_the_store_is_back(server, tmp_path) -> None:
    store = open_patient(server, 30).child("a")
    (tmp_path / "file").write_bytes(b"file")
    for operation in (
        lambda: store.write("x", b"1"),
        lambda: store.create("y", b"2"),
        lambda: store.read("x") == b"1",
        lambda: store.exists("y"),
        lambda: [info.key for info in store.list()] == ["x", "y"],
        lambda: list(store.list_folders()) == [],
        lambda: store.write_file(tmp_path / "file", "z") is None,
        lambda: store.read_file("z", tmp_path / "copy") is None,
        lambda: store.delete("z") is None,
    ):
        fail_for(server, 0.15)
        assert operation()
    assert (tmp_path / "copy").read_bytes() == b"file"
    assert server.refused >= 9


def test_patience_ends(server) -> None:
    store = open_patient(server, 0.5)
    server.down = True
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        store.read("x")
    assert time.monotonic() - started < 5


def test_other_errors_are_not_waited_out(server) -> None:
    with pytest.raises(NotFoundError):
        open_patient(server, 60).read("missing")


def test_it_travels_as_the_plain_store(tmp_path) -> None:
    store = open_store(str(tmp_path))
    copy = pickle.loads(pickle.dumps(PatientStore(store, patience_s=1)))
    assert (type(copy), copy.uri) == (type(store), store.uri)


def test_an_outage_in_the_middle_of_a_fit_loses_nothing(server, inputs) -> None:
    ledger = Ledger(open_patient(server, 60), submission="s")
    plan = [PlannedFit(Fit(CELL, 0, 0), "d0")]
    report = drain(
        plan, ledger, inputs, settings=LaneSettings("lane", poll_s=0.05), context=FitContext(),
        on_epoch=lambda name, epoch: fail_for(server, OUTAGE_S) if epoch.epoch == 1 else None,
    )  # fmt: skip
    assert server.refused > 0
    assert (report.done, report.failed) == (1, 0)
    done = ledger.read_done("d0")
    assert done is not None
    assert done.attempt == 1
    assert ledger.read_failures("d0") == []
