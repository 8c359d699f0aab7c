"""The shape of a number in the long table."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from hipray.evaluation.intervals import Interval
from hipray.evaluation.paper import CLASSIFIER_TABLES, Split
from hipray.evaluation.results import Spread
from hipray.evaluation.statistics import Metric
from hipray.vocab import Cell

BEYOND = "beyond"
"""The table of cells that the paper does not have."""


@dataclass(frozen=True)
class Subject:
    """What a number is about."""

    table: str
    region: str = ""
    label_type: str = ""
    variant: str = ""
    model: str = ""
    split: str = Split.TEST


@dataclass(frozen=True)
class NumberRecord(Subject):
    """One number; `n` counts hips, for a mean or SD over fits the fits."""

    metric: str = ""
    value: float = float("nan")
    low: float | None = None
    high: float | None = None
    n: int = 0
    source: str = ""
    paper_value: float | None = None


def describe_cell(cell: Cell, table: str | None = None) -> Subject:
    """Return the subject of a cell's numbers, by default in its table of the paper, if any."""
    own = str(CLASSIFIER_TABLES.get((cell.variant, cell.label_type), BEYOND))
    return Subject(table or own, cell.region, cell.label_type, cell.variant, cell.backbone)


def record_spread(
    subject: Subject, metric: Metric, spread: Spread, paper_value: float | None
) -> Iterator[NumberRecord]:
    """Yield mean and SD over fits; the paper's cell is a mean over runs."""
    mean = record_value(subject, metric=f"{metric}_mean_over_fits", value=spread.mean, n=spread.n)
    yield replace(mean, paper_value=paper_value)
    yield record_value(subject, metric=f"{metric}_sd_over_fits", value=spread.sd, n=spread.n)


def record_interval(
    subject: Subject, metric: str, interval: Interval, n: int, paper_value: float | None = None
) -> NumberRecord:
    """Return a value with its interval."""
    record = record_value(subject, metric=metric, value=interval.value, n=n)
    return replace(record, low=interval.low, high=interval.high, paper_value=paper_value)


def record_value(subject: Subject, *, metric: str, value: float, n: int) -> NumberRecord:
    """Return a value without an interval."""
    return NumberRecord(**asdict(subject), metric=metric, value=value, n=n)
