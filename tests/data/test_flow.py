"""The counts of an ingest in words."""

import pytest

from hipray.data.flow import (
    FLOW_KEY,
    SHOWN_PROBLEMS,
    Flow,
    describe_flow,
    read_flow,
    write_flow,
)
from hipray.errors import DataError
from hipray.storage import open_store
from hipray.vocab import DataSource, LabelType, Region


def test_every_file_is_accounted_for() -> None:
    flow = Flow(found=9, accepted=6, refused={"unreadable": 2, "implant": 1}, hips=7, patients=5)
    text = describe_flow(flow)
    assert "9 files found = 6 accepted + 3 refused (real)" in text
    assert "  refused implant: 1\n  refused unreadable: 2" in text
    assert "7 hips of 5 patients" in text


def test_missing_labels_are_counted_with_their_commonest_reason() -> None:
    reasons = {"not reported": 3, "below 50": 1}
    flow = Flow(found=4, accepted=4, dropped={"wards_triangle": {"t_score": reasons}})
    assert "Ward's triangle t_score: 4 hips without a label, mostly: not reported" in (
        describe_flow(flow)
    )


def test_labels_are_counted_beside_those_that_are_missing() -> None:
    flow = Flow(
        bases={"total_hip": {"t_score": {"t_score": 5, "bmd": 1}, "bmd": {"bmd": 9}}},
        dropped={"total_hip": {"t_score": {"not reported": 3}}},
    )
    text = describe_flow(flow)
    assert "Total hip t_score: 6 hips with a label, 3 hips without a label, mostly: not" in text
    assert "Total hip bmd: 9 hips with a label" in text.splitlines()[-1]
    assert "Femoral neck" not in text


def test_a_reused_ingest_and_a_phantom_source_are_said() -> None:
    text = describe_flow(Flow(found=1, accepted=1, source=DataSource.PHANTOM, reused=True))
    assert "(phantom), unchanged since the last ingest" in text


def test_a_long_list_of_problems_is_cut_and_says_where_the_rest_is() -> None:
    flow = Flow(problems=[f"problem {n}" for n in range(SHOWN_PROBLEMS + 3)])
    text = describe_flow(flow)
    assert text.count("  problem:") == SHOWN_PROBLEMS
    assert text.endswith("and 3 more in ingest/flow.json")


def test_labels_from_a_score_that_no_report_states_are_counted() -> None:
    bases = {Region.TOTAL_HIP: {LabelType.T_SCORE: {"computed": 7, "computed_t": 2, "given": 1}}}
    flow = Flow(found=10, accepted=10, bases=bases)
    assert "Total hip t_score: 2 of 10 labels rest on a score computed from BMD" in (
        describe_flow(flow)
    )
    assert "computed from BMD" not in describe_flow(Flow(bases={"total_hip": {"t_score": {}}}))


def test_the_counts_are_read_as_they_were_kept(tmp_path) -> None:
    store = open_store(str(tmp_path))
    flow = Flow(found=2, accepted=1, refused={"implant": 1}, identity="a1")
    write_flow(store, flow)
    assert read_flow(store) == flow


@pytest.mark.parametrize("kept", [None, b"{", b'{"unheard": 1}', b"[1]"])
def test_a_workspace_without_counts_of_ours_says_what_to_run(tmp_path, kept) -> None:
    store = open_store(str(tmp_path))
    if kept is not None:
        store.write(FLOW_KEY, kept)
    with pytest.raises(DataError, match=r"ingest/flow\.json, found .*; run `hipray ingest`"):
        read_flow(store)


def test_given_labels_that_the_figures_contradict_are_counted() -> None:
    counts = {"compared": 9, "disagreeing": 2}
    flow = Flow(found=9, accepted=9, given={Region.TOTAL_HIP: {LabelType.T_SCORE: counts}})
    assert "Total hip t_score: 2 of 9 given labels differ" in describe_flow(flow)
