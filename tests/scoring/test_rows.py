import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from hipray import RESEARCH_NOTICE
from hipray.answers import Headline, HipAnswer, RegionAnswer, StudyAnswer
from hipray.data.exposed_area import Box
from hipray.data.hips import Hip, HipGeometry
from hipray.data.images import ReadResult
from hipray.data.person import NOBODY
from hipray.data.refusals import Refusal
from hipray.digests import digest_of
from hipray.errors import ArchivedError, DataError, StorageError, StoreThrottledError
from hipray.scoring.faults import MIN_FILES_SEEN, MOST_IN_A_ROW, FailedFilm, FailureWatch, Fault
from hipray.scoring.films import ReadFilm
from hipray.scoring.index import ListingTotals
from hipray.scoring.parts import PartSet, name_retry, read_part, write_part
from hipray.scoring.rows import (
    SCHEMA_VERSION,
    SCORE_SCHEMA,
    Outcome,
    Row,
    build_hip_columns,
    build_table,
)
from hipray.scoring.shards import Entry
from hipray.scoring.tally import HEADLINE, Tally, check_counts, count_parts
from hipray.storage import open_store
from hipray.vocab import (
    Device,
    Finding,
    LabelType,
    Precision,
    RefusalCode,
    Region,
    Runtime,
    Side,
)

NECK = (Region.FEMORAL_NECK, LabelType.T_SCORE)
HIP = (Region.TOTAL_HIP, LabelType.T_SCORE)
P_NECK, P_HIP = "probability_t_score_femoral_neck", "probability_t_score_total_hip"
REFUSAL = Refusal(RefusalCode.IMPLANT, "metal", "a plateau")
ERROR = StoreThrottledError("an answer", "503 SlowDown", "try again later")


def canonical_hip() -> Hip:
    import numpy as np

    geometry = HipGeometry(2, 2, Box(0, 2, 0, 2), False, 2, 2)
    pixels = np.zeros((2, 2), np.uint8)
    return Hip(pixels, Side.LEFT, False, geometry, None, "sha", ())


def film(key: str, hips: int = 2) -> ReadFilm:
    result = ReadResult(key, tuple(canonical_hip() for _ in range(hips)))
    return ReadFilm(Entry(key, 1, "e"), "e", f"f-{key}", None, NOBODY, result, 0.3, 0.1)


def region(question: tuple[Region, LabelType], probability: float) -> RegionAnswer:
    return RegionAnswer(*question, probability, "platt", 2, False, 0.1, 0.9)


def study(*hips: HipAnswer, refusal: Refusal | None = None) -> StudyAnswer:
    engine = (Runtime.ONNX, Device.CPU, Precision.FLOAT32)
    return StudyAnswer("small", "digest", "phantom", "1", *engine, hips, refusal)


def scored_hip(index: int = 0) -> HipAnswer:
    headline = Headline(0.7, Region.TOTAL_HIP, 0.5, True)
    regions = (region(NECK, 0.2), region(HIP, 0.7))
    return HipAnswer(index, Side.LEFT, False, regions, headline, (Finding.SIDE_UNKNOWN,))


def rows_of(key: str, answer: StudyAnswer) -> list[Row]:
    about = {"key": key, "fetch_seconds": 0.3, "decode_seconds": 0.1, "model_seconds": 0.2}
    return [about | row for row in build_hip_columns(film(key), answer, (NECK, HIP))]


def test_a_hip_is_one_row_with_the_probability_of_each_region_and_its_headline() -> None:
    rows = build_table(rows_of("a", study(scored_hip(0), scored_hip(1)))).to_pylist()
    assert [(r["hip_index"], r["hips"], r[P_NECK], r[P_HIP]) for r in rows] == [
        (0, 2, 0.2, 0.7), (1, 2, 0.2, 0.7),
    ]  # fmt: skip
    assert {r["headline_probability"] for r in rows} == {0.7}
    assert rows[0]["mask_area_total_hip"] == 0.1
    assert rows[0]["probability_bmd_total_hip"] is None
    assert rows[0]["findings"] == [Finding.SIDE_UNKNOWN]


