"""Many films in one request: each has its own result, in the order given."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from hipray.answers import HipNumbers, answer_as_dict
from hipray.config.images import ImageLimits
from hipray.pipeline import FramedHips, Pipeline
from hipray.serving.messages import ScoredFilm
from hipray.storage import Store
from tests.conftest import S3Server
from tests.serving.answers import assert_same
from tests.serving.conftest import LocalApi

MakeApi = Callable[..., LocalApi]
PATH = "/v1/score:batch"


@pytest.fixture
def stored(s3_server: S3Server, films: list[bytes]) -> Store:
    store = s3_server.new_store()
    for number, film in enumerate(films):
        store.write(f"in/{number}.dcm", film)
    store.write("in/text.dcm", b"no film")
    return store


def open_api(make_api: MakeApi, stored: Store, server: S3Server, **changes: Any) -> LocalApi:
    allowed = (f"{stored.uri}/in",)
    return make_api(allowed_prefixes=allowed, storage=server.settings, **changes)


def results_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in result["answer"].items() if k != "timings_ms"}


def test_each_film_gets_the_answer_of_the_pipeline_in_the_order_given(
    make_api: MakeApi, stored: Store, s3_server: S3Server, films: list[bytes], pipeline: Pipeline
) -> None:
    order = [2, 0, 3, 1, 0]
    asked = [{"uri": f"{stored.uri}/in/{number}.dcm"} for number in order]
    response = open_api(make_api, stored, s3_server).post(PATH, json={"films": asked})
    for number, result in zip(order, results_of(response), strict=True):
        assert_same(without_times(result), answer_as_dict(pipeline(films[number])))
    body = response.json()
    assert body["release_digest"] == pipeline.stages.release.digest
    assert body["request_id"] == response.headers["x-request-id"]


def test_a_films_failure_is_its_own_and_never_the_batchs(
    make_api: MakeApi, stored: Store, s3_server: S3Server
) -> None:
    asked = [
        {"uri": f"{stored.uri}/in/0.dcm", "side": "right", "age": 70},
        {"uri": f"{stored.uri}/in/missing.dcm"},
        {"uri": "s3://elsewhere/film.dcm"},
        {"uri": "http://example.org/"},
        {"uri": f"{stored.uri}/in/0.dcm", "side": "both"},
        {"url": "s3://bucket/key"},
        {"uri": f"{stored.uri}/in/text.dcm"},
    ]
    results = results_of(open_api(make_api, stored, s3_server).post(PATH, json={"films": asked}))
    statuses = [r["problem"]["status"] if "problem" in r else 200 for r in results]
    assert statuses == [200, 404, 403, 400, 400, 400, 200]
    assert results[6]["answer"]["refusal"]["code"] == "unreadable"
    for result in results:
        if "problem" in result:
            assert result["problem"].keys() == {"status", "title", "detail", "code"}
            assert "missing.dcm" not in str(result)


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"json": {"films": []}}, 400, "1 to 64"),
        ({"json": {"films": [{"uri": "s3://a/b"}] * 65}}, 400, "1 to 64"),
        ({"json": {"films": ["s3://a/b"]}}, 400, "films"),
        ({"json": {"films": [{"uri": "s3://a/b"}], "more": 1}}, 400, "films"),
        ({"json": [{"uri": "s3://a/b"}]}, 400, "films"),
        ({"json": {"films": [{"uri": "s3://a/" + "b" * 300_000}]}}, 413, "262144 bytes"),
        ({"content": b"[" * 9000, "headers": {"content-type": "application/json"}}, 400, "films"),
        ({"files": {"file": ("x", b"a")}}, 415, "application/json"),
    ],
)
def test_a_batch_that_is_not_understood_is_one_clear_problem(
    make_api: MakeApi, options: dict[str, Any], status: int, words: str
) -> None:
    answer = make_api().post(PATH, **options)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert words in answer.json()["detail"]


def test_films_beyond_the_batchs_size_have_that_as_their_problem(
    make_api: MakeApi, stored: Store, s3_server: S3Server, films: list[bytes]
) -> None:
    api = open_api(
        make_api, stored, s3_server, batch_at_once=1, max_batch_bytes=len(films[0]) + 100,
        limits=ImageLimits(max_file_bytes=10_000_000),
    )  # fmt: skip
    asked = [{"uri": f"{stored.uri}/in/0.dcm"}] * 3
    results = results_of(api.post(PATH, json={"films": asked}))
    assert "answer" in results[0]
    assert [r["problem"]["status"] for r in results[1:]] == [413, 413]
    assert "another batch" in results[1]["problem"]["detail"]


class CountingGraph:
    """Stages that say how many films they had at a time; the third film never ends."""

    def __init__(self, *, hang: int | None = None) -> None:
        self.running = self.most = self.begun = self.ended = 0
        self._hang = hang

    async def __call__(self, hips: FramedHips, **_: Any) -> ScoredFilm:
        self.begun += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(1000 if self.begun == self._hang else 0.02)
        finally:
            self.running -= 1
            self.ended += 1
        return ScoredFilm([HipNumbers({}, {}, None, None, None)] * len(hips.frames))


def test_a_batch_is_one_request_whose_films_are_bounded(
    make_api: MakeApi, stored: Store, s3_server: S3Server
) -> None:
    graph = CountingGraph()
    api = open_api(make_api, stored, s3_server, graph=graph, running=1, queue=1, batch_at_once=2)
    results = results_of(api.post(PATH, json={"films": [{"uri": f"{stored.uri}/in/0.dcm"}] * 12}))
    assert len(results) == 12
    assert all("answer" in result for result in results)
    assert graph.most <= 2


def test_films_that_are_not_done_in_time_leave_the_others_answers(
    make_api: MakeApi, stored: Store, s3_server: S3Server
) -> None:
    graph = CountingGraph(hang=3)
    api = open_api(make_api, stored, s3_server, graph=graph, batch_at_once=1, request_timeout_s=4)
    film = {"uri": f"{stored.uri}/in/0.dcm"}
    assert api.get("/readyz").status_code == 200  # the decoder starts, however long it takes
    results = results_of(api.post(PATH, json={"films": [film] * 3}))
    assert "answer" in results[0]
    assert [r["problem"]["status"] for r in results[1:]] == [503, 503]
    assert graph.running == 0


def test_a_batch_needs_a_token_where_tokens_are_set(make_api: MakeApi) -> None:
    answer = make_api(token_sha256=("0" * 64,)).post(PATH, json={"films": [{"uri": "s3://a/b"}]})
    assert answer.status_code == 401
