"""The training loop: early stopping, the best epoch, and a resume that changes no bit."""

import math
import time

import pytest
import torch
from torch import nn

from hipray.errors import DataError
from hipray.storage import open_store
from hipray.training.checkpoints import CheckpointStore
from hipray.training.context import FitContext, FitTimeoutError
from hipray.training.loop import epoch_seed, run_epochs


class NoisyTask:
    """A small network with dropout and batch norm on noisy copies of one batch."""

    def __init__(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.module = nn.Sequential(
                nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1)
            )
            self.films = torch.randn(16, 4)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=0.05)
        self.trained = []

    def train_epoch(self, epoch, generator):
        self.trained.append(epoch)
        for _ in range(3):
            noise = torch.randn(self.films.shape, generator=generator) * 0.1
            self.optimizer.zero_grad()
            loss = (self.module(self.films + noise) - self.films[:, :1]).square().mean()
            loss.backward()
            self.optimizer.step()
        return loss.item()

    def validate(self):
        return float((self.module(self.films) - self.films[:, :1]).square().mean())


class ScriptedTask(NoisyTask):
    """The same, with inner losses as they are told."""

    def __init__(self, *losses):
        super().__init__()
        self._losses = list(losses)

    def validate(self):
        return self._losses[len(self.trained) - 1]


class KilledError(Exception):
    """The process of a fit ends."""


def kill_after(epoch):
    def report(what):
        if what.epoch == epoch:
            raise KilledError

    return report


def run(task, folder=None, *, epochs=6, patience=6, seed=1, **changes):
    checkpoints = CheckpointStore(open_store(str(folder))) if folder else None
    context = FitContext(checkpoints=checkpoints, **changes)
    return run_epochs(task, epochs=epochs, patience=patience, seed=seed, context=context)


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_epoch_is_saved_when_enough_seconds_have_passed(tmp_path) -> None:
    run(NoisyTask(), tmp_path / "each")
    run(NoisyTask(), tmp_path / "rare", checkpoint_s=3600)
    each, rare = (CheckpointStore(open_store(str(tmp_path / name))) for name in ("each", "rare"))
    assert each.load_latest().epoch == 6
    assert rare.load_latest() is None


@pytest.mark.parametrize("killed_after", [1, 3, 5])
def test_a_killed_fit_ends_with_the_weights_of_one_never_interrupted(
    tmp_path, killed_after
) -> None:
    whole, first, second = NoisyTask(), NoisyTask(), NoisyTask()
    history = run(whole)
    with pytest.raises(KilledError):
        run(first, tmp_path, report=kill_after(killed_after))
    resumed = run(second, tmp_path)
    assert second.trained == list(range(killed_after, 6))
    assert resumed.as_dict() == history.as_dict()
    assert_same(second.module.state_dict(), whole.module.state_dict())


def test_a_fit_whose_last_checkpoint_is_damaged_repeats_one_epoch_to_the_same_end(tmp_path) -> None:
    whole, first, second = NoisyTask(), NoisyTask(), NoisyTask()
    run(whole)
    with pytest.raises(KilledError):
        run(first, tmp_path, report=kill_after(4))
    open_store(str(tmp_path)).write("00004.safetensors", b"damaged")
    run(second, tmp_path)
    assert second.trained == [3, 4, 5]
    assert_same(second.module.state_dict(), whole.module.state_dict())


def test_a_finished_fit_that_was_not_committed_trains_nothing_again(tmp_path) -> None:
    first, second = NoisyTask(), NoisyTask()
    run(first, tmp_path)
    run(second, tmp_path)
    assert second.trained == []
    assert_same(second.module.state_dict(), first.module.state_dict())


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    tasks = [NoisyTask() for _ in range(3)]
    for task, seed in zip(tasks, (1, 1, 2), strict=True):
        run(task, seed=seed)
    assert_same(tasks[0].module.state_dict(), tasks[1].module.state_dict())
    assert not torch.equal(tasks[0].module[0].weight, tasks[2].module[0].weight)


def test_training_neither_reads_nor_moves_the_global_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    first, second = NoisyTask(), NoisyTask()
    run(first)
    torch.manual_seed(5)
    run(second)
    assert torch.equal(torch.rand(3), expected)
    assert_same(first.module.state_dict(), second.module.state_dict())


def test_training_stops_after_patience_and_keeps_the_best_epoch(tmp_path) -> None:
    task = ScriptedTask(3.0, 1.0, 2.0, 2.0, 0.5)
    best = {}

    def keep_second(report):
        if report.epoch == 2:
            best.update({k: v.clone() for k, v in task.module.state_dict().items()})

    history = run(task, patience=2, report=keep_second)
    assert history.inner_loss == [3.0, 1.0, 2.0, 2.0]
    assert history.best_epoch == 1
    assert_same(task.module.state_dict(), best)


def test_an_equal_loss_is_no_better_epoch() -> None:
    history = run(ScriptedTask(1.0, 1.0, 1.0), epochs=3)
    assert history.best_epoch == 0


def test_a_fit_that_never_has_a_finite_loss_is_refused_with_advice() -> None:
    with pytest.raises(DataError, match=r"found nan after each of 2 epochs; lower the learning"):
        run(ScriptedTask(math.nan, math.nan, 1.0), patience=1)


def test_an_epoch_that_diverged_is_never_the_best() -> None:
    assert run(ScriptedTask(math.nan, 2.0, math.nan), epochs=3).best_epoch == 1


def test_a_fit_past_its_deadline_gives_up_with_a_sentence() -> None:
    with pytest.raises(FitTimeoutError, match=r"raise scaling.fit_timeout_s"):
        run(NoisyTask(), deadline=time.monotonic() - 1)


def test_every_epoch_is_reported() -> None:
    reports = []
    run(NoisyTask(), epochs=3, report=reports.append)
    assert [(r.epoch, r.epochs) for r in reports] == [(1, 3), (2, 3), (3, 3)]
    assert all(r.seconds >= 0 for r in reports)


def test_no_two_epochs_share_a_seed() -> None:
    assert len({epoch_seed(seed, epoch) for seed in range(20) for epoch in range(50)}) == 1000
