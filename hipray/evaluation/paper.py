"""Look up the cells of Feng et al. 2023 (doi 10.20944/preprints202310.0483.v1, CC BY).

The numbers are read from a packaged CSV of Tables 1 and 5 to 10, never corrected.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources

from hipray.evaluation.statistics import Metric
from hipray.vocab import Cell, LabelType, Region, SegmenterArch, Variant


class Split(StrEnum):
    """Whether a number was measured on training or on test hips."""

    TRAIN = "train"
    TEST = "test"


PAPER_LABELS = {"": None, "tscore": LabelType.T_SCORE, "bmd": LabelType.BMD}

CLASSIFIER_TABLES = {
    (Variant.ORIGINAL, LabelType.T_SCORE): 6,
    (Variant.ORIGINAL, LabelType.BMD): 7,
    (Variant.AUGMENTED, LabelType.T_SCORE): 8,
    (Variant.AUGMENTED, LabelType.BMD): 9,
    (Variant.SEGMENTED, LabelType.T_SCORE): 10,
    (Variant.SEGMENTED, LabelType.BMD): 10,
}
"""The paper's table of each variant and label."""

TEST_HIPS = {
    Region.FEMORAL_NECK: 28,
    Region.GREATER_TROCHANTER: 15,
    Region.WARDS_TRIANGLE: 15,
    Region.TOTAL_HIP: 28,
}
"""Test hips of the paper's 8:2 split of 139 and 72 images (section 3.1)."""


@dataclass(frozen=True)
class PaperTables:
    """The paper's numbers by (region, label, variant, model, split, metric)."""

    values: Mapping[tuple[str, str, str, str, str, str], float]

    def get_metric(self, cell: Cell, split: Split, metric: Metric) -> float | None:
        """Return the paper's value of a cell, or None where it has none (22 of 72 cells)."""
        return self.values.get(
            (cell.region, cell.label_type, cell.variant, cell.backbone, split, metric)
        )

    def get_iou(self, region: Region, arch: SegmenterArch) -> float | None:
        """Return the IoU of Table 5."""
        return self.values.get((region, "", "", arch, "", "iou"))

    def get_train_images(self, region: Region, variant: Variant) -> float | None:
        """Return the training images of Table 1, after augmentation for that variant."""
        metric = "n_total_images" if variant is Variant.AUGMENTED else "n_images"
        return self.values.get((region, "", variant, "", Split.TRAIN, metric))


def read_paper_tables() -> PaperTables:
    """Read the packaged tables."""
    text = resources.files("hipray.evaluation").joinpath("paper_tables.csv").read_text("utf-8")
    values = {}
    for row in csv.DictReader(text.splitlines()):
        label = PAPER_LABELS[row["label_type"]] or ""
        key = (row["region"], label, row["variant"], row["model"], row["split"], row["metric"])
        values[key] = float(row["value"])
    return PaperTables(values)
