"""What a column is about, whatever it is called."""

import pytest

from hipray.data.dxa import read_dxa
from hipray.data.dxa.columns import Field, parse_header
from hipray.vocab import Region, Side
from tests.data.dxa.tables import FN, GT, TH, WT, only, read, read_total_hip


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
def test_a_wide_column_is_known_by_region_and_quantity(header, quantity, region) -> None:
    value = {"bmd": "0.6", "am_percent": "85"}.get(quantity, "-2.5")
    record = only(read(f'image,"{header}"\nx.png,{value}\n'))
    assert set(record.values) == {region}
    assert getattr(record.values[region], quantity) == float(value)


def test_sides_may_stand_in_the_column_names() -> None:
    table = read("patient,Left total hip T,Right total hip T\nP1,-2.5,-1.0\n")
    assert [(r.side, r.values[TH].t) for r in table.records] == [
        (Side.LEFT, -2.5),
        (Side.RIGHT, -1.0),
    ]


def test_columns_that_are_not_used_are_named() -> None:
    table = read("image,neck_t,favourite colour\na,-1,blue\n")
    assert table.problems == ("columns not used: 'favourite colour'",)


@pytest.mark.parametrize("other", ["Accession Number", "Study"])
def test_a_column_of_file_names_outranks_one_of_examinations(other) -> None:
    table = read_total_hip(f"{other},Filename,T-Score\n900,a.png,-2.5\n900,b.png,-1\n")
    assert [record.image for record in table.records] == ["a.png", "b.png"]
    assert f"column '{other}' means the same as 'Filename'; not used" in table.problems


@pytest.mark.parametrize("name", ["HÜFTE_001.png", "MÜLLER_L.png", "hüfte.png"])
def test_western_names_in_either_case_are_not_taken_for_chinese(name) -> None:
    table = read_dxa(f"Image;T-Score\n{name};-2,5\n".encode("latin-1"), name="x.csv",
                     region=Region.TOTAL_HIP)  # fmt: skip
    assert table.records[0].image == name


@pytest.mark.parametrize(
    ("names", "field"),
    [
        ("img_name image_filename Image_File_Name imagename img_path filepath", Field.IMAGE),
        ("xray_id X-Ray_file photo pictures images File_names DICOM_file image_ids", Field.IMAGE),
        ("participant_id SubjectID MRN", Field.PATIENT),
        ("hip_id case_no", Field.ANY_ID),
        ("Sex_(M/F) M/F F/M genders", Field.SEX),
        ("Side_(L/R) Laterality_(L/R)", Field.SIDE),
        ("Osteoporosis_(0/1)", Field.LABEL_T),
        ("Age_at_DXA age_at_xray ages Age_(yrs)", Field.AGE),
        ("T_score(SD) t-scores", Field.T),
        ("S.No serial_no", Field.UNUSED),
    ],
)
def test_a_column_is_known_in_the_spellings_of_plain_tables(names, field) -> None:
    columns = parse_header([name.replace("_", " ") for name in names.split()])
    columns += parse_header(names.split())
    assert {column.name: column.field for column in columns if column.field is not field} == {}


@pytest.mark.parametrize(
    "name",
    [
        *("T-score (lowest)", "bmd at forearm", "score", "film quality", "Age at menopause"),
        *("Neck T-score (0=normal, 1=osteoporosis)", "Osteoporosis (1=normal; 0=abnormal)"),
        *("Male (1=female, 0=male)", "BMD (0/1)", "Weight at age 20", "Date at birth"),
    ],
)
def test_a_column_that_may_mean_another_thing_is_not_taken(name) -> None:
    assert parse_header([name])[0].field is None


def test_a_unit_counts_on_whatever_day_a_person_was_weighed() -> None:
    record = only(read("image,Weight at DXA (lb),T-score\na.png,150,-2.5\n", region=TH))
    assert record.weight_kg == pytest.approx(68.04, abs=0.01)


@pytest.mark.parametrize("other", ["X-ray ID", "Films", "Images", "Photo", "File ID", "Image No"])
def test_an_id_or_a_count_gives_way_to_a_file_name(other: str) -> None:
    table = read(f"{other},Image file,T-score\n2,a.png,-2.5\n3,b.png,-1.0\n", region=TH)
    assert [record.image for record in table.records] == ["a.png", "b.png"]
