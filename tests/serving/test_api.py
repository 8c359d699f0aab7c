import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import fields, replace
from hashlib import sha256
from typing import Any

import httpx
import numpy as np
import pytest
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from hipray import RESEARCH_NOTICE
from hipray.answers import HipNumbers, answer_as_dict
from hipray.config.images import ImageLimits
from hipray.config.storage import StorageSettings
from hipray.data.images import read_hips
from hipray.data.person import NOBODY, Person
from hipray.errors import (
    AccessDeniedError,
    ArchivedError,
    DataError,
    StorageError,
    StoreUnavailableError,
)
from hipray.pipeline import FramedHips, Pipeline, frame_hips
from hipray.serving.body import SWITCHES
from hipray.serving.clock import StepClock
from hipray.serving.films import URI_PATTERN, Stated
from hipray.serving.graph import SplitGraph
from hipray.serving.ingress import check_decoders
from hipray.serving.interface import OPERATIONS
from hipray.serving.logs import JsonFormatter
from hipray.serving.messages import NUMBERS_ONLY, Extras, ScoredFilm
from hipray.serving.paths import Path
from hipray.serving.problems import PROBLEM_TYPE, explain
from hipray.serving.stage_errors import ForeignReleaseError
from hipray.storage import open_store
from tests.conftest import S3Server
from tests.data.film_files import build_dicom, encode_image, save_dicom
from tests.serving.answers import assert_same, without_request
from tests.serving.conftest import LocalApi, Run

MakeApi = Callable[..., LocalApi]
TOKEN = "correct horse"
DIGEST = sha256(TOKEN.encode()).hexdigest()
NOT_REACHED = StorageSettings(
    endpoint_url="http://127.0.0.1:9", max_attempts=1, connect_timeout_s=1, anonymous=True
)


def assert_problem(answer: httpx.Response, status: int, words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM_TYPE
    problem = answer.json()
    assert problem["status"] == status
    assert words in problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["research_notice"] == RESEARCH_NOTICE
    assert "Traceback" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert ("retry-after" in answer.headers) == (status == 503)


def test_an_uploaded_film_gets_the_answer_of_the_pipeline(
    make_api: MakeApi, pipeline: Pipeline, films: list[bytes]
) -> None:
    api = make_api()
    for film in films:
        found = without_request(api.upload(film))
        assert len(found["hips"]) > 0
        assert_same(found, answer_as_dict(pipeline(film)))


def test_an_answer_names_its_release_its_request_and_its_times(
    make_api: MakeApi, split_graph: SplitGraph, films: list[bytes]
) -> None:
    answer = make_api().upload(films[0])
    body = answer.json()
    assert body["release_digest"] == split_graph.release.digest
    assert body["data_source"] == "phantom"
    assert body["research_notice"] == RESEARCH_NOTICE
    assert body["request_id"] == answer.headers["x-request-id"]
    steps = ["fetch", "decode", "segment", "matte", "classify", "total"]
    assert list(body["timings_ms"]) == steps
    assert sum(body["timings_ms"][step] for step in steps[:-1]) <= body["timings_ms"]["total"] + 1
    assert answer.headers["cache-control"] == "no-store"


def test_a_film_in_the_store_gets_the_same_answer(
    make_api: MakeApi, s3_server: S3Server, films: list[bytes]
) -> None:
    store = s3_server.new_store()
    store.write("in/Doe^Jane.dcm", films[0])
    api = make_api(allowed_prefixes=(f"{store.uri}/in",), storage=s3_server.settings)
    by_uri = api.post(json={"uri": f"{store.uri}/in/Doe^Jane.dcm"})
    assert_same(without_request(by_uri), without_request(api.upload(films[0])))
    assert "Doe" not in by_uri.text


def test_a_caller_may_state_the_side_of_a_film_that_does_not(
    make_api: MakeApi, s3_server: S3Server
) -> None:
    film = save_dicom(build_dicom(ImageLaterality=None))
    store = s3_server.new_store()
    store.write("in/a.dcm", film)
    api = make_api(allowed_prefixes=(f"{store.uri}/in",), storage=s3_server.settings)
    unstated = without_request(api.upload(film))["hips"][0]
    stated = without_request(api.post(files={"file": ("a", film)}, data={"side": "right"}))
    named = without_request(api.post(json={"uri": f"{store.uri}/in/a.dcm", "side": "right"}))
    assert (unstated["side"], unstated["flipped"]) == ("unknown", False)
    assert (stated["hips"][0]["side"], stated["hips"][0]["flipped"]) == ("right", True)
    assert "side_unknown" in unstated["findings"]
    assert_same(stated, named)


@pytest.mark.parametrize(
    ("film", "code", "status"),
    [
        (b"", "unreadable", 422),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "unreadable", 422),
        (b"MZ" + b"\x90" * 1000, "unreadable", 422),
        (save_dicom(build_dicom())[:-5000], "unreadable", 422),
        (save_dicom(build_dicom(Modality="CT")), "wrong_modality", 422),
        (encode_image(np.zeros((300, 300, 3), np.uint8)), "not_a_radiograph", 422),
        (save_dicom(build_dicom(Rows=60000, Columns=60000)), "too_large", 413),
    ],
)
def test_a_file_that_is_no_film_is_a_problem_with_the_reason_of_ingest(
    make_api: MakeApi, film: bytes, code: str, status: int
) -> None:
    response = make_api().upload(film)
    assert_problem(response, status, "send a radiograph")
    answer = response.json()
    assert (answer["code"], answer["refusal"]["code"]) == (code, code)
    assert answer["hips"] == []
    assert answer["research_notice"] == RESEARCH_NOTICE
    assert answer["release_digest"]


