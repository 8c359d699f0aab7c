"""Evaluate a release end to end on out-of-fold predictions: the number a release may quote.

The headline follows ISCD 2023: the worse of femoral neck and total hip, against
min(T) <= -2.5 of the same regions.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from hipray.config.evaluation import Combine, EvaluationConfig
from hipray.data.manifest import label_column, score_column
from hipray.errors import DataError
from hipray.evaluation.baselines import score_baselines
from hipray.evaluation.intervals import Interval, bootstrap_patients, build_interval
from hipray.evaluation.member_weights import fit_weights
from hipray.evaluation.paired import Contestant, PairedAurocs
from hipray.evaluation.results import pool_repeats, read_source, select_cell
from hipray.evaluation.statistics import CELL_METRICS, Metric, choose_statistics
from hipray.metrics import FloatArray
from hipray.training.thresholds import choose_threshold
from hipray.vocab import HEADLINE_REGIONS, Cell, LabelType, Part, Region

OSTEOPOROSIS_T = -2.5  # WHO 1994: a T-score at or below it
FALLBACK_THRESHOLD = 0.5  # where a fold's inner hips are all of one class
RELEASE_METRICS = tuple(Metric)
DECILES = tuple(tenth / 10 for tenth in range(1, 10))
HIP_FOLD = ["repeat", "fold", "part", "hip_id", "patient_id"]


@dataclass(frozen=True)
class HeadlineScores:
    """Out-of-fold headline hips with what was left out on the way to them."""

    hips: pd.DataFrame  # hip_id, patient_id, label, score, positive
    regions: tuple[Region, ...]
    n_folds: int
    n_folds_without_threshold: int
    folds: pd.DataFrame  # repeat, fold and hip_id of each tested hip
    n_without_t: int  # test hips with predictions but without a T-score at every headline region


def evaluate_release(
    predictions: pd.DataFrame,
    members: Sequence[Cell],
    *,
    manifest: pd.DataFrame,
    config: EvaluationConfig,
) -> dict[str, Any]:
    """Return the release's out-of-fold result as plain JSON values.

    `predictions` come from `read_predictions`. A fold counts where every member of the release
    ran on it. Raises DataError where no member scores a headline region or no fold is complete.
    """
    headline = score_headline(predictions, members, manifest=manifest, config=config)
    return {
        "endpoint": f"lowest T-score of {_join(headline.regions)} <= {OSTEOPOROSIS_T}",
        "source": str(read_source(manifest)),
        "members": [member.name for member in members],
        "combine": str(config.combine),
        "threshold_rule": str(config.threshold),
        "n_folds": headline.n_folds,
        "n_repeats": headline.folds["repeat"].nunique(),
        "n_folds_without_threshold": headline.n_folds_without_threshold,
        "n_without_t_score": headline.n_without_t,
        **_measure(headline.hips, config),
        "baselines": _measure_baselines(headline, manifest, config),
        "regions": _measure_regions(predictions, members, config),
    }


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
    regions = tuple(r for r in HEADLINE_REGIONS if _choose_members(members, r, LabelType.T_SCORE))
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
    thresholds = _choose_thresholds(known, config)
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
    regions = tuple(r for r in HEADLINE_REGIONS if _choose_members(members, r, LabelType.T_SCORE))
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
    return worst.merge(_label_worst_site(manifest, regions), on="hip_id", how="left")


def combine_members(
    predictions: pd.DataFrame, members: Sequence[Cell], combine: Combine
) -> pd.DataFrame:
    """Return one row per repeat, fold, part and hip that every one of these members scored.

    Columns: repeat, fold, part, hip_id, patient_id, label, probability. Weights are fitted on the
    inner hips of each repeat and fold, so that no test label moves them.
    """
    named = [select_cell(predictions, member).assign(member=member.name) for member in members]
    rows = pd.concat(named)
    means = rows.groupby([*HIP_FOLD, "member"])["probability"].mean().unstack("member")
    scores = means.reindex(columns=[member.name for member in members]).dropna()
    combined = scores.assign(probability=_combine_scores(scores, rows, combine)).reset_index()
    labels = rows.groupby(HIP_FOLD, as_index=False)["label"].first()
    return combined[[*HIP_FOLD, "probability"]].merge(labels, on=HIP_FOLD)


def weigh_members(predictions: pd.DataFrame, members: Sequence[Cell]) -> dict[Cell, float]:
    """Return the weights of members of one region and label, from the inner hips of all folds."""
    named = [select_cell(predictions, member).assign(member=member.name) for member in members]
    rows = pd.concat(named)
    inner = rows[rows["part"] == Part.INNER]
    scores = inner.pivot_table("probability", HIP_FOLD, "member")
    scores = scores.reindex(columns=[member.name for member in members]).dropna()
    labels = inner.groupby(HIP_FOLD)["label"].first().reindex(scores.index)
    weights = fit_weights(scores.to_numpy().T, labels.to_numpy(dtype=np.bool_))
    return dict(zip(members, map(float, weights), strict=True))


def _combine_scores(scores: pd.DataFrame, rows: pd.DataFrame, combine: Combine) -> FloatArray:
    """Return one probability per row of `scores`, which has one column per member."""
    values = scores.to_numpy(dtype=np.float64)
    if combine is Combine.MEAN:
        return np.asarray(values.mean(axis=1), dtype=np.float64)
    if combine is Combine.MEDIAN:
        return np.asarray(np.median(values, axis=1), dtype=np.float64)
    return _weigh_scores(scores, rows)


def _weigh_scores(scores: pd.DataFrame, rows: pd.DataFrame) -> FloatArray:
    labels = rows.groupby(HIP_FOLD)["label"].first().reindex(scores.index).to_numpy(dtype=np.bool_)
    values = scores.to_numpy(dtype=np.float64)
    inner = scores.index.get_level_values("part") == Part.INNER
    weighted = np.empty(len(scores))
    for place in scores.groupby(["repeat", "fold"]).indices.values():
        chosen = place[inner[place]]
        weighted[place] = values[place] @ fit_weights(values[chosen].T, labels[chosen])
    return weighted


def _score_worst_site(
    predictions: pd.DataFrame, members: Sequence[Cell], regions: Sequence[Region], combine: Combine
) -> pd.DataFrame:
    sites = [
        combine_members(predictions, _choose_members(members, region, LabelType.T_SCORE), combine)
        for region in regions
    ]
    rows = (
        pd.concat(sites)
        .groupby(HIP_FOLD, as_index=False)
        .agg(probability=("probability", "max"), n=("probability", "size"))
    )
    return rows[rows["n"] == len(regions)].drop(columns="n")


def _label_worst_site(manifest: pd.DataFrame, regions: Sequence[Region]) -> pd.DataFrame:
    """Return hip_id and whether min(T) <= -2.5.

    Where a region's T is not reported, its own label decides: abnormal is at or below -2.5. One
    abnormal region decides; the label is missing where none is and a region has neither.
    """
    abnormal = [
        (manifest[score_column("t", region)].astype(float) <= OSTEOPOROSIS_T)
        .astype(float)
        .where(manifest[score_column("t", region)].notna())
        .fillna(manifest[label_column(LabelType.T_SCORE, region)].astype(float))
        for region in regions
    ]
    sites = pd.concat(abnormal, axis=1)
    label = sites.max(axis=1).where(sites.eq(1).any(axis=1) | sites.notna().all(axis=1))
    return pd.DataFrame({"hip_id": manifest["hip_id"], "label": label})


def _choose_thresholds(known: pd.DataFrame, config: EvaluationConfig) -> pd.DataFrame:
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


def _measure_regions(
    predictions: pd.DataFrame, members: Sequence[Cell], config: EvaluationConfig
) -> dict[str, Any]:
    """Return the combined result per region and label, keyed `region-label_type`."""
    measured: dict[str, Any] = {}
    for region, label_type in sorted({(m.region, m.label_type) for m in members}):
        chosen = _choose_members(members, region, label_type)
        rows = combine_members(predictions, chosen, config.combine)
        tests = rows[rows["part"] == Part.TEST]
        if tests.empty:
            continue
        decided = tests.merge(_choose_thresholds(rows, config), on=["repeat", "fold"])
        hips = pool_repeats(decided.assign(score=decided["probability"]))
        measured[f"{region}-{label_type}"] = _measure(hips, config)
    return measured


def _measure_baselines(
    headline: HeadlineScores, manifest: pd.DataFrame, config: EvaluationConfig
) -> dict[str, Any]:
    """Return each baseline's metrics on the release's hips, and how far the release is above."""
    labels = _label_worst_site(manifest, headline.regions)["label"]
    rivals = {
        baseline: Contestant(baseline, hips)
        for baseline, hips in score_baselines(headline.folds, manifest, labels).items()
    }
    release = Contestant("release", headline.hips)
    paired = PairedAurocs([release, *rivals.values()], config)
    measured = {}
    for baseline, rival in rivals.items():
        bounds = bootstrap_patients(rival.hips, choose_statistics(CELL_METRICS), config)
        found: dict[str, Any] = {"metrics": {str(m): _to_json(i) for m, i in bounds.items()}}
        difference = paired.compare(release, rival)
        if difference is not None:
            gain = build_interval(difference.value, difference.drawn, config)
            found["gain"] = _to_json(gain)
        measured[str(baseline)] = found
    return measured


def _choose_members(members: Sequence[Cell], region: Region, label_type: LabelType) -> list[Cell]:
    return [m for m in members if m.region == region and m.label_type == label_type]


def _measure(hips: pd.DataFrame, config: EvaluationConfig) -> dict[str, Any]:
    bounds = bootstrap_patients(
        hips,
        choose_statistics(RELEASE_METRICS),
        config,
    )
    return {
        "n_hips": len(hips),
        "n_patients": int(hips["patient_id"].nunique()),
        "n_positives": int(hips["label"].sum()),
        "metrics": {str(name): _to_json(interval) for name, interval in bounds.items()},
        "distribution": _describe_distribution(hips["score"].to_numpy(dtype=np.float64)),
    }


def _describe_distribution(scores: FloatArray) -> dict[str, Any]:
    """Return the deciles of scores and the share between them: what drift is measured against.

    Equal scores make equal deciles, so a share may differ from a tenth.
    """
    edges = np.unique(np.quantile(scores, DECILES))
    counts = np.bincount(np.searchsorted(edges, scores, side="right"), minlength=len(edges) + 1)
    return {"edges": edges.tolist(), "shares": (counts / len(scores)).tolist()}


def _to_json(interval: Interval) -> dict[str, float | int | None]:
    # JSON has no NaN: what is not defined is null.
    return {key: value if value == value else None for key, value in asdict(interval).items()}


def _join(regions: Sequence[Region]) -> str:
    return " and ".join(region.display_name.lower() for region in regions)
