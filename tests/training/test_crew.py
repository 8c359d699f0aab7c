"""Several processes train one fit: the same steps, whoever takes them."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from torch import nn

from hipray.classification.model import build_network, join_batch_norms
from hipray.config.experiment import ClassifierSettings, Freeze
from hipray.errors import ConfigError
from hipray.training.crew import ALONE, END, Crew

WORKER = """
import json, sys, torch
import torch.distributed as dist
from tests.training.crew_fit import train
rank, size, port = map(int, sys.argv[1:4])
if size > 1:
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
curves = train(rank, size)
if rank == 0:
    print(json.dumps(curves))
if size > 1:
    dist.destroy_process_group()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_crew(size: int) -> list[float]:
    """Train in `size` processes and return the leader's losses."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(size), str(port)],
            stdout=subprocess.PIPE, env=environment, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes)
    losses: list[float] = json.loads(outputs[0].strip().splitlines()[-1])
    return losses


@pytest.mark.timeout(300)
def test_two_workers_have_the_loss_curve_of_one_with_the_same_global_batch() -> None:
    alone, two = run_crew(1), run_crew(2)
    assert len(alone) == 6
    assert alone[0] != alone[1]
    assert two == pytest.approx(alone, rel=1e-4)


def test_shares_are_disjoint_and_cover_the_batch() -> None:
    rows = torch.arange(7)
    shares = [Crew(rank, 3).share(rows) for rank in range(3)]
    assert sorted(torch.cat(shares)) == list(rows)


def test_a_batch_smaller_than_the_crew_is_refused() -> None:
    with pytest.raises(ConfigError, match="one film for each of 3 workers"):
        Crew(0, 3).share(torch.arange(2))


def test_unequal_shares_weigh_as_in_the_whole_batch() -> None:
    losses, weights = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 1.0, 2.0]).double()
    whole = float((losses * weights).sum() / weights.sum())
    means = [
        Crew(rank, 2).weigh(
            (losses[own] * weights[own]).sum() / weights[own].sum(),
            own=weights[own].sum(), total=weights.sum(),
        )
        for rank, own in enumerate(([0, 2], [1]))
    ]  # fmt: skip
    assert sum(map(float, means)) / 2 == pytest.approx(whole)


def test_one_process_alone_asks_nobody() -> None:
    assert ALONE.leads
    assert ALONE.mean(0.3) == ALONE.agree(0.3) == 0.3
    ALONE.call(END)


@pytest.mark.parametrize("backbone", ["densenet121", "resnet18"])
def test_batch_norms_over_a_crew_keep_their_activations_and_frozen_ones_stay_frozen(
    backbone,
) -> None:
    network = build_network(backbone, ClassifierSettings(weights="none", lr=1e-3))
    network.freeze(Freeze.HALF)
    films = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    before = network.eval()(films)
    frozen = count_learning_norms(network.train())
    joined = join_batch_norms(network)
    assert torch.allclose(joined.eval()(films), before, atol=1e-5)
    assert count_learning_norms(joined.train()) == frozen


def count_learning_norms(network: nn.Module) -> int:
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training
               for m in network.modules())  # fmt: skip
