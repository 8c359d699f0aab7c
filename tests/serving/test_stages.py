import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest
from ray import serve

from hipray.data.framing import Pixels
from hipray.data.images import read_hips
from hipray.errors import BundleError, ConfigError
from hipray.pipeline import HipRow, Pipeline, frame_hips, score_frames
from hipray.releases.release import Release, read_release
from hipray.serving.batches import join_frames, split_segmentation
from hipray.serving.clock import StepClock
from hipray.serving.graph import FusedGraph, SplitGraph
from hipray.serving.messages import (
    DeadlinePassedError,
    ForeignReleaseError,
    MalformedMessageError,
    Message,
    PackedSegmentation,
    SegmentedFrames,
)
from hipray.serving.stages import EnsembleStage, FusedStage, SegmenterStage, blank_views
from hipray.storage import Store
from tests.serving.conftest import LocalStages, Run, stage_setup

NEVER = 1e12
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def frames(films: list[bytes], matted: Release) -> list[Pixels]:
    return [frame_hips(read_hips(film, name="").hips, matted.working_px) for film in films]


def assert_same(found: list[HipRow], wanted: list[HipRow]) -> None:
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=TOLERANCE)
        assert ours.present == theirs.present
        assert ours.areas == pytest.approx(theirs.areas, abs=1e-3)
        assert (ours.refusal is None) == (theirs.refusal is None)


def test_films_that_share_a_batch_get_their_own_numbers(
    stages: LocalStages, pipeline: Pipeline, frames: list[Pixels], run: Run
) -> None:
    async def score_all() -> list[list[HipRow]]:
        calls = (stages.graph(f, timeout_s=60, clock=StepClock()) for f in frames)
        return await asyncio.gather(*calls)

    found = run(score_all())
    for rows, film in zip(found, frames, strict=True):
        assert_same(rows, score_frames(pipeline.stages, film)[0])
    # the films differ, or a mixed-up answer would pass
    spread = np.ptp([next(iter(rows[0].probabilities.values())) for rows in found])
    assert spread > 100 * TOLERANCE


def test_the_fused_stage_gives_the_numbers_of_the_pipeline(
    workspace: Store, pipeline: Pipeline, matted: Release, frames: list[Pixels], run: Run
) -> None:
    graph = FusedGraph(matted.digest, FusedStage(stage_setup(workspace, matted)))

    async def score_all() -> list[list[HipRow]]:
        return await asyncio.gather(*(graph(f, timeout_s=60, clock=StepClock()) for f in frames))

    for rows, film in zip(run(score_all()), frames, strict=True):
        assert_same(rows, score_frames(pipeline.stages, film)[0])


def test_a_release_of_whole_films_needs_the_ensemble_only(
    workspace: Store, frames: list[Pixels], run: Run
) -> None:
    whole = read_release(workspace, "whole")
    classify = EnsembleStage(stage_setup(workspace, whole))
    graph = SplitGraph(whole, None, None, classify)
    rows = run(graph(frames[0], timeout_s=60, clock=StepClock()))
    assert rows[0].areas is None
    assert all(rows[0].present.values())


def test_serve_runs_the_stages_without_a_cluster(
    workspace: Store, stages: LocalStages, frames: list[Pixels], run: Run
) -> None:
    app = serve.deployment(SegmenterStage).bind(stage_setup(workspace, stages.release))
    handle = serve.run(app, _local_testing_mode=True).options(_by_reference=False)
    message = Message(stages.release.digest, NEVER, frames[0])
    found = handle.remote(message).result(timeout_s=60)
    wanted = run(stages.segment(message))
    assert found.release_digest == stages.release.digest
    assert np.array_equal(found.body.unpack().masks, wanted.body.unpack().masks)


def test_every_stage_refuses_a_foreign_release(
    stages: LocalStages, frames: list[Pixels], run: Run
) -> None:
    packed = run(stages.segment(Message(stages.release.digest, NEVER, frames[0]))).body
    messages = {
        stages.segment: frames[0],
        stages.matte: SegmentedFrames(frames[0], packed),
        stages.classify: blank_views(stages.release),
    }
    for stage, body in messages.items():
        with pytest.raises(ForeignReleaseError):
            run(stage(Message("0" * 64, NEVER, body)))


def test_an_answer_of_a_foreign_release_is_refused(
    stages: LocalStages, frames: list[Pixels], run: Run
) -> None:
    async def segment_elsewhere(message: Message[Pixels]) -> Message[PackedSegmentation]:
        return replace(await stages.segment(message), release_digest="0" * 64)

    graph = replace(stages.graph, segment=segment_elsewhere)
    with pytest.raises(ForeignReleaseError):
        run(graph(frames[0], timeout_s=60, clock=StepClock()))


def test_a_message_past_its_deadline_is_not_worked_on(
    stages: LocalStages, frames: list[Pixels], run: Run
) -> None:
    with pytest.raises(DeadlinePassedError):
        run(stages.segment(Message(stages.release.digest, time.time() - 1, frames[0])))


@pytest.mark.parametrize("shape", [(0, 128, 128), (1, 64, 64), (128, 128)])
def test_a_malformed_message_does_not_enter_a_batch(
    stages: LocalStages, run: Run, shape: tuple[int, ...]
) -> None:
    message = Message(stages.release.digest, NEVER, np.zeros(shape, np.uint8))
    with pytest.raises(MalformedMessageError):
        run(stages.segment(message))


def test_packed_masks_come_back_exactly(pipeline: Pipeline, frames: list[Pixels]) -> None:
    joined, places = join_frames(frames)
    assert pipeline.stages.segmenter is not None
    whole = pipeline.stages.segmenter(joined)
    for part, place in zip(split_segmentation(whole, places), places, strict=True):
        again = PackedSegmentation.pack(part).unpack()
        assert np.array_equal(again.masks, whole.masks[place])
        assert np.array_equal(again.confidence, whole.confidence[place])


def test_a_stage_whose_bundle_was_altered_does_not_start(
    workspace: Store, matted: Release
) -> None:
    altered = matted.model_copy(update={"segmenters": ("0" * 64,)})
    with pytest.raises(BundleError, match="bundle 0000"):
        SegmenterStage(stage_setup(workspace, altered))


def test_a_stage_that_was_promised_a_gpu_does_not_run_without(
    workspace: Store, matted: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="gpus_per_stage"):
        EnsembleStage(replace(stage_setup(workspace, matted), gpus=1))