def test_a_film_that_is_refused_for_what_it_shows_has_an_answer(make_api: MakeApi) -> None:
    hand = save_dicom(build_dicom(BodyPartExamined="HAND"))
    answer = without_request(make_api().upload(hand))
    assert answer["refusal"]["code"] == "wrong_body_part"
    assert "status" not in answer


def test_a_file_that_exhausts_its_decoder_is_an_answer_and_the_next_film_is_served(
    make_api: MakeApi, films: list[bytes]
) -> None:
    api = make_api(limits=ImageLimits(decode_memory_mb=256, max_pixels=200_000_000))
    bomb = encode_image(np.zeros((13_000, 13_000), np.uint8))
    assert_problem(api.upload(bomb), 422, "no end within")
    assert without_request(api.upload(films[0]))["refusal"] is None


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "uri"),
        ({"content": b"[" * 9000, "headers": {"content-type": "application/json"}}, 400, "uri"),
        ({"json": {"url": "s3://a/b"}}, 400, "uri"),
        ({"json": {"uri": "s3://a/b", "more": 1}}, 400, "uri"),
        ({"json": {"uri": ["s3://a/b"]}}, 400, "uri"),
        ({"json": {"uri": "s3://a/../b"}}, 400, "'..'"),
        ({"json": {"uri": "http://169.254.169.254/"}}, 400, "s3://bucket/key"),
        ({"json": {"uri": "s3://bucket/key"}}, 403, "may not read"),
        ({"json": {"uri": "x" * 20_000}}, 413, "16384 bytes"),
        ({"json": {"uri": "s3://a/b"}, "headers": {"content-encoding": "gzip"}}, 415, "Encoding"),
        ({"content": b"film"}, 415, "multipart/form-data"),
        (
            {"content": b"film", "headers": {"content-type": "image/png"}},
            415,
            "multipart/form-data",
        ),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "form"),
        (
            {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            400,
            "file",
        ),
        (
            {
                "content": b'--b\r\ncontent-disposition: form-data; name="age"\r\n\r\n7\r\n--b--',
                "headers": {"content-type": "multipart/form-data; boundary=b; charset=undefined"},
            },
            400,
            "form",
        ),
        ({"files": {"image": ("x", b"film")}}, 400, "'file'"),
        ({"files": [("file", ("x", b"a")), ("file", ("y", b"b"))]}, 400, "'file'"),
        ({"json": {"uri": "s3://bucket/key", "side": "both"}}, 400, "left"),
        ({"data": {"side": "L"}, "files": {"file": ("x", b"a")}}, 400, "'side'"),
        ({"data": {"age": "old"}, "files": {"file": ("x", b"a")}}, 400, "'age'"),
        ({"json": {"uri": "s3://bucket/key", "weight_kg": -3}}, 400, "'weight_kg'"),
        ({"data": {"name": "Doe"}, "files": {"file": ("x", b"a")}}, 400, "'side'"),
        ({"data": {"file": "text"}, "files": {"other": ("x", b"a")}}, 400, "'file'"),
    ],
)
def test_a_request_that_is_not_understood_is_one_clear_problem(
    make_api: MakeApi, options: dict[str, Any], status: int, words: str
) -> None:
    assert_problem(make_api().post(**options), status, words)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/score?overlays=true",
        "/v1/score?explain=1",
        "/v1/score?explain=true&explain=false",
        "/v1/score:batch?overlay=true",
    ],
)
def test_a_query_that_nothing_would_answer_is_refused(make_api: MakeApi, path: str) -> None:
    answer = make_api().post(path, json={"uri": "s3://bucket/a.dcm"})
    assert answer.status_code == 400
    assert "overlay, explain, dicom" in answer.json()["detail"]


