"""A manifest row unites pixels, header and DXA record."""

import pytest

from hipray.config.labels import LabelRules
from hipray.data.dxa import DxaRecord, RegionValues
from hipray.data.images import read_hips
from hipray.data.manifest import MANIFEST_SCHEMA
from hipray.data.matching import RecordIndex
from hipray.data.pseudonyms import Pseudonyms
from hipray.data.rows import AMBIGUOUS, NO_RECORD, UNSIDED, FilmFacts, build_row, take_labels
from hipray.vocab import DataSource, Region, Sex, Side
from tests.data.film_files import draw_hip, draw_pelvis, encode_dicom, encode_image

PSEUDONYMS = Pseudonyms(b"k" * 32)
T_SCORES = {Region.TOTAL_HIP: RegionValues(Region.TOTAL_HIP, bmd=0.61, t=-2.7, z=-0.4)}


def row_of(data, *records, key="films/a.dcm", side=None):
    index = RecordIndex(records)
    result = read_hips(data, name=key, side=side or index.side_of(key))
    facts = FilmFacts(key, "0" * 64, DataSource.REAL)
    return build_row(
        facts, result, 0,
        records=index, rules=LabelRules(), pseudonyms=PSEUDONYMS,
    )  # fmt: skip


def test_a_row_has_only_columns_of_the_manifest() -> None:
    row = row_of(encode_dicom(), DxaRecord(image="a.dcm", values=T_SCORES))
    assert set(row) <= set(MANIFEST_SCHEMA.names)


def test_reported_figures_become_columns_and_labels() -> None:
    row = row_of(encode_dicom(), DxaRecord(image="a.dcm", values=T_SCORES))
    assert (row["bmd_total_hip"], row["t_total_hip"], row["z_total_hip"]) == (0.61, -2.7, -0.4)
    assert row["label_t_score_total_hip"] is True
    assert row["label_bmd_total_hip"] is False
    assert row["basis_t_score_total_hip"] == "computed"
    assert row["label_t_score_femoral_neck"] is None
    assert row["missing_t_score_femoral_neck"]
    assert "basis_t_score_femoral_neck" not in row


def test_a_hip_without_a_record_says_so_for_every_label() -> None:
    row = row_of(encode_dicom())
    reasons = {value for name, value in row.items() if name.startswith("missing_")}
    assert reasons == {NO_RECORD}
    assert not any(name.startswith("label_") for name in row)


def test_the_record_speaks_before_the_header_and_the_header_before_nothing() -> None:
    record = DxaRecord(image="a.dcm", sex=Sex.MALE, weight_kg=70.0, device="Prodigy")
    row = row_of(encode_dicom(), record)
    assert (row["sex"], row["age"], row["weight_kg"]) == ("male", 73.0, 70.0)
    assert row["device"] == "Prodigy"


def test_films_of_one_patient_share_a_pseudonym_by_header_or_record() -> None:
    by_header = row_of(encode_dicom())
    by_record = row_of(
        encode_dicom(PatientID=""), DxaRecord(image="a.dcm", patient_id="SECRET-4711")
    )
    assert by_header["patient_id"] == by_record["patient_id"] == PSEUDONYMS.patient("secret-4711")


def test_films_that_name_no_patient_stand_for_themselves() -> None:
    png = encode_image(draw_hip())
    patients = {row_of(png, key=key)["patient_id"] for key in ("a.png", "A.png", "b.png")}
    assert len(patients) == 3


@pytest.mark.parametrize("side", [Side.LEFT, Side.RIGHT])
def test_a_side_that_only_the_record_states_is_taken_over(side) -> None:
    row = row_of(encode_image(draw_hip()), DxaRecord(image="a.png", side=side), key="a.png")
    assert row["side"] == side


def test_records_that_leave_a_choice_give_no_label_and_say_why() -> None:
    exams = [DxaRecord(image="a.dcm", side=Side.LEFT, device=name) for name in "AB"]
    row = row_of(encode_dicom(), *exams, side=Side.LEFT)
    assert {v for name, v in row.items() if name.startswith("missing_")} == {AMBIGUOUS}


def test_a_score_that_does_not_say_of_which_hip_labels_neither_of_two() -> None:
    pelvis = encode_dicom(draw_pelvis().astype("uint16") * 12, ImageLaterality="B", PatientAge=None)
    row = row_of(pelvis, DxaRecord(image="a.dcm", age=71.0, values=T_SCORES))
    assert {v for name, v in row.items() if name.startswith("missing_")} == {UNSIDED}
    assert row["age"] == 71.0


def test_a_row_without_labels_takes_those_of_a_copy_and_loses_nothing() -> None:
    plain = row_of(encode_dicom())
    take_labels(plain, row_of(encode_image(draw_hip()), key="b.png"))
    assert (plain["sex"], plain["missing_t_score_total_hip"]) == ("female", NO_RECORD)
    copy = row_of(encode_image(draw_hip()), DxaRecord(image="b.png", values=T_SCORES), key="b.png")
    take_labels(plain, copy)
    assert (plain["label_t_score_total_hip"], plain["t_total_hip"]) == (True, -2.7)
    assert (plain["sex"], plain["missing_t_score_total_hip"]) == ("female", None)


def test_the_same_file_under_another_name_is_another_hip() -> None:
    data = encode_dicom()
    first, second = row_of(data, key="a.dcm"), row_of(data, key="b.dcm")
    assert first["hip_id"] != second["hip_id"]
    assert first["pixel_sha256"] == second["pixel_sha256"]
