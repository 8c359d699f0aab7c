"""The counts of an ingest, in words."""

from collections import Counter

from hipray.data.ingest import Flow
from hipray.vocab import LabelType, Region

SHOWN_PROBLEMS = 8


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