def test_the_document_names_every_switch_of_the_query(make_api: MakeApi) -> None:
    document = make_api().get("/openapi.json").json()
    parameters = document["paths"]["/v1/score"]["post"]["parameters"]
    assert {p["name"] for p in parameters if p["in"] == "query"} == set(SWITCHES)


def test_what_a_caller_may_state_is_what_a_person_has() -> None:
    assert {*Stated.model_fields} - {"side"} == {field.name for field in fields(Person)}


def test_unknown_paths_and_methods_are_problems_too(make_api: MakeApi) -> None:
    api = make_api()
    assert_problem(api.get("/v1/nothing"), 404, "/v1/score")
    assert_problem(api.get("/v1/score"), 405, "method")
    assert_problem(api.get("/redoc"), 404, "no such path")
    assert_problem(api.post("/v1/score/", content=b"film"), 404, "no such path")


def test_whatever_can_be_got_can_be_asked_for_by_its_head(make_api: MakeApi) -> None:
    api = make_api()
    for path in ("/", "/healthz", "/readyz", "/v1/models"):
        assert api.run(api.send("HEAD", path)).status_code == 200


def test_a_missing_or_too_large_object_is_the_callers_problem(
    make_api: MakeApi, s3_server: S3Server
) -> None:
    store = s3_server.new_store()
    store.write("in/large.dcm", b"x" * 2000)
    api = make_api(
        allowed_prefixes=(store.uri,),
        storage=s3_server.settings,
        limits=ImageLimits(max_file_bytes=1000),
    )
    missing = api.post(json={"uri": f"{store.uri}/in/Doe.dcm"})
    assert_problem(missing, 404, "no object")
    assert "Doe" not in missing.text
    assert_problem(api.post(json={"uri": f"{store.uri}/in/large.dcm"}), 413, "size limit")


def test_a_store_out_of_reach_is_a_reason_to_come_later(make_api: MakeApi) -> None:
    api = make_api(allowed_prefixes=("s3://bucket/in",), storage=NOT_REACHED)
    assert_problem(api.post(json={"uri": "s3://bucket/in/film.dcm"}), 503, "out of reach")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StoreUnavailableError("an answer", "503 SlowDown", "wait"), 503),
        (AccessDeniedError("access", "403 AccessDenied", "check the policy"), 502),
        (ArchivedError("an object that can be read", "an archived one", "restore it first"), 409),
        (StorageError("success", "501", "use another"), 502),
        (DataError("a decoder process", "none", "check memory"), 503),
        (ForeignReleaseError("release a", "b", "try again"), 503),
        (BackPressureError(num_queued_requests=1, max_queued_requests=1), 503),
        (RayActorError(), 503),
        (TimeoutError(), 503),
        (ZeroDivisionError("s3://bucket/Doe.dcm"), 500),
    ],
)
def test_what_goes_wrong_inside_becomes_a_status_and_keeps_its_text(
    error: Exception, status: int
) -> None:
    problem = explain(error)
    assert problem.status == status
    assert str(error) == "" or str(error) not in problem.detail


def test_a_body_is_not_read_beyond_the_limit(make_api: MakeApi) -> None:
    api = make_api(limits=ImageLimits(max_file_bytes=1_000_000))
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        while True:
            sent += 100_000
            yield b"x" * 100_000

    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert_problem(api.post(content=endless(), headers=headers), 413, "1000000 bytes")
    assert sent <= 1_300_000


@pytest.mark.parametrize("path", ["/v1/score", "/v1/score:batch"])
def test_a_body_that_does_not_arrive_in_time_is_the_callers_problem(
    make_api: MakeApi, path: str
) -> None:
    api = make_api(request_timeout_s=0.5)

    async def dripping() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    headers = {"content-type": "application/json"}
    answer = api.post(path, content=dripping(), headers=headers)
    assert_problem(answer, 408, "did not arrive in time")
    assert answer.json()["code"] == "slow_body"


def test_an_announced_body_beyond_the_limit_is_not_read_at_all(make_api: MakeApi) -> None:
    api = make_api(limits=ImageLimits(max_file_bytes=1000))
    headers = {"content-type": "multipart/form-data; boundary=b", "content-length": "999999999"}

    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    assert_problem(api.post(content=unread(), headers=headers), 413, "1000 bytes")


