"""The counts of an ingest, and the same in words."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hipray.config.labels import LabelRules
from hipray.data.dxa.records import DxaRecord
from hipray.data.labels import count_label_disagreements
from hipray.data.manifest import missing_column
from hipray.vocab import REGIONS, DataSource, LabelType, Region

SHOWN_PROBLEMS = 8
Counts = dict[str, dict[str, dict[str, int]]]
"""region -> label -> what is counted -> hips."""


@dataclass
class Flow:
    """The counts of one ingest: found = accepted + refused, in files."""

    found: int = 0
    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    hips: int = 0
    patients: int = 0
    annotations: int = 0
    dropped: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    """region -> label -> reason -> hips."""
    given: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    """region -> label -> how many given labels of the table could be computed too, and differ."""
    problems: list[str] = field(default_factory=list)
    source: str = DataSource.REAL
    preprocessing: dict[str, Any] = field(default_factory=dict)
    """The settings that made the hips; a release pins them."""
    reused: bool = False


def count_given(records: Iterable[DxaRecord], rules: LabelRules) -> Counts:
    """Return how many given labels could be computed too, and differ."""
    counts: Counts = {}
    for (region, label), agreement in count_label_disagreements(records, rules).items():
        counts.setdefault(region, {})[label] = asdict(agreement)
    return counts


def count_dropped(rows: Sequence[Mapping[str, Any]]) -> Counts:
    """Return how many manifest rows lack a label, by the reason."""
    return {
        region.value: {
            label.value: dict(
                Counter(
                    row[missing_column(label, region)]
                    for row in rows
                    if row.get(missing_column(label, region))
                )
            )
            for label in LabelType
        }
        for region in REGIONS
    }


def describe_flow(flow: Flow) -> str:
    """Return what became of every file, and which labels are missing and why."""
    refused = sum(flow.refused.values())
    lines = [
        f"{flow.found} files found = {flow.accepted} accepted + {refused} refused ({flow.source})"
        + (", unchanged since the last ingest" if flow.reused else ""),
        *(f"  refused {code}: {count}" for code, count in sorted(flow.refused.items())),
        f"{flow.hips} hips of {flow.patients} patients, {flow.annotations} with annotations",
        *_dropped_lines(flow),
        *_given_lines(flow),
        *(f"  problem: {problem}" for problem in flow.problems[:SHOWN_PROBLEMS]),
    ]
    if len(flow.problems) > SHOWN_PROBLEMS:
        lines.append(f"  and {len(flow.problems) - SHOWN_PROBLEMS} more in ingest/flow.json")
    return "\n".join(lines)


def _dropped_lines(flow: Flow) -> list[str]:
    lines = []
    for region in Region:
        for label in LabelType:
            reasons = Counter(flow.dropped.get(region, {}).get(label, {}))
            if reasons:
                reason, _ = reasons.most_common(1)[0]
                lines.append(
                    f"  {region.display_name} {label}: {sum(reasons.values())} hips without a "
                    f"label, mostly: {reason}"
                )
    return lines


def _given_lines(flow: Flow) -> list[str]:
    return [
        f"  {region.display_name} {label}: {counts['disagreeing']} of {counts['compared']} given "
        "labels differ from those that the reported figures give; the given ones are used"
        for region in Region
        for label, counts in flow.given.get(region, {}).items()
    ]
