"""Which region and side a row is about."""

import pytest

from hipray.data.dxa import read_dxa
from hipray.errors import DataError
from hipray.vocab import Region, Side
from tests.data.dxa.tables import TH, only, read, read_total_hip


def test_a_site_that_is_a_hospital_is_no_region() -> None:
    table = read_total_hip("Filename,Site,T-Score\na.png,Hospital A,-2.5\nb.png,Hospital B,-1\n")
    assert [r.values[Region.TOTAL_HIP].t for r in table.records] == [-2.5, -1.0]
    assert "column 'Site' names no region of the hip in any row; not used" in table.problems


def test_a_hospital_before_the_region_leaves_the_region_to_its_own_column() -> None:
    table = read_total_hip("Filename,Site,ROI,T-Score\na.png,Hospital A,Neck,-2.5\n")
    assert list(table.records[0].values) == [Region.FEMORAL_NECK]


def test_a_region_column_that_names_only_sides_still_tells_them_apart() -> None:
    rows = "P1,Left Femur,-1\nP1,Right Femur,-3\n"
    table = read_total_hip(f"patient_id,region,total_hip_t_score\n{rows}")
    found = {record.side: record.values[Region.TOTAL_HIP].t for record in table.records}
    assert found == {Side.LEFT: -1.0, Side.RIGHT: -3.0}


def test_a_site_of_hospitals_without_any_region_is_told_so() -> None:
    with pytest.raises(DataError, match="a region column, or regions in the column names"):
        read_dxa(b"image,site,t_score\na.png,Hospital A,-2\n", name="x.csv")


def test_the_total_of_a_spine_scan_is_not_the_total_hip() -> None:
    table = read("image,region,t\na,L1,1\na,L1-L4,1\na,Total,1\nb,Total,-1\n")
    assert [(r.image, r.values[TH].t) for r in table.records] == [("b", -1.0)]


def test_a_table_of_one_region_needs_to_be_told_which() -> None:
    text = "filename,t_score\nx.png,-2.5\n"
    assert only(read(text, region=TH)).values[TH].t == -2.5
    with pytest.raises(DataError, match="region"):
        read(text)
