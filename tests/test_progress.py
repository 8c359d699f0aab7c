"""Progress in a log: a line now and then, and always the end."""

import pytest

from hipray import progress
from hipray.progress import track


def test_a_short_piece_of_work_says_only_that_it_is_finished(capsys) -> None:
    with track("reading", 3) as update:
        for done in range(1, 4):
            update(done)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("reading: finished in 0.")


def test_longer_work_says_how_far_it_is_and_what_goes_on(capsys, monkeypatch) -> None:
    monkeypatch.setattr(progress, "LOG_INTERVAL_S", 0.0)
    with track("grid", 4) as update:
        update(1, "2 lanes")
        update(1, "2 lanes")
        update(2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("grid: 1/4, about ")
    assert lines[0].endswith("s left, 2 lanes")
    assert lines[1].startswith("grid: 2/4")
    assert len(lines) == 3


def test_nothing_done_yet_is_no_division_by_zero(capsys, monkeypatch) -> None:
    monkeypatch.setattr(progress, "LOG_INTERVAL_S", 0.0)
    with track("grid", 4) as update:
        update(0)
    assert "grid: finished" in capsys.readouterr().err


def test_work_that_fails_is_not_called_finished(capsys) -> None:
    with pytest.raises(ValueError, match=r"broken"), track("grid", 4):
        raise ValueError("broken")
    assert "finished" not in capsys.readouterr().err
