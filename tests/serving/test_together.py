"""Stages that fit alone and not together."""

import pytest

from hipray.runtime.memory import GIB, MemoryGauge, MemoryLimitError
from hipray.serving.together import ReplicasMemory, StageMemory, require_memory_together


def stage(
    name: str,
    *,
    replicas: int = 1,
    place: tuple[str, ...] = ("here",),
    left: int | None = GIB,
    gpus: float = 0,
) -> ReplicasMemory:
    """Replicas of 2 GiB each, of which 0.6 GiB are taken with the next batch."""
    each = StageMemory(place, 2 * GIB, int(0.6 * GIB), left)
    return ReplicasMemory(name, replicas, each, gpus)


def test_stages_that_may_not_grow_together_are_refused_with_their_sum() -> None:
    require_memory_together([stage("segmenter")], nodes=1)
    with pytest.raises(MemoryLimitError, match=r"into 3\.80 GiB.* a need of 4\.00 GiB") as caught:
        require_memory_together([stage("segmenter"), stage("ensemble")], nodes=1)
    assert "(1 x segmenter 2.00, 1 x ensemble 2.00)" in str(caught.value)


def test_all_replicas_count_where_they_must_be_on_one_node() -> None:
    twice = [stage("pipeline", replicas=2)]
    with pytest.raises(MemoryLimitError, match="2 x pipeline"):
        require_memory_together(twice, nodes=1)
    require_memory_together(twice, nodes=2)


def test_stages_on_other_nodes_and_gpus_do_not_share() -> None:
    require_memory_together([stage("segmenter"), stage("ensemble", place=("there",))], nodes=2)
    gpus = [
        stage(name, place=("here", gpu), gpus=1) for name, gpu in (("segmenter", "0"), ("e", "1"))
    ]
    require_memory_together(gpus, nodes=1)


@pytest.mark.parametrize(
    ("replicas", "gpus", "counted"), [(4, 0.25, 4), (4, 0.5, 2), (2, 0.25, 2), (4, 0.3333, 3)]
)
def test_replicas_count_that_have_room_on_one_gpu(replicas: int, gpus: float, counted: int) -> None:
    shared = [stage("pipeline", replicas=replicas, place=("here", "0"), gpus=gpus)]
    with pytest.raises(MemoryLimitError, match=f"{counted} x pipeline"):
        require_memory_together(shared, nodes=1)
    require_memory_together(shared, nodes=2)


def test_stages_on_one_gpu_leave_each_other_no_more_than_its_rest() -> None:
    parts = {"replicas": 4, "place": ("here", "0"), "gpus": 0.25}
    with pytest.raises(MemoryLimitError, match=r"3 x segmenter 6\.00, 1 x ensemble 2\.00"):
        require_memory_together([stage("segmenter", **parts), stage("ensemble", **parts)], nodes=1)
    halves = {**parts, "gpus": 0.5, "left": 2 * GIB}
    require_memory_together([stage("segmenter", **halves), stage("ensemble", **halves)], nodes=1)


def test_replicas_with_a_gpu_each_share_none() -> None:
    require_memory_together([stage("p", replicas=4, place=("here", "0"), gpus=1)], nodes=1)


def test_a_system_that_does_not_tell_refuses_nothing() -> None:
    require_memory_together([stage("a", left=None), stage("b", left=None)], nodes=1)


def test_what_a_replica_may_still_take_is_what_it_does_not_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = [GIB]
    monkeypatch.setattr("hipray.runtime.memory.read_resident", lambda: held[0])
    gauge = MemoryGauge(parts={"vgg16": 2 * GIB, "one batch": GIB})
    assert gauge.coming_bytes == 3 * GIB
    held[0] = 3 * GIB
    assert gauge.coming_bytes == GIB
    held[0] = 9 * GIB
    assert gauge.coming_bytes == 0
