"""Films that come while a model computes go through it together."""

import asyncio
import threading

import pytest

from hipray.serving.batching import BatchedModel


class SlowModel:
    """Doubles numbers in a batch that ends when it is told to."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.go_on = threading.Event()

    def __call__(self, films: list[int]) -> list[int]:
        self.sizes.append(len(films))
        if -1 in films:
            raise ArithmeticError("no such film")
        self.go_on.wait(5)
        return [2 * film for film in films]


async def come_one_by_one(model: SlowModel, films: list[int], *, size: int) -> list[int]:
    batched: BatchedModel[int, int] = BatchedModel(model, size=size, wait_s=0.001)
    calls = []
    for film in films:
        calls.append(asyncio.create_task(batched(film)))
        await asyncio.sleep(0.02)
    model.go_on.set()
    return await asyncio.gather(*calls)


def test_films_that_come_while_a_model_computes_are_its_next_batch() -> None:
    model = SlowModel()
    assert asyncio.run(come_one_by_one(model, [1, 2, 3, 4, 5], size=8)) == [2, 4, 6, 8, 10]
    assert model.sizes == [1, 4]


def test_a_batch_has_at_most_as_many_films_as_are_asked_for() -> None:
    model = SlowModel()
    assert asyncio.run(come_one_by_one(model, [1, 2, 3, 4, 5, 6], size=3))[-1] == 12
    assert model.sizes[0] == 1
    assert sum(model.sizes) == 6
    assert max(model.sizes) == 3


def test_a_batch_that_fails_leaves_the_model_free_for_the_next() -> None:
    async def fail_and_go_on() -> int:
        model = SlowModel()
        model.go_on.set()
        batched: BatchedModel[int, int] = BatchedModel(model, size=8, wait_s=0.001)
        with pytest.raises(ArithmeticError, match="no such film"):
            await batched(-1)
        return await batched(4)

    assert asyncio.run(fail_and_go_on()) == 8


def test_a_caller_who_leaves_while_he_waits_takes_nobody_along() -> None:
    async def leave() -> tuple[list[int], list[int]]:
        model = SlowModel()
        batched: BatchedModel[int, int] = BatchedModel(model, size=8, wait_s=0.001)
        first = asyncio.create_task(batched(1))
        await asyncio.sleep(0.02)
        gone, stays = asyncio.create_task(batched(2)), asyncio.create_task(batched(3))
        await asyncio.sleep(0.02)
        gone.cancel()
        model.go_on.set()
        return [await first, await stays], model.sizes

    assert asyncio.run(leave()) == ([2, 6], [1, 1])
