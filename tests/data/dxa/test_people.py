"""Who was examined: age, size, sex, dates."""

from datetime import date

import pytest

from hipray.data.dxa.people import parse_age, parse_date, parse_height, parse_sex, parse_weight
from hipray.vocab import Sex


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("76.7 years", 76.7),
        ("76,7", 76.7),
        ("19 years 4 months", 19 + 4 / 12),
        ("072Y", 72.0),
        ("018M", 1.5),
        ("76歲", 76.0),
        ("-", None),
    ],
)
def test_an_age_is_read_in_each_notation(text, years) -> None:
    assert parse_age(text, None, None) == (years if years is None else pytest.approx(years))


@pytest.mark.parametrize("text", ["767", "-3", "old"])
def test_an_impossible_age_is_refused(text) -> None:
    with pytest.raises(ValueError, match=r"age|number"):
        parse_age(text, None, None)


def test_weight_and_height_come_in_either_system() -> None:
    assert parse_weight("128 lbs", None, None) == pytest.approx(58.06, abs=0.01)
    assert parse_height("63 in", None, None) == pytest.approx(160.02)
    assert parse_height("1.60 m", None, None) == pytest.approx(160.0)
    assert parse_height("5'3\"", None, None) == pytest.approx(160.02)
    with pytest.raises(ValueError, match="unit"):
        parse_height("63", None, None)


def test_sex_in_digits_is_refused_because_its_meaning_differs() -> None:
    assert parse_sex("女") is Sex.FEMALE
    with pytest.raises(ValueError, match="digits"):
        parse_sex("1")


def test_a_date_whose_day_and_month_could_change_places_is_refused_without_a_hint() -> None:
    assert parse_date("2020-09-15", None) == date(2020, 9, 15)
    assert parse_date("9/15/2020", None) == date(2020, 9, 15)
    assert parse_date("03/04/2020", True) == date(2020, 4, 3)
    assert parse_date("03/04/2020", False) == date(2020, 3, 4)
    assert parse_date("109/09/15", None) == date(2020, 9, 15)
    with pytest.raises(ValueError, match="clear"):
        parse_date("03/04/2020", None)
