"""A GPU out of memory or out of order: tried again, written down, or the process given up."""

import pytest
import torch

from hipray.training import lane
from hipray.training.context import FitContext
from hipray.training.device_errors import DeviceLostError
from hipray.training.fit_files import FitFiles
from hipray.training.lane import LaneSettings, drain
from hipray.training.ledger import Ledger
from hipray.training.plan import PlannedFit
from hipray.vocab import Cell, Fit, LabelType, Region, Variant

CELL = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, "resnet50", Variant.ORIGINAL)
PLAN = [PlannedFit(Fit(CELL, 0, fold), f"d{fold}") for fold in (0, 1)]
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")
ILLEGAL = RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors")


@pytest.fixture
def ledger(tmp_path):
    from hipray.storage import open_store

    return Ledger(open_store(str(tmp_path)), submission="s", max_attempts=2)


def drain_with(monkeypatch, ledger, inputs, errors):
    """Drain the plan with fits that raise `errors` one after the other, then succeed."""
    left, ran = list(errors), []

    def run_fit(planned, *_):
        ran.append(planned.digest)
        if left:
            raise left.pop(0)
        return FitFiles({"weights": b"w"}, {})

    monkeypatch.setattr(lane, "run_fit", run_fit)
    settings = LaneSettings("lane", poll_s=0.01, gpus=0.25)
    try:
        return drain(PLAN, ledger, inputs, settings=settings, context=FitContext()), ran
    except DeviceLostError as error:
        return error, ran


def test_a_fit_out_of_memory_is_tried_once_more_at_once(monkeypatch, ledger, inputs) -> None:
    report, ran = drain_with(monkeypatch, ledger, inputs, [OUT_OF_MEMORY])
    assert (report.done, report.failed) == (2, 0)
    assert ran == ["d0", "d0", "d1"]
    assert ledger.read_failures("d0") == []


def test_a_fit_twice_out_of_memory_fails_naming_share_and_batch(
    monkeypatch, ledger, inputs
) -> None:
    report, ran = drain_with(monkeypatch, ledger, inputs, [OUT_OF_MEMORY] * 2)
    assert (report.done, report.failed) == (1, 1)
    assert ran == ["d0", "d0", "d1"], "the third try would fail like the second"
    failure = ledger.read_failures("d0")[0]
    assert failure.final
    batch = inputs.experiment.classifier.batch
    for words in (CELL.name, f"batch {batch}", "gpus_per_lane = 0.25", "lower the batch"):
        assert words in failure.error


def test_a_lost_gpu_ends_the_lane_and_returns_its_fit(monkeypatch, ledger, inputs) -> None:
    error, ran = drain_with(monkeypatch, ledger, inputs, [ILLEGAL])
    assert isinstance(error, DeviceLostError)
    assert "illegal memory access" in str(error)
    assert "\n" not in str(error)
    assert ran == ["d0"]
    assert not ledger.live_claims(["d0"])
    assert ledger.snapshot().failed == frozenset(), "one lost GPU does not condemn the fit"
    report, _ = drain_with(monkeypatch, ledger, inputs, [])
    assert report.done == 2


def test_a_fit_that_loses_every_gpu_fails_after_its_attempts(monkeypatch, ledger, inputs) -> None:
    for _ in range(2):
        drain_with(monkeypatch, ledger, inputs, [ILLEGAL])
    assert ledger.snapshot().failed == {"d0"}
    report, ran = drain_with(monkeypatch, ledger, inputs, [])
    assert (report.done, ran) == (1, ["d1"])
