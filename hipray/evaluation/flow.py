"""Read what happened to the archive before training: the flow of hips and the leak check."""

from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Any

from hipray.errors import DataError
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
    def from_mapping(cls, values: Mapping[str, Any]) -> "FlowCounts":
        """Build the counts from `found`, `accepted`, `refused` and `dropped`."""
        _require_keys(values, ("found", "accepted", "refused", "dropped"), "flow counts")
        return cls(
            found=int(values["found"]),
            accepted=int(values["accepted"]),
            refused={RefusalCode(code): int(n) for code, n in values["refused"].items()},
            dropped={Region(region): dict(n) for region, n in values["dropped"].items()},
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

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "LeakCheck":
        """Build the check from its keys; lists of pairs are counted."""
        keys = ("patients_shared", "duplicates", "near_duplicates", "overridden")
        _require_keys(values, keys, "leak check")
        return cls(
            patients_shared=_count(values["patients_shared"]),
            duplicates=_count(values["duplicates"]),
            near_duplicates=_count(values["near_duplicates"]),
            overridden=bool(values["overridden"]),
        )

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.patients_shared or self.duplicates or self.near_duplicates)


def _count(found: int | Sized) -> int:
    return len(found) if isinstance(found, Sized) else int(found)


def _require_keys(values: Mapping[str, Any], keys: tuple[str, ...], name: str) -> None:
    missing = [key for key in keys if key not in values]
    if missing:
        raise DataError(
            f"{name} with the keys {', '.join(keys)}",
            f"none named {', '.join(missing)}",
            "write them with this version of hipray",
        )
