"""What is known of the person on a film, and how a network is told.

Legend of shapes: N people, C numbers per person: a value and whether it is known, for each
`Covariate` in the order of the vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from hipray.data.film import FilmInfo
from hipray.vocab import Covariate, Sex

AGE_CENTRE, AGE_SCALE = 65.0, 15.0
"""Years that become 0, and years that become 1: about the mean and SD of DXA referrals."""
BMI_CENTRE, BMI_SCALE = 25.0, 5.0
"""The same for the body mass index in kg/m²."""
MOST_SD = 4.0
"""Values further out are held there: a typing error must not outweigh a film."""

People = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Person:
    """A person as records state it; None and UNKNOWN where they do not."""

    sex: Sex = Sex.UNKNOWN
    age: float | None = None
    """Years at the film."""
    weight_kg: float | None = None
    height_cm: float | None = None

    @property
    def bmi(self) -> float | None:
        """Weight over squared height, in kg/m²."""
        if not self.weight_kg or not self.height_cm:
            return None
        return self.weight_kg / (self.height_cm / 100) ** 2

    def completed_by(self, other: "Person") -> "Person":
        """Return this person with what only `other` knows filled in."""
        unknown = (None, Sex.UNKNOWN)
        known = {name: value for name, value in vars(self).items() if value not in unknown}
        return replace(other, **known)


NOBODY = Person()
"""A person of whom nothing is stated."""


def person_on(info: FilmInfo | None) -> Person:
    """Return the person as a film's header states them."""
    return NOBODY if info is None else Person(info.sex, info.age)


def encode_people(people: Sequence[Person]) -> People:
    """Return people as (N, C) float32: 0 and 0 where a covariate is not known."""
    rows = [
        [number for told in Covariate for number in _encode(_READERS[told](person))]
        for person in people
    ]
    return np.asarray(rows, np.float32).reshape(len(rows), 2 * len(Covariate))


def read_people(manifest: pd.DataFrame) -> list[Person]:
    """Return the person of each row of a manifest."""
    known = manifest[["sex", "age", "weight_kg", "height_cm"]].astype(object)
    return [
        Person(Sex(sex), *(None if pd.isna(number) else float(number) for number in numbers))
        for sex, *numbers in known.itertuples(index=False)
    ]


def columns_of(covariates: Sequence[Covariate]) -> list[int]:
    """Return the columns of `encode_people` that tell these covariates."""
    order = list(Covariate)
    return [
        2 * order.index(c) + part for c in sorted(covariates, key=order.index) for part in (0, 1)
    ]


def _encode(value: float | None) -> tuple[float, float]:
    if value is None:
        return 0.0, 0.0
    return min(max(value, -MOST_SD), MOST_SD), 1.0


def _age(person: Person) -> float | None:
    return None if person.age is None else (person.age - AGE_CENTRE) / AGE_SCALE


def _sex(person: Person) -> float | None:
    return {Sex.FEMALE: 1.0, Sex.MALE: -1.0, Sex.UNKNOWN: None}[person.sex]


def _bmi(person: Person) -> float | None:
    return None if person.bmi is None else (person.bmi - BMI_CENTRE) / BMI_SCALE


_READERS: Mapping[Covariate, Callable[[Person], float | None]] = {
    Covariate.AGE: _age,
    Covariate.SEX: _sex,
    Covariate.BMI: _bmi,
}
