import base64
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hipray.data.annotations import (
    Outline,
    check_masks,
    read_image_path,
    read_labelme,
    write_labelme,
)
from hipray.data.png import encode_mask
from hipray.vocab import REGIONS, Region, Side

FN, GT, WT, TH = REGIONS
WIDTH, HEIGHT = 120, 100


def polygon(points, label="total_hip", **extra):
    return {"label": label, "shape_type": "polygon", "points": points, **extra}


def square(x0, y0, x1, y1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def read(shapes, *, width=WIDTH, height=HEIGHT, **extra):
    content = {"imageWidth": WIDTH, "imageHeight": HEIGHT, "shapes": shapes, **extra}
    return read_labelme(json.dumps(content).encode(), width=width, height=height, name="a.json")


def box(x0, y0, x1, y1):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def disc(x, y, radius):
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def iou(first, second):
    return np.count_nonzero(first & second) / np.count_nonzero(first | second)


def test_a_polygon_includes_the_pixels_of_its_outline_as_labelme_draws_it() -> None:
    mask = read([polygon(square(10, 20, 30, 50))]).masks[TH]
    assert mask.shape == (HEIGHT, WIDTH) and mask.dtype == bool
    assert np.array_equal(mask, box(10, 20, 31, 51))


def test_a_rectangle_is_read_from_any_two_opposite_corners() -> None:
    shape = {"label": "FN", "shape_type": "rectangle", "points": [[30, 50], [10, 20]]}
    assert np.array_equal(read([shape]).masks[FN], box(10, 20, 31, 51))


def test_a_circle_is_read_from_its_centre_and_a_point_on_it() -> None:
    shape = {"label": "troch", "shape_type": "circle", "points": [[60, 50], [60, 70]]}
    assert iou(read([shape]).masks[GT], disc(60, 50, 20.5)) > 0.97  # the outline is included


def test_a_mask_shape_is_placed_at_its_corner() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.ones((10, 20), bool)).save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    shape = {"label": "wards", "shape_type": "mask", "points": [[5, 7], [24, 16]], "mask": encoded}
    assert np.array_equal(read([shape]).masks[WT], box(5, 7, 25, 17))


def test_shapes_of_one_label_are_united() -> None:
    masks = read([polygon(square(0, 0, 9, 9)), polygon(square(5, 5, 19, 19), "TH")]).masks
    assert set(masks) == {TH}
    assert np.array_equal(masks[TH], box(0, 0, 10, 10) | box(5, 5, 20, 20))


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ({"shapes": [], "imagePath": "..\\films\\a b.png"}, "../films/a b.png"),
        ({"shapes": [], "imagePath": None}, ""),
        ({"records": [], "imagePath": "a.png"}, None),
        ([{"image": "a.png"}], None),
    ],
)
def test_a_labelme_file_is_known_and_names_its_film(content, path) -> None:
    assert read_image_path(json.dumps(content).encode()) == path


def test_a_label_that_is_no_text_is_told_in_letters_that_can_be_written() -> None:
    annotation = read([polygon(square(0, 0, 9, 9), "\ud800")])
    assert "unknown label '\\ud800'" in annotation.problems[0]
    annotation.problems[0].encode()


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        (polygon([[1, 1], [5, 5]]), "a polygon of 2 points"),
        (polygon(square(60, 10, 200, 50)), "lies outside the frame"),
        (polygon(square(500, 10, 600, 50)), "lies outside the frame"),
        (polygon(square(1, 1, 5, 5), "femur head"), "unknown label 'femur head'"),
        (polygon([[1, float("nan")], [2, 2], [3, 1]]), "not a pair of finite numbers"),
        (polygon([[1, True], [2, 2], [3, 1]]), "not a pair of finite numbers"),
        (polygon("points"), "no list of points"),
        ({**polygon([[1, 1], [9, 9], [5, 1]]), "shape_type": "linestrip"}, "encloses no area"),
        ({**polygon([[1, 1], [9, 9], [5, 1]]), "shape_type": ["x"]}, "encloses no area"),
        ({**polygon([[1, 1], [9, 9]]), "shape_type": "mask", "mask": "%%"}, "no base64 PNG"),
        ({**polygon([[1, 1], [9, 9]]), "shape_type": "mask", "mask": "aGVsbG8="}, "no base64 PNG"),
    ],
)
def test_a_bad_shape_is_left_out_with_a_reason_and_the_others_stay(shape, problem) -> None:
    annotation = read([shape, polygon(square(10, 10, 50, 50), "neck")])
    assert set(annotation.masks) == {FN}
    assert len(annotation.problems) == 1
    assert annotation.problems[0].startswith("a.json: shape 1: ")
    assert problem in annotation.problems[0]


