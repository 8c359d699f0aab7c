"""Where films lie while a fit trains."""

import torch

from hipray.training.homes import HELD_BYTES, find_home

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def test_few_films_lie_on_the_gpu_and_many_in_memory() -> None:
    assert find_home(HELD_BYTES, GPU) == GPU
    assert find_home(HELD_BYTES + 1, GPU) == CPU
    assert find_home(1, CPU) == CPU
