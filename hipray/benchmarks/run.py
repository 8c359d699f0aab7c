"""A bench by its name: measures as JSON lines, each with the machine it was taken on."""

import json
from collections.abc import Callable, Iterator

from hipray import RESEARCH_NOTICE
from hipray.benchmarks.grid import measure_grid
from hipray.benchmarks.machine import describe_machine
from hipray.benchmarks.measure import Measure
from hipray.benchmarks.score import measure_score
from hipray.benchmarks.serve import measure_serve
from hipray.config.benchmarks import BenchRun
from hipray.errors import ConfigError

BENCHES: dict[str, Callable[[BenchRun], Iterator[Measure]]] = {
    "grid": measure_grid,
    "score": measure_score,
    "serve": measure_serve,
}
"""Every bench by its name."""


def run_bench(config: BenchRun) -> Iterator[str]:
    """Yield each measure of a bench as one line of JSON, as soon as it is taken.

    Raises ConfigError naming the benches where there is none of that name.
    """
    check_name(config.name)
    machine = describe_machine()
    for measure in BENCHES[config.name](config):
        yield json.dumps(measure.as_line() | {"machine": machine, "notice": RESEARCH_NOTICE})


def check_name(name: str) -> None:
    """Raise ConfigError naming the benches where there is none of that name."""
    if name not in BENCHES:
        raise ConfigError(f"one of the benches {', '.join(BENCHES)}", f"'{name}'", "name one")
