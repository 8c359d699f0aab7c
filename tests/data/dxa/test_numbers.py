"""Numbers as hospitals write them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hipray.data.dxa.numbers import (
    detect_decimal_comma,
    is_missing,
    parse_quantity,
)


def number(text, *, decimal_comma=None):
    value, unit = parse_quantity(text, decimal_comma=decimal_comma)
    assert unit is None
    return value


@given(st.integers(-9_999_999, 9_999_999), st.integers(0, 4))
def test_a_number_reads_the_same_with_point_comma_and_typographic_minus(digits, decimals) -> None:
    value = digits / 10**decimals
    text = f"{value:.{decimals}f}"
    comma = text.replace(".", ",")
    assert number(text, decimal_comma=False) == float(text)
    assert number(comma, decimal_comma=True) == float(text)
    assert number(comma.replace("-", "−"), decimal_comma=True) == float(text)


@given(st.integers(1000, 999_999_999), st.integers(0, 99))
def test_grouped_thousands_with_decimals_need_no_hint(whole, cents) -> None:
    text = f"{whole:,}.{cents:02d}"
    swapped = text.replace(",", "_").replace(".", ",").replace("_", ".")
    assert number(text) == number(swapped) == whole + cents / 100


@given(st.text(max_size=30))
def test_any_text_is_a_number_a_missing_mark_or_refused(text) -> None:
    try:
        value = number(text)
    except ValueError:
        return
    assert (value is None) == is_missing(text)


@pytest.mark.parametrize("text", ["", " ", "-", "−", "--", "*****", "N/A", "n.a.", "nan", "None"])
def test_a_missing_mark_is_no_number(text) -> None:
    assert number(text) is None


@pytest.mark.parametrize(
    "text", ["1,008", "-2.5.1", "1,2,3", "abc", "12abc", "inf", "1e999", "1_000", "2 5", "<-2.5"]
)
def test_what_is_not_clearly_a_number_is_refused(text) -> None:
    with pytest.raises(ValueError, match="number"):
        number(text)


def test_a_comma_before_three_digits_is_settled_by_the_rest_of_the_file() -> None:
    assert detect_decimal_comma(["1,008", "0,745"]) is True
    assert detect_decimal_comma(["1,008", "-2.5"]) is False
    assert detect_decimal_comma(["1,008", "745"]) is None
    assert number("1,008", decimal_comma=True) == 1.008
    assert number("1,008", decimal_comma=False) == 1008.0


def test_a_very_long_cell_is_refused_at_once() -> None:
    start = time.perf_counter()
    with pytest.raises(ValueError, match="number"):
        number("1" * 100_000 + "x")
    assert time.perf_counter() - start < 0.5


def test_a_unit_is_read_with_its_number() -> None:
    assert parse_quantity("745 mg/cm²") == (745.0, "mg/cm2")
    assert parse_quantity("0.745g/cm^2") == (0.745, "g/cm2")
