"""Count labelled hips and training images per region (Table 1)."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from hipray.vocab import LabelType, Region, Variant

COUNTED_VARIANTS = (Variant.ORIGINAL, Variant.AUGMENTED)  # the columns of Table 1


@dataclass(frozen=True)
class RegionCounts:
    """Hips of one region by label, and images per fit by variant."""

    region: Region
    labelled: Mapping[LabelType, int]
    abnormal: Mapping[LabelType, int]
    train_images: Mapping[Variant, float]  # mean over fits; no entry where none ran


def count_images(fits: pd.DataFrame, manifest: pd.DataFrame) -> list[RegionCounts]:
    """Return the counts of every region; a region without label columns has no labelled hips."""
    return [_count_region(region, fits, manifest) for region in Region]


def _count_region(region: Region, fits: pd.DataFrame, manifest: pd.DataFrame) -> RegionCounts:
    labels = {label_type: _read_labels(region, label_type, manifest) for label_type in LabelType}
    sizes = {
        variant: fits[(fits["region"] == region) & (fits["variant"] == variant)]["n_train_images"]
        for variant in COUNTED_VARIANTS
    }
    return RegionCounts(
        region=region,
        labelled={label_type: len(values) for label_type, values in labels.items()},
        abnormal={label_type: int(values.sum()) for label_type, values in labels.items()},
        train_images={v: float(images.mean()) for v, images in sizes.items() if len(images)},
    )


def _read_labels(
    region: Region, label_type: LabelType, manifest: pd.DataFrame
) -> "pd.Series[bool]":
    column = f"label_{label_type}_{region}"
    found = manifest[column] if column in manifest else pd.Series(dtype="boolean")
    return found.astype("boolean").dropna().astype(bool)
