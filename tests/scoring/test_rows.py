import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hipray import RESEARCH_NOTICE
from hipray.answers import Headline, HipAnswer, RegionAnswer, StudyAnswer
from hipray.data.images import ReadResult
from hipray.data.person import NOBODY
from hipray.data.refusals import Refusal
from hipray.errors import DataError, StoreUnavailableError
from hipray.scoring.failures import MIN_FILES_SEEN, FailureWatch, dump_failure
from hipray.scoring.films import ReadFilm
from hipray.scoring.parts import write_part
from hipray.scoring.rows import SCORE_SCHEMA, Outcome, Row, build_rows, build_table
from hipray.scoring.shards import Entry
from hipray.scoring.summary import Tally, check_counts
from hipray.storage import open_store
from hipray.vocab import LabelType, RefusalCode, Region

NECK = (Region.FEMORAL_NECK, LabelType.T_SCORE)
HIP = (Region.TOTAL_HIP, LabelType.T_SCORE)
REFUSAL = Refusal(RefusalCode.IMPLANT, "metal", "a plateau")


def film(key: str) -> ReadFilm:
    return ReadFilm(Entry(key, 1, "e"), f"f-{key}", None, NOBODY, ReadResult(key), 0.1)


def region(question: tuple[Region, LabelType], probability: float) -> RegionAnswer:
    return RegionAnswer(*question, probability, "platt", 2, False, 0.1, 0.9)


def study(*hips: HipAnswer, refusal: Refusal | None = None) -> StudyAnswer:
    return StudyAnswer("small", "digest", "phantom", "1", hips, refusal)


def scored_hip(index: int = 0) -> HipAnswer:
    headline = Headline(0.7, Region.TOTAL_HIP, 0.5, True)
    return HipAnswer(index, "left", False, (region(NECK, 0.2), region(HIP, 0.7)), headline)


def rows_of(key: str, answer: StudyAnswer) -> list[Row]:
    return build_rows(film(key), answer, (NECK, HIP))


def test_a_hip_has_one_row_per_region_with_its_headline_on_each() -> None:
    rows = rows_of("a", study(scored_hip(0), scored_hip(1)))
    assert [(r["hip_index"], r["region"], r["probability"]) for r in rows] == [
        (0, NECK[0], 0.2), (0, HIP[0], 0.7), (1, NECK[0], 0.2), (1, HIP[0], 0.7),
    ]  # fmt: skip
    assert {r["headline_probability"] for r in rows} == {0.7}


def test_a_refused_file_and_a_refused_hip_are_one_row_without_numbers() -> None:
    for answer in (study(refusal=REFUSAL), study(HipAnswer(0, "left", False, refusal=REFUSAL))):
        (row,) = build_table(rows_of("a", answer)).to_pylist()
        assert row["outcome"] == Outcome.REFUSED
        assert row["refusal_code"] == RefusalCode.IMPLANT
        assert row["probability"] is row["region"] is row["headline_probability"] is None


def test_a_region_that_could_not_be_cut_out_is_a_refused_row() -> None:
    hip = HipAnswer(0, "left", False, (region(HIP, 0.7),))
    missing, present = rows_of("a", study(hip))
    assert (missing["region"], missing["refusal_code"]) == (NECK[0], RefusalCode.REGION_MISSING)
    assert present["outcome"] == Outcome.SCORED


def test_parts_carry_the_notice_and_a_description_of_every_column(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    table = build_table(rows_of("a", study(scored_hip())))
    assert write_part(store, "part-a.parquet", table)
    assert not write_part(store, "part-a.parquet", table.slice(0, 1))
    schema = pq.read_schema(io.BytesIO(store.read("part-a.parquet")))
    assert schema.metadata[b"research_notice"].decode() == RESEARCH_NOTICE
    assert schema.equals(SCORE_SCHEMA, check_metadata=False)
    assert all(schema.field(name).metadata[b"description"] for name in schema.names)


def tally_of(*rows: list[Row]) -> Tally:
    tally = Tally()
    tally.add(build_table([row for part in rows for row in part]).to_pandas())
    return tally


def test_files_are_counted_once_and_scored_where_any_hip_is() -> None:
    refused_hip = HipAnswer(1, "right", True, refusal=REFUSAL)
    tally = tally_of(
        rows_of("both", study(scored_hip(), scored_hip(1))),
        rows_of("half", study(scored_hip(), refused_hip)),
        rows_of("none", study(HipAnswer(0, "left", False, refusal=REFUSAL), refused_hip)),
        rows_of("file", study(refusal=REFUSAL)),
    )
    assert (tally.scored, tally.refused, tally.hips, tally.abnormal) == (2, 2, 3, 3)
    assert tally.refusals == {RefusalCode.IMPLANT: 2}
    assert tally.quantiles()["0.5"] == 0.7
    check_counts(tally, listed=5, failed=1)


def test_counts_that_do_not_add_up_are_an_error() -> None:
    tally = tally_of(rows_of("a", study(scored_hip())))
    with pytest.raises(DataError, match="2 files listed"):
        check_counts(tally, listed=2, failed=0)


def test_too_many_failed_films_stop_the_run_with_the_error_of_the_store() -> None:
    failure = dump_failure(StoreUnavailableError("an answer", "none", "try again later"))
    watch = FailureWatch(max_fraction=0.1)
    watch.add("a", files=MIN_FILES_SEEN - 1, failure=failure)  # too few to judge by
    with pytest.raises(StoreUnavailableError, match="try again later"):
        watch.add("b", files=64, failure=failure)


def test_a_share_of_failed_films_below_the_limit_is_only_counted() -> None:
    failure = dump_failure(StoreUnavailableError("an answer", "none", "try again later"))
    watch = FailureWatch(max_fraction=0.1)
    watch.add("a", files=1000, failure=None)
    watch.add("b", files=64, failure=failure)
    watch.check(1064)
    assert watch.failed == 64
