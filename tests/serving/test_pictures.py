"""Contours and heat maps in an answer: asked for, drawn from what the answer was computed from."""

import asyncio
import threading
import time
from base64 import b64decode
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from hipray.answers import HipNumbers, build_answer
from hipray.data.contours import CONTOUR_COLOURS
from hipray.data.images import read_hips
from hipray.explanation import HeatMap
from hipray.overlay import draw_overlay
from hipray.pipeline import Pipeline
from hipray.runtime.engine import Engine
from hipray.serving import service
from hipray.serving.graph import FusedGraph, SplitGraph
from hipray.serving.messages import Extras, ScoredFilm
from hipray.serving.pictures import Drawn, draw_pictures
from hipray.serving.problems import PROBLEM_TYPE
from tests.conftest import S3Server
from tests.serving.answers import without_request
from tests.serving.conftest import LocalApi
from tests.small_release import CLASSIFIER_PX

MakeApi = Callable[..., LocalApi]
BOTH = {"params": {"overlay": "true", "explain": "true"}}


def decode(text: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(b64decode(text, validate=True))))


@pytest.fixture(params=["split_graph", "fused_graph"])
def graph(request: pytest.FixtureRequest) -> SplitGraph | FusedGraph:
    return request.getfixturevalue(request.param)


def test_the_overlay_has_the_contours_that_the_pipeline_draws(
    make_api: MakeApi, graph: SplitGraph | FusedGraph, pipeline: Pipeline, films: list[bytes]
) -> None:
    film = films[-1]  # both hips of a pelvis
    answer = without_request(make_api(graph=graph).upload(film, params={"overlay": "true"}))
    result = read_hips(film, name="")
    _, masks = pipeline.answer_with_masks([result])
    wanted = draw_overlay(result, masks, pipeline.stages.release.working_px)
    assert b64decode(answer["overlay_png"]) == wanted
    picture = decode(answer["overlay_png"])
    for colour in CONTOUR_COLOURS.values():
        assert (picture == colour).all(-1).any()


def test_each_region_has_a_heat_map_of_its_members(
    make_api: MakeApi, graph: SplitGraph | FusedGraph, films: list[bytes]
) -> None:
    response = make_api(graph=graph).upload(films[-1], **BOTH)
    assert {"explain", "draw"} <= response.json()["timings_ms"].keys()
    regions = [r for hip in response.json()["hips"] for r in hip["regions"]]
    assert len(regions) == 6
    for region in regions:
        assert region["explanation_reason"] is None
        assert (region["explanation"]["method"], region["explanation"]["members"]) == (
            "grad-cam",
            2,
        )
        assert decode(region["explanation"]["png"]).shape == (CLASSIFIER_PX, CLASSIFIER_PX, 3)


def test_pictures_change_no_number_and_come_only_where_asked_for(
    make_api: MakeApi, films: list[bytes]
) -> None:
    api = make_api()
    plain, drawn = api.upload(films[0]), api.upload(films[0], **BOTH)
    assert "overlay_png" not in plain.json()
    assert "explanation" not in plain.text
    assert not {"explain", "draw"} & plain.json()["timings_ms"].keys()
    stripped = without_request(drawn)
    del stripped["overlay_png"]
    for region in stripped["hips"][0]["regions"]:
        del region["explanation"], region["explanation_reason"]
    wanted = without_request(plain)
    for ours, theirs in zip(
        stripped["hips"][0]["regions"], wanted["hips"][0]["regions"], strict=True
    ):
        assert ours.pop("probability") == pytest.approx(theirs.pop("probability"), abs=1e-5)
    del stripped["hips"][0]["headline"], wanted["hips"][0]["headline"]
    assert stripped == wanted


def test_a_refused_film_has_no_picture(make_api: MakeApi) -> None:
    answer = make_api().upload(b"no film", **BOTH).json()
    assert answer["refusal"]["code"] == "unreadable"
    assert answer["overlay_png"] is None


@pytest.mark.parametrize("query", [{"overlay": "1"}, {"explain": "yes"}, {"overlay": ""}])
def test_a_switch_is_true_or_false(make_api: MakeApi, query: dict[str, str]) -> None:
    answer = make_api().upload(b"", params=query)
    assert answer.status_code == 400
    assert "'true' or 'false'" in answer.json()["detail"]


