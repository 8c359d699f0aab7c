"""How many lanes a cluster holds, and what is refused before a lane starts."""

import logging

import pytest

from hipray.config.experiment import ClassifierSettings, Experiment
from hipray.config.jobs import GridRun, Scaling
from hipray.distributed import capacity
from hipray.distributed.capacity import (
    HOST_BYTES,
    LANE_BYTES,
    check_capacity,
    count_host_memory,
    count_lanes,
    require_places,
)
from hipray.distributed.cluster import NodeSize, read_nodes
from hipray.errors import ConfigError
from hipray.training.memory import GIB
from hipray.training.plan import PlannedFit
from hipray.vocab import Cell, Fit, LabelType, Region, Variant

PLAN = [
    PlannedFit(Fit(Cell(Region.TOTAL_HIP, LabelType.BMD, "vgg16", Variant.ORIGINAL), 0, 0), "d")
]


def node(cpus=8.0, gpus=0.0, gib=1000.0, gpu_type=""):
    return NodeSize("ab" * 28, cpus, gpus, gib * GIB, gpu_type)


@pytest.mark.parametrize(
    ("nodes", "scaling", "lanes"),
    [
        ([node(8)], Scaling(), 8),
        ([node(8)], Scaling(cpus_per_lane=3), 2),
        ([node(3), node(3)], Scaling(cpus_per_lane=2), 2),  # no lane spans two nodes
        ([node(8, gib=7)], Scaling(), 2),  # three GiB for each lane's processes
        ([node(8, gib=1)], Scaling(), 1),  # little memory slows one lane, it does not forbid it
        ([node(8, 1)], Scaling(gpus_per_lane=0.25), 4),
        ([node(8, 2)], Scaling(gpus_per_lane=0.6), 2),  # two of 0.6 never share a GPU
        ([node(8, 4)], Scaling(gpus_per_lane=2), 2),
        ([node(2, 8)], Scaling(gpus_per_lane=1), 2),
        ([node(8), node(8, 1)], Scaling(gpus_per_lane=0.5), 2),
        ([node(8)], Scaling(gpus_per_lane=1), 0),
        ([], Scaling(), 0),
    ],
)
def test_lanes_are_whole_on_each_node(nodes, scaling, lanes) -> None:
    assert count_lanes(nodes, scaling) == lanes


def test_a_large_fit_leaves_room_for_fewer_lanes() -> None:
    nodes = [node(8, gib=4 * LANE_BYTES / GIB)]
    assert count_lanes(nodes, Scaling()) == 4
    assert count_lanes(nodes, Scaling(), fit_bytes=LANE_BYTES) == 2


@pytest.fixture
def cluster(monkeypatch):
    """Lets a test name the cluster's nodes."""

    def have(*nodes, grows=False):
        monkeypatch.setattr(capacity, "read_nodes", lambda: list(nodes))
        monkeypatch.setattr(capacity, "may_grow", lambda: grows)

    return have


def grid(batch=16, **scaling):
    experiment = Experiment(classifier=ClassifierSettings(batch=batch))
    return GridRun(experiment=experiment, scaling=Scaling(**scaling))


def test_a_lane_that_can_never_start_here_is_refused_at_once(cluster) -> None:
    cluster(node(4))
    with pytest.raises(ConfigError, match="of 1 CPU and 1 GPU, found a cluster of 4 CPU and 0 GPU"):
        check_capacity(grid(gpus_per_lane=1), PLAN)
    with pytest.raises(ConfigError, match="cpus_per_lane"):
        check_capacity(grid(cpus_per_lane=5), PLAN)
    with pytest.raises(ConfigError, match="cpus_per_lane"):
        check_capacity(grid(cpus_per_lane=5, local_lanes=True), PLAN)
    with pytest.raises(ConfigError, match="room for 8 workers of a lane at once"):
        check_capacity(grid(workers_per_fit=8), PLAN)


def test_a_host_reserves_what_a_node_of_a_cluster_can_give(cluster) -> None:
    cluster(node(4))
    assert count_host_memory() == 0
    cluster(node(4, gib=1), node(4, gib=0.5), grows=True)
    assert count_host_memory() == GIB
    cluster(node(4), grows=True)
    assert count_host_memory() == HOST_BYTES


def test_actors_that_no_node_holds_are_refused_here_and_awaited_on_a_cluster(
    cluster, caplog
) -> None:
    want = {"cpus": 1, "gpus": 0.6, "mend": "lower actors"}
    cluster(node(4, gpus=2))
    require_places(2, "model actors", **want)
    with pytest.raises(ConfigError, match=r"3 model actors.*4 CPU and 2 GPU that holds 2; lower"):
        require_places(3, "model actors", **want)
    cluster(node(4), grows=True)
    with caplog.at_level(logging.WARNING):
        require_places(1, "model actors", **want)
    assert "that holds 0; the others wait until nodes join" in caplog.text


def test_a_cluster_that_grows_may_still_get_its_first_gpu(cluster, caplog) -> None:
    cluster(node(4), grows=True)
    with caplog.at_level(logging.WARNING):
        assert check_capacity(grid(gpus_per_lane=1), PLAN) == 0
    assert "no node has a GPU yet" in caplog.text


def test_a_grid_too_large_for_the_stated_gpu_is_refused_before_it_starts(cluster) -> None:
    cluster(node(8, 1, gpu_type="H200"))
    with pytest.raises(ConfigError, match=r"vgg16, batch 512.*gpus_per_lane = 0\.1 of 16\.0 GiB"):
        check_capacity(grid(batch=512, gpus_per_lane=0.1, gpu_memory_gib=16), PLAN)
    check_capacity(grid(batch=16, gpus_per_lane=0.5, gpu_memory_gib=16), PLAN)


def test_every_kind_of_gpu_is_asked_once(cluster, monkeypatch):
    cluster(node(8, 1, gpu_type="L4"), node(8, 1, gpu_type="L4"), node(8, 1, gpu_type="H200"))
    sizes, asked = {"L4": 24 * GIB, "H200": 140 * GIB}, []

    def ask(node):
        asked.append(node.gpu_type)
        return sizes[node.gpu_type]

    monkeypatch.setattr(capacity, "_ask_gpu_bytes", ask)
    check_capacity(grid(gpus_per_lane=1), PLAN)
    assert sorted(asked) == ["H200", "L4"]
    with pytest.raises(ConfigError, match=r"of 24\.0 GiB"):
        check_capacity(grid(batch=256, gpus_per_lane=0.2), PLAN)


def test_little_ram_is_a_warning_and_not_a_refusal(cluster, caplog) -> None:
    cluster(node(8, gib=8))
    with caplog.at_level(logging.WARNING):
        assert check_capacity(grid(lanes=8), PLAN) > 0
    assert "8 lanes need about" in caplog.text
    caplog.clear()
    check_capacity(grid(), PLAN)
    assert caplog.text == "", "without a number only as many lanes start as fit"


@pytest.mark.ray
def test_the_nodes_of_a_running_ray_are_told(ray_session) -> None:
    (here,) = read_nodes()
    assert (here.cpus, here.gpus, here.gpu_type) == (4, 0, "")
    assert here.memory_bytes > 0


@pytest.mark.ray
def test_a_node_that_does_not_answer_is_only_a_warning(ray_session, monkeypatch, caplog) -> None:
    monkeypatch.setattr(capacity, "ASK_TIMEOUT_S", 0.2)
    with caplog.at_level(logging.WARNING):
        assert capacity._ask_gpu_bytes(node(gpu_type="H200")) is None
    assert "did not tell" in caplog.text
