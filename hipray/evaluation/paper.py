"""Look up the cells of Feng et al. 2023 (doi 10.20944/preprints202310.0483.v1, CC BY).

The numbers are read from a packaged CSV of Tables 1 and 5 to 10. What cannot be right in them
follows from arithmetic on the tables alone and is flagged, never corrected.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources

from hipray.evaluation.intervals import exact_interval
from hipray.evaluation.statistics import Metric
from hipray.vocab import Backbone, Cell, LabelType, Region, SegmenterArch, Variant


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
class PaperNote:
    """A doubt about one row of the paper, for a footnote."""

    cell: Cell
    split: Split
    text: str


def _note(
    region: Region, label: LabelType, backbone: Backbone, variant: Variant, split: Split, text: str
) -> PaperNote:
    return PaperNote(Cell(region, label, backbone, variant), split, text)


PAPER_NOTES = (
    _note(
        Region.WARDS_TRIANGLE,
        LabelType.BMD,
        Backbone.DENSENET121,
        Variant.ORIGINAL,
        Split.TEST,
        "Table 7: equals the total hip row of the same network in all four numbers, with the "
        "total hip's prevalence: probably pasted.",
    ),
    _note(
        Region.WARDS_TRIANGLE,
        LabelType.BMD,
        Backbone.DENSENET121,
        Variant.AUGMENTED,
        Split.TEST,
        "Table 9: equals the total hip row of the same network in all four numbers, with the "
        "total hip's prevalence: probably pasted.",
    ),
    _note(
        Region.WARDS_TRIANGLE,
        LabelType.BMD,
        Backbone.VGG16,
        Variant.AUGMENTED,
        Split.TEST,
        "Table 9: an F1 of .74 is impossible beside sensitivity .84, specificity .49 and accuracy "
        ".73, which give .81.",
    ),
    _note(
        Region.TOTAL_HIP,
        LabelType.BMD,
        Backbone.RESNET50,
        Variant.ORIGINAL,
        Split.TRAIN,
        "Table 7: a specificity of .97 implies a prevalence of .61 where all other rows of this "
        "region imply .39; .73 would fit: probably a misprint.",
    ),
)


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


def get_note(cell: Cell, split: Split) -> str:
    """Return the doubt about one row of the paper, or an empty string."""
    texts = [note.text for note in PAPER_NOTES if note.cell == cell and note.split is split]
    return " ".join(texts)


def build_caveats() -> list[str]:
    """Return what a reader must know about the paper's numbers, with its sampling error."""
    larger = exact_interval(21, TEST_HIPS[Region.TOTAL_HIP])
    smaller = exact_interval(11, TEST_HIPS[Region.WARDS_TRIANGLE])
    return [
        "The paper tests on 28 hips (femoral neck, total hip) or 15 (greater trochanter, Ward's "
        f"triangle): an accuracy of 21/28 = .75 has an exact 95 % interval of {larger[0]:.2f} to "
        f"{larger[1]:.2f}, 11/15 = .73 one of {smaller[0]:.2f} to {smaller[1]:.2f}. This exceeds "
        "nearly all differences between its rows.",
        "No test row of Tables 6 to 10 fits one run on 28 or 15 images: the numbers are means over "
        "several runs, whose number and spread are not stated.",
        "139 images come from 134 patients and the split is never said to be by patient, so both "
        "hips of one patient may stand on both sides.",
        "The augmented arm takes seven times the optimiser steps of the original arm: what "
        "augmentation does and what longer training does cannot be told apart.",
        "24 of the 48 test rows of Tables 6 to 9 do not beat calling every hip by the majority.",
        "The IoU of .50 for femoral neck and total hip with both networks is what an empty mask "
        "scores as the mean of foreground and background IoU; ours is the foreground's alone.",
    ]
