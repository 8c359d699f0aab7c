"""What became of the archive, as a report counts it."""

from hipray.data.flow import Flow
from hipray.evaluation.flow import FlowCounts
from hipray.vocab import RefusalCode, Region


def test_a_reason_that_two_labels_share_is_counted_once_and_others_name_their_label() -> None:
    labels = {"t_score": {"no record": 3, "no T": 2}, "bmd": {"no record": 3, "no T": 1}}
    counts = FlowCounts.of(Flow(found=4, accepted=3, dropped={"total_hip": labels}))
    assert counts.dropped == {
        Region.TOTAL_HIP: {"no record": 3, "no T (t_score label)": 2, "no T (bmd label)": 1}
    }


def test_what_is_neither_accepted_nor_refused_is_unaccounted() -> None:
    counts = FlowCounts.of(Flow(found=4, accepted=2, refused={"implant": 1}))
    assert counts.refused == {RefusalCode.IMPLANT: 1}
    assert counts.unaccounted == 1
