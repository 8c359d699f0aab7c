"""What lanes say of themselves."""

import pytest

from hipray.storage import open_store
from hipray.training import lane_notes
from hipray.training.lane_notes import LaneNotes, clear_notes, read_notes


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path))


def test_a_note_follows_the_lane_through_its_fits(store, monkeypatch) -> None:
    monkeypatch.setattr(lane_notes, "NOTE_INTERVAL_S", 0.0)
    notes = LaneNotes(store, "r", "s-0")
    notes.wait()
    assert read_notes(store, "r")["s-0"].fit == ""
    notes.begin("fit a")
    notes.report(2, 9)
    note = read_notes(store, "r")["s-0"]
    assert (note.fit, note.epoch, note.epochs, note.ended) == ("fit a", 2, 9, False)
    notes.wait()
    assert (read_notes(store, "r")["s-0"].fit, read_notes(store, "r")["s-0"].epoch) == ("", 0)
    notes.end()
    assert read_notes(store, "r")["s-0"].ended


def test_progress_is_written_now_and_then_only(store) -> None:
    notes = LaneNotes(store, "r", "s-0")
    notes.begin("fit a")
    first = read_notes(store, "r")["s-0"]
    for epoch in range(1, 50):
        notes.report(epoch, 50)
    assert read_notes(store, "r")["s-0"] == first


def test_a_note_that_cannot_be_written_stops_no_lane(tmp_path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    LaneNotes(open_store(str(tmp_path)), "r", "s-0").begin("fit a")


def test_notes_of_an_earlier_submission_are_cleared(store) -> None:
    LaneNotes(store, "r", "old-0").begin("fit a")
    LaneNotes(store, "other", "o-0").begin("fit b")
    clear_notes(store, "r")
    assert read_notes(store, "r") == {}
    assert list(read_notes(store, "other")) == ["o-0"]
