"""A DXA record goes to the hip it names, and to none where that would be a guess."""

from dataclasses import replace
from datetime import date

import pytest

from hipray.data.dxa import DxaRecord
from hipray.data.matching import RecordIndex, pick_record
from hipray.vocab import Side

LEFT = DxaRecord(patient_id="P1", side=Side.LEFT)
RIGHT = DxaRecord(patient_id="P1", side=Side.RIGHT)
UNSTATED = DxaRecord(patient_id="P1")


def test_a_record_is_found_by_file_name_whatever_its_folder_suffix_and_case() -> None:
    record = DxaRecord(image="export\\FILMS\\Hip-01.DCM")
    index = RecordIndex([record])
    assert index.of_film("films/hip-01.png") == [record]
    assert index.of_film("films/hip-02.png") == []


def test_a_record_without_a_film_is_found_by_the_patient_in_the_header() -> None:
    assert RecordIndex([LEFT]).of_film("a.dcm", " p1 ") == [LEFT]


def test_a_film_named_after_its_patient_needs_no_header() -> None:
    assert RecordIndex([LEFT]).of_film("films/p1.png") == [LEFT]


def test_the_file_name_outranks_the_patient() -> None:
    named = DxaRecord(image="a.dcm", patient_id="P2")
    assert RecordIndex([LEFT, named]).of_film("a.dcm", "P1") == [named]


def test_a_record_that_names_another_film_never_falls_to_this_one() -> None:
    other = DxaRecord(image="b.dcm", patient_id="P1", side=Side.LEFT)
    assert RecordIndex([other, RIGHT]).of_film("a.dcm", "P1") == [RIGHT]


def test_a_films_side_is_what_all_its_records_agree_on() -> None:
    both = [DxaRecord(image="a.png", side=side) for side in (Side.LEFT, Side.RIGHT)]
    index = RecordIndex([*both, DxaRecord(image="b.png", side=Side.RIGHT)])
    assert index.side_of("a.png") is None
    assert index.side_of("b.png") is Side.RIGHT
    assert index.side_of("c.png") is None


def test_a_hip_takes_the_record_of_its_own_side() -> None:
    assert pick_record([LEFT, RIGHT], Side.RIGHT, only_hip=True) is RIGHT
    assert pick_record([LEFT], Side.RIGHT, only_hip=True) is None


def test_a_record_without_a_side_serves_an_only_hip_and_neither_of_two() -> None:
    assert pick_record([UNSTATED], Side.LEFT, only_hip=True) is UNSTATED
    assert pick_record([UNSTATED], Side.LEFT, only_hip=False) is None
    assert pick_record([UNSTATED, RIGHT], Side.LEFT, only_hip=False) is None


def test_a_hip_without_a_side_takes_the_only_record_and_never_one_of_two() -> None:
    assert pick_record([LEFT], Side.UNKNOWN, only_hip=True) is LEFT
    assert pick_record([LEFT, RIGHT], Side.UNKNOWN, only_hip=True) is None
    assert pick_record([], Side.LEFT, only_hip=True) is None


def test_films_of_one_name_in_two_folders_keep_their_own_records() -> None:
    first = DxaRecord(image="p1/001.dcm", patient_id="A")
    second = DxaRecord(image="export/p2/001.dcm", patient_id="B")
    index = RecordIndex([first, second], ["films/p1/001.dcm", "films/p2/001.dcm"])
    assert index.of_film("films/p1/001.dcm") == [first]
    assert index.of_film("films/p2/001.dcm") == [second]


def test_a_record_of_the_other_folders_film_is_not_taken_for_want_of_an_own_one() -> None:
    record = DxaRecord(image="p1/001.dcm", patient_id="A")
    index = RecordIndex([record], ["p1/001.dcm", "p2/001.dcm"])
    assert index.of_film("p2/001.dcm") == []


def test_a_bare_name_that_two_films_bear_needs_the_patient_to_tell_them_apart() -> None:
    record = DxaRecord(image="001.dcm", patient_id="A")
    index = RecordIndex([record], ["p1/001.dcm", "p2/001.dcm"])
    assert index.of_film("p1/001.dcm") == []
    assert index.of_film("p2/001.dcm", "a") == [record]


