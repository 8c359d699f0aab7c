"""What the densitometer found: labels, units, regions."""

import pytest

from hipray.vocab import LabelType
from tests.data.dxa.tables import FN, TH, only, read


def test_mg_is_converted_where_the_column_says_so_and_nowhere_else() -> None:
    assert only(read("image,th_bmd_mg_cm2\na,745\n")).values[TH].bmd == 0.745
    table = read("image,th_bmd\na,745\n")
    assert not only(table).values
    assert "total_hip bmd of 0.33 to 1.72, found '745'" in table.problems[0]


def test_norland_total_in_mg_is_brought_to_the_makers_scale_in_g() -> None:
    record = only(read("mrn,side,device,Neck BMD,Total sBMD\n7,L,Norland XR-800,0.7,745\n"))
    assert record.values[FN].bmd == 0.7
    assert record.values[TH].bmd == pytest.approx((0.745 - 0.026) / 1.012)


def test_standardised_bmd_of_an_unknown_maker_is_not_used() -> None:
    table = read("image,device,neck_t,total_sbmd\na,X,-1.0,0.7\n")
    assert TH not in only(table).values
    assert "standardised BMD" in table.problems[0]


def test_given_labels_are_read_in_words_and_digits() -> None:
    table = read(
        "image,osteoporosis,bmd_label\na,1,normal\nb,osteopenia,abnormal\nc,正常,0\nd,,\n",
        region=TH,
    )
    given_labels = [dict(r.values[TH].given) if TH in r.values else {} for r in table.records]
    t, bmd = LabelType.T_SCORE, LabelType.BMD
    assert given_labels == [
        {t: True, bmd: False},
        {t: False, bmd: True},
        {t: False, bmd: False},
        {},
    ]
    assert table.problems == ()


def test_three_class_codes_are_refused_because_1_may_mean_osteopenia() -> None:
    table = read("image,label,neck_t\na,1,-2.0\nb,2,-3.0\n", region=FN)
    assert all(not record.values[FN].given for record in table.records)
    assert "found also 2" in table.problems[0]


def test_osteopenia_decides_nothing_for_the_bmd_label() -> None:
    table = read("image,bmd_label\na,osteopenia\n", region=TH)
    assert not only(table).values
    assert "normal or abnormal for age" in table.problems[0]
