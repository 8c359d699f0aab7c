import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from hipray.answers import HipNumbers
from hipray.config.jobs import ServeRun
from hipray.data.framing import Pixels
from hipray.data.images import read_hips
from hipray.data.person import NOBODY, encode_people
from hipray.errors import BundleError, ConfigError
from hipray.inference import blank_views
from hipray.pipeline import (
    Ensemble,
    Explanations,
    FramedHips,
    Pipeline,
    Views,
    frame_hips,
    run_stages,
    score_hips,
)
from hipray.releases.release import Release, read_release
from hipray.runtime.engine import Engine
from hipray.runtime.memory import EXPLANATION
from hipray.segmentation.segmenter import Segmenter
from hipray.serving.clock import StepClock
from hipray.serving.graph import FusedGraph, Graph, SplitGraph, StageCall
from hipray.serving.ingress import Ingress, by_value
from hipray.serving.joining import join_films, split_segmentation
from hipray.serving.logs import CURRENT_REQUEST, JsonFormatter
from hipray.serving.messages import (
    AskedFilm,
    Extras,
    Message,
    PackedSegmentation,
    ScoredFilm,
    SegmentedFrames,
)
from hipray.serving.stage_errors import (
    DeadlinePassedError,
    ForeignReleaseError,
    GpuLostError,
    MalformedMessageError,
)
from hipray.serving.stages import (
    Attendant,
    EnsembleStage,
    ExplainingThread,
    FusedStage,
    MattingStage,
    SegmenterStage,
)
from hipray.storage import Store
from hipray.vocab import Device
from tests.serving.answers import TOLERANCE
from tests.serving.conftest import LocalApi, Run, stage_setup, start_stage
from tests.serving.two_releases import publish_astray, with_member

NEVER = 1e12


@pytest.fixture(scope="module")
def frames(films: list[bytes], matted: Release) -> list[FramedHips]:
    return [
        frame_hips(read_hips(film, name=""), matted.working_px, stated=NOBODY) for film in films
    ]


async def call_graph(
    graph: Graph, film: FramedHips, extras: Extras, clock: StepClock
) -> ScoredFilm:
    return await graph(film, timeout_s=60, clock=clock, extras=extras)


async def call(stage: StageCall[Any, Any], message: Message[Any]) -> Message[Any]:
    return await stage(message)


def assert_same(found: list[HipNumbers], wanted: list[HipNumbers]) -> None:
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=TOLERANCE)
        assert ours.present == theirs.present
        assert ours.areas == pytest.approx(theirs.areas, abs=1e-3)
        assert (ours.refusal is None) == (theirs.refusal is None)


def test_films_that_share_a_batch_get_their_own_numbers(
    split_graph: SplitGraph, pipeline: Pipeline, frames: list[FramedHips], run: Run
) -> None:
    async def score_all() -> list[ScoredFilm]:
        calls = (split_graph(f, timeout_s=60, clock=StepClock()) for f in frames)
        return await asyncio.gather(*calls)

    found = [film.rows for film in run(score_all())]
    for rows, film in zip(found, frames, strict=True):
        assert_same(rows, score_hips(pipeline.stages, film)[0])
    # the films differ, or a mixed-up answer would pass
    spread = np.ptp([next(iter(rows[0].probabilities.values())) for rows in found])
    assert spread > 100 * TOLERANCE


def test_the_fused_stage_gives_the_numbers_of_the_pipeline(
    fused_graph: FusedGraph, pipeline: Pipeline, frames: list[FramedHips], run: Run
) -> None:
    async def score_all() -> list[ScoredFilm]:
        calls = (fused_graph(f, timeout_s=60, clock=StepClock()) for f in frames)
        return await asyncio.gather(*calls)

    for scored, film in zip(run(score_all()), frames, strict=True):
        assert_same(scored.rows, score_hips(pipeline.stages, film)[0])
        assert (scored.segmentation, scored.views, scored.explanations) == (None, None, None)


