"""Augmentation moves films as Table 1 of the paper says, and masks with their films."""

import numpy as np
import pytest
import torch

from hipray.config.experiment import ClassifierSettings
from hipray.data.augment import Move, jitter_batch, move_film, paper_moves, scale_batch
from tests.data.copies import rotate


def draw_disc(side=64, *, row=32, column=32, radius=8):
    y, x = np.mgrid[:side, :side]
    return (((y - row) ** 2 + (x - column) ** 2) < radius**2).astype(np.uint8) * 200


def centre_of(film):
    y, x = np.nonzero(film > 100)
    return y.mean(), x.mean()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_papers_seven_copies_are_the_film_two_rotations_and_four_shifts() -> None:
    moves = paper_moves(ClassifierSettings())
    assert moves[0] == Move()
    assert sorted((m.rotation, m.shift_x, m.shift_y) for m in moves) == [
        (-3, 0, 0), (0, -5, 0), (0, 0, -5), (0, 0, 0), (0, 0, 5), (0, 5, 0), (3, 0, 0),
    ]  # fmt: skip


def test_an_unmoved_copy_is_the_film_itself() -> None:
    film = draw_disc()
    assert np.array_equal(move_film(film, Move()), film)


@pytest.mark.parametrize(("side", "pixels"), [(224, 5), (448, 10), (112, 2)])
def test_a_shift_follows_the_size_of_the_frame_and_brings_in_black(side, pixels) -> None:
    film = np.random.default_rng(0).integers(1, 256, (side, side)).astype(np.uint8)
    moved = move_film(film, Move(shift_x=5))
    assert np.array_equal(moved[:, pixels:], film[:, : side - pixels])
    assert (moved[:, :pixels] == 0).all()
    moved = move_film(film, Move(shift_y=-5))
    assert np.array_equal(moved[: side - pixels], film[pixels:])


def test_the_two_rotations_turn_by_three_degrees_in_opposite_directions() -> None:
    film = draw_disc(row=32, column=52)
    rows = [centre_of(move_film(film, Move(rotation=angle)))[0] for angle in (-3, 0, 3)]
    assert (rows[0] - rows[1]) * (rows[2] - rows[1]) < 0
    assert abs(rows[2] - rows[0]) == pytest.approx(2 * 20.5 * np.sin(np.deg2rad(3)), abs=0.4)


def test_a_rotation_keeps_the_middle_of_the_film() -> None:
    film = draw_disc(65, row=32, column=32)
    assert centre_of(move_film(film, Move(rotation=3))) == pytest.approx((32, 32), abs=0.3)
    difference = np.abs(move_film(film, Move(rotation=3)).astype(int) - rotate(film, -3))
    other = np.abs(move_film(film, Move(rotation=3)).astype(int) - rotate(film, 3))
    assert min(difference.mean(), other.mean()) < 1


def test_a_batch_is_scaled_by_one_factor_for_all_its_films() -> None:
    film = torch.from_numpy(draw_disc()).float()[None, None] / 255
    for seed in range(4):
        scaled = scale_batch(film.repeat(3, 1, 1, 1), amount=0.2, generator=generator(seed))
        assert torch.equal(scaled[0], scaled[1])
        assert torch.equal(scaled[0], scaled[2])
        assert 0.8**2 - 0.1 < float(scaled[0].sum() / film.sum()) < 1.2**2 + 0.1


def test_the_factor_changes_from_batch_to_batch_and_follows_the_seed() -> None:
    film = torch.from_numpy(draw_disc()).float()[None, None] / 255
    draws = generator(1)
    first, second = (scale_batch(film, amount=0.2, generator=draws) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, scale_batch(film, amount=0.2, generator=generator(1)))


def test_no_scaling_leaves_the_batch_as_it_is() -> None:
    film = torch.rand(2, 1, 16, 16)
    assert scale_batch(film, amount=0.0, generator=generator()) is film


def test_jitter_moves_masks_exactly_as_their_films() -> None:
    disc = torch.from_numpy(draw_disc(row=28, column=38, radius=12) > 0).float()[None, None]
    films, masks = jitter_batch(
        disc.repeat(8, 1, 1, 1) * 0.8, disc.repeat(8, 2, 1, 1), generator=generator()
    )
    middle = (films.amax((1, 2, 3)) + films.amin((1, 2, 3))) / 2
    outline = films[:, 0] > middle[:, None, None]
    for channel in range(2):
        drawn = masks[:, channel] > 0.5
        overlap = (outline & drawn).sum((1, 2)) / (outline | drawn).sum((1, 2))
        assert overlap.min() > 0.9
    assert not torch.equal(masks[0], masks[1])


def test_jitter_keeps_grey_values_in_range_and_masks_binary() -> None:
    films, masks = jitter_batch(
        torch.rand(4, 1, 32, 32), (torch.rand(4, 4, 32, 32) > 0.5).float(), generator=generator()
    )
    assert films.min() >= 0
    assert films.max() <= 1
    assert set(masks.unique().tolist()) == {0.0, 1.0}


def test_jitter_is_repeatable_by_its_generator() -> None:
    film, mask = torch.rand(2, 1, 16, 16), torch.ones(2, 4, 16, 16)
    first = jitter_batch(film, mask, generator=generator(5))
    again = jitter_batch(film, mask, generator=generator(5))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
