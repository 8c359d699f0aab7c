"""The score bench, small: every measure is taken, and both sides score the same films."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from hipray.benchmarks.archive_server import spread_films
from hipray.benchmarks.run import run_bench
from hipray.benchmarks.score import judge_resume, wait_for_part
from hipray.config.benchmarks import BenchRun, ScoreBench
from hipray.errors import ProcessLostError
from hipray.storage import open_store


@pytest.mark.parametrize(("films", "fillers"), [(3, 9), (1, 0), (20, 980)])
def test_films_are_spread_evenly_and_the_first_key_is_one(films: int, fillers: int) -> None:
    spread = list(spread_films(films, fillers))
    assert (len(spread), sum(spread), spread[0]) == (films + fillers, films, True)
    gaps = [place for place, is_film in enumerate(spread) if is_film]
    widths = {b - a for a, b in pairwise(gaps)}
    assert not widths or max(widths) - min(widths) <= 1


def test_a_driver_that_crashes_has_no_first_rows(tmp_path: Path) -> None:
    driver = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(ProcessLostError, match="ended with 3"):
        wait_for_part(open_store(str(tmp_path)), driver)


def test_a_resume_that_reads_films_again_does_not_meet_its_target() -> None:
    assert judge_resume(2.0, 0, files=9).met is True
    assert judge_resume(2.0, 1, files=9).met is False
    assert judge_resume(1e3, 0, files=9).met is False


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.timeout(900)
def test_every_measure_of_the_score_bench_is_taken(tmp_path: Path) -> None:
    bench = ScoreBench(
        backbones=("resnet10t",), size_px=64, working_px=128, films=96, film_px=128,
        different_films=8, long_keys=400, small_files=200, repeats=1,
    )  # fmt: skip
    run = BenchRun(name="score", out=str(tmp_path), score=bench)
    lines = {line["name"]: line for line in map(json.loads, run_bench(run))}
    assert {"score_start_up", "score_first_rows", "score_rate_vs_pipeline", "score_rate_vs_loop",
            "score_memory_driver", "score_resume"} <= set(lines)  # fmt: skip
    assert all(line["ours"] > 0 and line["n"] == 1 for line in lines.values())
    assert lines["score_resume"]["films_downloaded"] == 0
