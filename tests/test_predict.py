"""One film in this process: an answer as data and a picture to look at."""

import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from hipray.config.jobs import PredictRun
from hipray.data.contours import CONTOUR_COLOURS
from hipray.data.framing import Frame
from hipray.data.images import read_hips
from hipray.errors import ConfigError, NotFoundError
from hipray.overlay import draw_overlay
from hipray.predict import run_predict
from hipray.runtime.memory import MemoryLimitError
from hipray.storage import ObjectTooLargeError, open_store
from hipray.vocab import Region, RuntimeChoice, View
from tests.data.film_files import draw_pelvis, encode_dicom
from tests.small_release import WORKING_PX, draw_phantoms, publish_small_release


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    publish_small_release(open_store(str(folder)), view=View.WHOLE, segmenters=False)
    (folder / "film.dcm").write_bytes(next(iter(draw_phantoms(1).values())))
    (folder / "text.dcm").write_bytes(b"no film at all")
    return folder


def predict(folder, name="film.dcm", *, allow=True, **changes):
    return run_predict(
        PredictRun(
            workspace=str(folder),
            file=str(folder / name),
            release="small",
            allow_phantom_release=allow,
            **changes,
        )
    )


def picture_of(prediction):
    return np.asarray(Image.open(BytesIO(prediction.overlay)))


def test_a_release_of_phantoms_is_refused_unless_it_is_allowed(workspace) -> None:
    with pytest.raises(ConfigError, match=r"set allow_phantom_release = true"):
        predict(workspace, allow=False)


def test_the_answer_is_plain_data_that_says_what_it_is(workspace) -> None:
    answer = predict(workspace).answer
    assert json.loads(json.dumps(answer))["release"] == "small"
    assert answer["data_source"] == "phantom"
    assert answer["refusal"] is None
    assert "not a medical device" in answer["research_notice"].lower()
    hip = answer["hips"][0]
    assert {region["region"] for region in hip["regions"]} == {"femoral_neck", "total_hip"}
    assert all(0 < region["probability"] < 1 for region in hip["regions"])
    sites = [r["probability"] for r in hip["regions"] if r["label_type"] == "t_score"]
    assert hip["headline"]["probability"] == max(sites)


def test_the_overlay_is_the_canonical_hip(workspace) -> None:
    prediction = predict(workspace)
    hip = read_hips((workspace / "film.dcm").read_bytes(), name="film").hips[0]
    assert np.array_equal(picture_of(prediction)[..., 0], hip.pixels)


def test_a_refused_film_is_an_answer_without_a_picture(workspace) -> None:
    prediction = predict(workspace, "text.dcm")
    assert prediction.overlay is None
    assert prediction.answer["hips"] == ()
    assert prediction.answer["refusal"]["code"] == "unreadable"


def test_a_missing_film_is_an_error_and_no_refusal(workspace) -> None:
    with pytest.raises(NotFoundError):
        predict(workspace, "gone.dcm")
    with pytest.raises(NotFoundError, match=r"name a file, not a folder"):
        run_predict(
            PredictRun(
                workspace=str(workspace),
                file=f"{workspace}/",
                release="small",
                allow_phantom_release=True,
            )
        )


def test_contours_are_drawn_on_the_hips_own_pixels() -> None:
    result = read_hips(encode_dicom(), name="film")
    masks = np.zeros((1, 4, WORKING_PX, WORKING_PX), bool)
    masks[0, 3, 40:90, 50:100] = True
    picture = np.asarray(Image.open(BytesIO(draw_overlay(result, masks, WORKING_PX))))
    green = (picture == CONTOUR_COLOURS[Region.TOTAL_HIP]).all(-1)
    assert picture.shape[:2] == result.hips[0].pixels.shape
    rows, columns = np.nonzero(green)
    frame_of_hip = Frame.around(result.hips[0].pixels, WORKING_PX)
    top, left, _, _ = frame_of_hip.box
    assert abs(rows.min() - (40 - top) / frame_of_hip.scale) <= 3
    assert abs(columns.max() - (100 - left) / frame_of_hip.scale) <= 3


def test_both_hips_of_a_pelvis_lie_side_by_side() -> None:
    pixels = draw_pelvis().astype(np.uint16) * 12
    result = read_hips(
        encode_dicom(pixels, ImageLaterality="B", BodyPartExamined="PELVIS"), name="pelvis"
    )
    assert len(result.hips) == 2
    picture = np.asarray(Image.open(BytesIO(draw_overlay(result, None, WORKING_PX))))
    assert picture.shape[1] == sum(hip.pixels.shape[1] for hip in result.hips)


def test_a_film_beyond_the_size_limit_is_not_read(workspace) -> None:
    from hipray.config.images import ImageLimits

    with pytest.raises(ObjectTooLargeError, match=r"at most 1000 bytes"):
        predict(workspace, limits=ImageLimits(max_file_bytes=1000))


def test_the_answer_names_what_computed_it_and_both_runtimes_agree(workspace) -> None:
    onnx, torch = (predict(workspace, runtime=runtime).answer for runtime in
                   (RuntimeChoice.AUTO, RuntimeChoice.TORCH))  # fmt: skip
    assert (onnx["runtime"], onnx["device"], onnx["precision"]) == ("onnx", "cpu", "float32")
    assert torch["runtime"] == "torch"
    for one, other in zip(onnx["hips"][0]["regions"], torch["hips"][0]["regions"], strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-4)


def test_networks_that_do_not_fit_are_refused_with_their_sum(workspace) -> None:
    with pytest.raises(
        MemoryLimitError, match=r"fit into 0\.01 GiB, set by memory_gib, found a need"
    ):
        predict(workspace, memory_gib=0.01)
