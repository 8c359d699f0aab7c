"""Reports and tables in the styles of makers and hospitals, and what is told of bad rows."""

import csv
import io
import json
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hipray.data.dxa import DxaSystem, read_dxa
from hipray.errors import DataError
from hipray.vocab import REGIONS, Sex, Side
from tests.data.dxa.tables import FN, LONG_HEADER, TH, WT, only, read, read_total_hip


def test_a_long_table_gives_one_record_per_hip() -> None:
    table = read(
        LONG_HEADER + "\n"
        "a.dcm,P1,left,F,73.2,58,155,Lunar iDXA,femoral_neck,0.691,-2.5,-0.4\n"
        "a.dcm,P1,left,F,73.2,58,155,Lunar iDXA,total_hip,0.756,-2.0,0.1\n"
        "b.dcm,P1,right,F,73.2,58,155,Lunar iDXA,total_hip,,,\n"
    )
    assert table.problems == ()
    first, second = table.records
    assert (first.image, first.patient_id, first.side) == ("a.dcm", "P1", Side.LEFT)
    assert (first.sex, first.age, first.weight_kg, first.height_cm) == (Sex.FEMALE, 73.2, 58, 155)
    assert (first.device, first.system) == ("Lunar iDXA", DxaSystem.GE_LUNAR)
    assert first.values[FN].t == -2.5
    assert first.values[TH].bmd == 0.756
    assert set(first.values) == {FN, TH}
    assert second.side is Side.RIGHT and not second.values


def test_a_semicolon_file_with_decimal_commas_and_typographic_minus_is_read() -> None:
    record = only(
        read("ID;性別;年齡;Neck BMD;Neck T;Total T\n17;女;76,7;0,558;−2,5;*****\n".encode("utf-16"))
    )
    assert (record.image, record.patient_id) == ("17", None)
    assert (record.sex, record.age) == (Sex.FEMALE, 76.7)
    assert (record.values[FN].bmd, record.values[FN].t) == (0.558, -2.5)
    assert TH not in record.values


