"""One line of JSON per request that says what happened and nothing about whom."""

import json
import logging
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from hipray.answers import HipAnswer, StudyAnswer
from hipray.config.jobs import ServeRun
from hipray.config.storage import StorageSettings
from hipray.data.pseudonyms import load_pseudonyms
from hipray.data.refusals import Refusal
from hipray.serving.audit_line import AuditLine, Outcome
from hipray.serving.graph import SplitGraph
from hipray.serving.ingress import read_pseudonyms
from hipray.serving.logs import JsonFormatter
from hipray.serving.problems import ProblemCode, come_later
from hipray.storage import open_store
from hipray.vocab import DataSource, Device, Precision, RefusalCode, Runtime, Side
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
        (200, "problem", [], None),
    ]
    assert [line["answered"] for line in requests] == [0, 0, 0, 0]
    assert [(line["films"], line["problems"]) for line in requests][-1] == (
        1,
        ["store_unavailable"],
    )
    assert "Doe" not in json.dumps(lines())
    assert "bucket" not in json.dumps(lines())


def study(*refusals: Refusal | None) -> StudyAnswer:
    """The answer for a film of as many hips."""
    hips = (
        HipAnswer(index, Side.LEFT, False, refusal=found) for index, found in enumerate(refusals)
    )
    return StudyAnswer(
        "r", "digest", DataSource.PHANTOM, "1", Runtime.ONNX, Device.CPU, Precision.FLOAT32,
        tuple(hips),
    )  # fmt: skip


REFUSAL = Refusal(RefusalCode.IMPLANT, "metal", "")
SCORED, REFUSED, HALF = study(None), study(REFUSAL), study(REFUSAL, None)


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
    answers: list[StudyAnswer], outcome: Outcome
) -> None:
    line = AuditLine("request", "digest", status=200)
    for answer in answers:
        line.note_answer(answer)
    line.write()
    assert line.outcome is outcome
    assert bool(line.codes) == (answers != [SCORED])


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [([], Outcome.PROBLEM), ([REFUSED], Outcome.PROBLEM), ([SCORED], Outcome.ACCEPTED)],
)
def test_a_batch_without_numbers_is_a_problem_where_a_film_has_no_answer(
    answers: list[StudyAnswer], outcome: Outcome
) -> None:
    line = AuditLine("request", "digest", status=200)
    line.note_problem(come_later("the store is out of reach", ProblemCode.STORE_UNAVAILABLE))
    for answer in answers:
        line.note_answer(answer)
    line.write()
    assert line.outcome is outcome


def test_a_line_names_caller_and_films_by_what_only_the_operator_can_look_up(
    make_api: MakeApi,
    films: list[bytes],
    tmp_path: Path,
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    token = "a token"
    digest = sha256(token.encode()).hexdigest()
    names = load_pseudonyms(open_store(str(tmp_path)))
    api = make_api(token_sha256=("0" * 64, digest), pseudonyms=names)
    asked = [{"uri": f"s3://bucket/Doe^Jane/{n}.dcm"} for n in range(2)]
    headers = {"authorization": f"Bearer {token}"}
    api.post(json=asked[0], headers=headers)
    api.post("/v1/score:batch", json={"films": [*asked, {"url": 1}]}, headers=headers)
    api.upload(films[0], headers=headers)
    api.post(json=asked[0], headers={"authorization": "Bearer another"})
    api.get("/healthz", headers=headers)
    told = [(line["caller"], line["named"]) for line in lines()]
    first, second = (names.file(film["uri"]) for film in asked)
    caller = digest[:12]
    assert told == [(caller, [first]), (caller, [first, second]), (caller, []), ("", []), ("", [])]
    assert "Doe" not in str(lines())
    assert token not in str(lines())


def test_without_tokens_and_without_a_key_nobody_and_nothing_is_named(
    make_api: MakeApi, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    make_api().post(json={"uri": "s3://bucket/film.dcm"})
    assert [(line["caller"], line["named"]) for line in lines()] == [("", [])]


def test_a_workspace_out_of_reach_costs_the_films_names_and_no_request(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    away = ServeRun(workspace="s3://bucket/work", storage=NOT_REACHED, request_timeout_s=1)
    assert read_pseudonyms(away) is None
    assert "name no films" in caplog.text
    not_mounted = ServeRun(workspace=str(tmp_path))
    assert read_pseudonyms(not_mounted) is None
    assert not any(tmp_path.iterdir()), "no key is made where the workspace is not mounted"
    open_store(str(tmp_path)).write("releases/small.json", b"{}")
    here = read_pseudonyms(ServeRun(workspace=str(tmp_path)))
    assert here is not None
    assert here.file("a") == load_pseudonyms(open_store(str(tmp_path))).file("a")