@pytest.mark.parametrize(
    ("image", "owner"),
    [
        ("hip.png", "hip.png"),
        ("Hip.png", "Hip.png"),
        ("HIP.DCM", "hip.dcm"),
        ("Hip", "Hip.png"),
        ("hip", None),
        ("HIP.PNG", None),
    ],
)
def test_films_that_differ_in_case_or_ending_alone_share_no_record(image, owner) -> None:
    films = ["hip.png", "Hip.png", "hip.dcm"]
    record = DxaRecord(image=image, patient_id="P1")
    index = RecordIndex([record], films)
    assert [film for film in films if index.of_film(film) == [record]] == [owner] * bool(owner)


def test_the_patient_tells_films_of_one_name_apart_where_their_spelling_does_not() -> None:
    record = DxaRecord(image="hip", patient_id="P1")
    index = RecordIndex([record], ["hip.png", "hip.dcm"])
    assert index.of_film("hip.dcm", "p1") == [record]
    assert index.of_film("hip.png") == []


def test_of_several_examinations_the_one_nearest_to_the_film_counts() -> None:
    old, new = (replace(LEFT, exam_date=date(year, 5, 1)) for year in (2015, 2021))
    assert pick_record([old, new], Side.LEFT, only_hip=True, taken=date(2020, 12, 1)) is new
    assert pick_record([old, new], Side.LEFT, only_hip=True) is None
    assert pick_record([old, LEFT], Side.LEFT, only_hip=True, taken=date(2020, 12, 1)) is None


def test_a_name_with_dots_is_whole_but_for_a_films_ending() -> None:
    first, second = (DxaRecord(image=f"1.2.840.{n}") for n in (1, 2))
    index = RecordIndex([first, second], ["1.2.840.1", "1.2.840.2.png"])
    assert index.of_film("1.2.840.1") == [first]
    assert index.of_film("1.2.840.2.png") == [second]


def test_an_archive_whose_folders_all_hold_films_of_one_name_is_matched_in_seconds() -> None:
    films = [f"films/p{number}/001.dcm" for number in range(5_000)]
    bare = [DxaRecord(image="001.dcm", patient_id=f"B{number}") for number in range(5_000)]
    named = [DxaRecord(image=f"p{number}/001.dcm") for number in range(2_500)]
    index = RecordIndex([*bare, *named], films)
    assert [index.of_film(film) for film in films[:2_500]] == [[record] for record in named]
    assert [index.of_film(f, f"b{n}") for n, f in enumerate(films)][2_500:] == [
        [record] for record in bare[2_500:]
    ]


def test_numbers_that_name_no_film_leave_the_patient_to_tell() -> None:
    records = [DxaRecord(image=f"{n}", patient_id=f"P{n}") for n in range(1, 6)]
    index = RecordIndex(records, ["series/a.dcm", "series/b.dcm", "series/3.dcm"])
    assert index.of_film("series/a.dcm", "P1") == records[:1]
    assert index.of_film("series/b.dcm", "P9") == []
    assert index.of_film("series/3.dcm", "P5") == records[4:]
    assert index.of_film("series/3.dcm", "P3") == records[2:3]
    assert (index.numbered, index.absent) == (4, 0)


def test_the_name_of_a_film_that_is_not_there_leaves_its_patient_without_a_record() -> None:
    older = DxaRecord(image="p1_2015.dcm", patient_id="P1")
    index = RecordIndex([older], ["p1_2021.dcm"])
    assert index.of_film("p1_2021.dcm", "P1") == []
    assert (index.numbered, index.absent) == (0, 1)


@pytest.mark.parametrize(
    ("film", "cell"),
    [
        ("Film – 1.png", "Film - 1.png"),
        ("王小明（左）.jpg", "王小明(左).jpg"),
        ("cas n° 1².png", "cas n° 12.png"),
        ("Hu\u0308fte.png", "Hüfte.png"),
        ("17.png", "17.0"),
    ],
)
def test_a_name_is_the_same_however_programs_write_it(film, cell) -> None:
    record = DxaRecord(image=cell)
    assert RecordIndex([record], [film]).of_film(film) == [record]
    owner = DxaRecord(patient_id="P-7")
    assert RecordIndex([owner]).of_film("a.dcm", "P–7") == [owner]
