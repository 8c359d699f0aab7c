"""Whether a query is PromQL, asks metrics as their kind wants it, and in which unit it answers."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta

from promql_parser import (
    AggModifierType,
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    MatchOp,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    VectorSelector,
    parse,
)

COUNTED = re.compile(r"_(total|bucket|count|sum)$")
"""Ends of what only grows while its process lives: by itself it says nothing, its rate does."""
AMOUNTS = {"ray_node_cpu_count", "ray_node_mem_total"}
"""Names with such an end that are no counters."""
SCRAPES = 4
PER_SECOND = "per second"
SHARE = "percentunit"
Unit = Callable[[str], str]
"""The unit of a metric by its stem, as Grafana names it."""


def find_query_problems(text: str, unit_of: Unit) -> list[str]:
    """Return what is wrong with a query."""
    problems: list[str] = []
    read_unit(text, unit_of, problems)
    return problems


def read_unit(text: str, unit_of: Unit, problems: list[str] | None = None) -> str:
    """Return the unit of a query's answer and add to `problems` what is wrong with it."""
    problems = [] if problems is None else problems
    try:
        return _measure(parse(text), unit_of, problems)
    except ValueError as error:
        problems.append(f"{text}: {error}")
        return ""


def _measure(node: Expr, unit_of: Unit, problems: list[str]) -> str:
    if isinstance(node, ParenExpr | AggregateExpr):
        return _measure(node.expr, unit_of, problems)
    if isinstance(node, NumberLiteral):
        return ""
    if isinstance(node, VectorSelector):
        if _is_counted(str(node.name)):
            problems.append(f"{node.name} by itself: only its rate says something")
        return unit_of(str(node.name))
    if isinstance(node, BinaryExpr):
        return _measure_two(node, unit_of, problems)
    if isinstance(node, Call):
        return _measure_call(node, unit_of, problems)
    problems.append(f"has a {type(node).__name__}, which tests/cluster/queries.py does not know")
    return ""


def _measure_two(node: BinaryExpr, unit_of: Unit, problems: list[str]) -> str:
    left, right = (_measure(each, unit_of, problems) for each in (node.lhs, node.rhs))
    if str(node.op) == "/":
        above, below = _counter_of(node.lhs), _counter_of(node.rhs)
        if above.endswith("_sum") and below == above.replace("_sum", "_count"):
            return unit_of(COUNTED.sub("", above))
        return SHARE if left == right else f"{left} / {right}"
    if left and right and left != right and str(node.op) in {"+", "-"}:
        problems.append(f"adds {right} to {left}")
    return left or right


def _measure_call(node: Call, unit_of: Unit, problems: list[str]) -> str:
    name = node.func.name
    if name == "histogram_quantile":
        return _measure_quantile(node, unit_of, problems)
    inner = node.args[-1] if node.args else None
    if isinstance(inner, MatrixSelector):
        metric = str(inner.vector_selector.name)
        counted = name in {"rate", "increase"}
        if counted != _is_counted(metric):
            problems.append(f"{name} of {metric}, which is of another kind")
        return PER_SECOND if name == "rate" else "short"
    return _measure(inner, unit_of, problems) if inner is not None else ""


def _measure_quantile(node: Call, unit_of: Unit, problems: list[str]) -> str:
    share, buckets = node.args
    if not isinstance(share, NumberLiteral) or not 0 < share.val < 1:
        problems.append(f"{share} is no share of the observations")
    metric = _counter_of(buckets)
    grouped = buckets.modifier if isinstance(buckets, AggregateExpr) else None
    kept = grouped.labels if grouped is not None and grouped.type == AggModifierType.By else []
    if not metric.endswith("_bucket") or "le" not in kept:
        problems.append(f"a quantile of {metric or buckets} by {kept} instead of buckets by le")
    return unit_of(COUNTED.sub("", metric))


def list_selectors(node: Expr) -> Iterator[tuple[VectorSelector, timedelta | None]]:
    """Yield every metric that a query asks, with the range over which it does."""
    if isinstance(node, VectorSelector):
        yield node, None
    elif isinstance(node, MatrixSelector):
        yield node.vector_selector, node.range
    elif isinstance(node, BinaryExpr):
        yield from (each for side in (node.lhs, node.rhs) for each in list_selectors(side))
    elif isinstance(node, Call):
        yield from (each for part in node.args for each in list_selectors(part))
    elif hasattr(node, "expr"):
        yield from list_selectors(node.expr)


def find_range_problems(text: str, scraped_s: float) -> Iterator[str]:
    """Yield the metrics that a query asks over less than four scrapes: one may be lost."""
    for selector, asked in list_selectors(parse(text)):
        if asked is not None and asked.total_seconds() < SCRAPES * scraped_s:
            yield f"{selector.name} over {asked} at a scrape every {scraped_s:g} s"


def find_bucket_problems(text: str, buckets_of: Callable[[str], frozenset[str]]) -> Iterator[str]:
    """Yield the bounds that a query asks for and its histogram does not have."""
    for selector, _ in list_selectors(parse(text)):
        for matcher in selector.matchers.matchers:
            if matcher.name == "le" and matcher.value not in buckets_of(str(selector.name)):
                yield f"{selector.name} has no bucket {matcher.value}"


def find_lost_variables(text: str, name: str, labels_of: Callable[[str], set[str]]) -> list[str]:
    """Return the metrics with a label of a variable's name that a query does not choose by it."""
    return [
        f"{selector.name} of every {name}"
        for selector, _ in list_selectors(parse(text))
        if name in labels_of(str(selector.name))
        and [(MatchOp.Re, f"${name}")]
        != [(m.op, m.value) for m in selector.matchers.matchers if m.name == name]
    ]


def _is_counted(metric: str) -> bool:
    return COUNTED.search(metric) is not None and metric not in AMOUNTS


def _counter_of(node: Expr) -> str:
    """Return the metric whose rate or increase a query sums up."""
    if isinstance(node, ParenExpr | AggregateExpr):
        return _counter_of(node.expr)
    if isinstance(node, Call) and node.args and isinstance(node.args[-1], MatrixSelector):
        return str(node.args[-1].vector_selector.name)
    return ""
