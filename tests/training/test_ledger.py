"""The ledger: the first commit wins, failures are kept, finished work is shared."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from hipray.errors import BundleError
from hipray.storage import open_store
from hipray.training.ledger import Ledger
from hipray.training.plan import PlannedFit
from hipray.vocab import Cell, Fit, LabelType, Region, Variant

CELL = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, "resnet10t", Variant.ORIGINAL)
FIT = PlannedFit(Fit(CELL, 0, 0), "d0")
OTHER = PlannedFit(Fit(CELL, 0, 1), "d1")


@pytest.fixture(params=["local", "s3"])
def store(request, tmp_path):
    if request.param == "s3":
        return request.getfixturevalue("s3_server").new_store()
    return open_store(str(tmp_path))


def commit(ledger, content=b"weights", lane="a"):
    return ledger.commit(
        FIT, {"weights": content}, summary={"n": 1}, seconds=1.5, attempt=1, lane=lane
    )


def fail(ledger, planned=FIT, *, final=False):
    ledger.record_failure(planned, error="boom", traceback="line 1", final=final)


def test_the_first_commit_wins_and_the_second_changes_nothing(store) -> None:
    ledger = Ledger(store, submission="s")
    assert commit(ledger, b"first", "a")
    assert not commit(ledger, b"second", "b")
    done = ledger.read_done("d0")
    assert (done.lane, done.seconds, done.summary) == ("a", 1.5, {"n": 1})
    assert ledger.read_file(done, "weights") == b"first"


def test_of_many_lanes_that_commit_at_once_exactly_one_wins(store) -> None:
    lanes = [f"lane{n}" for n in range(6)]
    ledgers = [Ledger(store, submission=lane) for lane in lanes]
    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(lambda n: commit(ledgers[n], lanes[n].encode(), lanes[n]), range(6)))
    done = ledgers[0].read_done("d0")
    assert won.count(True) == 1
    assert done.lane == lanes[won.index(True)]
    assert ledgers[0].read_file(done, "weights") == done.lane.encode()


def test_a_commit_without_a_trace_is_not_done(store) -> None:
    ledger = Ledger(store, submission="s")
    assert ledger.read_done("d0") is None
    assert ledger.snapshot().done == frozenset()
    commit(ledger)
    assert ledger.snapshot().done == {"d0"}


def test_an_altered_file_is_refused_and_named(store) -> None:
    ledger = Ledger(store, submission="s")
    commit(ledger)
    done = ledger.read_done("d0")
    store.child("fits").write(f"{done.prefix}/weights", b"other")
    with pytest.raises(BundleError, match=r"expected weights of .* as it was committed"):
        ledger.read_file(done, "weights")


def test_a_fit_fails_for_good_after_its_attempts_are_used_up(store) -> None:
    ledger = Ledger(store, submission="s", max_attempts=2)
    fail(ledger)
    assert ledger.snapshot().failed == frozenset()
    fail(ledger)
    assert ledger.snapshot().failed == {"d0"}
    failures = ledger.read_failures("d0")
    assert [(f.error, f.traceback) for f in failures] == [("boom", "line 1")] * 2


def test_a_failure_that_cannot_be_helped_is_final_at_once(store) -> None:
    ledger = Ledger(store, submission="s", max_attempts=5)
    fail(ledger, final=True)
    assert ledger.snapshot().failed == {"d0"}


def test_a_new_submission_tries_failed_fits_again(store) -> None:
    fail(Ledger(store, submission="first"), final=True)
    again = Ledger(store, submission="second")
    assert again.snapshot().failed == frozenset()
    assert len(again.read_failures("d0")) == 1


def test_a_fit_that_failed_and_was_then_done_is_done(store) -> None:
    ledger = Ledger(store, submission="s")
    fail(ledger, final=True)
    commit(ledger)
    snapshot = ledger.snapshot()
    assert (snapshot.done, snapshot.failed) == ({"d0"}, frozenset())


def test_two_lanes_never_hold_one_fit(store) -> None:
    ledgers = [Ledger(store, submission="s") for _ in range(2)]
    lease = ledgers[0].claim(FIT, "a")
    assert ledgers[1].claim(FIT, "b") is None
    assert ledgers[1].claim(OTHER, "b") is not None
    lease.release()
    assert ledgers[1].claim(FIT, "b") is not None


def test_a_fit_is_claimed_then_failed_then_done_and_nothing_of_these_twice(store):
    ledger = Ledger(store, submission="s", max_attempts=1)

    def find():
        snapshot = ledger.snapshot()
        return {*ledger.live_claims(["d0"])}, snapshot.failed, snapshot.done

    assert find() == (set(), set(), set())
    with ledger.claim(FIT, "a"):
        assert find() == ({"d0"}, set(), set())
    fail(ledger)
    assert find() == (set(), {"d0"}, set())
    commit(ledger)
    assert find() == (set(), set(), {"d0"})


def test_files_of_fits_are_read_by_fold_once_all_are_done(store) -> None:
    ledger = Ledger(store, submission="s")
    commit(ledger)
    assert ledger.read_by_fold(["d0", "d1"], "weights") is None
    assert ledger.read_by_fold(["d0"], "weights") == {FIT.fit.fold: [b"weights"]}


def test_live_claims_are_told_with_their_lane(store) -> None:
    ledger = Ledger(store, submission="s")
    with ledger.claim(FIT, "lane-a"):
        claims = ledger.live_claims(["d0", "d1"])
        assert {digest: info.note for digest, info in claims.items()} == {"d0": "lane-a"}
        assert ledger.live_claims(["d1"]) == {}
    assert ledger.live_claims(["d0"]) == {}


def _claim_elsewhere(ledger, planned, lane):
    """A claim whose holder is another process, on a machine that cannot be looked into."""
    lease = ledger.claim(planned, lane)
    key = f"claims/{planned.digest}/{lease.attempt}.json"
    claim = json.loads(ledger._store.read(key))
    claim["process"] |= {"host": "elsewhere", "boot_id": "other"}
    ledger._store.write(key, json.dumps(claim).encode())


def test_a_dead_lanes_fits_are_handed_out_again_at_once_and_no_others(store) -> None:
    ledger = Ledger(store, submission="s", lease_s=600)
    _claim_elsewhere(ledger, FIT, "s-0")
    _claim_elsewhere(ledger, OTHER, "s-1")
    assert ledger.claim(FIT, "s-2") is None
    assert ledger.release_lane("s-0", ["d0", "d1"]) == ["d0"]
    assert ledger.claim(FIT, "s-2") is not None
    assert ledger.claim(OTHER, "s-2") is None


def test_a_lane_never_releases_what_its_own_process_holds(store) -> None:
    ledger = Ledger(store, submission="s")
    with ledger.claim(FIT, "s-0"):
        assert ledger.release_lane("s-0", ["d0"]) == []
        assert ledger.live_claims(["d0"])


def test_deaths_are_claims_of_this_submission_that_were_never_released(store) -> None:
    ledger = Ledger(store, submission="s", lease_s=0.01)
    for lane, released in (("old-0", False), ("s-0", False), ("s-1", True), ("s-0", False)):
        lease = ledger.claim(FIT, lane)
        assert lease is not None
        if released:
            lease.release()
        time.sleep(0.02)
    last = ledger.claim(FIT, "s-1")
    assert ledger.count_deaths(FIT, last.attempt) == 2


def test_finished_fits_are_told_with_their_time(store) -> None:
    ledger = Ledger(store, submission="s")
    commit(ledger)
    assert abs(time.time() - ledger.finished()["d0"].timestamp()) < 60
    assert ledger.failed_digests() == frozenset()
    fail(ledger, OTHER)
    assert ledger.failed_digests() == {"d1"}
