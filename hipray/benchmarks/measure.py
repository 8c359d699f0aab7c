"""One measure of a bench: both sides, their ratio and whether the target is met.

A ratio above 1 is better, whatever the unit. It is the median of the ratios of neighbouring pairs,
so that a machine that slows down in the middle of a run slows down both sides of a pair; it may
therefore differ a little from the quotient of the two medians beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

DIGITS = 4
"""Significant digits of a printed figure; more would be noise."""


@dataclass(frozen=True)
class Pair:
    """Both sides measured one right after the other."""

    ours: float
    peer: float


@dataclass(frozen=True)
class Measure:
    """One line of a bench's answer; a skipped measure has a reason and no figures."""

    name: str
    unit: str
    ours: float | None = None
    """Median of our side."""
    peer: float | None = None
    """Median of the other side; None where the target is a limit and not a peer."""
    ratio: float | None = None
    target: float | None = None
    """Least ratio, or a limit in the measure's unit; None where the figure is only stated."""
    met: bool | None = None
    n: int = 0
    """Pairs or values behind the medians."""
    spread: tuple[float, float] | None = None
    """Smallest and largest ratio of a pair, or value where there is no peer."""
    context: dict[str, Any] = field(default_factory=dict)
    """Further keys of the line."""

    def as_line(self) -> dict[str, Any]:
        """Return the measure as one flat JSON object."""
        line = {key: value for key, value in vars(self).items() if key != "context"}
        rounded: dict[str, Any] = _round(line | self.context)
        return rounded


def compare_rates(
    name: str, pairs: Sequence[Pair], *, unit: str, target: float | None = None, **context: Any
) -> Measure:
    """Compare rates, of which the higher is better; `target` is the least ratio."""
    return _compare(name, pairs, lambda p: p.ours / p.peer, unit, target, context)


def compare_durations(
    name: str, pairs: Sequence[Pair], *, unit: str, target: float | None = None, **context: Any
) -> Measure:
    """Compare durations, of which the shorter is better; `target` is the least ratio."""
    return _compare(name, pairs, lambda p: p.peer / p.ours, unit, target, context)


def hold_below(
    name: str, values: Sequence[float], *, unit: str, limit: float, **context: Any
) -> Measure:
    """Hold the median of `values` against a limit; the ratio is limit / median."""
    ours = median(values)
    spread = (min(values), max(values))
    return Measure(
        name, unit, ours, None, limit / ours, limit, ours < limit, len(values), spread, context
    )


def skip(name: str, *, unit: str, reason: str, **context: Any) -> Measure:
    """State that a measure was not taken, and why."""
    return Measure(name, unit, context={"skipped": reason, **context})


def _compare(
    name: str,
    pairs: Sequence[Pair],
    ratio_of: Callable[[Pair], float],
    unit: str,
    target: float | None,
    context: dict[str, Any],
) -> Measure:
    ratios = [ratio_of(pair) for pair in pairs]
    ratio = median(ratios)
    return Measure(
        name=name,
        unit=unit,
        ours=median(pair.ours for pair in pairs),
        peer=median(pair.peer for pair in pairs),
        ratio=ratio,
        target=target,
        met=None if target is None else ratio >= target,
        n=len(pairs),
        spread=(min(ratios), max(ratios)),
        context=context,
    )


def _round(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _round(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_round(part) for part in value]
    return value
