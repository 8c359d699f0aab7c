"""One line of JSON per request that says what happened and nothing about whom."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from hipray.config.storage import StorageSettings
from hipray.serving.audit_line import AuditLine, Outcome
from hipray.serving.graph import SplitGraph
from hipray.serving.logs import JsonFormatter
from tests.serving.conftest import LocalApi

MakeApi = Callable[..., LocalApi]
NOT_REACHED = StorageSettings(
    endpoint_url="http://127.0.0.1:9", max_attempts=1, connect_timeout_s=1, anonymous=True
)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    caplog.set_level(logging.INFO, logger="hipray.serving.audit_line")

    def read() -> list[dict[str, Any]]:
        found = [r for r in caplog.records if r.name == "hipray.serving.audit_line"]
        return [json.loads(JsonFormatter().format(record)) for record in found]

    return read


def test_a_scored_film_leaves_one_line(
    make_api: MakeApi,
    films: list[bytes],
    split_graph: SplitGraph,
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    answer = make_api().upload(films[0])
    (line,) = lines()
    assert line["request_id"] == answer.json()["request_id"]
    assert line["release_digest"] == split_graph.release.digest
    assert (line["status"], line["outcome"], line["codes"]) == (200, Outcome.ACCEPTED, [])
    assert (line["films"], line["bytes_sent"]) == (1, len(answer.content))
    assert line["bytes_received"] > len(films[0])
    assert (line["event"], line["route"], line["problem"]) == ("request", "score", None)
    assert line["milliseconds"] > 0


def test_a_refused_film_is_told_by_its_code_and_a_problem_by_its_status(
    make_api: MakeApi, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    api = make_api(allowed_prefixes=("s3://bucket/in",), storage=NOT_REACHED)
    api.post(files={"file": ("Doe^Jane.dcm", b"no film")})
    api.post(json={"uri": "s3://bucket/in/Doe^Jane.dcm"})
    api.get("/Doe^Jane?name=Doe")
    api.post("/v1/score:batch", json={"films": [{"uri": "s3://bucket/in/Doe^Jane.dcm"}]})
    requests = [line for line in lines() if line["event"] == "request"]
    told = [(line["status"], line["outcome"], line["codes"], line["problem"]) for line in requests]
    assert told == [
        (422, "refused", ["unreadable"], None),
        (503, "problem", [], "store_unavailable"),
        (404, "problem", [], "no_such_path"),
        (200, "accepted", [], None),
    ]
    assert [line["answered"] for line in requests] == [0, 0, 0, 0]
    assert [(line["films"], line["problems"]) for line in requests][-1] == (
        1,
        ["store_unavailable"],
    )
    assert "Doe" not in json.dumps(lines())
    assert "bucket" not in json.dumps(lines())


REFUSAL = {"code": "implant", "detector": "metal", "evidence": ""}
SCORED = {"refusal": None, "hips": [{"refusal": None}]}
REFUSED = {"refusal": None, "hips": [{"refusal": REFUSAL}]}
HALF = {"refusal": None, "hips": [{"refusal": REFUSAL}, {"refusal": None}]}


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ([SCORED], Outcome.ACCEPTED),
        ([REFUSED], Outcome.REFUSED),
        ([HALF], Outcome.ACCEPTED),
        ([REFUSED, SCORED], Outcome.ACCEPTED),
        ([REFUSED, REFUSED], Outcome.REFUSED),
    ],
)
def test_a_request_is_refused_where_no_hip_of_it_has_numbers(
    answers: list[dict[str, Any]], outcome: Outcome
) -> None:
    line = AuditLine("request", "digest", status=200)
    for answer in answers:
        line.note_answer(answer)
    line.write()
    assert line.outcome is outcome
    assert bool(line.codes) == (answers != [SCORED])
