import io
import json

import cv2
import numpy as np
import pydicom
import pytest

from hipray.config.phantom import FilmFormat, PhantomConfig
from hipray.data.phantom import (
    DecoyKind,
    StudyKind,
    clone_film,
    film_path,
    plan_archive,
    render_study,
    write_study,
)
from hipray.errors import DataError
from hipray.vocab import REGIONS, Side, parse_region

CONFIG = PhantomConfig(
    n_patients=24,
    n_second_hips=0,
    n_device_a=9,
    image_px=128,
    pelvis_films=1,
    implants=1,
    decoys=len(DecoyKind),
)
PLAN = plan_archive(CONFIG)
HIPS = [study for study in PLAN if study.kind is StudyKind.HIP]
PELVIS = next(study for study in PLAN if study.kind is StudyKind.PELVIS)


def read_dicom(data: bytes) -> pydicom.FileDataset:
    return pydicom.dcmread(io.BytesIO(data))


def read_film(config: PhantomConfig, study) -> bytes:  # type: ignore[no-untyped-def]
    return write_study(config, study)[film_path(config, study)]


@pytest.fixture(scope="module")
def datasets() -> list[pydicom.FileDataset]:
    return [read_dicom(read_film(CONFIG, study)) for study in HIPS]


def test_a_film_reads_back_from_dicom_as_its_png_within_one_level() -> None:
    as_png = CONFIG.model_copy(update={"film_format": FilmFormat.PNG})
    for study in HIPS:
        dataset = read_dicom(read_film(CONFIG, study))
        grey = dataset.pixel_array.astype(float) / (2**dataset.BitsStored - 1) * 255
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            grey = 255 - grey
        encoded = np.frombuffer(read_film(as_png, study), np.uint8)
        png = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
        assert png.dtype == np.uint8
        assert np.abs(png - grey).max() <= 1


def test_films_vary_in_bits_stored_and_in_polarity(datasets) -> None:
    assert {dataset.BitsStored for dataset in datasets} == {10, 12, 14}
    polarities = [dataset.PhotometricInterpretation for dataset in datasets]
    assert 0 < polarities.count("MONOCHROME1") < len(polarities) / 3


def test_the_header_states_patient_side_view_and_spacing(datasets) -> None:
    for study, dataset in zip(HIPS, datasets, strict=True):
        assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1.1"
        assert dataset.PatientID == study.patient_id
        assert dataset.PatientSex in ("F", "M")
        assert 50 <= int(dataset.PatientAge[:3]) <= 95
        assert dataset.ImageLaterality == study.sides[0].value[0].upper()
        assert (dataset.Modality, dataset.BodyPartExamined) == ("DX", "HIP")
        assert dataset.ViewPosition == "AP"
        assert dataset.PixelSpacing == pytest.approx([170 / 128] * 2, abs=1e-5)
        assert dataset.pixel_array.max() < 2**dataset.BitsStored


def test_identifiers_are_unique(datasets) -> None:
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        uids = [dataset[keyword].value for dataset in datasets]
        assert len(set(uids)) == len(uids)
        assert all(uid.is_valid for uid in uids)


def test_the_head_lies_toward_the_patients_midline() -> None:
    for study in HIPS[:6]:
        masks = render_study(CONFIG, study).masks
        neck, trochanter = (np.argwhere(mask)[:, 1].mean() for mask in masks[:2])
        assert (neck < trochanter) == (study.sides[0] is Side.LEFT)


def test_an_annotation_without_noise_gives_back_the_true_masks() -> None:
    exact = CONFIG.model_copy(update={"annotator_noise_mm": 0.0, "image_px": 256})
    study = plan_archive(exact)[0]
    truth = render_study(exact, study).masks
    for mask, drawn in zip(truth, draw_annotation(exact, study), strict=True):
        assert overlap(mask, drawn) > 0.95


def test_annotator_noise_costs_overlap_but_not_much() -> None:
    noisy = CONFIG.model_copy(update={"annotator_noise_mm": 1.5, "image_px": 256})
    study = plan_archive(noisy)[0]
    truth = render_study(noisy, study).masks
    scores = [overlap(m, d) for m, d in zip(truth, draw_annotation(noisy, study), strict=True)]
    assert 0.7 < min(scores) < 0.95
    assert scores[3] > 0.9