def test_a_refused_file_and_a_refused_hip_are_one_row_without_numbers() -> None:
    for answer in (study(refusal=REFUSAL), study(HipAnswer(0, Side.LEFT, False, refusal=REFUSAL))):
        (row,) = build_table(rows_of("a", answer)).to_pylist()
        assert row["outcome"] == Outcome.REFUSED
        assert row["refusal_code"] == RefusalCode.IMPLANT
        assert row[P_NECK] is row["headline_probability"] is None
        assert row["hips"] == (0 if answer.refusal else 2)


def test_a_region_that_could_not_be_cut_out_is_named() -> None:
    (row,) = rows_of("a", study(HipAnswer(0, Side.LEFT, False, (region(HIP, 0.7),))))
    assert (row["outcome"], row["regions_missing"]) == (Outcome.SCORED, [NECK[0]])


def test_parts_carry_the_notice_a_description_of_every_column_and_the_dead_letters(
    tmp_path: Path,
) -> None:
    store, parts = open_store(str(tmp_path)), PartSet("parts/scored_by=x")
    table = build_table(rows_of("a", study(scored_hip())))
    letter = FailedFilm.of(Entry("b", 2, "e"), ERROR, tries=3)
    assert write_part(store, parts.key("a"), table, [letter])
    assert not write_part(store, parts.key("a"), table.slice(0, 1))
    part = read_part(store, parts, "a")
    assert part.letters == (letter,)
    assert part.table.to_pylist() == table.to_pylist()
    schema = pq.read_schema(io.BytesIO(store.read(parts.key("a"))))
    assert schema.metadata[b"research_notice"].decode() == RESEARCH_NOTICE
    assert schema.equals(SCORE_SCHEMA, check_metadata=False)
    assert all(schema.field(name).metadata[b"description"] for name in schema.names)


def tally_of(*rows: list[Row]) -> Tally:
    tally = Tally([HEADLINE, P_NECK], {P_NECK: (0.1, 0.5)})
    tally.add(build_table([row for part in rows for row in part]))
    return tally


def test_other_columns_are_another_version_so_that_no_output_mixes_the_two() -> None:
    columns = [[field.name, str(field.type)] for field in SCORE_SCHEMA]
    known = {"3": "e76057f67611"}
    assert digest_of(columns)[:12] == known.get(SCHEMA_VERSION), "raise SCHEMA_VERSION, add it here"


def test_files_are_counted_once_and_scored_where_any_hip_is() -> None:
    refused_hip = HipAnswer(1, Side.RIGHT, True, refusal=REFUSAL)
    tally = tally_of(
        rows_of("both", study(scored_hip(), scored_hip(1))),
        rows_of("half", study(scored_hip(), refused_hip)),
        rows_of("none", study(HipAnswer(0, Side.LEFT, False, refusal=REFUSAL), refused_hip)),
        rows_of("file", study(refusal=REFUSAL)),
    )
    assert (tally.scored, tally.refused, tally.hips, tally.abnormal) == (2, 2, 3, 3)
    assert tally.refusals == {RefusalCode.IMPLANT: 2}
    assert tally.hip_refusals == {RefusalCode.IMPLANT: 1}
    assert tally.histograms[HEADLINE].quantile(0.5) == pytest.approx(0.7, abs=1e-3)
    assert tally.histograms[HEADLINE].merge(10).tolist() == [0, 0, 0, 0, 0, 0, 0, 3, 0, 0]
    assert tally.histograms[P_NECK].between.tolist() == [0, 3, 0]
    assert (tally.fetch_seconds, tally.decode_seconds) == pytest.approx((1.2, 0.4))
    tally.faults.update([Fault.DENIED])
    check_counts(tally, listed=5)


def test_counts_that_do_not_add_up_are_an_error() -> None:
    tally = tally_of(rows_of("a", study(scored_hip())))
    with pytest.raises(DataError, match="2 files listed"):
        check_counts(tally, listed=2)


