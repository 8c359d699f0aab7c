"""Copies of one exposure are found however they were moved; other hips are not."""

import cv2
import numpy as np
import pytest

from hipray.config.experiment import LeakageSettings
from hipray.data.dataset import load_arrays
from hipray.data.manifest import read_manifest
from hipray.data.near_duplicates import find_near_duplicates
from tests.data.copies import COPIES

LEAST = LeakageSettings().near_duplicate_correlation


@pytest.fixture(scope="module")
def films(small_workspace):
    store = small_workspace.store
    return np.array(load_arrays(store, read_manifest(store), side=192).films)


@pytest.mark.parametrize("name", COPIES)
def test_most_copies_are_found_and_nothing_else(films, name) -> None:
    known = films[:6]
    copies = np.stack([COPIES[name](film) for film in known])
    found = find_near_duplicates(np.concatenate([known, copies]), least_grain=LEAST)
    assert set(found) <= {(n, 6 + n) for n in range(6)}
    assert len(found) >= 4


def test_distinct_hips_are_no_near_duplicates(films) -> None:
    assert find_near_duplicates(films, least_grain=LEAST) == []


@pytest.mark.parametrize("sigma", [1.0, 2.5])
def test_distinct_hips_on_soft_films_are_no_near_duplicates(films, sigma) -> None:
    soft = np.stack([cv2.GaussianBlur(film, (0, 0), sigma) for film in films])
    assert find_near_duplicates(soft, least_grain=LEAST) == []


def test_copies_of_soft_films_are_found(films) -> None:
    soft = np.stack([cv2.GaussianBlur(film, (0, 0), 1.5) for film in films[:6]])
    copies = np.stack([COPIES["rotated 3 degrees"](film) for film in soft])
    found = find_near_duplicates(np.concatenate([soft, copies]), least_grain=LEAST)
    assert set(found) <= {(n, 6 + n) for n in range(6)}
    assert len(found) >= 4


def test_two_copies_of_one_film_form_three_pairs(films) -> None:
    stack = np.stack([films[0], COPIES["shifted"](films[0]), COPIES["JPEG 85"](films[0])])
    assert find_near_duplicates(stack, least_grain=LEAST) == [(0, 1), (0, 2), (1, 2)]


def test_films_without_any_detail_are_compared_without_harm(films) -> None:
    blank = np.zeros_like(films[0])
    flat = np.full_like(films[0], 128)
    stack = np.stack([films[0], blank, flat, films[0]])
    assert find_near_duplicates(stack, least_grain=LEAST) == [(0, 3)]


def test_a_single_film_has_no_pair(films) -> None:
    assert find_near_duplicates(films[:1], least_grain=LEAST) == []
