"""The harness of the benches: what a ratio is and when a target is met."""

import json
import os
from itertools import islice

import pytest
import torch

from hipray.benchmarks.machine import describe_machine, pin_cores, use_threads
from hipray.benchmarks.measure import (
    Measure,
    Pair,
    compare_durations,
    compare_rates,
    hold_below,
    skip,
)
from hipray.benchmarks.run import run_bench
from hipray.config.benchmarks import BenchRun
from hipray.errors import ConfigError

KEYS = {"name", "ours", "peer", "ratio", "target", "met", "unit", "n", "spread"}


def test_of_rates_the_higher_is_better() -> None:
    measure = compare_rates("m", [Pair(12.0, 10.0)], unit="cells/h", target=1.1)
    assert (measure.ratio, measure.met) == (1.2, True)


def test_of_durations_the_shorter_is_better() -> None:
    measure = compare_durations("m", [Pair(ours=2.0, peer=10.0)], unit="s", target=1.0)
    assert (measure.ratio, measure.met) == (5.0, True)


def test_the_ratio_is_the_median_of_pairs_so_that_drift_of_the_machine_cancels() -> None:
    pairs = [Pair(22.0, 20.0), Pair(11.0, 10.0), Pair(6.0, 5.0)]  # it slows down to a quarter
    measure = compare_rates("m", pairs, unit="films/s", target=1.1)
    assert measure.ratio == pytest.approx(1.1)
    assert measure.spread == pytest.approx((1.1, 1.2))
    assert (measure.ours, measure.peer, measure.n) == (11.0, 10.0, 3)


def test_a_target_is_missed_just_below_it() -> None:
    assert compare_rates("m", [Pair(1.09, 1.0)], unit="x", target=1.1).met is False


def test_without_a_target_a_figure_is_stated_and_not_judged() -> None:
    assert compare_rates("m", [Pair(1.0, 2.0)], unit="x").met is None


@pytest.mark.parametrize(("seconds", "met"), [(0.25, True), (0.5, False), (1.0, False)])
def test_a_limit_is_met_below_it_only(seconds: float, met: bool) -> None:
    measure = hold_below("m", [seconds], unit="s", limit=0.5)
    assert measure.met is met
    assert measure.ratio == 0.5 / seconds
    assert measure.peer is None


def test_a_skipped_measure_says_why_and_has_no_figures() -> None:
    line = skip("gpu", unit="films/s", reason="no GPU").as_line()
    assert line["skipped"] == "no GPU"
    assert [line[key] for key in ("ours", "peer", "ratio", "target", "met", "spread")] == [None] * 6


def test_a_line_is_flat_json_of_four_digits_with_its_context() -> None:
    measure = compare_rates("m", [Pair(1 / 3, 2 / 3)], unit="x", parts={"a": 0.123456}, cells=6)
    line = json.loads(json.dumps(measure.as_line()))
    assert line.keys() == KEYS | {"parts", "cells"}
    assert line["ours"] == 0.3333
    assert line["parts"] == {"a": 0.1235}


def test_an_unknown_bench_is_refused_with_the_names() -> None:
    with pytest.raises(ConfigError, match="one of the benches grid, score, serve, found 'girth'"):
        next(run_bench(BenchRun(name="girth")))


def test_each_line_names_the_machine_and_that_this_is_research_software(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measures = [Measure("a", "s"), Measure("b", "s")]
    monkeypatch.setattr("hipray.benchmarks.run.BENCHES", {"two": lambda _: iter(measures)})
    lines = [json.loads(line) for line in run_bench(BenchRun(name="two"))]
    assert [line["name"] for line in lines] == ["a", "b"]
    for line in lines:
        assert line["machine"]["cores"] == os.cpu_count()
        assert line["machine"]["torch"] == torch.__version__
        assert "Research software" in line["notice"]


def test_the_machine_has_a_name_for_its_processor() -> None:
    assert describe_machine()["cpu"]


def test_cores_and_threads_are_given_back() -> None:
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    with pin_cores(1), use_threads(1):
        assert os.sched_getaffinity(0) == set(islice(sorted(cores), 1))
        assert torch.get_num_threads() == 1
    assert os.sched_getaffinity(0) == cores
    assert torch.get_num_threads() == threads
