"""What a fit costs in time: the one table behind the order of a grid and its estimate."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from hipray.config.experiment import Budget, ClassifierSettings, Experiment
from hipray.data.manifest import label_column
from hipray.vocab import Backbone, Fit, LabelType, Region, SegmenterArch, SegmenterFit, Variant

TRAIN_SECONDS_AT_64: Mapping[str, float] = {
    Backbone.VGG16: 0.041,
    Backbone.RESNET50: 0.022,
    Backbone.DENSENET121: 0.015,
}
"""Seconds to train on one 64 px film, one core with AVX2; cost grows with the area."""
OTHER_SECONDS_AT_64 = 0.025
SEGMENT_SECONDS_AT_128 = {SegmenterArch.UNET: 0.038, SegmenterArch.UNETPP: 0.09}
"""The same for one 128 px film with a resnet18 encoder."""
OTHER_SEGMENT_SECONDS_AT_128 = 0.09
SECONDS_PER_FIT = 1.5
"""What every fit costs besides its epochs, on one core: the network is built, all views are made
and scored, checkpoint and result are written. Measured with one-epoch fits of 40 films at 64 px."""
PAPER_COPIES = 7
"""Films in the augmented arm for one original (Table 1)."""

PAPER_HIPS, PAPER_PATIENTS = 139, 134
PAPER_LABELLED = {
    Region.FEMORAL_NECK: 139,
    Region.GREATER_TROCHANTER: 72,
    Region.WARDS_TRIANGLE: 72,
    Region.TOTAL_HIP: 139,
}
"""Hips with a label in the paper's archive (section 3.2)."""


@dataclass(frozen=True)
class FilmCounts:
    """How many films there are to learn from."""

    hips: int
    labelled: Mapping[tuple[Region, LabelType], int]


PAPER_FILMS = FilmCounts(
    PAPER_HIPS,
    {(r, kind): PAPER_LABELLED.get(r, PAPER_HIPS) for r in Region for kind in LabelType},
)
"""The paper's archive: what is counted on where nothing is ingested yet."""


def count_films(manifest: pd.DataFrame) -> FilmCounts:
    """Return how many hips of `manifest` carry each label."""
    labelled = {
        (region, kind): int(manifest[label_column(kind, region)].notna().sum())
        for region in Region
        for kind in LabelType
    }
    return FilmCounts(len(manifest), labelled)


def estimate_seconds(fit: Fit | SegmenterFit, experiment: Experiment, films: FilmCounts) -> float:
    """Return the seconds that `fit` takes on one core if it does not stop early."""
    share = 1 - 1 / experiment.split.folds
    if isinstance(fit, SegmenterFit):
        return SECONDS_PER_FIT + _segmenter_seconds(fit, experiment, films.hips * share)
    labelled = films.labelled[fit.cell.region, fit.cell.label_type]
    return SECONDS_PER_FIT + _classifier_seconds(fit, experiment, labelled * share)


def _segmenter_seconds(fit: SegmenterFit, experiment: Experiment, films: float) -> float:
    settings = experiment.segmenter
    per_film = SEGMENT_SECONDS_AT_128.get(fit.arch, OTHER_SEGMENT_SECONDS_AT_128)
    return films * settings.epochs * per_film * (settings.size_px / 128) ** 2


def _classifier_seconds(fit: Fit, experiment: Experiment, films: float) -> float:
    cell, settings = fit.cell, experiment.classifier_of(fit.cell.backbone)
    shown = films * (1 - settings.inner_fraction) * count_showings(settings, cell.variant)
    return shown * settings.epochs * seconds_per_film(cell.backbone, settings.size_px)


def count_showings(settings: ClassifierSettings, variant: Variant) -> int:
    """Return how often an epoch shows each film."""
    longer = variant is not Variant.ORIGINAL and settings.budget is Budget.EQUAL_EPOCHS
    return PAPER_COPIES if longer else 1


def seconds_per_film(backbone: str, size_px: int) -> float:
    """Return the seconds to train a classifier on one film, on one core."""
    return TRAIN_SECONDS_AT_64.get(backbone, OTHER_SECONDS_AT_64) * (size_px / 64) ** 2
