"""Evaluate a release end to end on out-of-fold predictions: the number a release may quote.

The headline follows ISCD 2023: the worse of femoral neck and total hip, against
min(T) <= -2.5 of the same regions.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from hipray.config.evaluation import EvaluationConfig
from hipray.config.labels import OSTEOPOROSIS_T
from hipray.data.manifest import score_column
from hipray.evaluation.baselines import find_known, score_baselines, title_baseline
from hipray.evaluation.combining import combine_members, members_for
from hipray.evaluation.headline import (
    HeadlineScores,
    choose_thresholds,
    label_worst_site,
)
from hipray.evaluation.intervals import Interval, bootstrap_patients, build_interval
from hipray.evaluation.paired import Contestant, PairedAurocs
from hipray.evaluation.results import pool_repeats, read_source
from hipray.evaluation.statistics import CELL_METRICS, Metric, choose_statistics
from hipray.metrics import FloatArray, calibration_in_the_large, ece
from hipray.vocab import Cell, Covariate, DxaQuantity, Part, Region

RELEASE_METRICS = tuple(Metric)
DECILES = tuple(tenth / 10 for tenth in range(1, 10))


def evaluate_release(
    headline: HeadlineScores,
    predictions: pd.DataFrame,
    members: Sequence[Cell],
    *,
    manifest: pd.DataFrame,
    config: EvaluationConfig,
    told: Sequence[Covariate] = (),
) -> dict[str, Any]:
    """Return the release's out-of-fold result as plain JSON values.

    `predictions` come from `read_predictions`, `headline` is what `score_headline` made of them. A
    fold counts where every member of the release ran on it.
    """
    return {
        "endpoint": _describe_endpoint(headline, manifest),
        "source": str(read_source(manifest)),
        "members": [member.name for member in members],
        "combine": str(config.combine),
        "threshold_rule": str(config.threshold),
        "n_folds": headline.n_folds,
        "n_repeats": headline.folds["repeat"].nunique(),
        "n_folds_without_threshold": headline.n_folds_without_threshold,
        "n_without_t_score": headline.n_without_t,
        **_measure(headline.hips, config),
        "baselines": _measure_baselines(headline, manifest, config, find_known(manifest, told)),
        "regions": _measure_regions(predictions, members, config),
    }


def _describe_endpoint(headline: HeadlineScores, manifest: pd.DataFrame) -> str:
    tested = manifest[manifest["hip_id"].isin(headline.hips["hip_id"])]
    scores = [score_column(DxaQuantity.T, region) for region in headline.regions]
    reported = tested[scores].notna().all(axis=1)
    stated = f"lowest T-score of {_join(headline.regions)} <= {OSTEOPOROSIS_T}"
    given = int((~reported).sum())
    return f"{stated}; of {given} hips a label given in its place" if given else stated


def _measure_regions(
    predictions: pd.DataFrame, members: Sequence[Cell], config: EvaluationConfig
) -> dict[str, Any]:
    """Return the combined result per region and label, keyed `region-label_type`."""
    measured: dict[str, Any] = {}
    for region, label_type in sorted({(m.region, m.label_type) for m in members}):
        chosen = members_for(members, region, label_type)
        rows = combine_members(predictions, chosen, config.combine)
        tests = rows[rows["part"] == Part.TEST]
        if tests.empty:
            continue
        decided = tests.merge(choose_thresholds(rows, config), on=["repeat", "fold"])
        hips = pool_repeats(decided.assign(score=decided["probability"]))
        measured[f"{region}-{label_type}"] = _measure(hips, config)
    return measured


def _measure_baselines(
    headline: HeadlineScores,
    manifest: pd.DataFrame,
    config: EvaluationConfig,
    known: tuple[Covariate, ...],
) -> dict[str, Any]:
    """Return each baseline's metrics on the release's hips, and how far the release is above."""
    labels = label_worst_site(manifest, headline.regions)["label"]
    rivals = score_baselines(headline.folds, manifest, labels, known=known)
    contestants = {baseline: _enter(baseline, hips) for baseline, hips in rivals.items()}
    release = _enter("release", headline.hips)
    paired = PairedAurocs([release, *contestants.values()], config)
    measured = {}
    for baseline, hips in rivals.items():
        bounds = bootstrap_patients(hips, choose_statistics(CELL_METRICS), config)
        found: dict[str, Any] = {
            "title": title_baseline(baseline, known),
            "metrics": {str(m): _to_json(i) for m, i in bounds.items()},
        }
        difference = paired.compare(release, contestants[baseline])
        if difference is not None:
            gain = build_interval(difference.value, difference.drawn, config)
            found["gain"] = _to_json(gain)
        measured[str(baseline)] = found
    return measured


def _enter(name: str, hips: pd.DataFrame) -> Contestant:
    """Release and baselines were tested on the same hips in the same repeats: pooled is enough."""
    return Contestant(name, hips.assign(repeat=0, probability=hips["score"]))


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
        **_measure_calibration(hips, config),
        "distribution": _describe_distribution(hips["score"].to_numpy(dtype=np.float64)),
    }


def _measure_calibration(hips: pd.DataFrame, config: EvaluationConfig) -> dict[str, float | None]:
    labels, scores = hips["label"].to_numpy(), hips["score"].to_numpy()
    in_the_large = calibration_in_the_large(labels, scores)
    return {
        "calibration_in_the_large": in_the_large if math.isfinite(in_the_large) else None,
        "ece": ece(labels, scores, bins=config.calibration_bins),
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
