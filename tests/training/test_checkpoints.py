"""A damaged checkpoint costs one epoch, not the fit."""

import json

import pytest
import torch

from hipray.storage import open_store
from hipray.training.checkpoints import KEPT, Checkpoint, CheckpointStore


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path))


def save(store, *epochs):
    checkpoints = CheckpointStore(store)
    for epoch in epochs:
        tensors = {"w": torch.full((3,), float(epoch)), "steps": torch.tensor(epoch)}
        checkpoints.save(Checkpoint(epoch, tensors, {"best_epoch": epoch - 1}))
    return checkpoints


def test_the_latest_checkpoint_comes_back_bit_for_bit(store) -> None:
    latest = save(store, 1, 2).load_latest()
    assert latest.epoch == 2
    assert latest.history == {"best_epoch": 1}
    assert torch.equal(latest.tensors["w"], torch.full((3,), 2.0))
    assert latest.tensors["steps"].dtype == torch.int64


def test_only_the_last_two_are_kept(store) -> None:
    save(store, 1, 2, 3, 4)
    assert [info.key for info in store.list()] == [
        "00003.json", "00003.safetensors", "00004.json", "00004.safetensors",
    ]  # fmt: skip
    assert KEPT == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-8],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"",
    ],
    ids=["cut short", "one bit flipped", "empty"],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(store, damage) -> None:
    checkpoints = save(store, 9, 10)
    store.write("00010.safetensors", damage(store.read("00010.safetensors")))
    assert checkpoints.load_latest().epoch == 9


def test_a_damaged_index_entry_is_passed_over_too(store) -> None:
    checkpoints = save(store, 1, 2)
    store.write("00002.json", b'{"epoch": 2')
    assert checkpoints.load_latest().epoch == 1


def test_weights_without_their_index_entry_do_not_count(store) -> None:
    checkpoints = save(store, 1, 2)
    store.delete("00002.json")
    assert checkpoints.load_latest().epoch == 1


def test_an_index_entry_without_its_weights_does_not_count(store) -> None:
    checkpoints = save(store, 1, 2)
    store.delete("00002.safetensors")
    assert checkpoints.load_latest().epoch == 1


def test_with_both_damaged_training_starts_anew(store) -> None:
    checkpoints = save(store, 1, 2)
    for stem in ("00001", "00002"):
        entry = json.loads(store.read(f"{stem}.json"))
        store.write(f"{stem}.json", json.dumps(entry | {"sha256": "0" * 64}).encode())
    assert checkpoints.load_latest() is None


def test_a_committed_fit_leaves_no_checkpoints(store) -> None:
    checkpoints = save(store, 1, 2)
    checkpoints.clear()
    assert list(store.list()) == []
    assert checkpoints.load_latest() is None
