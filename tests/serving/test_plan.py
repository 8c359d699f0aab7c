"""What replicas of a stage take by default, and whether all find a place."""

import logging
from typing import Any

import pytest
import torch

from hipray.config.base import build_config
from hipray.config.jobs import ServeRun
from hipray.distributed import capacity
from hipray.distributed.cluster import NodeSize
from hipray.errors import ConfigError
from hipray.releases.release import Release
from hipray.serving import plan
from hipray.serving.inheritance import inherit_settings
from hipray.serving.plan import count_cpus, list_stages, require_room, size_stages, tell_wait


def node(cpus: float, gpus: float = 0) -> NodeSize:
    return NodeSize("n", cpus, gpus, 1e10, "GPU" if gpus else "")


def config_of(**fields: Any) -> ServeRun:
    return build_config(ServeRun, fields)


@pytest.fixture
def cuda_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)


@pytest.mark.parametrize(
    ("fused", "nodes", "cpus", "gpus"),
    [
        (False, [node(2)], 0.25, 0),
        (False, [node(4)], 0.5, 0),
        (False, [node(6)], 0.5, 0),
        (False, [node(16)], 2, 0),
        (True, [node(2)], 0.5, 0),
        (True, [node(16)], 7, 0),
        (True, [node(16), node(4), node(0)], 1, 0),
        (False, [node(16, gpus=1)], 2, 0.25),
        (True, [node(16, gpus=1)], 7, 0.5),
        (True, [node(16, gpus=2), node(16, gpus=2)], 7, 1),
        (False, [node(16, gpus=3)], 2, 0.5),
        (False, [], 0.5, 0),
    ],
)
def test_two_releases_share_cores_and_gpus_by_default(
    matted: Release, cuda_build: None, fused: bool, nodes: list[NodeSize], cpus: float, gpus: float
) -> None:
    sized = size_stages(config_of(fused=fused), matted, nodes)
    assert (sized.cpus_per_stage, sized.gpus_per_stage) == (cpus, gpus)
    assert all(count_cpus(sized, matted) <= each.cpus for each in nodes if each.cpus)
    stages = list_stages(sized, matted)
    assert all(stage.gpus == (0 if stage.name == "matting" else gpus) for stage in stages.values())
    assert size_stages(sized, matted, [node(64, gpus=8)]) == sized


def test_sizes_that_are_chosen_for_a_release_are_chosen_anew_for_the_next(matted: Release) -> None:
    running = size_stages(config_of(batch=4), matted, [node(16)])
    swapped = inherit_settings(config_of(fused=True), running)
    assert (running.cpus_per_stage, swapped.cpus_per_stage, swapped.batch) == (2, None, 4)


def test_a_gpu_is_left_alone_by_a_runtime_and_a_torch_that_do_not_use_it(
    matted: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    machine = [node(8, gpus=1)]
    assert size_stages(config_of(runtime="onnx"), matted, machine).gpus_per_stage == 0
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    assert size_stages(config_of(), matted, machine).gpus_per_stage == 0


def test_a_ray_of_the_endpoints_own_has_room_for_two_releases_as_they_are_deployed(
    matted: Release,
) -> None:
    split = config_of(cpus_per_stage=1, cpus_per_ingress=0.5)
    assert count_cpus(split, matted) == 7
    scaling = {"pipeline": {"min_replicas": 8}, "segmenter": {"min_replicas": 5}}
    fused = config_of(fused=True, cpus_per_stage=1, cpus_per_ingress=0, scaling=scaling)
    assert count_cpus(fused, matted) == 16


@pytest.mark.parametrize(
    ("nodes", "releases", "fields", "held"),
    [
        ([node(4)], 1, {"gpus_per_stage": 1}, 0),
        ([node(4, gpus=1)], 2, {"gpus_per_stage": 1, "fused": True}, 1),
        ([node(4)], 1, {"fused": True, "scaling": {"pipeline": {"min_replicas": 9}}}, 8),
    ],
)
def test_stages_without_a_place_are_refused_on_a_machine_and_told_on_a_cluster(
    matted: Release,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    nodes: list[NodeSize],
    releases: int,
    fields: dict[str, Any],
    held: int,
) -> None:
    monkeypatch.setattr(capacity, "read_nodes", lambda: nodes)
    stages = [*list_stages(config_of(**fields), matted).values()] * releases
    monkeypatch.setattr(capacity, "may_grow", lambda: False)
    with pytest.raises(ConfigError, match=f"that holds {held}; lower"):
        require_room(stages)
    monkeypatch.setattr(capacity, "may_grow", lambda: True)
    with caplog.at_level(logging.WARNING):
        require_room(stages)
    assert "wait until nodes join" in caplog.text
    monkeypatch.setattr(capacity, "read_nodes", lambda: [node(16, gpus=2)])
    monkeypatch.setattr(capacity, "may_grow", lambda: False)
    require_room(stages)


def test_a_release_that_waits_for_replicas_of_load_to_end_says_so(
    matted: Release, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(cpus_per_stage=0.5, cpus_per_ingress=0.1)
    monkeypatch.setattr(plan, "read_free_cpus", lambda: 1.6)
    tell_wait(config, matted)
    assert caplog.text == ""
    monkeypatch.setattr(plan, "read_free_cpus", lambda: 0.9)
    tell_wait(config, matted)
    assert "reserves 1.6 CPU and 0.9 are free: it waits up to 600 s" in caplog.text