def test_a_shape_a_little_over_the_edge_is_kept_and_cut_at_the_edge() -> None:
    annotation = read([polygon(square(21, 10, 124, 50))])
    assert annotation.problems == ()
    assert np.array_equal(annotation.masks[TH], box(21, 10, WIDTH, 51))


def test_a_mask_that_claims_to_be_larger_than_its_image_is_not_decoded() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.ones((HEIGHT, WIDTH + 1), bool)).save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    shape = {"label": "TH", "shape_type": "mask", "points": [[0, 0], [1, 1]], "mask": encoded}
    annotation = read([shape])
    assert not annotation.masks and "larger than the image" in annotation.problems[0]


def test_an_annotation_of_a_smaller_copy_is_scaled_to_the_film() -> None:
    annotation = read([polygon(square(9.5, 19.5, 29.5, 49.5))], width=240, height=200)
    mask = annotation.masks[TH]
    assert mask.shape == (200, 240) and annotation.problems == ()
    expected = np.zeros((200, 240), bool)
    expected[40:100, 20:60] = True
    assert iou(mask, expected) > 0.95


def test_a_missing_size_means_the_size_of_the_film() -> None:
    content = {"shapes": [polygon(square(10, 20, 30, 50))]}
    annotation = read_labelme(json.dumps(content).encode(), width=120, height=100, name="a.json")
    assert np.array_equal(annotation.masks[TH], box(10, 20, 31, 51))


def test_an_annotation_of_a_turned_film_is_refused_and_names_the_cause() -> None:
    annotation = read([polygon(square(10, 20, 30, 50))], width=HEIGHT, height=WIDTH)
    assert not annotation.masks
    assert "EXIF" in annotation.problems[0]


def test_an_annotation_of_another_film_is_refused() -> None:
    annotation = read([polygon(square(10, 20, 30, 50))], width=300, height=100)
    assert not annotation.masks and "EXIF" not in annotation.problems[0]


@pytest.mark.parametrize("size", [0, -1, 10**9, "120", 99_999])
def test_an_absurd_stated_size_is_refused(size) -> None:
    annotation = read([polygon(square(1, 1, 5, 5))], imageWidth=size, imageHeight=size)
    assert not annotation.masks and len(annotation.problems) == 1


def test_both_hips_of_a_pelvis_film_are_kept_apart_by_group_and_description() -> None:
    shapes = [
        polygon(square(80, 10, 110, 60), "total_hip", group_id=0, description="left"),
        polygon(square(80, 10, 90, 20), "FN", group_id=0, description=""),
        polygon(square(10, 10, 40, 60), "total_hip", group_id=1, flags={"right": True}),
    ]
    annotation = read(shapes)
    assert annotation.problems == ()
    assert set(annotation.side_masks[Side.LEFT]) == {TH, FN}
    assert np.array_equal(annotation.side_masks[Side.RIGHT][TH], box(10, 10, 41, 61))
    assert np.array_equal(annotation.masks[TH], box(80, 10, 111, 61) | box(10, 10, 41, 61))


def test_a_side_in_the_label_is_read_too() -> None:
    annotation = read([polygon(square(80, 10, 110, 60), "left femoral neck")])
    assert set(annotation.side_masks[Side.LEFT]) == {FN}


def test_groups_without_a_side_are_told_and_not_guessed() -> None:
    shapes = [
        polygon(square(80, 10, 110, 60), group_id=0),
        polygon(square(10, 10, 40, 60), group_id=1),
    ]
    annotation = read(shapes)
    assert not annotation.side_masks and TH in annotation.masks
    assert "groups without a side" in annotation.problems[0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b'{"shapes": 3}',
        b'{"shapes": [1]}',
        b'{"shapes": []}',
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"shapes": [{}], "imageWidth": {}, "imageHeight": []}',
    ],
)
def test_a_malformed_file_gives_no_masks_and_one_problem(data) -> None:
    annotation = read_labelme(data, width=50, height=50, name="a.json")
    assert not annotation.masks and len(annotation.problems) == 1


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "label": _JSON | st.just("TH"),
            "shape_type": _JSON | st.sampled_from(["polygon", "rectangle", "circle", "mask"]),
            "points": _JSON | st.lists(st.lists(st.floats(), min_size=2, max_size=2), max_size=5),
            "group_id": _JSON,
            "flags": _JSON,
            "description": _JSON,
            "mask": _JSON,
        },
    ),
    _JSON,
)
def test_nothing_raises_whatever_a_shape_holds(shape, other) -> None:
    annotation = read([shape], imagePath=other)
    assert annotation.masks or annotation.problems


