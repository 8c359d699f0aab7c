"""What happened to the archive before training: the flow of hips and the leak check."""

from collections.abc import Mapping
from dataclasses import dataclass

from hipray.data.flow import Flow
from hipray.vocab import RefusalCode, Region


@dataclass(frozen=True)
class FlowCounts:
    """The archive's way to the manifest (STARD 2015, item 19).

    Found, accepted and refused count the same thing, files or hips; `dropped` counts hips.
    """

    found: int
    accepted: int
    refused: Mapping[RefusalCode, int]
    dropped: Mapping[Region, Mapping[str, int]]  # per region: reason to hips without a label

    @classmethod
    def of(cls, flow: Flow) -> "FlowCounts":
        """Return the counts of an ingest; a reason that two labels do not share names its label."""
        return cls(
            found=flow.found,
            accepted=flow.accepted,
            refused={RefusalCode(code): count for code, count in flow.refused.items()},
            dropped={Region(name): _list_reasons(labels) for name, labels in flow.dropped.items()},
        )

    @property
    def unaccounted(self) -> int:
        """What is neither accepted nor refused; anything but 0 is a defect the report shows."""
        return self.found - self.accepted - sum(self.refused.values())


@dataclass(frozen=True)
class LeakCheck:
    """What the leakage guard found between training and test hips."""

    patients_shared: int  # pairs of hips of one patient
    duplicates: int
    near_duplicates: int
    overridden: bool  # trained in spite of what was found

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.patients_shared or self.duplicates or self.near_duplicates)


def _list_reasons(labels: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    reasons = dict.fromkeys(reason for counts in labels.values() for reason in counts)
    listed: dict[str, int] = {}
    for reason in reasons:
        counts = {label: found.get(reason, 0) for label, found in labels.items()}
        if len(set(counts.values())) == 1:
            listed[reason] = next(iter(counts.values()))
        else:
            listed |= {f"{reason} ({label} label)": n for label, n in counts.items() if n}
    return listed
