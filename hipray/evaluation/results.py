"""Read the predictions and fits of a grid and summarise every cell.

A cell has two answers: the spread of its fits (how much a run depends on chance) and the pooled
out-of-fold estimate, in which each hip counts once with its scores averaged over repeats.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hipray.config.evaluation import EvaluationConfig
from hipray.errors import DataError
from hipray.evaluation.intervals import Interval, bootstrap_patients, build_sample
from hipray.evaluation.statistics import (
    CELL_METRICS,
    PAPER_METRICS,
    Metric,
    choose_statistics,
    compute_statistics,
)
from hipray.vocab import Cell, DataSource, LabelType, Part, Region, Variant

CELL_COLUMNS = ["region", "label_type", "backbone", "variant"]
FIT_COLUMNS = [*CELL_COLUMNS, "repeat", "fold"]
PREDICTION_COLUMNS = [
    *("hip_id", "patient_id"),
    *FIT_COLUMNS,
    *("part", "label", "score", "calibrated", "threshold"),
]
FIT_METRICS = (*CELL_METRICS, Metric.CALIBRATION_SLOPE)
"""What each fit is measured by on its own test hips."""
TRAIN_COLUMNS = {f"train_{metric}": metric for metric in PAPER_METRICS}


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) over the fits in which a metric is defined."""

    mean: float
    sd: float
    n: int


@dataclass(frozen=True)
class CellResult:
    """What the fits of one cell say about its test hips."""

    cell: Cell
    n_hips: int
    n_patients: int
    n_positives: int
    n_fits: int
    pooled: Mapping[Metric, Interval]
    over_fits: Mapping[Metric, Spread]
    train: Mapping[Metric, Spread]
    hips: pd.DataFrame  # hip_id, patient_id, label, score, positive: one row per test hip
    tests: pd.DataFrame  # its predictions: one row per repeat and test hip


def read_predictions(frame: pd.DataFrame) -> pd.DataFrame:
    """Check predictions and add `probability`: calibrated where a whole cell is, else raw.

    Raises DataError for a missing column, a score, label or threshold out of range, and a hip
    that is tested twice in one repeat.
    """
    _require_columns(frame, PREDICTION_COLUMNS, "predictions")
    _require_ranges(frame)
    tests = frame[frame["part"] == Part.TEST]
    twice = int(tests.duplicated([*CELL_COLUMNS, "repeat", "hip_id"]).sum())
    if twice:
        raise DataError(
            "each hip in one test fold per repeat", f"{twice} repeated rows", "rebuild the split"
        )
    complete = (
        frame.groupby(CELL_COLUMNS)["calibrated"]
        .transform("count")
        .eq(frame.groupby(CELL_COLUMNS)["calibrated"].transform("size"))
    )
    return frame.assign(
        calibrated_cell=complete,
        probability=frame["calibrated"].where(complete, frame["score"]).astype(float),
    )


def summarise_cells(
    predictions: pd.DataFrame, fits: pd.DataFrame, config: EvaluationConfig
) -> list[CellResult]:
    """Return one result per cell with test rows, in the order of the vocabulary."""
    tests = predictions[predictions["part"] == Part.TEST]
    results = [
        _summarise_cell(read_cell(rows), rows, fits, config)
        for _, rows in tests.groupby(CELL_COLUMNS)
    ]
    return sorted(results, key=lambda result: order_cell(result.cell))


def pool_repeats(tests: pd.DataFrame) -> pd.DataFrame:
    """Return one row per hip: mean probability, and positive where the mean margin is >= 0.

    The margin of a row is its raw score minus the threshold of the fit it comes from.
    """
    hips = average_repeats(tests)
    margins = (tests["score"] - tests["threshold"]).groupby(tests["hip_id"]).mean()
    return hips.assign(positive=hips["hip_id"].map(margins) >= 0)


def average_repeats(tests: pd.DataFrame) -> pd.DataFrame:
    """Return one row per hip, sorted: patient_id, label and `score`, its mean probability."""
    return tests.groupby("hip_id", as_index=False).agg(
        patient_id=("patient_id", "first"),
        label=("label", "first"),
        score=("probability", "mean"),
    )


