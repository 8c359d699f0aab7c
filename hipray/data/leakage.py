"""The leakage guard: refuses a split whose test result could be learned from its training set.

Four kinds of pair may not lie on both sides of a fold: two hips of one patient, the same pixels,
a near duplicate, and a film with its augmented sibling. `near_duplicates` compares films for the
third.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from hipray.errors import LeakageError

GUARD_PX = 256
"""Side of the frames of which duplicates are sought, whatever the networks see: at 64 px the grain
is gone."""


class LeakKind(StrEnum):
    """Why two hips may not be on both sides."""

    SAME_PATIENT = "same_patient"
    SAME_PIXELS = "same_pixels"
    NEAR_DUPLICATE = "near_duplicate"
    AUGMENTED_SIBLING = "augmented_sibling"


@dataclass(frozen=True)
class Leak:
    """One pair of hips that a split separates and may not."""

    kind: LeakKind
    hip_a: str
    hip_b: str
    repeat: int


@dataclass(frozen=True)
class LeakReport:
    """What the guard found; `allowed` where the configuration overrides it."""

    leaks: tuple[Leak, ...]
    allowed: bool

    @property
    def overridden(self) -> bool:
        """Whether the configuration lets through what the guard found."""
        return self.allowed and bool(self.leaks)

    def counts(self) -> dict[LeakKind, int]:
        """Return the number of leaking pairs of each kind."""
        return {kind: sum(leak.kind is kind for leak in self.leaks) for kind in LeakKind}


def describe_leaks(counts: Mapping[LeakKind, int]) -> str:
    """Return in words what a LeakReport counts: "10 same_patient, 2 near_duplicate", or nothing."""
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def find_leaks(
    manifest: pd.DataFrame,
    split: pd.DataFrame,
    duplicates: Sequence[tuple[int, int]],
    *,
    allow: bool,
    test_folds: tuple[int, ...] | None = None,
) -> LeakReport:
    """Return the leaks of `split`; only folds that are tested count.

    `duplicates` are pairs of rows of the manifest whose films show one exposure.
    """
    pairs = dict(_related_pairs(manifest))
    for pair in duplicates:
        pairs.setdefault(pair, LeakKind.NEAR_DUPLICATE)
    return LeakReport(tuple(_separated(manifest, split, pairs, test_folds)), allow)


def refuse_leaks(report: LeakReport, *, listed_at: str) -> None:
    """Raise LeakageError naming the pairs unless there are none or they are allowed.

    `listed_at` is where all pairs are written.
    """
    if report.leaks and not report.allowed:
        raise LeakageError(
            "no patient, film or copy of a film on both sides of a fold",
            f"{len(report.leaks)} pairs: {_listing(report.leaks)}; all are in {listed_at}, and "
            "ingest/files.parquet says which hip is which file",
            "split by patient and remove the copies, or set leakage.allow = true, which every "
            "report and card will say",
        )


def check_mask_origins(
    split: pd.DataFrame, origins: pd.DataFrame, *, repeat: int, allow: bool
) -> int:
    """Count hips whose predicted mask came from a segmenter that trained on their patient.

    `origins` has `hip_id` and `fold`, the segmenter's test fold. Raises LeakageError if any.
    """
    rows = split[split["repeat"] == repeat]
    own = origins.merge(rows, on="hip_id", suffixes=("_mask", ""), validate="many_to_one")
    # a segmenter of fold k trained on every patient with a hip outside fold k
    folds_of = rows.groupby("patient_id")["fold"].agg(set)
    seen = [folds_of[p] != {f} for p, f in zip(own["patient_id"], own["fold_mask"], strict=True)]
    count = int(np.sum(seen))
    if count and not allow:
        raise LeakageError(
            "every mask from a segmenter that never saw its patient",
            f"{count} masks from segmenters trained on the same patient",
            "cross-fit the segmenters on the same split",
        )
    return count


def _related_pairs(manifest: pd.DataFrame) -> Iterator[tuple[tuple[int, int], LeakKind]]:
    family = manifest["parent_hip_id"].fillna(manifest["hip_id"])
    for values, kind in (
        (manifest["patient_id"], LeakKind.SAME_PATIENT),
        (family, LeakKind.AUGMENTED_SIBLING),
        (manifest["pixel_sha256"], LeakKind.SAME_PIXELS),
    ):
        for rows in values.groupby(values.to_numpy(), sort=False).indices.values():
            for i, a in enumerate(rows):
                for b in rows[i + 1 :]:
                    yield (int(a), int(b)), kind


def _separated(
    manifest: pd.DataFrame,
    split: pd.DataFrame,
    pairs: dict[tuple[int, int], LeakKind],
    test_folds: tuple[int, ...] | None,
) -> Iterator[Leak]:
    ids = manifest["hip_id"].to_numpy()
    for repeat, rows in split.groupby("repeat"):
        fold = rows.set_index("hip_id")["fold"].loc[ids].to_numpy()
        for (a, b), kind in sorted(pairs.items()):
            tested = test_folds is None or fold[a] in test_folds or fold[b] in test_folds
            if fold[a] != fold[b] and tested:
                yield Leak(kind, str(ids[a]), str(ids[b]), int(str(repeat)))


def _listing(leaks: tuple[Leak, ...], most: int = 5) -> str:
    shown = [f"{leak.hip_a} and {leak.hip_b} ({leak.kind})" for leak in leaks[:most]]
    more = f" and {len(leaks) - most} more" if len(leaks) > most else ""
    return ", ".join(shown) + more
