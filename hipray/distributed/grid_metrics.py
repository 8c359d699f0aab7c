"""A grid's progress as Ray metrics, on the cluster's Prometheus endpoint beside Ray's own."""

from collections.abc import Iterable

from ray.util.metrics import Gauge, Histogram

from hipray.training.ledger import DoneFit
from hipray.training.plan import PlannedFit
from hipray.training.tally import Tally
from hipray.vocab import Fit, FitState

SECONDS_BUCKETS = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0]
"""Bounds in seconds of the histogram of fits."""


class GridMetrics:
    """hipray_grid_fits and hipray_grid_cells by state, hipray_grid_lanes, hipray_grid_fit_seconds;
    each carries the run's name."""

    def __init__(self, run: str) -> None:
        tags = {"run": run}
        self._fits = Gauge("hipray_grid_fits", "Fits by state.", ("run", "state"))
        self._cells = Gauge("hipray_grid_cells", "Cells by state.", ("run", "state"))
        self._lanes = Gauge("hipray_grid_lanes", "Lanes started or waiting for room.", ("run",))
        self._seconds = Histogram(
            "hipray_grid_fit_seconds", "Seconds of finished fits.", SECONDS_BUCKETS,
            ("run", "network"),
        )  # fmt: skip
        for metric in (self._fits, self._cells, self._lanes, self._seconds):
            metric.set_default_tags(tags)

    def show(self, tally: Tally, *, lanes: int) -> None:
        """Publish the counts of one moment."""
        for state in FitState:
            self._fits.set(tally.fits.get(state, 0), {"state": state.value})
            self._cells.set(tally.cells.get(state, 0), {"state": state.value})
        self._lanes.set(lanes)

    def observe(self, finished: Iterable[tuple[PlannedFit, DoneFit]]) -> None:
        """Add fits that were finished since the last call."""
        for planned, done in finished:
            self._seconds.observe(done.seconds, {"network": _network(planned)})


def _network(planned: PlannedFit) -> str:
    fit = planned.fit
    return fit.cell.backbone if isinstance(fit, Fit) else fit.arch.value
