"""The model card: every item of both checklists, filled or NOT PROVIDED."""

import string
from dataclasses import replace

import pytest

from hipray import RESEARCH_NOTICE
from hipray.evaluation.checklist import CHECKLIST, Topic
from hipray.evaluation.evidence import evaluate_all
from hipray.evaluation.inputs import ProtocolItem
from hipray.evaluation.model_card import NOT_PROVIDED, answer_topics, write_model_card

TRIPOD_PARTS = {3: 3, 5: 2, 6: 3, 8: 3, 9: 3, 12: 7, 18: 6, 20: 3, 23: 2, 27: 3}
"""Sub-items of the 27 TRIPOD+AI items that have them: 52 in all."""


@pytest.fixture(scope="module")
def evidence(report_inputs):
    return evaluate_all(report_inputs)


def read_statements(card: str) -> dict[str, str]:
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith("| ")]
    return {row[0].removeprefix("| "): row[3].removesuffix(" |") for row in rows[2:]}


def test_every_item_of_claim_2024_has_a_topic() -> None:
    items = {item for items in CHECKLIST.values() for item in items.claim}
    assert items == set(range(1, 45))


def test_every_item_of_tripod_ai_has_exactly_one_topic() -> None:
    items = [item for items in CHECKLIST.values() for item in items.tripod]
    expected = {
        f"{number}{letter}"
        for number in range(1, 28)
        for letter in (string.ascii_lowercase[: TRIPOD_PARTS.get(number, 0)] or [""])
    }
    assert len(items) == len(set(items)) == 52
    assert set(items) == expected


def test_a_topic_is_filled_or_not_provided(report_inputs, evidence) -> None:
    statements = read_statements(write_model_card(report_inputs, evidence))
    answers = answer_topics(report_inputs, evidence)
    assert set(statements) == {str(topic) for topic in Topic}
    for topic in Topic:
        assert (statements[topic] == NOT_PROVIDED) == (topic not in answers)


def test_what_the_results_cannot_know_is_never_made_up(report_inputs, evidence) -> None:
    answers = answer_topics(report_inputs, evidence)
    for topic in (Topic.ETHICS, Topic.FUNDING, Topic.EXTERNAL, Topic.SETTING, Topic.ACQUISITION):
        assert topic not in answers
    assert Topic.TRAINING not in answers  # no protocol says how
    assert answers[Topic.PARTITIONS] == "patient-grouped 5-fold"


def test_the_notice_stands_on_top_and_phantoms_are_named(report_inputs, evidence) -> None:
    lines = write_model_card(report_inputs, evidence).split("\n\n")
    assert lines[1] == f"**{RESEARCH_NOTICE}**"
    assert "generated phantoms" in lines[2]


def test_the_data_fills_demographics_flow_and_performance(report_inputs, evidence) -> None:
    answers = answer_topics(report_inputs, evidence)
    assert "female: " in answers[Topic.DEMOGRAPHICS]
    assert "70 found, 66 accepted" in answers[Topic.FLOW]
    assert answers[Topic.PERFORMANCE].startswith("Release, out of fold: AUROC")
    assert "sex female: AUROC" in answers[Topic.SUBGROUPS]


def test_optimism_is_said_in_selection_and_limitations(report_inputs, evidence) -> None:
    inputs = replace(
        report_inputs,
        optimistic="tuned on tested hips.",
        protocol={ProtocolItem.SELECTION: "epoch and threshold."},
    )
    answers = answer_topics(inputs, evidence)
    assert answers[Topic.SELECTION] == "epoch and threshold. Optimistic: tuned on tested hips."
    assert "tuned on tested hips." in answers[Topic.LIMITATIONS]
    assert "> **The results are optimistic" in write_model_card(inputs, evidence)
