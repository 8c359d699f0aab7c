"""Learning rates over a fit."""

import pytest
import torch
from torch import nn

from hipray.config.experiment import Schedule
from hipray.training.schedules import (
    FINAL_LR_SHARE,
    build_optimizer,
    set_learning_rate,
    share_at,
)


def test_every_schedule_starts_at_the_full_rate() -> None:
    assert all(share_at(schedule, 0.0) == 1.0 for schedule in Schedule)


def test_a_cosine_falls_all_the_way_and_a_constant_does_not() -> None:
    shares = [share_at(Schedule.COSINE, progress / 10) for progress in range(11)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx(FINAL_LR_SHARE)
    assert share_at(Schedule.CONSTANT, 1.0) == 1.0


def test_the_rate_depends_on_the_epoch_alone_so_a_resumed_fit_goes_on_alike() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    set_learning_rate(optimizer, 0.1, Schedule.COSINE, epoch=5, epochs=10)
    first = optimizer.param_groups[0]["lr"]
    set_learning_rate(optimizer, 0.1, Schedule.COSINE, epoch=9, epochs=10)
    set_learning_rate(optimizer, 0.1, Schedule.COSINE, epoch=5, epochs=10)
    assert optimizer.param_groups[0]["lr"] == first


def test_only_what_learns_is_stepped() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    network[0].requires_grad_(False)
    (group,) = build_optimizer(network, lr=0.1, weight_decay=0.01).param_groups
    assert group["params"] == [*network[1].parameters()]
    assert (group["lr"], group["weight_decay"], group["fused"]) == (0.1, 0.01, True)