def test_only_letters_that_no_retry_settled_count(tmp_path: Path) -> None:
    store, parts = open_store(str(tmp_path)), PartSet("parts/scored_by=x")
    letters = [FailedFilm.of(Entry(key, 2, "e"), ERROR, tries=1) for key in "bc"]
    write_part(store, parts.key("s"), build_table(rows_of("a", study(scored_hip()))), letters)
    write_part(store, parts.key("s.r001"), build_table(rows_of("b", study(refusal=REFUSAL))),
               letters[1:])  # fmt: skip
    tally = Tally([HEADLINE])
    left = list(count_parts(parts.read(store, parts.list_all(store)), tally))
    assert left == [("s", letters[1])]
    assert (tally.parts, tally.failed) == (2, 1)
    check_counts(tally, listed=3)


def test_all_parts_are_one_hive_table_even_with_one_that_was_emptied(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    scored = build_table(rows_of("a", study(scored_hip())))
    for release in "xy":
        for name, table in (("0", build_table([])), ("1", scored)):
            write_part(store, PartSet(f"parts/scored_by={release}").key(name), table)
    table = pyarrow.dataset.dataset(f"{tmp_path}/parts", partitioning="hive").to_table()
    assert table["scored_by"].to_pylist() == ["x", "y"]
    assert table.drop_columns("scored_by").to_pylist() == scored.to_pylist() * 2


@pytest.fixture
def two_parts(tmp_path: Path) -> Path:
    """An output of a scored film and a refused one, and of an emptied part."""
    store, parts = open_store(str(tmp_path)), PartSet("parts/scored_by=x")
    write_part(store, parts.key("0"), build_table([]))
    write_part(store, parts.key("1"), build_table(rows_of("a", study(scored_hip()))))
    write_part(store, parts.key("2"), build_table(rows_of("b", study(refusal=REFUSAL))))
    return tmp_path


def test_pandas_reads_all_parts_as_one_table(two_parts: Path) -> None:
    rows = pd.read_parquet(two_parts / "parts")
    assert rows["key"].to_list() == ["a", "b"]
    assert rows["scored_by"].astype(str).to_list() == ["x", "x"]
    assert rows[P_HIP].isna().to_list() == [False, True]


def test_duckdb_answers_the_question_of_the_readme(two_parts: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    (question,) = re.findall(r"select refusal_code.*? group by 1", readme, flags=re.DOTALL)
    here = question.replace("out/scores", str(two_parts)).replace("RELEASE-CONFIG-RUNTIME", "x")
    assert here.count(str(two_parts)) == here.count("scored_by=x") == 1
    assert set(duckdb.sql(here).fetchall()) == {(None, 1), ("implant", 1)}
    (of,) = duckdb.sql(f"select distinct scored_by from '{two_parts}/parts/*/*.parquet'").fetchall()
    assert of == ("x",)


def test_the_thousandth_retry_is_the_latest(tmp_path: Path) -> None:
    store, parts = open_store(str(tmp_path)), PartSet("parts/scored_by=x")
    for number in (0, 2, 999, 1000):
        name = name_retry("s", number) if number else "s"
        write_part(store, parts.key(name), build_table([]))
    names = ["s", "s.r002", "s.r999", "s.r1000"]
    assert list(parts.list_all(store)) == list(parts.list_rounds(store, "s")) == names


def watch_with(*, listed: int = 0, **seen: Any) -> FailureWatch:
    watch = FailureWatch(max_fraction=0.1, count_listed=lambda: ListingTotals(listed))
    watch.add(letters=[], **seen)
    return watch


def letters(count: int) -> list[FailedFilm]:
    return [FailedFilm.of(Entry(str(n), 1, "e"), ERROR, tries=1) for n in range(count)]


def test_too_many_failed_films_stop_the_run_with_the_error_of_the_store() -> None:
    watch = watch_with(files=100)
    watch.add(files=64, letters=letters(64))  # too few to judge by
    with pytest.raises(StoreThrottledError, match="try again later"):
        watch.add(files=MIN_FILES_SEEN, letters=letters(9))


def test_a_share_of_failed_films_below_the_limit_is_only_counted() -> None:
    watch = watch_with(files=1000)
    watch.add(files=64, letters=letters(64))
    watch.check_all(watch.faults, unlike_listed=0, files=1064)
    assert (watch.failed, watch.faults) == (64, {Fault.THROTTLED: 64})


def test_few_films_of_a_large_archive_may_be_all_that_a_submission_sees() -> None:
    watch = watch_with(files=0, listed=10_000)
    watch.add(files=1000, letters=letters(1000))
    with pytest.raises(StoreThrottledError):
        watch.add(files=1, letters=letters(1))


def test_an_archive_that_is_not_yet_listed_is_asked_for_only_where_too_many_failed() -> None:
    asked: list[int] = []
    watch = FailureWatch(
        0.1, count_listed=lambda: asked.append(watch.seen) or ListingTotals(20_000)
    )
    for _ in range(10):
        watch.add(files=100, letters=letters(9))
    assert asked == []
    for _ in range(10):
        watch.add(files=100, letters=letters(100))
    assert asked == [1100]


def test_films_that_were_gone_or_changed_stop_a_run_as_others_do() -> None:
    watch = watch_with(files=1000)
    with pytest.raises(StorageError, match="gone or changed"):
        watch.add(files=1000, letters=[], unlike_listed=201)
    quiet = FailureWatch(max_fraction=0.1)
    quiet.check_all({}, unlike_listed=201, files=1000)  # of an earlier submission


def test_films_that_a_listing_found_changed_and_reads_anew_stop_no_run() -> None:
    watch = FailureWatch(0.1, count_listed=lambda: ListingTotals(files=1900, replaced=900))
    watch.add(files=900, letters=[], unlike_listed=900)
    watch.add(files=100, letters=[], unlike_listed=100)
    with pytest.raises(StorageError, match="raise max_failed_fraction"):
        watch.add(files=1, letters=[], unlike_listed=1)


@pytest.mark.parametrize("still_gives", [True, False])
def test_many_films_that_fail_in_a_row_stop_the_run_where_the_store_gives_nothing_any_more(
    still_gives: bool,
) -> None:
    asked: list[int] = []
    watch = FailureWatch(
        0.1, lambda: ListingTotals(10**7), lambda: asked.append(watch.seen) or still_gives
    )
    watch.add(files=MOST_IN_A_ROW, letters=letters(MOST_IN_A_ROW - 1))
    watch.add(files=MOST_IN_A_ROW - 1, letters=letters(MOST_IN_A_ROW - 1))
    assert not asked, "it gave one between"
    if still_gives:  # a folder that is denied
        watch.add(files=1, letters=letters(1))
        watch.add(files=MOST_IN_A_ROW - 1, letters=letters(MOST_IN_A_ROW - 1))
    else:
        with pytest.raises(StoreThrottledError):
            watch.add(files=1, letters=letters(1))
    assert asked == [2 * MOST_IN_A_ROW]


def test_a_run_that_may_fail_as_a_whole_is_not_stopped() -> None:
    watch = FailureWatch(1.0, still_gives=lambda: False)
    watch.add(files=2 * MOST_IN_A_ROW, letters=letters(2 * MOST_IN_A_ROW))


def test_archived_films_are_counted_and_stop_no_run() -> None:
    watch = watch_with(files=1000)
    error = ArchivedError("an object that can be read", "an archived one", "restore it first")
    archived = [FailedFilm.of(Entry(str(n), 1, "e"), error, tries=1) for n in range(500)]
    watch.add(files=500, letters=[*letters(1), *archived])
    watch.check_all(watch.faults, unlike_listed=0, files=1500)
    assert (watch.failed, watch.faults[Fault.ARCHIVED]) == (501, 500)
    with pytest.raises(StoreThrottledError):
        watch.add(files=200, letters=letters(200))
