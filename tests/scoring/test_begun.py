import os
from pathlib import Path

import pytest

from hipray.errors import ProcessLostError, StoreUnavailableError
from hipray.scoring.begun import MOST_TRIES, BegunWork
from hipray.scoring.faults import Fault
from hipray.scoring.shards import Entry
from hipray.scoring.work import Work
from hipray.storage import Store, open_store

WORK = Work("0000-0000-00000003-abc", (Entry("a", 1, "e"), Entry("b", 1, "e")))
OTHER = Work("0000-0000-00000004-abc", (Entry("c", 1, "e"),))


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def die_with(begun: BegunWork, work: Work) -> None:
    """Begin work in a process that ends with it."""
    child = os.fork()
    if not child:
        with begun.noted(work, restarted=True):
            os._exit(1)
    os.waitpid(child, 0)


def test_work_that_restarted_processes_never_ended_is_given_up_with_letters_that_say_so(
    output: Store,
) -> None:
    begun = BegunWork(output, "parts/scored_by=x", "decoder")
    for _ in range(MOST_TRIES):
        die_with(begun, WORK)
    with begun.noted(OTHER, restarted=True) as letters:
        assert letters == [], "it waited at the same process and did no harm"
    with begun.noted(WORK, restarted=True) as letters:
        assert [letter.entry for letter in letters] == list(WORK.entries)
    (fault,) = {letter.fault for letter in letters}
    assert fault is Fault.PROCESS_LOST
    assert not fault.may_pass
    error = letters[0].error
    assert isinstance(error, ProcessLostError)
    assert "4 whose process ended with them" in str(error)
    assert letters[0].tries == MOST_TRIES + 1
    with begun.noted(WORK, restarted=True) as letters:
        assert letters == [], "another submission tries it again"
    assert not list(output.list())


def test_work_that_ends_or_raises_leaves_no_note(output: Store) -> None:
    begun = BegunWork(output, "parts/scored_by=x", "decoder")
    with begun.noted(WORK, restarted=True):
        assert len(list(output.list())) == 1
    with pytest.raises(ValueError, match="own"), begun.noted(WORK, restarted=True):
        raise ValueError("own error")
    assert not list(output.list())


def test_a_process_that_was_never_restarted_notes_nothing(output: Store) -> None:
    begun = BegunWork(output, "parts/scored_by=x", "decoder")
    with begun.noted(WORK, restarted=False) as letters:
        assert letters == []
        assert not list(output.list())


def test_stages_and_sets_of_parts_count_for_themselves(output: Store) -> None:
    for _ in range(MOST_TRIES):
        die_with(BegunWork(output, "parts/scored_by=x", "decoder"), WORK)
    for folder, stage in (("parts/scored_by=x", "scorer"), ("parts/scored_by=y", "decoder")):
        with BegunWork(output, folder, stage).noted(WORK, restarted=True) as letters:
            assert letters == []


def test_a_store_out_of_reach_costs_the_note_and_not_the_work(
    output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreUnavailableError("a store", "silence", "wait")

    for operation in ("list", "write", "delete"):
        with monkeypatch.context() as patch:
            patch.setattr(type(output), operation, fail)
            with BegunWork(output, "parts/x", "decoder").noted(WORK, restarted=True) as letters:
                assert letters == []
