"""The grid bench, small: both sides do the same work, and the command prints what it measured."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook

from hipray.benchmarks.gpu import count_films_shown
from hipray.benchmarks.grid import measure_grid
from hipray.benchmarks.lanes import build_bench_grid, write_script_job
from hipray.benchmarks.overhead import build_trivial_grid
from hipray.benchmarks.peers.sequential import draw_batches
from hipray.benchmarks.peers.sequential import main as run_script
from hipray.benchmarks.workspace import open_bench_store
from hipray.cli import main
from hipray.config.base import load_config
from hipray.config.benchmarks import BenchRun, GpuBench, GridBench
from hipray.config.jobs import GridRun
from hipray.errors import ConfigError
from hipray.storage import Store
from hipray.training.context import FitContext
from hipray.training.fit_files import HISTORY_FILE
from hipray.training.lane import LaneSettings, drain
from hipray.training.ledger import Ledger
from hipray.training.preparation import Preparation, describe_run, prepare
from hipray.training.results import open_reader, read_run
from hipray.training.run_plan import write_run_plan
from hipray.vocab import Cell, LabelType, Region, Variant
from tests.small_workspace import BACKBONE, SmallWorkspace, one_thread

SMALL = GridBench(
    backbones=(BACKBONE,),
    size_px=32,
    working_px=192,
    epochs=1,
    repeats=1,
    step_rounds=1,
    trivial_fits=1,
    local_lanes=True,
    gpu=GpuBench(size_px=32, processes=(2,), seconds=0.1),
)
KEYS = {
    "name",
    "ours",
    "peer",
    "ratio",
    "target",
    "met",
    "unit",
    "n",
    "spread",
    "machine",
    "notice",
}


def _without_chance(config: GridRun) -> GridRun:
    """All films in one batch, no dropout: nothing is left to the order that films come in."""
    settings = config.experiment.classifier.model_copy(update={"batch": 64, "dropout": 0.0})
    experiment = config.experiment.model_copy(update={"classifier": settings})
    return config.model_copy(update={"experiment": experiment})


def _train_with_a_lane(store: Store, config: GridRun) -> Preparation:
    preparation = prepare(store, config)
    write_run_plan(store, describe_run(config, preparation))
    drain(
        preparation.plan, Ledger(store, submission="bench"), preparation.inputs,
        settings=LaneSettings("lane-0", poll_s=0.01), context=FitContext(),
    )  # fmt: skip
    return preparation


def _train_with_the_script(
    store: Store, config: GridRun, preparation: Preparation, folder: Path
) -> dict[str, dict[str, Any]]:
    """What the script says of each cell, by name."""
    job = write_script_job(store, config, preparation.inputs, folder=folder, threads=1)
    run_script(str(job))
    cells = json.loads((folder / "result.json").read_text())["cells"]
    return {cell["name"]: cell for cell in cells}


@contextmanager
def _count_steps() -> Iterator[list[None]]:
    """Count every optimiser step of this process inside the block."""
    steps: list[None] = []
    hook = register_optimizer_step_post_hook(lambda *_: steps.append(None))
    try:
        yield steps
    finally:
        hook.remove()


def test_script_and_fit_begin_with_the_same_loss_on_the_same_films(
    small_workspace: SmallWorkspace, tmp_path: Path
) -> None:
    run = BenchRun(name="grid", out=str(tmp_path), workspace=small_workspace.store.uri)
    with open_bench_store(run) as store, one_thread():
        bench = SMALL.model_copy(update={"variants": (Variant.ORIGINAL,)})
        config = _without_chance(build_bench_grid(store, bench))
        preparation = _train_with_a_lane(store, config)
        cells = _train_with_the_script(store, config, preparation, tmp_path / "script")
        ((fit, done),) = read_run(store, config.run).classifiers
        history = json.loads(open_reader(store).read_file(done, HISTORY_FILE))
    assert cells[fit.name]["first_loss"] == pytest.approx(history["train_loss"][0], abs=1e-5)


def test_script_and_lane_take_as_many_steps_for_the_same_cells(
    small_workspace: SmallWorkspace, tmp_path: Path
) -> None:
    run = BenchRun(name="grid", out=str(tmp_path), workspace=small_workspace.store.uri)
    with open_bench_store(run) as store, one_thread():
        config = build_bench_grid(store, SMALL.model_copy(update={"batch": 8}))
        with _count_steps() as ours:
            preparation = _train_with_a_lane(store, config)
        with _count_steps() as theirs:
            cells = _train_with_the_script(store, config, preparation, tmp_path / "script")
    assert cells.keys() == {planned.name for planned in preparation.plan}
    assert len(theirs) == sum(cell["steps"] for cell in cells.values())
    assert len(ours) == len(theirs) > len(cells)


def test_the_script_draws_full_batches_pass_after_pass() -> None:
    batches = draw_batches(10, 4)
    drawn = [next(batches).tolist() for _ in range(5)]
    assert [len(rows) for rows in drawn] == [4] * 5
    assert sorted(chain.from_iterable(drawn)) == sorted([*range(10), *range(10)])


def test_the_bench_store_is_a_fresh_copy_without_masks(
    small_workspace: SmallWorkspace, tmp_path: Path
) -> None:
    before = {info.key for info in small_workspace.store.list()}
    run = BenchRun(name="grid", out=str(tmp_path), workspace=small_workspace.store.uri)
    with open_bench_store(run) as store:
        plan = prepare(store, build_trivial_grid(store, SMALL)).plan
        assert len(plan) == 2 * 5, "variants x folds, and no segmenter"
        store.write("runs/left", b"behind")
    assert {info.key for info in small_workspace.store.list()} == before
    assert not list(tmp_path.iterdir())


def test_the_films_of_the_papers_augmented_arm_are_seven_times_those_of_the_original() -> None:
    paper = load_config(GridRun, preset="paper", section="grid")
    cell = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, "vgg16", Variant.ORIGINAL)
    augmented = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, "vgg16", Variant.AUGMENTED)
    assert count_films_shown(cell, paper) == pytest.approx(139 * 0.8 * 0.8 * 100)
    assert count_films_shown(augmented, paper) == pytest.approx(7 * 139 * 0.8 * 0.8 * 100)


def test_a_variant_that_needs_segmenters_is_refused() -> None:
    bench = SMALL.model_copy(update={"variants": (Variant.SEGMENTED,)})
    with pytest.raises(ConfigError, match=r"correct grid\.variants"):
        next(measure_grid(BenchRun(name="grid", grid=bench)))


def test_an_unknown_bench_is_one_clear_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "girth"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "hipray bench: expected one of the benches grid, score, serve, found 'girth'; name one\n"
    )


@pytest.mark.ray
@pytest.mark.full
@pytest.mark.usefixtures("ray_session")
def test_the_command_prints_one_valid_line_for_each_measure(
    small_workspace: SmallWorkspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = {
        "out": str(tmp_path), "workspace": small_workspace.store.uri,
        "grid": f"{{{', '.join(_as_toml(SMALL))}}}",
    }  # fmt: skip
    arguments = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    assert main(["bench", "grid", *arguments]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines] == [
        "lanes_vs_script",
        "lane_start_up",
        f"step_real_vs_memory_{BACKBONE}",
        "fit_overhead",
        "gpu_training",
    ]
    for line in lines:
        assert line.keys() >= KEYS
    *measured, gpu = lines
    for line in measured:
        assert line["n"] == 1
        assert line["ours"] > 0
        assert line["ratio"] > 0
    assert gpu["skipped"]


def _as_toml(bench: GridBench) -> list[str]:
    changed = bench.model_dump(mode="json", exclude_unset=True, exclude={"gpu"})
    return [f"{key} = {json.dumps(value)}" for key, value in changed.items()]
