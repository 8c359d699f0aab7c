import json
import time
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hipray.data.dxa import DxaSystem, check_t_scores, read_dxa
from hipray.data.dxa.numbers import (
    detect_decimal_comma,
    is_missing,
    parse_number,
    parse_quantity,
)
from hipray.data.dxa.people import parse_age, parse_date, parse_height, parse_sex, parse_weight
from hipray.errors import DataError
from hipray.vocab import REGIONS, LabelType, Region, Sex, Side

FN, GT, WT, TH = REGIONS

LONG_HEADER = (
    "file,patient_id,side,sex,age,weight_kg,height_cm,device,region,bmd_g_cm2,t_score,z_score"
)


def read(text, **kwargs):
    data = text if isinstance(text, bytes) else text.encode("utf-8")
    return read_dxa(data, name="scores.csv", **kwargs)


def only(table):
    assert len(table.records) == 1, table
    return table.records[0]


# --- numbers -------------------------------------------------------------------------------


@given(st.integers(-9_999_999, 9_999_999), st.integers(0, 4))
def test_a_number_reads_the_same_with_point_comma_and_typographic_minus(digits, decimals):
    value = digits / 10**decimals
    text = f"{value:.{decimals}f}"
    comma = text.replace(".", ",")
    assert parse_number(text, decimal_comma=False) == float(text)
    assert parse_number(comma, decimal_comma=True) == float(text)
    assert parse_number(comma.replace("-", "−"), decimal_comma=True) == float(text)


@given(st.integers(1000, 999_999_999), st.integers(0, 99))
def test_grouped_thousands_with_decimals_need_no_hint(whole, cents):
    text = f"{whole:,}.{cents:02d}"
    swapped = text.replace(",", "_").replace(".", ",").replace("_", ".")
    assert parse_number(text) == parse_number(swapped) == whole + cents / 100


@given(st.text(max_size=30))
def test_any_text_is_a_number_a_missing_mark_or_refused(text):
    try:
        value = parse_number(text)
    except ValueError:
        return
    assert (value is None) == is_missing(text)


@pytest.mark.parametrize("text", ["", " ", "-", "−", "--", "*****", "N/A", "n.a.", "nan", "None"])
def test_a_missing_mark_is_no_number(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(
    "text", ["1,008", "-2.5.1", "1,2,3", "abc", "12abc", "inf", "1e999", "1_000", "2 5", "<-2.5"]
)
def test_what_is_not_clearly_a_number_is_refused(text):
    with pytest.raises(ValueError, match="number"):
        parse_number(text)


def test_a_comma_before_three_digits_is_settled_by_the_rest_of_the_file():
    assert detect_decimal_comma(["1,008", "0,745"]) is True
    assert detect_decimal_comma(["1,008", "-2.5"]) is False
    assert detect_decimal_comma(["1,008", "745"]) is None
    assert parse_number("1,008", decimal_comma=True) == 1.008
    assert parse_number("1,008", decimal_comma=False) == 1008.0


def test_a_very_long_cell_is_refused_at_once():
    start = time.perf_counter()
    with pytest.raises(ValueError, match="number"):
        parse_number("1" * 100_000 + "x")
    assert time.perf_counter() - start < 0.5


def test_a_unit_is_read_with_its_number():
    assert parse_quantity("745 mg/cm²") == (745.0, "mg/cm2")
    assert parse_quantity("0.745g/cm^2") == (0.745, "g/cm2")


# --- people --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("76.7 years", 76.7),
        ("76,7", 76.7),
        ("19 years 4 months", 19 + 4 / 12),
        ("072Y", 72.0),
        ("018M", 1.5),
        ("76歲", 76.0),
        ("-", None),
    ],
)
def test_an_age_is_read_in_each_notation(text, years):
    assert parse_age(text, None, None) == (years if years is None else pytest.approx(years))


