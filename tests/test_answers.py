"""What an answer says of the networks behind it."""

import pytest

from hipray.answers import describe_calibration
from hipray.releases.release import Member


def member(slope: float) -> Member:
    return Member.model_construct(platt_slope=slope)


def test_a_calibration_is_named_where_all_members_learned_something() -> None:
    assert describe_calibration([member(0.4), member(2)]) == "platt, fitted on inner validation"


@pytest.mark.parametrize("slope", [0, -0.3])
def test_members_that_learned_nothing_are_counted(slope: float) -> None:
    told = describe_calibration([member(0.4), member(slope), member(slope)])
    assert told.endswith("; 2 of 3 members learned nothing: their base rate")