def test_masks_and_heat_maps_are_those_of_the_pipeline_in_both_graphs(
    split_graph: SplitGraph,
    fused_graph: FusedGraph,
    pipeline: Pipeline,
    frames: list[FramedHips],
    run: Run,
) -> None:
    film, extras = frames[-1], Extras(overlay=True, explain=True)
    scored = run_stages(pipeline.stages, film)
    wanted = pipeline.stages.ensemble.explain(scored.views)
    assert scored.segmentation is not None
    for graph in (split_graph, fused_graph):
        clock = StepClock()
        found = run(call_graph(graph, film, extras, clock))
        assert np.array_equal(found.segmentation.unpack().masks, scored.segmentation.masks)
        assert found.explanations.keys() == wanted.keys()
        for question, maps in wanted.items():
            for ours, theirs in zip(found.explanations[question], maps, strict=True):
                assert (ours.members, ours.reason) == (2, None)
                assert np.array_equal(ours.view, theirs.view)
                assert np.abs(ours.heat.astype(int) - theirs.heat).max() <= 1
        assert "explain" in clock.timings_ms()
    assert any(heat.heat.any() for maps in wanted.values() for heat in maps)


def test_films_are_explained_one_at_a_time_and_not_after_their_time(
    split_graph: SplitGraph, run: Run
) -> None:
    running, most = 0, 0

    class SlowEnsemble:
        def explain(self, views: Views) -> dict[Any, Any]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            time.sleep(0.1)
            running -= 1
            return {}

    explaining = ExplainingThread(SlowEnsemble())
    views = blank_views(split_graph.release)

    async def crowd() -> list[Any]:
        deadlines = [NEVER, NEVER, time.time() + 0.05]
        calls = (explaining(Message("0" * 64, deadline, views)) for deadline in deadlines)
        return await asyncio.gather(*calls, return_exceptions=True)

    found = run(crowd())
    assert most == 1
    assert [type(answer) for answer in found] == [Message, Message, DeadlinePassedError]


def test_a_release_of_whole_films_needs_the_ensemble_only(
    workspace: Store, frames: list[FramedHips], run: Run
) -> None:
    whole = read_release(workspace, "whole")
    stage = start_stage(EnsembleStage, stage_setup(workspace, whole))
    graph = SplitGraph(whole, None, None, by_value(stage), by_value(stage, "explain"))
    rows = run(graph(frames[0], timeout_s=60, clock=StepClock())).rows
    assert rows[0].areas is None
    assert all(rows[0].present.values())


def test_every_stage_refuses_a_foreign_release(
    split_graph: SplitGraph, frames: list[FramedHips], run: Run
) -> None:
    packed = run(
        call(split_graph.segment, Message(split_graph.release.digest, NEVER, frames[0]))
    ).body
    asked = [
        (split_graph.segment, frames[0]),
        (split_graph.matte, SegmentedFrames(frames[0], packed)),
        (split_graph.classify, blank_views(split_graph.release)),
        (split_graph.explain, blank_views(split_graph.release)),
    ]
    for stage, body in asked:
        with pytest.raises(ForeignReleaseError):
            run(call(stage, Message("0" * 64, NEVER, body)))


def test_an_answer_of_a_foreign_release_is_refused(
    split_graph: SplitGraph, frames: list[FramedHips], run: Run
) -> None:
    async def segment_elsewhere(message: Message[Pixels]) -> Message[PackedSegmentation]:
        return replace(await split_graph.segment(message), release_digest="0" * 64)

    graph = replace(split_graph, segment=segment_elsewhere)
    with pytest.raises(ForeignReleaseError):
        run(graph(frames[0], timeout_s=60, clock=StepClock()))


def test_a_message_past_its_deadline_is_not_worked_on(
    split_graph: SplitGraph, frames: list[FramedHips], run: Run
) -> None:
    with pytest.raises(DeadlinePassedError):
        run(
            call(
                split_graph.segment, Message(split_graph.release.digest, time.time() - 1, frames[0])
            )
        )


