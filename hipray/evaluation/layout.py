"""The shape of a table on the page and how a number is written in it."""

from dataclasses import dataclass

from hipray.evaluation.intervals import Interval
from hipray.evaluation.results import CellResult, Spread
from hipray.vocab import LabelType, Variant

DASH = "–"  # the paper has no such number, or ours is not defined
LABEL_TITLES = {LabelType.T_SCORE: "T-score", LabelType.BMD: "BMD"}
VARIANT_TITLES = {
    Variant.ORIGINAL: "original data",
    Variant.AUGMENTED: "augmented data",
    Variant.SEGMENTED: "segmented data",
}


@dataclass(frozen=True)
class Entry:
    """One box of a table: our number, its spread over fits, the paper's number."""

    ours: str
    spread: str = ""
    paper: str | None = None  # None: this column has no counterpart in the paper
    mark: str = ""  # footnote number of a doubt about the paper's number


@dataclass(frozen=True)
class Row:
    """One model of a table with the hips and fits behind it."""

    name: str
    detail: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Block:
    """The rows of one region, or the sentence that says why there are none."""

    heading: str
    rows: tuple[Row, ...] = ()
    sentence: str = ""


@dataclass(frozen=True)
class TableView:
    """A table as the page shows it."""

    anchor: str
    title: str
    caption: str
    columns: tuple[str, ...]
    blocks: tuple[Block, ...]
    footnotes: tuple[str, ...] = ()


def format_interval(interval: Interval, *, digits: int = 2) -> str:
    """Return `0.71 (0.62-0.79)`, or a dash for what is not defined."""
    if interval.value != interval.value:
        return DASH
    value, low, high = (
        f"{number:.{digits}f}" for number in (interval.value, interval.low, interval.high)
    )
    return value if interval.low != interval.low else f"{value} ({low}–{high})"


def format_spread(spread: Spread | None) -> str:
    """Return `0.70 ± 0.05 over 25 fits`, or a dash."""
    if spread is None or spread.n == 0:
        return DASH
    if spread.n == 1:
        return f"{spread.mean:.2f} in 1 fit"
    return f"{spread.mean:.2f} ± {spread.sd:.2f} over {spread.n} fits"


def describe_hips(result: CellResult) -> str:
    """Return the hips, patients, abnormal hips and fits behind a result."""
    return (
        f"{result.n_hips} hips of {result.n_patients} patients, {result.n_positives} abnormal, "
        f"{result.n_fits} fits"
    )


def format_number(value: float | None) -> str:
    """Return two decimals, or a dash for None and NaN."""
    return DASH if value is None or value != value else f"{value:.2f}"