def test_a_bitmap_with_a_hole_and_a_lone_pixel_is_read_as_it_is() -> None:
    ring = disc(60, 50, 30) & ~disc(60, 50, 20)
    ring[0, 0] = True
    corners = [[0, 0], [WIDTH - 1, HEIGHT - 1]]
    encoded = base64.b64encode(encode_mask(ring)).decode()
    shape = {"label": "total_hip", "shape_type": "mask", "points": corners, "mask": encoded}
    assert np.array_equal(read([shape]).masks[TH], ring)


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(0, 49)] * 2), st.tuples(*[st.integers(10, 49)] * 2))
def test_an_outline_reads_back_as_the_mask_it_encloses(corner, size) -> None:
    (x, y), (w, h) = corner, size
    outline = Outline(TH, np.array(square(x, y, x + w, y + h), float))
    data = write_labelme([outline], image_name="ä.png", width=WIDTH, height=HEIGHT)
    back = read_labelme(data, width=WIDTH, height=HEIGHT, name="a.json")
    assert back.problems == () and read_image_path(data) == "ä.png"
    assert np.array_equal(back.masks[TH], box(x, y, x + w + 1, y + h + 1))


def test_both_hips_are_written_with_group_and_side_and_read_back() -> None:
    left = Outline(TH, np.array(square(70, 10, 109, 59), float), Side.LEFT)
    right = Outline(TH, np.array(square(10, 10, 39, 59), float), Side.RIGHT)
    data = write_labelme([left, right], image_name="a.png", width=WIDTH, height=HEIGHT)
    assert [shape["group_id"] for shape in json.loads(data)["shapes"]] == [0, 1]
    back = read_labelme(data, width=WIDTH, height=HEIGHT, name="a.json")
    assert np.array_equal(back.side_masks[Side.LEFT][TH], box(70, 10, 110, 60))
    assert np.array_equal(back.side_masks[Side.RIGHT][TH], box(10, 10, 40, 60))


def test_vertices_and_frame_are_written_as_they_are() -> None:
    outline = Outline(FN, np.array([[1.25, 2.5], [30, 2], [20, 40]]))
    document = json.loads(write_labelme([outline], image_name="a", width=50, height=60))
    assert document["shapes"][0]["points"] == [[1.25, 2.5], [30.0, 2.0], [20.0, 40.0]]
    assert (document["imageWidth"], document["imageHeight"]) == (50, 60)


def test_masks_in_their_places_pass_the_check() -> None:
    masks = {FN: box(20, 20, 40, 40), GT: box(60, 20, 80, 40), WT: box(35, 30, 45, 40)}
    assert check_masks({**masks, TH: box(15, 15, 90, 90)}) == []


@pytest.mark.parametrize(
    ("masks", "problem"),
    [
        (
            {FN: box(0, 0, 10, 10), TH: box(2, 0, 50, 50)},
            "only 80% of femoral_neck lies in total_hip",
        ),
        ({WT: box(0, 0, 10, 10), TH: box(50, 50, 60, 60)}, "only 0% of wards_triangle"),
        ({FN: box(0, 0, 10, 10)}, "total_hip is missing"),
        ({TH: box(0, 0, 0, 0)}, "total_hip is empty"),
        ({TH: np.ones((5, 5), bool), FN: np.ones((6, 5), bool)}, "differ in size"),
    ],
)
def test_a_mask_out_of_place_is_told(masks, problem) -> None:
    problems = check_masks(masks)
    assert len(problems) == 1 and problem in problems[0]


def test_ninety_percent_inside_is_enough() -> None:
    assert check_masks({FN: box(0, 0, 10, 10), TH: box(1, 0, 50, 50)}) == []


def test_every_region_of_the_vocabulary_survives_the_round_trip() -> None:
    outlines = [
        Outline(region, np.array(square(10 + 5 * n, 10, 39 + 5 * n, 59), float))
        for n, region in enumerate(Region)
    ]
    data = write_labelme(outlines, image_name="a.png", width=WIDTH, height=HEIGHT)
    back = read_labelme(data, width=WIDTH, height=HEIGHT, name="a.json").masks
    for n, region in enumerate(Region):
        assert np.array_equal(back[region], box(10 + 5 * n, 10, 40 + 5 * n, 60))