@pytest.mark.parametrize("shape", [(0, 128, 128), (1, 64, 64), (128, 128)])
def test_a_malformed_message_does_not_enter_a_batch(
    split_graph: SplitGraph, run: Run, shape: tuple[int, ...]
) -> None:
    hips = FramedHips(np.zeros(shape, np.uint8), encode_people([NOBODY]))
    message = Message(split_graph.release.digest, NEVER, hips)
    with pytest.raises(MalformedMessageError):
        run(call(split_graph.segment, message))


def test_packed_masks_come_back_exactly(pipeline: Pipeline, frames: list[FramedHips]) -> None:
    joined, places = join_films(frames)
    assert pipeline.stages.segmenter is not None
    whole = pipeline.stages.segmenter(joined.frames)
    for part, place in zip(split_segmentation(whole, places), places, strict=True):
        again = PackedSegmentation.pack(part).unpack()
        assert np.array_equal(again.masks, whole.masks[place])
        assert np.array_equal(again.confidence, whole.confidence[place])


def test_a_stage_whose_bundle_was_altered_does_not_start(workspace: Store, matted: Release) -> None:
    altered = matted.model_copy(update={"segmenters": ("0" * 64,)})
    with pytest.raises(BundleError, match="bundle 0000"):
        SegmenterStage(stage_setup(workspace, altered))


def test_a_stage_whose_network_does_not_give_its_golden_answers_does_not_start(
    workspace: Store, matted: Release
) -> None:
    bundle, other = (member.bundle for member in matted.members[:2])
    astray = with_member(matted, "astray", bundle=publish_astray(workspace, bundle, other))
    with pytest.raises(BundleError, match="the golden log_odds of astray within"):
        EnsembleStage(stage_setup(workspace, astray))


def test_a_stage_that_was_promised_a_gpu_does_not_run_without(
    workspace: Store, matted: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="gpus_per_stage"):
        EnsembleStage(replace(stage_setup(workspace, matted), engine=Engine(device=Device.CUDA)))


@pytest.fixture
def two_threads_for_films() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    yield
    cv2.setNumThreads(before)


def test_replicas_without_networks_use_one_thread_for_a_film(
    workspace: Store, matted: Release, two_threads_for_films: None
) -> None:
    setup = stage_setup(workspace, matted)
    MattingStage(setup)
    assert cv2.getNumThreads() == 1
    cv2.setNumThreads(2)
    nobody: Any = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=None))
    ingress = Ingress(ServeRun(workspace=workspace.uri, readers=1), setup, classify=nobody)
    assert cv2.getNumThreads() == 1
    ingress._service.close()


@pytest.mark.parametrize("kind", [EnsembleStage, FusedStage])
def test_the_memory_of_a_heat_map_is_counted_before_one_is_asked_for(
    workspace: Store, matted: Release, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    tried: list[int] = []
    explain = Ensemble.explain

    def count(self: Ensemble, views: Views) -> Explanations:
        tried.append(len(views.people))
        return explain(self, views)

    monkeypatch.setattr(Ensemble, "explain", count)
    stage = kind(stage_setup(workspace, matted))
    assert tried == [2]
    assert EXPLANATION in stage._gauge.parts


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        (SegmenterStage, Segmenter),
        (EnsembleStage, Ensemble),
        (FusedStage, Segmenter),
        (FusedStage, Ensemble),
    ],
)
def test_the_batch_whose_memory_is_counted_has_two_hips_of_each_film(
    workspace: Store, matted: Release, monkeypatch: pytest.MonkeyPatch, kind: type, model: type
) -> None:
    tried: list[int] = []
    ask = model.__call__

    def count(self: Any, asked: Pixels | Views) -> Any:
        tried.append(len(asked.people if isinstance(asked, Views) else asked))
        return ask(self, asked)

    monkeypatch.setattr(model, "__call__", count)
    setup = stage_setup(workspace, matted)
    kind(setup)
    assert tried[-1] == 2 * setup.batch