@pytest.mark.parametrize("text", ["767", "-3", "old"])
def test_an_impossible_age_is_refused(text):
    with pytest.raises(ValueError, match=r"age|number"):
        parse_age(text, None, None)


def test_weight_and_height_come_in_either_system():
    assert parse_weight("128 lbs", None, None) == pytest.approx(58.06, abs=0.01)
    assert parse_height("63 in", None, None) == pytest.approx(160.02)
    assert parse_height("1.60 m", None, None) == pytest.approx(160.0)
    assert parse_height("5'3\"", None, None) == pytest.approx(160.02)
    with pytest.raises(ValueError, match="unit"):
        parse_height("63", None, None)


def test_sex_in_digits_is_refused_because_its_meaning_differs():
    assert parse_sex("女") is Sex.FEMALE
    with pytest.raises(ValueError, match="digits"):
        parse_sex("1")


def test_a_date_whose_day_and_month_could_change_places_is_refused_without_a_hint():
    assert parse_date("2020-09-15", None) == date(2020, 9, 15)
    assert parse_date("9/15/2020", None) == date(2020, 9, 15)
    assert parse_date("03/04/2020", True) == date(2020, 4, 3)
    assert parse_date("03/04/2020", False) == date(2020, 3, 4)
    assert parse_date("109/09/15", None) == date(2020, 9, 15)
    with pytest.raises(ValueError, match="clear"):
        parse_date("03/04/2020", None)


# --- styles of files -----------------------------------------------------------------------


def test_a_long_table_gives_one_record_per_hip():
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


@pytest.mark.parametrize(
    ("header", "quantity", "region"),
    [
        ("femoral_neck_bmd", "bmd", FN),
        ("FemoralNeckBMD", "bmd", FN),
        ("Fem Neck BMD (g/cm²)", "bmd", FN),
        ("neck_t_score", "t", FN),
        ("T-score (neck)", "t", FN),
        ("FN Tscore", "t", FN),
        ("股骨頸 T值", "t", FN),
        ("股骨頸骨密度", "bmd", FN),
        ("TH T", "t", TH),
        ("total_hip_z", "z", TH),
        ("Total YA T-score", "t", TH),
        ("Hip t score", "t", TH),
        ("GT_AM %", "am_percent", GT),
        ("大轉子 BMD", "bmd", GT),
        ("Ward's T", "t", WT),
        ("WARDS-TRIANGLE Z SCORE", "z", WT),
        ("troch bmd g/cm2", "bmd", GT),
    ],
)
def test_a_wide_column_is_known_by_region_and_quantity(header, quantity, region):
    value = {"bmd": "0.6", "am_percent": "85"}.get(quantity, "-2.5")
    record = only(read(f'image,"{header}"\nx.png,{value}\n'))
    assert set(record.values) == {region}
    assert getattr(record.values[region], quantity) == float(value)


def test_a_semicolon_file_with_decimal_commas_and_typographic_minus_is_read():
    record = only(
        read("ID;性別;年齡;Neck BMD;Neck T;Total T\n17;女;76,7;0,558;−2,5;*****\n".encode("utf-16"))
    )
    assert (record.image, record.patient_id) == ("17", None)
    assert (record.sex, record.age) == (Sex.FEMALE, 76.7)
    assert (record.values[FN].bmd, record.values[FN].t) == (0.558, -2.5)
    assert TH not in record.values


