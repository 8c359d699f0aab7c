"""A fit that hangs is noticed by a thread, written down, and ends its process only."""

import subprocess
import sys
import threading
import time

import pytest

from hipray.storage import holder, open_store
from hipray.training.lane import HANG_EXIT_CODE
from hipray.training.ledger import Ledger
from hipray.training.watchdog import backstop, watch

LANE = """
import sys, time
from hipray.storage import open_store
from hipray.training import lane
from hipray.training.context import FitContext
from hipray.training.fit_files import FitFiles
from hipray.training.ledger import Ledger
from hipray.training.plan import PlannedFit
from hipray.config.experiment import Experiment
from hipray.training.inputs import FitInputs
from hipray.vocab import Cell, Fit, LabelType, Region, Variant
import os

def run_fit(planned, *_):
    if planned.fit.fold == 0:
        time.sleep(600)
    return FitFiles({"weights": b"w"}, {})

lane.run_fit = run_fit
cell = Cell(Region.TOTAL_HIP, LabelType.BMD, "resnet50", Variant.ORIGINAL)
plan = [PlannedFit(Fit(cell, 0, fold), f"d{fold}") for fold in (0, 1, 2)]
store = open_store(sys.argv[1])
settings = lane.LaneSettings(
    "lane", poll_s=0.05, fit_timeout_s=0.3, hang_grace_s=0.3, end_process=os._exit
)
ledger = Ledger(store, submission="s", max_attempts=1)
report = lane.drain(plan, ledger, FitInputs(store, None, None, Experiment()),
                    settings=settings, context=FitContext())
print(report.done, report.failed)
"""


def test_a_block_that_takes_too_long_is_acted_on_with_its_stack() -> None:
    acted: list[str] = []
    done = threading.Event()

    def act(stack):
        acted.append(stack)
        done.set()

    with watch(0.05, act):
        assert done.wait(5)
    assert "done.wait" in acted[0], "the stack is that of the thread that hangs"


def test_a_block_that_ends_in_time_is_left_alone() -> None:
    acted: list[str] = []
    with watch(0.1, acted.append):
        pass
    with watch(None, acted.append), backstop(None):
        time.sleep(0.2)
    assert acted == []


def test_a_process_that_holds_the_interpreter_is_ended_from_outside_python() -> None:
    code = (
        "from hipray.training import watchdog\n"
        "watchdog.BACKSTOP_S = 0.2\n"
        "import re\n"
        "with watchdog.backstop(0.1):\n"
        "    re.match(r'(a+)+$', 'a' * 40 + 'b')\n"  # one call into C that never lets go
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert ended.returncode != 0
    assert b"Timeout" in ended.stderr


@pytest.mark.cluster
def test_a_lane_whose_fit_hangs_ends_and_the_next_process_goes_on_with_the_others(tmp_path):
    def run():
        return subprocess.run(
            [sys.executable, "-c", LANE, str(tmp_path)], capture_output=True, text=True, timeout=120
        )

    store = open_store(str(tmp_path))
    ledger = Ledger(store, submission="s", max_attempts=1)
    ends = [run() for _ in range(2)]
    assert [end.returncode for end in ends] == [HANG_EXIT_CODE, 0], ends[-1].stderr
    snapshot = ledger.snapshot()
    assert (snapshot.done, snapshot.failed) == ({"d1", "d2"}, {"d0"})
    failure = ledger.read_failures("d0")[0]
    assert "it hung" in failure.error
    assert "fit_timeout_s" in failure.error
    assert "time.sleep(600)" in failure.traceback or "run_fit" in failure.traceback
    assert holder(store, "fits/claims/d0") is None


@pytest.mark.parametrize("limit", [0.01, 1.0])
def test_an_error_inside_a_watched_block_passes(limit) -> None:
    with pytest.raises(ValueError, match="inside"), watch(limit, lambda stack: None):
        raise ValueError("inside")
