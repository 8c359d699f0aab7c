"""Evaluate a release end to end on out-of-fold predictions: the number a release may quote.

The headline follows ISCD 2023: the worse of femoral neck and total hip, against
min(T) <= -2.5 of the same regions.
"""

import math
from collections.abc import Iterator, Sequence

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
from hipray.evaluation.intervals import bootstrap_patients, build_interval
from hipray.evaluation.paired import Contestant, PairedAurocs
from hipray.evaluation.release_result import (
    MeasuredScores,
    RegionScores,
    ReleaseResult,
    RivalScores,
    ScoreDistribution,
    StatedInterval,
)
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
) -> ReleaseResult:
    """Return the release's out-of-fold result.

    `predictions` come from `read_predictions`, `headline` is what `score_headline` made of them. A
    fold counts where every member of the release ran on it.
    """
    return ReleaseResult(
        endpoint=_describe_endpoint(headline, manifest),
        source=read_source(manifest),
        members=tuple(member.name for member in members),
        combine=config.combine,
        threshold_rule=config.threshold,
        n_folds=headline.n_folds,
        n_repeats=headline.folds["repeat"].nunique(),
        n_folds_without_threshold=headline.n_folds_without_threshold,
        n_without_t_score=headline.n_without_t,
        baselines=_measure_baselines(headline, manifest, config, find_known(manifest, told)),
        regions=tuple(_measure_regions(predictions, members, config)),
        **dict(_measure(headline.hips, config)),
    )


def _describe_endpoint(headline: HeadlineScores, manifest: pd.DataFrame) -> str:
    tested = manifest[manifest["hip_id"].isin(headline.hips["hip_id"])]
    scores = [score_column(DxaQuantity.T, region) for region in headline.regions]
    reported = tested[scores].notna().all(axis=1)
    stated = f"lowest T-score of {_join(headline.regions)} <= {OSTEOPOROSIS_T}"
    given = int((~reported).sum())
    return f"{stated}; of {given} hips a label given in its place" if given else stated


def _measure_regions(
    predictions: pd.DataFrame, members: Sequence[Cell], config: EvaluationConfig
) -> Iterator[RegionScores]:
    """Yield the combined result of each region and label that was tested."""
    for region, label_type in sorted({(m.region, m.label_type) for m in members}):
        chosen = members_for(members, region, label_type)
        rows = combine_members(predictions, chosen, config.combine)
        tests = rows[rows["part"] == Part.TEST]
        if tests.empty:
            continue
        decided = tests.merge(choose_thresholds(rows, config), on=["repeat", "fold"])
        hips = pool_repeats(decided.assign(score=decided["probability"]))
        measured = dict(_measure(hips, config))
        yield RegionScores(region=region, label_type=label_type, **measured)


def _measure_baselines(
    headline: HeadlineScores,
    manifest: pd.DataFrame,
    config: EvaluationConfig,
    known: tuple[Covariate, ...],
) -> tuple[RivalScores, ...]:
    """Return each baseline's metrics on the release's hips, and how far the release is above."""
    labels = label_worst_site(manifest, headline.regions)["label"]
    rivals = score_baselines(headline.folds, manifest, labels, known=known)
    contestants = {baseline: _enter(baseline, hips) for baseline, hips in rivals.items()}
    release = _enter("release", headline.hips)
    paired = PairedAurocs([release, *contestants.values()], config)
    measured = []
    for baseline, hips in rivals.items():
        bounds = bootstrap_patients(hips, choose_statistics(CELL_METRICS), config)
        difference = paired.compare(release, contestants[baseline])
        measured.append(
            RivalScores(
                baseline=baseline,
                title=title_baseline(baseline, known),
                metrics={metric: StatedInterval.of(found) for metric, found in bounds.items()},
                gain=None
                if difference is None
                else StatedInterval.of(build_interval(difference.value, difference.drawn, config)),
            )
        )
    return tuple(measured)


def _enter(name: str, hips: pd.DataFrame) -> Contestant:
    """Release and baselines were tested on the same hips in the same repeats: pooled is enough."""
    return Contestant(name, hips.assign(repeat=0, probability=hips["score"]))


def _measure(hips: pd.DataFrame, config: EvaluationConfig) -> MeasuredScores:
    bounds = bootstrap_patients(hips, choose_statistics(RELEASE_METRICS), config)
    labels, scores = hips["label"].to_numpy(), hips["score"].to_numpy(dtype=np.float64)
    in_the_large = calibration_in_the_large(labels, scores)
    return MeasuredScores(
        n_hips=len(hips),
        n_patients=int(hips["patient_id"].nunique()),
        n_positives=int(hips["label"].sum()),
        metrics={metric: StatedInterval.of(found) for metric, found in bounds.items()},
        calibration_in_the_large=in_the_large if math.isfinite(in_the_large) else None,
        ece=ece(labels, scores, bins=config.calibration_bins),
        distribution=_describe_distribution(scores),
    )


def _describe_distribution(scores: FloatArray) -> ScoreDistribution:
    edges = np.unique(np.quantile(scores, DECILES))
    counts = np.bincount(np.searchsorted(edges, scores, side="right"), minlength=len(edges) + 1)
    return ScoreDistribution(edges=tuple(edges), shares=tuple(counts / len(scores)))


def _join(regions: Sequence[Region]) -> str:
    return " and ".join(region.display_name.lower() for region in regions)