def test_quoted_decimal_commas_are_read_and_unquoted_ones_are_refused() -> None:
    table = read('image,neck_bmd,neck_t\na,"1,008","-2,5"\nb,0,558,-2,5\n')
    assert table.records[0].values[FN].bmd == 1.008
    assert [record.image for record in table.records] == ["a"]
    assert "row 3: expected 3 cells, found 5" in table.problems[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "big5"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_any_usual_encoding_and_delimiter_is_recognised(encoding, delimiter) -> None:
    text = "病歷號,性別,股骨頸 T值\n0012,男,-2.5\n".replace(",", delimiter)
    record = only(read(text.encode(encoding)))
    assert (record.patient_id, record.image, record.sex) == ("0012", None, Sex.MALE)
    assert record.values[FN].t == -2.5


def test_a_western_code_page_is_recognised_by_its_signs() -> None:
    record = only(read("image;Patient ID;Neck T;Größe\na;Müßig;-1,5;1,60\n".encode("cp1252")))
    assert record.patient_id == "Müßig"
    record = only(read("image;Neck BMD (g/cm²);Neck T\na;0,7;-1,5\n".encode("latin-1")))
    assert (record.values[FN].bmd, record.values[FN].t) == (0.7, -1.5)


def test_a_ge_lunar_report_with_row_groups_gives_both_hips() -> None:
    table = read(
        "Patient ID:,12345\nSex:,Female\nAge,76.7 years\n\n"
        "Region,BMD (g/cm²),YA %,YA T-score,AM %,AM Z-score,BMC (g),Area (cm²)\n"
        "Neck,,,,,,,\n"
        "Left,0.691,67,−2.5,90,-0.6,3.30,4.77\n"
        "Right,0.704,68,-2.4,91,-0.5,3.32,4.72\n"
        "Mean,0.697,67,-2.5,90,-0.6,3.31,4.75\n"
        "Diff.,0.013,1,0.1,1,0.1,0.02,0.05\n"
        "Shaft,,,,,,,\n"
        "Left,1.01,-,-,-,-,14.1,14.0\n"
        "Total,,,,,,,\n"
        "Left,0.756,75,-2.0,90,-0.6,24.0,31.7\n"
    )
    assert table.problems == ()
    left, right = table.records
    assert (left.side, right.side) == (Side.LEFT, Side.RIGHT)
    assert left.patient_id == right.patient_id == "12345"
    assert (left.system, left.sex, left.age) == (DxaSystem.GE_LUNAR, Sex.FEMALE, 76.7)
    assert set(left.values) == {FN, TH} and set(right.values) == {FN}
    neck = left.values[FN]
    assert (neck.bmd, neck.t, neck.z, neck.am_percent) == (0.691, -2.5, -0.6, 90)
    assert (neck.bmc_g, neck.area_cm2) == (3.30, 4.77)


def test_ge_rows_that_name_region_and_side_in_one_cell_are_read() -> None:
    table = read(
        "Region | BMD (g/cm²) | YA % | YA T-score | AM % | AM Z-score | BMC (g) | Area (cm²)\n"
        "Neck Left | 0.691 | 67 | -2.5 | 90 | -0.6 | 3.30 | 4.77\n"
        "Wards Left | 0.585 | 64 | -2.5 | 90 | -0.6 | 1.29 | 2.2\n"
        "Neck Mean | 0.9 | 67 | -1.0 | 90 | -0.6 | 3.30 | 4.77\n"
        "Total Right | 0.756 | 75 | -2.0 | 90 | -0.6 | 24.0 | 31.7\n"
    )
    left, right = table.records
    assert (set(left.values), set(right.values)) == ({FN, WT}, {TH})
    assert left.values[FN].t == -2.5
    assert table.problems == ()


def test_a_hologic_report_with_sides_in_a_column_is_read() -> None:
    table = read(
        "Hologic Horizon W\n"
        "Region,Side,Area,BMC,BMD,T,Z\n"
        "Neck,Left,4.80,2.68,0.558,-2.5,-0.3\n"
        ",Right,4.80,2.74,0.570,-2.4,-0.2\n"
        "Ward's,Left,1.10,0.40,0.364,-3.0,-1.0\n"
        "Inter,Left,20.1,16.0,0.796,,\n"
        "Total,Left,32.0,22.4,0.700,-2.0,0.0\n"
        "Total,Mean,32.0,22.4,0.100,-9.0,0.0\n"
    )
    left, right = table.records
    assert table.problems == ()
    assert left.system is DxaSystem.HOLOGIC
    assert set(left.values) == {FN, WT, TH}
    assert (right.side, right.values[FN].t) == (Side.RIGHT, -2.4)


def test_halves_of_letters_in_json_end_as_text() -> None:
    rows = [{"image": "\ud800", "total_hip_t_score": -1, "\udfff": 2}]
    table = read_dxa(json.dumps(rows).encode(), name="t.json")
    assert table.records[0].image == "\\ud800"
    "".join(table.problems).encode()


def test_json_is_read_flat_nested_and_with_a_list_of_regions() -> None:
    flat = [{"image": "a", "side": "L", "neck_t": -2.5}]
    nested = {"records": [{"image": "a", "side": "L", "values": {"neck": {"t_score": -2.5}}}]}
    listed = [{"image": "a", "side": "L", "rois": [{"region": "Neck", "t_score": -2.5}]}]
    for content in (flat, nested, listed):
        record = only(read(json.dumps(content)))
        assert (record.image, record.side, record.values[FN].t) == ("a", Side.LEFT, -2.5)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("a,L,F,70,neck,-25", "row 2, column 't': expected femoral_neck t_score of -8.00 to 8.00"),
        ("a,L,F,70,neck,abc", "row 2, column 't': expected a number, found 3 characters of text"),
        ("a,L,1,70,neck,-1", "row 2, column 'sex': expected F or M"),
        ("a,L,F,700,neck,-1", "row 2, column 'age': expected an age of 0 to 120 years"),
        ("a,both,F,70,neck,-1", "row 2, column 'side': expected left or right"),
        (
            "a,L,F,70,knee,-1",
            "row 2, column 'region': expected a hip region, found 4 characters of text",
        ),
        ("a,L,F,70,L1-L4,-1", "row 2: a lumbar spine region"),
    ],
)
def test_a_bad_cell_is_told_by_row_and_column_and_left_out(row, problem) -> None:
    table = read(f"image,side,sex,age,region,t\n{row}\nb,R,M,71,total,-2.5\n")
    assert len(table.problems) == 1
    assert table.problems[0].startswith(problem)
    good = next(record for record in table.records if record.image == "b")
    assert (good.side, good.sex, good.age, good.values[TH].t) == (Side.RIGHT, Sex.MALE, 71, -2.5)


def test_a_repeated_row_counts_once() -> None:
    table = read("image,region,t\na,neck,-2.5\na,neck,-2.5\n")
    assert only(table).values[FN].t == -2.5
    assert "row 3: repeats femoral_neck" in table.problems[0]


