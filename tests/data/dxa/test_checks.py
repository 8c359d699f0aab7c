"""Results that contradict each other are counted."""

from hipray.data.dxa import check_t_scores
from tests.data.dxa.tables import FN, read


def test_t_scores_that_do_not_follow_from_bmd_are_counted_and_kept() -> None:
    head = "image,sex,device,region,bmd,t\n"
    good, bad = "a,F,Hologic,neck,0.558,-2.5\n", "b,F,Hologic,neck,0.558,-1.5\n"
    assert read(head + good).problems == ()
    table = read(head + good + bad)
    assert table.records[1].values[FN].t == -1.5
    assert table.problems[0].startswith("1 of 2 T-scores do not follow")
    check = check_t_scores(table.records)
    assert (check.checked, check.disagreeing, check.unchecked) == (2, 1, 0)


def test_a_bmd_that_is_not_content_over_area_is_counted() -> None:
    table = read("image,region,t,bmd,bmc,area\na,neck,-2.5,0.558,3.9,4.8\n")
    assert "1 regions where BMD is not BMC / area" in table.problems[-1]
