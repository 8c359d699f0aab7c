"""A network on a GPU that is too full for a batch answers all the same."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from hipray.runtime.network import TorchNetwork

FILMS = np.random.default_rng(0).integers(0, 256, (7, 8, 8)).astype(np.uint8)
PEOPLE = np.arange(14, dtype=np.float32).reshape(7, 2)


class Crowded(nn.Module):
    """Has memory for so many films at a time."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.asked: list[int] = []

    def forward(self, films: torch.Tensor, people: torch.Tensor | None = None) -> torch.Tensor:
        self.asked.append(len(films))
        if len(films) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        grey = films.mean((2, 3))
        return grey if people is None else grey + people


@pytest.mark.parametrize("people", [None, PEOPLE], ids=["films", "films and people"])
def test_films_that_do_not_fit_together_are_answered_in_halves(
    people: np.ndarray | None, caplog: pytest.LogCaptureFixture
) -> None:
    crowded = Crowded(room=2)
    with caplog.at_level(logging.WARNING):
        network = TorchNetwork(crowded)
        found = network(FILMS, people)
    assert np.array_equal(found, TorchNetwork(Crowded(room=7))(FILMS, people))
    assert crowded.asked == [7, 4, 2, 2, 2, 1]
    network(FILMS, people)
    assert crowded.asked[6:] == [2, 2, 2, 1], "it is not tried again"
    assert "7 films exceed the GPU's memory" in caplog.text


def test_one_film_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        TorchNetwork(Crowded(room=0))(FILMS)
