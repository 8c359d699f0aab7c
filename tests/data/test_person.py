"""What is known of a person, and how a network is told."""

import numpy as np
import pandas as pd
import pytest

from hipray.data.person import Person, columns_of, encode_people, read_people
from hipray.vocab import Covariate, Sex

WOMAN = Person(Sex.FEMALE, age=80.0, weight_kg=60.0, height_cm=160.0)


def test_the_body_mass_index_is_weight_over_squared_height() -> None:
    assert WOMAN.bmi == pytest.approx(23.4, abs=0.05)
    assert Person(weight_kg=60.0).bmi is None


def test_records_fill_in_only_what_the_first_one_does_not_state() -> None:
    stated = Person(Sex.MALE, age=70.0)
    assert stated.completed_by(WOMAN) == Person(Sex.MALE, 70.0, 60.0, 160.0)


def test_nothing_that_either_states_of_a_person_is_lost() -> None:
    assert all(vars(WOMAN).values())
    assert Person().completed_by(WOMAN) == WOMAN == WOMAN.completed_by(Person())


def test_what_is_not_known_is_told_apart_from_the_mean() -> None:
    known, unknown = encode_people([Person(age=65.0), Person()])
    age = columns_of([Covariate.AGE])
    assert list(known[age]) == [0.0, 1.0]
    assert list(unknown) == [0.0] * (2 * len(Covariate))


def test_a_typing_error_does_not_outweigh_a_film() -> None:
    assert np.abs(encode_people([Person(age=730.0, weight_kg=1.0, height_cm=1.0)])).max() <= 4


def test_every_covariate_has_its_two_columns() -> None:
    assert columns_of(list(Covariate)) == list(range(encode_people([WOMAN]).shape[1]))
    assert (encode_people([WOMAN])[0, 1::2] == 1).all()


def test_a_manifest_is_read_with_its_gaps() -> None:
    manifest = pd.DataFrame(
        {"sex": ["female", "unknown"], "age": [80.0, None], "weight_kg": [60.0, np.nan],
         "height_cm": [160.0, None]}
    )  # fmt: skip
    assert read_people(manifest) == [WOMAN, Person()]


def test_nobody_is_encoded_as_no_rows() -> None:
    assert encode_people([]).shape == (0, 2 * len(Covariate))
