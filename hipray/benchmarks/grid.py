"""The bench of the grid: lanes against a script, the data path, a fit's fixed cost, and the GPU."""

from collections.abc import Iterator

from hipray.benchmarks.gpu import measure_gpu
from hipray.benchmarks.lanes import build_bench_grid, compare_lanes
from hipray.benchmarks.machine import pin_cores
from hipray.benchmarks.measure import Measure
from hipray.benchmarks.overhead import measure_overhead
from hipray.benchmarks.steps import compare_steps
from hipray.benchmarks.workspace import open_bench_store
from hipray.config.benchmarks import BenchRun, GridBench, GridMeasure
from hipray.distributed.cluster import connect, read_nodes
from hipray.errors import ConfigError
from hipray.training.preparation import prepare
from hipray.vocab import Variant, View


def measure_grid(config: BenchRun) -> Iterator[Measure]:
    """Yield the measures of the grid bench as they are taken.

    Raises ConfigError where Ray has several nodes: both sides must run on one machine.
    """
    bench = config.grid
    _check_cells(bench)
    with pin_cores(bench.cores):
        connect()
        _require_one_node()
        with open_bench_store(config) as store:
            grid = build_bench_grid(store, bench)
            if GridMeasure.LANES in bench.measures:
                yield from compare_lanes(store, bench)
            if GridMeasure.STEPS in bench.measures:
                yield from compare_steps(prepare(store, grid).inputs, bench)
            if GridMeasure.OVERHEAD in bench.measures:
                yield measure_overhead(store, bench)
            if GridMeasure.GPU in bench.measures:
                yield from measure_gpu(store, grid, bench.gpu)


def _check_cells(bench: GridBench) -> None:
    matted = [str(variant) for variant in bench.variants if variant.view is View.MATTED]
    if matted:
        whole = ", ".join(f"'{v}'" for v in Variant if v.view is View.WHOLE)
        raise ConfigError(
            f"variants of whole films ({whole})",
            ", ".join(matted),
            "correct grid.variants: the bench has no segmenters",
        )


def _require_one_node() -> None:
    nodes = len(read_nodes())
    if nodes != 1:
        raise ConfigError(
            "one machine for both sides", f"a Ray cluster of {nodes} nodes", "unset RAY_ADDRESS"
        )