def test_where_a_network_has_no_map_the_answer_says_why(
    split_graph: SplitGraph, films: list[bytes]
) -> None:
    release = split_graph.release
    heat = HeatMap(np.zeros((8, 8), np.uint8), None, 0, "it shows none")
    film = ScoredFilm([], explanations={question: [heat] for question in release.questions})
    result = read_hips(films[0], name="")
    numbers = HipNumbers(
        dict.fromkeys(release.questions, 0.5), dict.fromkeys(release.regions, True),
        None, None, None,
    )  # fmt: skip
    study = build_answer(release, Engine(), result, [numbers])
    drawn = draw_pictures(
        study, Extras(explain=True), result=result, scored=film, working_px=release.working_px
    )
    wanted = {"explanation": None, "explanation_reason": "it shows none"}
    assert drawn.regions == {(0, *question): wanted for question in release.questions}


def test_an_answer_comes_as_dicom_of_the_films_own_study_where_it_is_asked_for(
    make_api: MakeApi, graph: SplitGraph | FusedGraph, films: list[bytes]
) -> None:
    pytest.importorskip("highdicom")
    api = make_api(graph=graph)
    answer = api.upload(films[0], params={"dicom": "true"}).json()
    study = pydicom.dcmread(BytesIO(films[0])).StudyInstanceUID
    for name, modality in (("dicom_sr", "SR"), ("dicom_seg", "SEG")):
        found = pydicom.dcmread(BytesIO(b64decode(answer[name], validate=True)))
        assert (found.Modality, found.StudyInstanceUID) == (modality, study)
    refused = api.upload(b"no film", params={"dicom": "true"}).json()
    assert (refused["dicom_sr"], refused["dicom_seg"]) == (None, None)


def test_dicom_objects_name_the_patient_and_go_to_who_sent_the_film_unless_more_is_allowed(
    make_api: MakeApi, s3_server: S3Server
) -> None:
    pytest.importorskip("highdicom")
    uri = s3_server.new_store().uri
    asked = {"json": {"uri": f"{uri}/gone.dcm"}, "params": {"dicom": "true"}}
    settings = {"allowed_prefixes": (uri,), "storage": s3_server.settings}
    refused = make_api(**settings).post(**asked)
    assert (refused.status_code, refused.headers["content-type"]) == (403, PROBLEM_TYPE)
    assert "send the film" in refused.json()["detail"]
    allowed = make_api(**settings, dicom_of_named_films=True).post(**asked)
    assert allowed.json()["code"] == "missing_object"  # it was looked for


def test_a_film_too_large_for_dicom_objects_is_told_so_before_it_is_scored(
    make_api: MakeApi, films: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("highdicom")
    film = pydicom.dcmread(BytesIO(films[0]))
    monkeypatch.setattr(service, "MOST_PIXELS", film.Rows * film.Columns - 1)
    api = make_api()
    answer = api.upload(films[0], params={"dicom": "true"})
    assert (answer.status_code, answer.headers["content-type"]) == (413, PROBLEM_TYPE)
    assert "without dicom=true" in answer.json()["detail"]
    assert api.upload(films[0], params={"overlay": "true"}).status_code == 200
    monkeypatch.setattr(service, "MOST_PIXELS", film.Rows * film.Columns)
    assert api.upload(films[0], params={"dicom": "true"}).json()["dicom_seg"]


def test_dicom_objects_are_made_for_one_answer_at_a_time(
    make_api: MakeApi, films: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("highdicom")
    alone, met = threading.Lock(), threading.Event()

    def write(*_: object, **__: object) -> Drawn:
        if not alone.acquire(blocking=False):
            met.set()
            return Drawn()
        time.sleep(0.05)
        alone.release()
        return Drawn()

    monkeypatch.setattr(service, "write_objects", write)
    api, asked = make_api(running=16), {"params": {"dicom": "true"}}

    async def ask_together() -> list[int]:
        films_sent = [{"files": {"file": ("film", film)}, **asked} for film in films]
        answers = [api.send("POST", "/v1/score", **sent) for sent in films_sent]
        return [answer.status_code for answer in await asyncio.gather(*answers)]

    assert set(api.run(ask_together())) == {200}
    assert not met.is_set()


@pytest.mark.parametrize("values", [{"PixelSpacing": ["0,2", "0,2"]}, {"PixelSpacing": "abc"}])
def test_a_header_that_no_object_can_be_made_from_costs_the_object_and_not_the_answer(
    make_api: MakeApi, graph: SplitGraph | FusedGraph, films: list[bytes], values: dict[str, Any]
) -> None:
    pytest.importorskip("highdicom")
    film = pydicom.dcmread(BytesIO(films[0]))
    with pydicom.config.disable_value_validation():
        element = pydicom.DataElement(0x00280030, "LO", values["PixelSpacing"])
        element.VR = "DS"
        film[0x00280030] = element
        buffer = BytesIO()
        film.save_as(buffer)
    answer = make_api(graph=graph).upload(buffer.getvalue(), params={"dicom": "true"})
    assert answer.status_code == 200
    assert answer.json()["hips"][0]["regions"]