def test_a_file_just_above_the_limit_is_too_large(make_api: MakeApi) -> None:
    api = make_api(limits=ImageLimits(max_file_bytes=1000))
    assert_problem(api.upload(b"x" * 1001), 413, "1000 bytes")
    assert_problem(api.upload(b"x" * 1000), 422, "no known image format")


def test_scoring_needs_a_token_where_tokens_are_set_and_health_does_not(
    make_api: MakeApi, films: list[bytes]
) -> None:
    api = make_api(token_sha256=(DIGEST,))
    for answer in (api.upload(films[0]), api.get("/v1/models")):
        assert_problem(answer, 401, "Authorization: Bearer")
        assert answer.headers["www-authenticate"] == "Bearer"
    wrong = {"authorization": "Bearer wrong"}
    assert_problem(api.upload(films[0], headers=wrong), 401, "valid token")
    right = {"authorization": f"Bearer {TOKEN}"}
    assert api.upload(films[0], headers=right).status_code == 200
    assert api.get("/v1/models", headers=right).status_code == 200
    assert api.get("/healthz").json()["status"] == "live"
    assert api.get("/readyz").json()["status"] == "ready"


def test_without_tokens_a_page_that_points_here_reads_nothing_and_probes_answer(
    make_api: MakeApi, films: list[bytes]
) -> None:
    api, rebound = make_api(), {"host": "films.example:8000"}
    answers = [api.get(path, headers=rebound) for path in ("/v1/models", "/metrics")]
    for answer in (api.upload(films[0], headers=rebound), *answers):
        assert_problem(answer, 421, "localhost")
    for path in ("/healthz", "/readyz", "/"):
        assert api.get(path, headers=rebound).status_code == 200
    token = {"authorization": f"Bearer {TOKEN}"}
    guarded = make_api(token_sha256=(DIGEST,))
    assert guarded.get("/v1/models", headers=rebound | token).status_code == 200


def test_models_says_what_is_served(make_api: MakeApi, split_graph: SplitGraph) -> None:
    release, served = split_graph.release, make_api().get("/v1/models").json()
    assert (served["name"], served["digest"]) == (release.name, release.digest)
    assert [m["bundle"] for m in served["members"]] == [m.bundle for m in release.members]
    assert served["research_notice"] == RESEARCH_NOTICE


