"""The counts of an ingest, as they are kept beside the manifest, and the same in words."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hipray.config.labels import LabelRules
from hipray.data.dxa.records import DxaRecord
from hipray.data.labels import LabelSource, count_label_disagreements
from hipray.data.manifest import basis_column, missing_column
from hipray.errors import DataError
from hipray.storage import Store
from hipray.vocab import REGIONS, DataSource, LabelType, Region

FLOW_KEY = "ingest/flow.json"
SHOWN_PROBLEMS = 8
FROM_BMD = (LabelSource.COMPUTED_T, LabelSource.COMPUTED_Z)
"""Labels that rest on a score which no report states."""
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
    bases: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    """region -> label -> what it rests on -> hips."""
    given: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    """region -> label -> how many given labels of the table could be computed too, and differ."""
    problems: list[str] = field(default_factory=list)
    source: str = DataSource.REAL
    preprocessing: dict[str, Any] = field(default_factory=dict)
    """The settings that made the hips; a release pins them."""
    rules: dict[str, Any] = field(default_factory=dict)
    """The rules that made the labels; a report states them."""
    identity: str = ""
    """Digest of the settings, files, table and code that it came from."""
    reused: bool = False


def write_flow(workspace: Store, flow: Flow) -> None:
    """Keep the counts; written last, they say that the ingest is whole."""
    workspace.write(FLOW_KEY, json.dumps(asdict(flow), indent=1).encode())


def read_flow(workspace: Store) -> Flow:
    """Return the counts of the workspace's ingest; raise DataError where it has none of ours."""
    if not workspace.exists(FLOW_KEY):
        found = "none"
    else:
        try:
            return Flow(**json.loads(workspace.read(FLOW_KEY)))
        except (ValueError, TypeError) as error:
            found = type(error).__name__
    raise DataError(
        f"the counts of an ingest in {workspace.uri_of(FLOW_KEY)}", found, "run `hipray ingest`"
    )


def count_given(records: Iterable[DxaRecord], rules: LabelRules) -> Counts:
    """Return how many given labels could be computed too, and differ."""
    counts: Counts = {}
    for (region, label), agreement in count_label_disagreements(records, rules).items():
        counts.setdefault(region, {})[label] = asdict(agreement)
    return counts


def count_dropped(rows: Sequence[Mapping[str, Any]]) -> Counts:
    """Return how many manifest rows lack a label, by the reason."""
    return _count_rows(rows, missing_column)


def count_bases(rows: Sequence[Mapping[str, Any]]) -> Counts:
    """Return how many manifest rows have a label, by what it rests on."""
    return _count_rows(rows, basis_column)


def _count_rows(
    rows: Sequence[Mapping[str, Any]], column: Callable[[LabelType, Region], str]
) -> Counts:
    return {
        region.value: {
            label.value: dict(
                Counter(filter(None, (row.get(column(label, region)) for row in rows)))
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
        *_labelled_lines(flow),
        *_computed_lines(flow),
        *_given_lines(flow),
        *(f"  problem: {problem}" for problem in flow.problems[:SHOWN_PROBLEMS]),
    ]
    if len(flow.problems) > SHOWN_PROBLEMS:
        lines.append(f"  and {len(flow.problems) - SHOWN_PROBLEMS} more in ingest/flow.json")
    return "\n".join(lines)


def _labelled_lines(flow: Flow) -> list[str]:
    lines = []
    for region in Region:
        for label in LabelType:
            labelled = sum(flow.bases.get(region, {}).get(label, {}).values())
            reasons = Counter(flow.dropped.get(region, {}).get(label, {}))
            said = [f"{labelled} hips with a label"] if labelled else []
            if reasons:
                reason, _ = reasons.most_common(1)[0]
                said.append(f"{sum(reasons.values())} hips without a label, mostly: {reason}")
            if said:
                lines.append(f"  {region.display_name} {label}: {', '.join(said)}")
    return lines


def _computed_lines(flow: Flow) -> list[str]:
    return [
        f"  {region.display_name} {label}: {computed} of {sum(counts.values())} labels rest on a "
        "score computed from BMD"
        for region in Region
        for label, counts in flow.bases.get(region, {}).items()
        if (computed := sum(counts.get(source, 0) for source in FROM_BMD))
    ]


def _given_lines(flow: Flow) -> list[str]:
    return [
        f"  {region.display_name} {label}: {counts['disagreeing']} of {counts['compared']} given "
        "labels differ from those that the reported figures give; the given ones are used"
        for region in Region
        for label, counts in flow.given.get(region, {}).items()
    ]
