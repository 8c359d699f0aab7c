"""Lanes drain a plan: every fit exactly once, failures written down, kills without loss."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest

from hipray.config.storage import StorageSettings
from hipray.errors import AccessDeniedError, StoreFullError, StoreUnavailableError
from hipray.storage import Lease, open_store, retrying
from hipray.storage.retrying import open_retrying_store
from hipray.training.context import FitContext
from hipray.training.fit_files import (
    MASKS_FILE,
    PREDICTIONS_FILE,
    WEIGHTS_FILE,
    load_frame,
    load_masks,
)
from hipray.training.lane import MAX_DEATHS, MAX_FAILURES_IN_A_ROW, LaneSettings, drain
from hipray.training.lane_notes import LaneNotes, read_notes
from hipray.training.ledger import Ledger
from hipray.training.plan import PlannedFit
from hipray.vocab import Cell, Fit, LabelType, Region, SegmenterFit, Variant
from tests.small_workspace import BACKBONE
from tests.storage.outage import FailingS3

CELL = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, BACKBONE, Variant.ORIGINAL)
OUTAGE_S = 2.0


@pytest.fixture
def ledger(tmp_path):
    return Ledger(open_store(str(tmp_path)), submission="s")


def originals(folds=(0, 1, 2)):
    return [PlannedFit(Fit(CELL, 0, fold), f"digest-{fold}") for fold in folds]


def broken(number):
    """A fit that cannot be trained: timm knows no such network."""
    cell = dataclasses.replace(CELL, backbone=f"no_such_net_{number}")
    return PlannedFit(Fit(cell, 0, 0), f"broken-{number}")


def run(plan, ledger, inputs, *, name="lane", context=None, **changes):
    settings = LaneSettings(name, poll_s=0.02)
    return drain(
        plan, ledger, inputs, settings=settings, context=context or FitContext(), **changes
    )


def test_a_whole_grid_is_drained_segmenters_before_what_needs_them(small_grid) -> None:
    report = small_grid.report
    assert (report.done, report.failed, report.stopped_early) == (9, 0, False)
    done = [small_grid.ledger.read_done(p.digest) for p in small_grid.preparation.plan]
    assert all(done)
    assert {d.attempt for d in done} == {1}


def test_two_lanes_run_every_fit_exactly_once(ledger, inputs) -> None:
    plan = originals()
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda n: run(plan, ledger, inputs, name=f"lane{n}"), range(2)))
    assert sum(report.done for report in reports) == 3
    assert sum(report.failed for report in reports) == 0
    done = [ledger.read_done(planned.digest) for planned in plan]
    assert [d.attempt for d in done] == [1, 1, 1]
    work = list(ledger._store.list("work/"))
    assert len([w for w in work if w.key.endswith(WEIGHTS_FILE)]) == 3


def test_every_commit_is_told_once_with_its_files(ledger, inputs) -> None:
    told = []
    settings = LaneSettings("lane", poll_s=0.01)
    drain(
        originals((0, 1)), ledger, inputs, settings=settings, context=FitContext(),
        on_commit=lambda planned, result: told.append((planned.name, set(result.files))),
    )  # fmt: skip
    assert len(told) == len({name for name, _ in told}) == 2
    assert all(WEIGHTS_FILE in files for _, files in told)


def test_a_second_drain_trains_nothing(small_grid) -> None:
    before = {p.digest: small_grid.ledger.read_done(p.digest) for p in small_grid.preparation.plan}
    ledger = Ledger(small_grid.store, submission="again")
    report = run(small_grid.preparation.plan, ledger, small_grid.preparation.inputs)
    assert report.done == 0
    assert {d: ledger.read_done(d) for d in before} == before


def test_a_fit_that_raises_is_written_down_and_stops_no_other(ledger, inputs) -> None:
    plan = [broken(1), *originals((0,))]
    report = run(plan, ledger, inputs)
    assert (report.done, report.failed, report.stopped_early) == (1, 1, False)
    failure = ledger.read_failures("broken-1")[0]
    assert "no_such_net_1" in failure.error
    assert "Traceback" in failure.traceback
    assert failure.final


def test_a_failure_that_may_pass_is_tried_again(ledger, inputs) -> None:
    settings = inputs.experiment.classifier.model_copy(update={"weights": "gone.safetensors"})
    experiment = inputs.experiment.model_copy(update={"classifier": settings})
    report = run(originals((0,)), ledger, dataclasses.replace(inputs, experiment=experiment))
    assert (report.done, report.failed) == (0, 2)
    failures = ledger.read_failures("digest-0")
    assert [failure.final for failure in failures] == [False, False]


def test_a_lane_whose_fits_all_raise_takes_its_machine_to_be_at_fault(ledger, inputs) -> None:
    settings = inputs.experiment.classifier.model_copy(update={"weights": "gone.safetensors"})
    experiment = inputs.experiment.model_copy(update={"classifier": settings})
    report = run(originals((0, 1, 2)), ledger, dataclasses.replace(inputs, experiment=experiment))
    assert report.stopped_early
    assert report.failed == 2 * MAX_FAILURES_IN_A_ROW - 1  # two tries each; the last had one


def test_one_fit_that_fails_again_and_again_is_no_sign_of_a_bad_machine(inputs, tmp_path) -> None:
    settings = inputs.experiment.classifier.model_copy(update={"weights": "gone.safetensors"})
    experiment = inputs.experiment.model_copy(update={"classifier": settings})
    store = open_store(str(tmp_path / "often"))
    often = Ledger(store, submission="s", max_attempts=MAX_FAILURES_IN_A_ROW + 1)
    report = run(originals((0,)), often, dataclasses.replace(inputs, experiment=experiment))
    assert (report.failed, report.stopped_early) == (MAX_FAILURES_IN_A_ROW + 1, False)


def test_fits_whose_settings_are_at_fault_never_stop_a_lane(ledger, inputs) -> None:
    wrong = [broken(n) for n in range(MAX_FAILURES_IN_A_ROW + 1)]
    report = run([*wrong, *originals((0,))], ledger, inputs)
    assert (report.done, report.failed, report.stopped_early) == (1, len(wrong), False)


def test_a_lane_drops_a_fit_that_another_lane_took_over_and_blames_nobody(
    ledger, inputs, monkeypatch
) -> None:
    answers = [True]
    monkeypatch.setattr(Lease, "taken", property(lambda lease: bool(answers) and answers.pop()))
    report = run(originals((0,)), ledger, inputs)
    assert (report.done, report.failed) == (1, 0)
    assert ledger.read_failures("digest-0") == []
    assert ledger.read_done("digest-0").attempt == 2


def test_one_class_of_hips_is_a_final_failure_that_names_the_cell(ledger, inputs) -> None:
    manifest = inputs.manifest.assign(label_t_score_total_hip=True)
    manifest["label_t_score_total_hip"] = manifest["label_t_score_total_hip"].astype("boolean")
    report = run(originals((0,)), ledger, dataclasses.replace(inputs, manifest=manifest))
    failures = ledger.read_failures("digest-0")
    assert (report.done, report.failed) == (0, 1)
    assert [f.final for f in failures] == [True]
    assert "training set of total_hip-t_score-resnet10t-original-r0f0" in failures[0].error


def test_what_needs_a_failed_segmenter_fails_with_it_and_says_so(ledger, inputs) -> None:
    segmenter = broken(0)
    cell = dataclasses.replace(CELL, variant=Variant.SEGMENTED)
    matted = PlannedFit(Fit(cell, 0, 0), "matted", needs=(segmenter.digest,))
    run([segmenter, matted], ledger, inputs)
    assert "segmenter it needs failed" in ledger.read_failures("matted")[0].error
    assert ledger.read_done("matted") is None


@pytest.mark.parametrize("error", [StoreUnavailableError, StoreFullError, AccessDeniedError])
def test_a_failing_store_ends_the_lane_and_is_held_against_no_fit(ledger, inputs, error) -> None:
    def fail(name, report):
        raise error("a", "b", "c")

    with pytest.raises(error):
        run(originals((0,)), ledger, inputs, on_epoch=fail)
    assert ledger.read_failures("digest-0") == []
    assert not ledger.live_claims(["digest-0"])


def test_a_stopped_lane_gives_its_fit_back_and_another_ends_it_bit_for_bit(
    small_grid, ledger, inputs
) -> None:
    planned = next(p for p in small_grid.preparation.plan if p.fit == Fit(CELL, 0, 2))

    def stop(name, report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([planned], ledger, inputs, name="first", on_epoch=stop)
    assert ledger.read_failures(planned.digest) == []
    assert not ledger.live_claims([planned.digest])
    epochs = []
    run(
        [planned], ledger, inputs, name="second",
        on_epoch=lambda name, report: epochs.append(report.epoch),
    )  # fmt: skip
    assert epochs == [2]
    done, whole = ledger.read_done(planned.digest), small_grid.ledger.read_done(planned.digest)
    assert (done.lane, done.attempt) == ("second", 2)
    for name in (WEIGHTS_FILE, PREDICTIONS_FILE):
        assert done.files[name] == whole.files[name]


def test_a_committed_fit_leaves_no_checkpoint_behind(small_grid) -> None:
    for planned in small_grid.preparation.plan:
        assert small_grid.ledger.checkpoints(planned).load_latest() is None


def test_a_fit_past_its_time_limit_is_a_failure_in_words(ledger, inputs) -> None:
    settings = LaneSettings("lane", poll_s=0.02, fit_timeout_s=1e-6)
    report = drain(originals((0,)), ledger, inputs, settings=settings, context=FitContext())
    assert report.failed == 2
    assert "time limit" in ledger.read_failures("digest-0")[0].error


def test_masks_of_a_segmented_fit_come_from_segmenters_that_never_saw_the_patient(
    small_grid,
) -> None:
    inputs = small_grid.preparation.inputs
    by_digest = {p.digest: p for p in small_grid.preparation.plan}
    patients = inputs.manifest.set_index("hip_id")["patient_id"]
    matted = [
        p for p in by_digest.values()
        if isinstance(p.fit, Fit) and p.fit.cell.variant is Variant.SEGMENTED
    ]  # fmt: skip
    assert len(matted) == 3
    for planned in matted:
        drawn = []
        for digest in planned.needs:
            segmenter = by_digest[digest].fit
            assert isinstance(segmenter, SegmenterFit)
            done = small_grid.ledger.read_done(digest)
            hips, masks = load_masks(small_grid.ledger.read_file(done, MASKS_FILE))
            trained_on = set(inputs.manifest["patient_id"].iloc[inputs.fold(segmenter).train])
            assert not trained_on & set(patients.loc[hips])
            assert masks.shape == (len(hips), 4, 192, 192)
            drawn += hips
        assert sorted(drawn) == sorted(inputs.manifest["hip_id"])


def test_scores_of_all_folds_together_are_out_of_fold_for_every_hip(small_grid) -> None:
    inputs = small_grid.preparation.inputs
    frames = []
    for planned in small_grid.preparation.plan:
        if isinstance(planned.fit, Fit) and planned.fit.cell == CELL:
            done = small_grid.ledger.read_done(planned.digest)
            frame = load_frame(small_grid.ledger.read_file(done, PREDICTIONS_FILE))
            frames.append(frame[frame["part"] == "test"]["hip_id"])
    assert sorted(np.concatenate(frames)) == sorted(inputs.manifest["hip_id"])


def test_a_lane_that_finds_nothing_to_claim_ends_though_fits_are_open(ledger, inputs) -> None:
    other = originals((0,))[0]
    with ledger.claim(other, "another lane"):
        settings = LaneSettings("lane", poll_s=0.02, idle_s=0.1)
        report = drain([other], ledger, inputs, settings=settings, context=FitContext())
    assert (report.done, report.stopped_early) == (0, False)


def test_a_fit_on_which_lanes_keep_dying_fails_and_spares_the_next_lane(ledger, inputs) -> None:
    planned = originals((0,))[0]
    for _ in range(MAX_DEATHS):
        lease = ledger.claim(planned, "s-0")
        _forget_process(ledger, planned, lease)
    report = run([planned], ledger, inputs)
    assert (report.done, report.failed) == (0, 0)
    failure = ledger.read_failures(planned.digest)[0]
    assert f"{MAX_DEATHS} lanes died" in failure.error
    assert failure.final


def _forget_process(ledger, planned, lease):
    """Leave a claim as a process that was killed leaves it."""
    key = f"claims/{planned.digest}/{lease.attempt}.json"
    claim = json.loads(ledger._store.read(key))
    claim["process"]["pid"], claim["process"]["started"] = 2**22 - 1, 1
    ledger._store.write(key, json.dumps(claim).encode())


def test_a_lane_says_what_it_does(ledger, inputs, tmp_path) -> None:
    store = open_store(str(tmp_path / "notes"))
    seen = []
    run(
        originals((0,)), ledger, inputs, notes=LaneNotes(store, "r", "lane"),
        on_epoch=lambda name, report: seen.append(read_notes(store, "r")["lane"].fit),
    )  # fmt: skip
    assert seen == [originals((0,))[0].name] * 2


def test_an_outage_of_the_store_in_the_middle_of_a_fit_loses_nothing(inputs, monkeypatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(retrying, "LONGEST_WAIT_S", 0.2)
    with closing(FailingS3()) as server:
        settings = StorageSettings(endpoint_url=server.s3.endpoint_url, max_attempts=1)
        store = open_retrying_store(f"s3://{server.s3.new_bucket()}", settings, patience_s=60)
        ledger = Ledger(store, submission="s")
        report = drain(
            [PlannedFit(Fit(CELL, 0, 0), "d0")], ledger, inputs,
            settings=LaneSettings("lane", poll_s=0.05), context=FitContext(),
            on_epoch=lambda name, epoch: server.fail_for(OUTAGE_S) if epoch.epoch == 1 else None,
        )  # fmt: skip
        assert server.refused > 0
        assert (report.done, report.failed) == (1, 0)
        done = ledger.read_done("d0")
        assert done is not None
        assert done.attempt == 1
        assert ledger.read_failures("d0") == []