def test_quoted_decimal_commas_are_read_and_unquoted_ones_are_refused():
    table = read('image,neck_bmd,neck_t\na,"1,008","-2,5"\nb,0,558,-2,5\n')
    assert table.records[0].values[FN].bmd == 1.008
    assert [record.image for record in table.records] == ["a"]
    assert "row 3: expected 3 cells, found 5" in table.problems[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "big5"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_any_usual_encoding_and_delimiter_is_recognised(encoding, delimiter):
    text = "病歷號,性別,股骨頸 T值\n0012,男,-2.5\n".replace(",", delimiter)
    record = only(read(text.encode(encoding)))
    assert (record.patient_id, record.image, record.sex) == ("0012", None, Sex.MALE)
    assert record.values[FN].t == -2.5


def test_a_western_code_page_is_recognised_by_its_signs():
    record = only(read("image;Patient ID;Neck T;Größe\na;Müßig;-1,5;1,60\n".encode("cp1252")))
    assert record.patient_id == "Müßig"
    record = only(read("image;Neck BMD (g/cm²);Neck T\na;0,7;-1,5\n".encode("latin-1")))
    assert (record.values[FN].bmd, record.values[FN].t) == (0.7, -1.5)


def test_a_ge_lunar_report_with_row_groups_gives_both_hips():
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


def test_ge_rows_that_name_region_and_side_in_one_cell_are_read():
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


def test_a_hologic_report_with_sides_in_a_column_is_read():
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


def test_sides_may_stand_in_the_column_names():
    table = read("patient,Left total hip T,Right total hip T\nP1,-2.5,-1.0\n")
    assert [(r.side, r.values[TH].t) for r in table.records] == [
        (Side.LEFT, -2.5),
        (Side.RIGHT, -1.0),
    ]


def test_norland_total_in_mg_is_brought_to_the_makers_scale_in_g():
    record = only(read("mrn,side,device,Neck BMD,Total sBMD\n7,L,Norland XR-800,0.7,745\n"))
    assert record.values[FN].bmd == 0.7
    assert record.values[TH].bmd == pytest.approx((0.745 - 0.026) / 1.012)


def test_standardised_bmd_of_an_unknown_maker_is_not_used():
    table = read("image,device,neck_t,total_sbmd\na,X,-1.0,0.7\n")
    assert TH not in only(table).values
    assert "standardised BMD" in table.problems[0]


def test_mg_is_converted_where_the_column_says_so_and_nowhere_else():
    assert only(read("image,th_bmd_mg_cm2\na,745\n")).values[TH].bmd == 0.745
    table = read("image,th_bmd\na,745\n")
    assert not only(table).values
    assert "total_hip bmd of 0.33 to 1.72, found '745'" in table.problems[0]


def test_json_is_read_flat_nested_and_with_a_list_of_regions():
    flat = [{"image": "a", "side": "L", "neck_t": -2.5}]
    nested = {"records": [{"image": "a", "side": "L", "values": {"neck": {"t_score": -2.5}}}]}
    listed = [{"image": "a", "side": "L", "rois": [{"region": "Neck", "t_score": -2.5}]}]
    for content in (flat, nested, listed):
        record = only(read(json.dumps(content)))
        assert (record.image, record.side, record.values[FN].t) == ("a", Side.LEFT, -2.5)


def test_a_table_of_one_region_needs_to_be_told_which():
    text = "filename,t_score\nx.png,-2.5\n"
    assert only(read(text, region=TH)).values[TH].t == -2.5
    with pytest.raises(DataError, match="region"):
        read(text)


# --- labels --------------------------------------------------------------------------------


def test_given_labels_are_read_in_words_and_digits():
    table = read(
        "image,osteoporosis,bmd_label\na,1,normal\nb,osteopenia,abnormal\nc,正常,0\nd,,\n",
        region=TH,
    )
    given_labels = [dict(r.values[TH].given) if TH in r.values else {} for r in table.records]
    t, bmd = LabelType.T_SCORE, LabelType.BMD
    assert given_labels == [
        {t: True, bmd: False},
        {t: False, bmd: True},
        {t: False, bmd: False},
        {},
    ]
    assert table.problems == ()


def test_three_class_codes_are_refused_because_1_may_mean_osteopenia():
    table = read("image,label,neck_t\na,1,-2.0\nb,2,-3.0\n", region=FN)
    assert all(not record.values[FN].given for record in table.records)
    assert "found also 2" in table.problems[0]


def test_osteopenia_decides_nothing_for_the_bmd_label():
    table = read("image,bmd_label\na,osteopenia\n", region=TH)
    assert not only(table).values
    assert "normal or abnormal for age" in table.problems[0]


# --- bad rows ------------------------------------------------------------------------------


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
def test_a_bad_cell_is_told_by_row_and_column_and_left_out(row, problem):
    table = read(f"image,side,sex,age,region,t\n{row}\nb,R,M,71,total,-2.5\n")
    assert len(table.problems) == 1
    assert table.problems[0].startswith(problem)
    good = next(record for record in table.records if record.image == "b")
    assert (good.side, good.sex, good.age, good.values[TH].t) == (Side.RIGHT, Sex.MALE, 71, -2.5)


def test_the_total_of_a_spine_scan_is_not_the_total_hip():
    table = read("image,region,t\na,L1,1\na,L1-L4,1\na,Total,1\nb,Total,-1\n")
    assert [(r.image, r.values[TH].t) for r in table.records] == [("b", -1.0)]


def test_a_repeated_row_counts_once_and_a_contradiction_keeps_the_first():
    table = read("image,region,t\na,neck,-2.5\na,neck,-2.5\na,neck,-1.0\n")
    assert only(table).values[FN].t == -2.5
    assert "row 3: repeats femoral_neck" in table.problems[0]
    assert "row 4: t_score of femoral_neck differ" in table.problems[1]


def test_contradicting_facts_of_one_hip_are_told_without_showing_them():
    table = read("image,age,region,t\na,70,neck,-2.5\na,71,total,-2.5\n")
    assert only(table).age == 70
    assert table.problems == (
        "row 3: age differ from an earlier row of the same hip; the earlier stand",
    )


def test_a_patient_id_is_never_quoted_in_a_problem():
    table = read('patient_id,neck_t\n"SMITH\nJOHN",-1\n')
    assert "expected one line" in table.problems[0]
    assert "SMITH" not in " ".join(table.problems)


def test_repeated_headers_and_blank_lines_of_joined_exports_are_passed_over():
    header = "image,region,t\n"
    table = read(header + "a,neck,-1\n\n,,\n" + header + "b,neck,-2\n")
    assert [record.image for record in table.records] == ["a", "b"]
    assert table.problems == ()


def test_ten_thousand_bad_cells_make_ten_lines_and_a_count():
    table = read("image,neck_t\n" + "a,bad\n" * 10_000)
    assert len(table.problems) == 11
    assert table.problems[-1].startswith("and 9990 more")


def test_columns_that_are_not_used_are_named():
    table = read("image,neck_t,favourite colour\na,-1,blue\n")
    assert table.problems == ("columns not used: 'favourite colour'",)


def test_t_scores_that_do_not_follow_from_bmd_are_counted_and_kept():
    head = "image,sex,device,region,bmd,t\n"
    good, bad = "a,F,Hologic,neck,0.558,-2.5\n", "b,F,Hologic,neck,0.558,-1.5\n"
    assert read(head + good).problems == ()
    table = read(head + good + bad)
    assert table.records[1].values[FN].t == -1.5
    assert table.problems[0].startswith("1 of 2 T-scores do not follow")
    check = check_t_scores(table.records)
    assert (check.checked, check.disagreeing, check.unchecked) == (2, 1, 0)


def test_a_bmd_that_is_not_content_over_area_is_counted():
    table = read("image,region,t,bmd,bmc,area\na,neck,-2.5,0.558,3.9,4.8\n")
    assert "1 regions where BMD is not BMC / area" in table.problems[-1]


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
def test_a_file_without_a_usable_table_is_refused_naming_what_was_found(data, words):
    with pytest.raises(DataError) as refusal:
        read_dxa(data, name="scores.csv")
    assert words in str(refusal.value)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_arbitrary_bytes_give_a_table_or_a_data_error(data):
    for content in (data, b"image,side,age,exam date,region,bmd,t,label\n" + data):
        try:
            read_dxa(content, name="x")
        except DataError:
            continue


# --- speed ---------------------------------------------------------------------------------


def test_ten_thousand_rows_are_read_at_more_than_twenty_thousand_a_second():
    rows = [
        f"hip{n // 4:05d}.dcm,P{n // 4:05d},left,F,{50 + n % 400 / 10},58,155,A,{REGIONS[n % 4]},"
        f"{0.45 + n % 500 / 1000:.3f},{-4 + n % 50 / 10:.1f},{-2 + n % 40 / 10:.1f}"
        for n in range(10_000)
    ]
    data = "\n".join([LONG_HEADER, *rows]).encode()
    rates = []
    for _ in range(3):
        start = time.process_time()
        table = read_dxa(data, name="x")
        rates.append(10_000 / (time.process_time() - start))
    assert len(table.records) == 2500
    assert max(rates) > 20_000


@pytest.mark.parametrize("other", ["Accession Number", "Study"])
def test_a_column_of_file_names_outranks_one_of_examinations(other):
    table = read_text(f"{other},Filename,T-Score\n900,a.png,-2.5\n900,b.png,-1\n")
    assert [record.image for record in table.records] == ["a.png", "b.png"]
    assert f"column '{other}' means the same as 'Filename'; not used" in table.problems


def test_a_site_that_is_a_hospital_is_no_region():
    table = read_text("Filename,Site,T-Score\na.png,Hospital A,-2.5\nb.png,Hospital B,-1\n")
    assert [r.values[Region.TOTAL_HIP].t for r in table.records] == [-2.5, -1.0]
    assert "column 'Site' names no region of the hip in any row; not used" in table.problems


def test_a_hospital_before_the_region_leaves_the_region_to_its_own_column():
    table = read_text("Filename,Site,ROI,T-Score\na.png,Hospital A,Neck,-2.5\n")
    assert list(table.records[0].values) == [Region.FEMORAL_NECK]


def test_a_region_column_that_names_only_sides_still_tells_them_apart():
    rows = "P1,Left Femur,-1\nP1,Right Femur,-3\n"
    table = read_text(f"patient_id,region,total_hip_t_score\n{rows}")
    found = {record.side: record.values[Region.TOTAL_HIP].t for record in table.records}
    assert found == {Side.LEFT: -1.0, Side.RIGHT: -3.0}


def test_a_site_of_hospitals_without_any_region_is_told_so():
    with pytest.raises(DataError, match="a region column, or regions in the column names"):
        read_dxa(b"image,site,t_score\na.png,Hospital A,-2\n", name="x.csv")


def test_half_of_a_decimal_before_an_empty_cell_is_refused_and_trailing_commas_are_not():
    table = read_text("Image,T-Score,Age\na.png,-2,5,\nb.png,-1.5,70\n")
    assert [record.image for record in table.records] == ["b.png"]
    assert any("row 2: expected 3 cells, found 4" in problem for problem in table.problems)
    rows = "a.png,-2.5,61,\nb.png,-1.5,70,\n , \nPrinted by the hospital\n"
    table = read_text(f"Image,T-Score,Age\n{rows}Image,T-Score,Age\n")
    assert [record.age for record in table.records if record.age] == [61, 70]


@pytest.mark.parametrize("name", ["HÜFTE_001.png", "MÜLLER_L.png", "hüfte.png"])
def test_western_names_in_either_case_are_not_taken_for_chinese(name):
    table = read_dxa(f"Image;T-Score\n{name};-2,5\n".encode("latin-1"), name="x.csv",
                     region=Region.TOTAL_HIP)  # fmt: skip
    assert table.records[0].image == name


def test_a_table_of_a_header_alone_says_that_it_is_empty():
    assert read_text("Image,T-Score\n").problems == (
        "no row of x.csv holds a result: every label is missing",
    )


def read_text(text):
    return read_dxa(text.encode(), name="x.csv", region=Region.TOTAL_HIP)