def test_an_annotation_names_its_film_and_holds_no_picture() -> None:
    files = write_study(CONFIG, HIPS[0])
    content = json.loads(files[f"films/{HIPS[0].name}.json"])
    assert f"films/{content['imagePath']}" in files
    assert content["imageData"] is None
    assert [parse_region(shape["label"]) for shape in content["shapes"]] == list(REGIONS)


def test_true_masks_are_written_on_request() -> None:
    config = CONFIG.model_copy(update={"write_truth": True})
    files = write_study(config, HIPS[0])
    masks = render_study(config, HIPS[0]).masks
    for region, mask in zip(REGIONS, masks, strict=True):
        name = f"truth/{HIPS[0].name}-{HIPS[0].sides[0]}-{region}.png"
        image = cv2.imdecode(np.frombuffer(files[name], np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(image, mask * np.uint8(255))


def test_a_pelvis_film_shows_both_hips_without_a_side() -> None:
    rendered = render_study(CONFIG, PELVIS)
    dataset = read_dicom(read_film(CONFIG, PELVIS))
    assert rendered.film.shape == (128, 256)
    assert (dataset.ImageLaterality, dataset.BodyPartExamined) == ("B", "PELVIS")
    columns = {hip.side: np.argwhere(hip.masks[3])[:, 1] for hip in rendered.hips}
    assert columns[Side.RIGHT].max() < 128 <= columns[Side.LEFT].min()


def test_a_pelvis_annotation_groups_the_shapes_by_the_patients_side() -> None:
    shapes = json.loads(write_study(CONFIG, PELVIS)[f"films/{PELVIS.name}.json"])["shapes"]
    for shape in shapes:
        side = Side.RIGHT if np.mean(shape["points"], axis=0)[0] < 128 else Side.LEFT
        assert shape["group_id"] == (0 if side is Side.LEFT else 1)
        assert shape["description"] == side
        assert shape["flags"] == {side.value: True}


def test_clones_differ_from_their_film_and_from_each_other_in_ids_and_pixels() -> None:
    data = read_film(CONFIG, HIPS[0])
    original = read_dicom(data)
    clones = [read_dicom(clone_film(data, index)) for index in range(20)]
    assert len({clone.PatientID for clone in clones} | {original.PatientID}) == 21
    assert len({clone.SOPInstanceUID for clone in clones} | {original.SOPInstanceUID}) == 21
    assert len({clone.pixel_array.tobytes() for clone in clones}) == 20
    for clone in clones:
        assert clone.file_meta.MediaStorageSOPInstanceUID == clone.SOPInstanceUID
        assert str(clone.PatientName).endswith(clone.PatientID)
        assert np.abs(clone.pixel_array.astype(int) - original.pixel_array).max() == 1


def test_the_same_clone_is_the_same_bytes() -> None:
    data = read_film(CONFIG, HIPS[0])
    assert clone_film(data, 7) == clone_film(data, 7)


def test_a_png_cannot_be_cloned() -> None:
    as_png = CONFIG.model_copy(update={"film_format": FilmFormat.PNG})
    with pytest.raises(DataError, match="DICOM"):
        clone_film(read_film(as_png, HIPS[0]), 0)


def test_an_implant_shines_brighter_than_any_bone_and_has_no_annotation() -> None:
    study = next(study for study in PLAN if study.kind is StudyKind.IMPLANT)
    files = write_study(CONFIG, study)
    assert list(files) == [film_path(CONFIG, study)]
    rendered = render_study(CONFIG, study)
    assert (rendered.film == 2**rendered.bits - 1)[rendered.masks[3]].mean() > 0.1


def draw_annotation(config: PhantomConfig, study) -> list[np.ndarray]:  # type: ignore[no-untyped-def]
    content = json.loads(write_study(config, study)[f"films/{study.name}.json"])
    drawn = []
    for shape in content["shapes"]:
        layer = np.zeros((content["imageHeight"], content["imageWidth"]), np.uint8)
        cv2.fillPoly(layer, [np.rint(shape["points"]).astype(np.int32)], 1)
        drawn.append(layer.astype(bool))
    return drawn


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))