class SlowGraph:
    """Stages that hang until they are let go."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.ended = 0

    async def __call__(
        self, hips: FramedHips, *, timeout_s: float, clock: StepClock, extras: Extras = NUMBERS_ONLY
    ) -> ScoredFilm:
        try:
            await self.let_go.wait()
        finally:
            self.ended += 1
        return ScoredFilm([HipNumbers({}, {}, None, None, None)] * len(hips.frames))


def test_a_full_queue_answers_at_once_and_others_are_still_served(
    make_api: MakeApi, films: list[bytes], run: Run
) -> None:
    graph = SlowGraph()
    api = make_api(graph=graph, running=1, queue=2)

    async def crowd() -> list[httpx.Response]:
        sends = [
            asyncio.create_task(api.send("POST", "/v1/score", files={"file": ("f", films[0])}))
            for _ in range(5)
        ]
        turned_away, _ = await asyncio.wait(sends, timeout=0.5)
        assert len(turned_away) == 2
        assert (await api.send("GET", "/healthz")).status_code == 200
        graph.let_go.set()
        return await asyncio.gather(*sends)

    answers = run(crowd())
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 503, 503]
    assert_problem(next(a for a in answers if a.status_code == 503), 503, "waiting")


def test_a_request_past_its_time_is_ended_with_its_stages(
    make_api: MakeApi, films: list[bytes]
) -> None:
    graph = SlowGraph()
    api = make_api(graph=graph, request_timeout_s=3)
    while api.upload(b"").status_code != 422:  # until the decoder has started
        pass
    assert_problem(api.upload(films[0]), 503, "time limit")
    assert graph.ended == 1


class DarkeningPool:
    """Decoders with a codec that others have not."""

    async def start(self) -> None:
        """Start."""

    async def read(self, film: bytes, *, working_px: int, **stated: Any) -> tuple[Any, Any]:
        result = read_hips(film, name="")
        hip = replace(result.hips[0], pixels=result.hips[0].pixels // 2)
        return replace(result, hips=(hip,)), frame_hips(result, working_px, stated=NOBODY)

    def close(self) -> None:
        """Close."""


def test_decoders_that_give_other_pixels_keep_a_replica_from_starting(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = make_api()
    monkeypatch.setattr(api.service, "_readers", DarkeningPool())
    with pytest.raises(DataError, match="within 1, found a difference of"):
        api.run(api.service.warm_up())


def test_where_the_workspace_is_out_of_reach_a_replica_starts_with_decoders_unchecked(
    split_graph: SplitGraph, caplog: pytest.LogCaptureFixture
) -> None:
    check_decoders(open_store("s3://bucket/work", NOT_REACHED), split_graph.release)
    assert "not checked" in caplog.text


def test_a_defect_is_answered_without_its_text_and_logged_with_it(
    make_api: MakeApi, films: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(hips: FramedHips, **_: Any) -> ScoredFilm:
        raise ZeroDivisionError("inner text")

    answer = make_api(graph=broken).upload(films[0])
    assert_problem(answer, 500, "defect")
    assert "inner text" not in answer.text
    line = next(JsonFormatter().format(r) for r in caplog.records if r.levelname == "ERROR")
    assert answer.json()["request_id"] in line
    assert "ZeroDivisionError" in line
    assert "inner text" not in line


def test_logs_name_requests_and_never_files_or_addresses(
    make_api: MakeApi, films: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="hipray")
    api = make_api(allowed_prefixes=("s3://bucket/in",), storage=NOT_REACHED)
    answers = [
        api.post(files={"file": ("Doe^Jane.dcm", films[0])}),
        api.post(json={"uri": "s3://bucket/in/Doe^Jane.dcm"}),
        api.get("/Doe^Jane?name=Doe"),
    ]
    records = [r for r in caplog.records if r.name.startswith("hipray")]
    text = "\n".join(map(JsonFormatter().format, records))
    assert "Doe" not in text
    assert all(answer.headers["x-request-id"] in text for answer in answers)


def test_a_proxys_request_id_is_kept_and_other_words_are_not(make_api: MakeApi) -> None:
    api = make_api()
    given = "0d9f2c1e-93a1-4d3f-8f5e-2b7c7d1a9e10"
    kept = api.get("/v1/nothing", headers={"x-request-id": given}).json()["request_id"]
    replaced = api.get("/v1/nothing", headers={"x-request-id": "Doe^Jane"}).json()["request_id"]
    assert kept == given
    assert "Doe" not in replaced


def test_the_interface_is_described_for_people_without_anything_from_elsewhere(
    make_api: MakeApi,
) -> None:
    api = make_api(token_sha256=(DIGEST,))
    page = api.get("/docs")
    assert page.status_code == 200
    assert RESEARCH_NOTICE in page.text
    for path, methods in api.get("/openapi.json").json()["paths"].items():
        assert all(f"{method.upper()} {path}" in page.text for method in methods)
    assert "Bearer TOKEN" in page.text
    assert re.findall(r'(?:src|href)="([^"]*)"', page.text) == ["openapi.json"]
    assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha")


def test_the_interface_describes_itself(make_api: MakeApi) -> None:
    described = make_api().get("/openapi.json").json()
    content = described["paths"]["/v1/score"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data"}


def test_a_batch_is_described_with_the_films_that_a_single_request_takes(
    make_api: MakeApi,
) -> None:
    document = make_api().get("/openapi.json").json()

    def body_of(path: str) -> Any:
        post = document["paths"][path]["post"]
        return post["requestBody"]["content"]["application/json"]["schema"]

    film = {"$ref": "#/components/schemas/Film"}
    assert body_of("/v1/score") == film
    assert film in body_of("/v1/score:batch")["properties"]["films"]["items"]["anyOf"]
    described = document["components"]["schemas"]["Film"]
    assert described["properties"]["uri"]["pattern"] == URI_PATTERN
    assert described["required"] == ["uri"]


def test_every_path_of_the_interface_is_described_and_answered(make_api: MakeApi) -> None:
    api = make_api()
    assert set(api.get("/openapi.json").json()["paths"]) == set(Path) == set(OPERATIONS)
    routed = {route.path: route.endpoint.__name__ for route in api.app.routes}
    assert {path: routed[path] for path in Path} == {
        path: described.name for path, described in OPERATIONS.items()
    }


def test_every_operation_of_the_document_has_a_name_of_its_own(make_api: MakeApi) -> None:
    paths = make_api().get("/openapi.json").json()["paths"]
    assert not any("head" in methods for methods in paths.values())
    names = [each["operationId"] for methods in paths.values() for each in methods.values()]
    assert len(set(names)) == len(names)


def test_a_form_that_states_a_fact_twice_is_refused(make_api: MakeApi, films: list[bytes]) -> None:
    answer = make_api().post(files=[("file", ("a", films[0])), ("side", (None, "left")),
                                    ("side", (None, "right"))])  # fmt: skip
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