def read_cell(rows: pd.DataFrame) -> Cell:
    """Return the cell that the first row names."""
    first = rows.iloc[0]
    return Cell(
        Region(first["region"]),
        LabelType(first["label_type"]),
        str(first["backbone"]),
        Variant(first["variant"]),
    )


def order_cell(cell: Cell) -> tuple[int, int, int, str]:
    """Return a sort key: variant, label, region in the paper's order, then backbone."""
    return (
        list(Variant).index(cell.variant),
        list(LabelType).index(cell.label_type),
        list(Region).index(cell.region),
        cell.backbone,
    )


def select_cell(frame: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """Return the rows of one cell."""
    return frame[
        (frame["region"] == cell.region)
        & (frame["label_type"] == cell.label_type)
        & (frame["backbone"] == cell.backbone)
        & (frame["variant"] == cell.variant)
    ]


def read_source(manifest: pd.DataFrame) -> DataSource:
    """Return whether the manifest holds phantoms or real films; DataError where it mixes them."""
    sources = sorted(set(manifest["source"]))
    if len(sources) != 1:
        found = ", ".join(sources) or "no hips"
        raise DataError("one data source per report", found, "report phantoms and films apart")
    return DataSource(sources[0])


def measure_spread(values: "pd.Series[float]") -> Spread:
    """Return mean and SD of the defined values; NaN where there are too few."""
    defined = values.dropna().to_numpy(dtype=np.float64)
    return Spread(
        mean=float(defined.mean()) if defined.size else float("nan"),
        sd=float(defined.std(ddof=1)) if defined.size > 1 else float("nan"),
        n=defined.size,
    )


def _summarise_cell(
    cell: Cell, tests: pd.DataFrame, fits: pd.DataFrame, config: EvaluationConfig
) -> CellResult:
    hips = pool_repeats(tests)
    runs = _measure_fits(tests)
    return CellResult(
        cell=cell,
        n_hips=len(hips),
        n_patients=hips["patient_id"].nunique(),
        n_positives=int(hips["label"].sum()),
        n_fits=len(runs),
        pooled=bootstrap_patients(
            hips,
            choose_statistics(CELL_METRICS),
            config,
        ),
        over_fits={metric: measure_spread(runs[metric]) for metric in FIT_METRICS},
        train=_read_train(select_cell(fits, cell)),
        hips=hips,
        tests=tests,
    )


def _measure_fits(tests: pd.DataFrame) -> pd.DataFrame:
    """Return one row of metrics per fit, each on that fit's own test hips and threshold."""
    statistics = choose_statistics(FIT_METRICS)
    # A fit tests a hip once, so its rows need no pooling.
    decided = tests.assign(
        score=tests["probability"], positive=tests["score"] >= tests["threshold"]
    )
    runs = [
        compute_statistics(build_sample(rows), statistics)
        for _, rows in decided.groupby(["repeat", "fold"])
    ]
    return pd.DataFrame(runs)


def _read_train(fits: pd.DataFrame) -> dict[Metric, Spread]:
    return {
        metric: measure_spread(fits[column])
        for column, metric in TRAIN_COLUMNS.items()
        if column in fits and fits[column].notna().any()
    }


def _require_columns(frame: pd.DataFrame, columns: list[str], name: str) -> None:
    missing = [column for column in columns if column not in frame]
    if missing:
        raise DataError(
            f"{name} with the columns {', '.join(columns)}",
            f"none named {', '.join(missing)}",
            "write them with this version of hipray",
        )


def _require_ranges(frame: pd.DataFrame) -> None:
    outside: dict[str, pd.Series[bool]] = {
        "label": ~frame["label"].isin([0, 1]),
        "score": ~frame["score"].between(0, 1),
        "calibrated": ~(frame["calibrated"].between(0, 1) | frame["calibrated"].isna()),
        "threshold": ~frame["threshold"].astype(float).abs().lt(np.inf),
        "part": ~frame["part"].isin([Part.INNER, Part.TEST]),
    }
    for column, wrong in outside.items():
        if wrong.any():
            raise DataError(
                "labels of 0 or 1, probabilities in [0, 1], finite thresholds, a known part",
                f"{int(wrong.sum())} rows with another {column}",
                "check the fits that wrote them",
            )
