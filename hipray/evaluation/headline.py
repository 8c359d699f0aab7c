"""The headline of a release, out of fold: the worse of femoral neck and total hip (ISCD 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hipray.config.evaluation import Combine, EvaluationConfig
from hipray.config.labels import OSTEOPOROSIS_T
from hipray.data.manifest import label_column, score_column
from hipray.errors import DataError
from hipray.evaluation.combining import HIP_FOLD, combine_members, members_for
from hipray.evaluation.results import pool_repeats
from hipray.training.thresholds import choose_threshold
from hipray.vocab import HEADLINE_REGIONS, Cell, DxaQuantity, LabelType, Part, Region

FALLBACK_THRESHOLD = 0.5  # where a fold's inner hips are all of one class


@dataclass(frozen=True)
class HeadlineScores:
    """Out-of-fold headline hips with what was left out on the way to them."""

    hips: pd.DataFrame  # hip_id, patient_id, label, score, positive
    regions: tuple[Region, ...]
    n_folds: int
    n_folds_without_threshold: int
    folds: pd.DataFrame  # repeat, fold and hip_id of each tested hip
    n_without_t: int  # test hips with predictions but without a T-score at every headline region


def score_headline(
    predictions: pd.DataFrame,
    members: Sequence[Cell],
    *,
    manifest: pd.DataFrame,
    config: EvaluationConfig,
) -> HeadlineScores:
    """Return each out-of-fold hip with its headline probability and decision.

    Per fold the members of a region are combined, the higher region is taken, and the threshold
    is chosen on the same fold's inner hips.
    """
    regions = tuple(r for r in HEADLINE_REGIONS if members_for(members, r, LabelType.T_SCORE))
    if not regions:
        found = ", ".join(member.name for member in members) or "no members"
        raise DataError("a t_score member for femoral neck or total hip", found, "add one")
    labelled = _score_and_label(predictions, members, regions, manifest, config)
    known = labelled.dropna(subset=["label"]).astype({"label": int})
    tests = known[known["part"] == Part.TEST]
    if tests.empty:
        raise DataError(
            "a fold that every member of the release ran on", "none", "finish the grid's fits"
        )
    thresholds = choose_thresholds(known, config)
    decided = tests.merge(thresholds, on=["repeat", "fold"])
    unknown = labelled[labelled["label"].isna() & (labelled["part"] == Part.TEST)]
    return HeadlineScores(
        hips=pool_repeats(decided.assign(score=decided["probability"])),
        regions=regions,
        n_folds=len(thresholds),
        n_folds_without_threshold=int(thresholds["fallback"].sum()),
        folds=decided[["repeat", "fold", "hip_id"]],
        n_without_t=unknown["hip_id"].nunique(),
    )


def choose_headline_threshold(
    predictions: pd.DataFrame,
    members: Sequence[Cell],
    *,
    manifest: pd.DataFrame,
    config: EvaluationConfig,
) -> float | None:
    """Return the threshold of the headline probability on the inner hips of all folds.

    None where no member scores a headline region, or the inner hips do not tell one.
    """
    regions = tuple(r for r in HEADLINE_REGIONS if members_for(members, r, LabelType.T_SCORE))
    if not regions:
        return None
    hips = _score_and_label(predictions, members, regions, manifest, config)
    inner = hips[hips["part"] == Part.INNER].dropna(subset=["label"])
    threshold = _choose(inner, config)
    return None if pd.isna(threshold) else threshold


def _choose(inner: pd.DataFrame, config: EvaluationConfig) -> float:
    return choose_threshold(
        inner["label"].to_numpy(dtype=np.int64),
        inner["probability"].to_numpy(dtype=np.float64),
        config.threshold,
        sensitivity=config.screening_sensitivity,
    )


def _score_and_label(
    predictions: pd.DataFrame,
    members: Sequence[Cell],
    regions: Sequence[Region],
    manifest: pd.DataFrame,
    config: EvaluationConfig,
) -> pd.DataFrame:
    # a hip held back for one region may have trained another: only jointly held hips count
    worst = _score_worst_site(predictions, members, regions, config.combine)
    return worst.merge(label_worst_site(manifest, regions), on="hip_id", how="left")


def _score_worst_site(
    predictions: pd.DataFrame, members: Sequence[Cell], regions: Sequence[Region], combine: Combine
) -> pd.DataFrame:
    sites = [
        combine_members(predictions, members_for(members, region, LabelType.T_SCORE), combine)
        for region in regions
    ]
    rows = (
        pd.concat(sites)
        .groupby(HIP_FOLD, as_index=False)
        .agg(probability=("probability", "max"), n=("probability", "size"))
    )
    return rows[rows["n"] == len(regions)].drop(columns="n")


def label_worst_site(manifest: pd.DataFrame, regions: Sequence[Region]) -> pd.DataFrame:
    """Return hip_id and whether min(T) <= -2.5.

    Where a region's T is not reported, its own label decides, by whatever rule the archive has. One
    abnormal region decides; the label is missing where none is and a region has neither.
    """
    abnormal = [
        (manifest[score_column(DxaQuantity.T, region)].astype(float) <= OSTEOPOROSIS_T)
        .astype(float)
        .where(manifest[score_column(DxaQuantity.T, region)].notna())
        .fillna(manifest[label_column(LabelType.T_SCORE, region)].astype(float))
        for region in regions
    ]
    sites = pd.concat(abnormal, axis=1)
    label = sites.max(axis=1).where(sites.eq(1).any(axis=1) | sites.notna().all(axis=1))
    return pd.DataFrame({"hip_id": manifest["hip_id"], "label": label})


def choose_thresholds(known: pd.DataFrame, config: EvaluationConfig) -> pd.DataFrame:
    """Return repeat, fold, threshold and whether it had to fall back, per tested fold."""
    tested = known[known["part"] == Part.TEST][["repeat", "fold"]].drop_duplicates()
    inner = known[known["part"] == Part.INNER]
    chosen = [
        (repeat, fold, _choose(rows, config))
        for (repeat, fold), rows in inner.groupby(["repeat", "fold"])
    ]
    table = pd.DataFrame(chosen, columns=["repeat", "fold", "threshold"])
    merged = tested.merge(table, on=["repeat", "fold"], how="left")
    return merged.assign(
        fallback=merged["threshold"].isna(),
        threshold=merged["threshold"].astype(float).fillna(FALLBACK_THRESHOLD),
    )