def test_a_stage_logs_by_the_requests_id_why_a_message_has_no_answer(
    frames: list[FramedHips], caplog: pytest.LogCaptureFixture
) -> None:
    message = Message("digest", NEVER, frames[0], "id")
    with pytest.raises(ForeignReleaseError), Attendant("another", "segmenter")(message):
        raise AssertionError("not reached")
    with pytest.raises(ValueError, match="Doe"), Attendant("digest", "segmenter")(message):
        raise ValueError("Doe^Jane")
    refused, failed = (json.loads(JsonFormatter().format(record)) for record in caplog.records)
    told = {"request_id": "id", "stage": "segmenter"}
    assert refused.items() >= {**told, "level": "warning", "kind": "ForeignReleaseError"}.items()
    assert failed.items() >= {**told, "level": "error", "event": "stage failed"}.items()
    assert failed["error"][0]["kind"] == "ValueError"
    assert "Doe" not in json.dumps(failed)


LOST = torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel")


def test_a_gpu_that_failed_is_told_to_this_caller_to_all_later_ones_and_to_serve(
    frames: list[FramedHips],
) -> None:
    attend, message = Attendant("digest", "segmenter"), Message("digest", NEVER, frames[0])
    with pytest.raises(torch.OutOfMemoryError), attend(message):
        raise torch.OutOfMemoryError("CUDA out of memory")
    attend.check_health()
    with pytest.raises(GpuLostError, match="found CUDA error: an illegal"), attend(message):
        raise LOST
    with pytest.raises(GpuLostError), attend(message):
        raise AssertionError("not reached")
    with pytest.raises(GpuLostError, match=r"a segmenter whose GPU works.* encountered; another"):
        attend.check_health()


@pytest.mark.parametrize("kind", [SegmenterStage, EnsembleStage, FusedStage])
def test_a_stage_whose_networks_lose_the_gpu_is_not_healthy(
    workspace: Store,
    matted: Release,
    frames: list[FramedHips],
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    kind: type,
) -> None:
    def fail(*_: object) -> None:
        raise LOST

    stage, film = kind(stage_setup(workspace, matted)), frames[0]
    stage.check_health()
    body = {
        SegmenterStage: film,
        EnsembleStage: blank_views(matted),
        FusedStage: AskedFilm(film, Extras()),
    }[kind]
    for model in (Segmenter, Ensemble):
        monkeypatch.setattr(model, "__call__", fail)
    with pytest.raises(GpuLostError):
        run(stage(Message(matted.digest, NEVER, body)))
    with pytest.raises(GpuLostError):
        stage.check_health()


def test_each_message_has_the_id_of_the_request_that_it_is_asked_for(
    matted: Release, frames: list[FramedHips], run: Run
) -> None:
    seen: list[str] = []

    async def note(message: Message[Any]) -> Message[Any]:
        seen.append(message.request_id)
        return message.with_body(ScoredFilm([]))

    async def ask(request_id: str) -> None:
        CURRENT_REQUEST.set(request_id)
        graph = FusedGraph(matted.digest, note, note)
        await graph(frames[0], timeout_s=60, clock=StepClock())

    async def ask_all() -> None:
        await asyncio.gather(ask("one"), ask("two"))

    run(ask_all())
    assert sorted(seen) == ["one", "two"]


def test_the_stages_are_asked_under_the_id_of_the_request(
    make_api: Callable[..., LocalApi], split_graph: SplitGraph, films: list[bytes]
) -> None:
    asked: list[str] = []

    async def graph(hips: FramedHips, **options: Any) -> ScoredFilm:
        asked.append(CURRENT_REQUEST.get())
        return await split_graph(hips, **options)

    answer = make_api(graph=graph).upload(films[0])
    assert asked == [answer.json()["request_id"]]