@pytest.mark.parametrize("rows", ["-2.5,0.6 -1.0,0.6", "-1.0,0.6 -2.5,0.6 -1.0,0.6"])
def test_no_order_of_rows_chooses_between_figures_that_contradict_each_other(rows) -> None:
    lines = "\n".join(f"a,neck,{row}" for row in rows.split())
    table = read(f"image,region,t,bmd\n{lines}\na,total,-2.5,0.6\n")
    values = only(table).values
    assert values[FN].contradicted and (values[FN].t, values[FN].bmd) == (None, None)
    assert values[TH].t == -2.5
    assert "row 3: t_score of femoral_neck differ" in table.problems[0]
    assert "neither is used" in table.problems[0]


def test_contradicting_facts_of_one_hip_are_told_without_showing_them() -> None:
    table = read("image,age,region,t\na,70,neck,-2.5\na,71,total,-2.5\n")
    assert only(table).age is None
    assert table.problems == (
        "row 3: age differ from an earlier row of the same hip; neither is used",
    )


def test_a_patient_id_is_never_quoted_in_a_problem() -> None:
    table = read('patient_id,neck_t\n"SMITH\nJOHN",-1\n')
    assert "expected one line" in table.problems[0]
    assert "SMITH" not in " ".join(table.problems)


def test_repeated_headers_and_blank_lines_of_joined_exports_are_passed_over() -> None:
    header = "image,region,t\n"
    table = read(header + "a,neck,-1\n\n,,\n" + header + "b,neck,-2\n")
    assert [record.image for record in table.records] == ["a", "b"]
    assert table.problems == ()


def test_ten_thousand_bad_cells_make_ten_lines_and_a_count() -> None:
    table = read("image,neck_t\n" + "a,bad\n" * 10_000)
    assert len(table.problems) == 11
    assert table.problems[-1].startswith("and 9990 more")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"name,colour\nx,blue\n", "'name', 'colour' in scores.csv"),
        (b"", "no columns"),
        (b"PK\x03\x04rest", "Excel"),
        (b"%PDF-1.7", "PDF"),
        (b"\x00\x01\x02\x03" * 50, "scores.csv"),
        (b'{"records": 3}', "JSON"),
        (b"[" * 100_000, "JSON"),
        (b'[{"image": "a"}]', "'image' in scores.csv"),
        (b'image,neck_t\n"a,-1\n', "scores.csv"),
    ],
)
def test_a_file_without_a_usable_table_is_refused_naming_what_was_found(data, words) -> None:
    with pytest.raises(DataError) as refusal:
        read_dxa(data, name="scores.csv")
    assert words in str(refusal.value)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_arbitrary_bytes_give_a_table_or_a_data_error(data) -> None:
    for content in (data, b"image,side,age,exam date,region,bmd,t,label\n" + data):
        try:
            read_dxa(content, name="x")
        except DataError:
            continue


def seconds_of(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def test_ten_thousand_rows_take_less_than_forty_times_what_parsing_their_text_takes() -> None:
    rows = [
        f"hip{n // 4:05d}.dcm,P{n // 4:05d},left,F,{50 + n % 400 / 10},58,155,A,{REGIONS[n % 4]},"
        f"{0.45 + n % 500 / 1000:.3f},{-4 + n % 50 / 10:.1f},{-2 + n % 40 / 10:.1f}"
        for n in range(10_000)
    ]
    text = "\n".join([LONG_HEADER, *rows])
    ratios = [
        seconds_of(lambda: read_dxa(text.encode(), name="x"))
        / seconds_of(lambda: list(csv.DictReader(io.StringIO(text))))
        for _ in range(3)
    ]
    assert len(read_dxa(text.encode(), name="x").records) == 2500
    assert min(ratios) < 40


def test_half_of_a_decimal_before_an_empty_cell_is_refused_and_trailing_commas_are_not() -> None:
    table = read_total_hip("Image,T-Score,Age\na.png,-2,5,\nb.png,-1.5,70\n")
    assert [record.image for record in table.records] == ["b.png"]
    assert any("row 2: expected 3 cells, found 4" in problem for problem in table.problems)
    rows = "a.png,-2.5,61,\nb.png,-1.5,70,\n , \nPrinted by the hospital\n"
    table = read_total_hip(f"Image,T-Score,Age\n{rows}Image,T-Score,Age\n")
    assert [record.age for record in table.records if record.age] == [61, 70]


def test_a_table_of_a_header_alone_says_that_it_is_empty() -> None:
    assert read_total_hip("Image,T-Score\n").problems == (
        "no row of scores.csv holds a result: every label is missing",
    )
