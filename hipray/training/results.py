"""The finished fits of a run, gathered into frames for report and release."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from hipray.config.jobs import GridRun
from hipray.errors import DataError
from hipray.storage import Store
from hipray.training.fit_files import MASK_SCORES_FILE, PREDICTIONS_FILE, load_frame
from hipray.training.ledger import DoneFit, Ledger
from hipray.training.run_plan import RunPlan, read_run_plan
from hipray.vocab import Fit, Part, SegmenterFit


@dataclass(frozen=True)
class RunResults:
    """What a run has produced so far."""

    plan: RunPlan
    classifiers: list[tuple[Fit, DoneFit]]
    segmenters: list[tuple[SegmenterFit, DoneFit]]
    predictions: pd.DataFrame
    """Rows of inner-validation and test hips, with the fit's cell, repeat and fold."""
    fits: pd.DataFrame
    """One row per classifier fit."""
    mask_scores: pd.DataFrame
    """Out-of-fold IoU and Dice, one row per hip, network and region."""
    open_fits: int
    """Fits of the plan that are not done."""

    @property
    def config(self) -> GridRun:
        """What was asked for."""
        return self.plan.config


def read_run(store: Store, run: str) -> RunResults:
    """Return the finished fits of a run; raises DataError where there are none."""
    plan = read_run_plan(store, run)
    ledger = open_reader(store)
    done = [ledger.read_done(planned.digest) for planned in plan.fits]
    finished = [(fit.fit, fit) for fit in done if fit is not None]
    if not finished:
        raise DataError(f"finished fits in run '{run}'", "none", "run `hipray grid` first")
    classifiers = [(fit, d) for fit, d in finished if isinstance(fit, Fit)]
    segmenters = [(fit, d) for fit, d in finished if isinstance(fit, SegmenterFit)]
    return RunResults(
        plan=plan,
        classifiers=classifiers,
        segmenters=segmenters,
        predictions=_concat(_read_predictions(ledger, *pair) for pair in classifiers),
        fits=pd.DataFrame([_fit_row(*pair) for pair in classifiers]),
        mask_scores=_concat(
            load_frame(ledger.read_file(d, MASK_SCORES_FILE)) for _, d in segmenters
        ),
        open_fits=len(done) - len(finished),
    )


def open_reader(store: Store) -> Ledger:
    """Return the ledger for reading only: no submission of its own."""
    return Ledger(store, submission="reader")


def _concat(frames: Any) -> pd.DataFrame:
    parts = [frame for frame in frames if len(frame)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _read_predictions(ledger: Ledger, fit: Fit, done: DoneFit) -> pd.DataFrame:
    frame = load_frame(ledger.read_file(done, PREDICTIONS_FILE))
    return frame[frame["part"] != Part.TRAIN].assign(**_fit_columns(fit))


def _fit_row(fit: Fit, done: DoneFit) -> dict[str, Any]:
    return {"fit": fit.name, **_fit_columns(fit), "seconds": done.seconds, **done.summary}


def _fit_columns(fit: Fit) -> dict[str, Any]:
    return {
        "region": fit.cell.region.value,
        "label_type": fit.cell.label_type.value,
        "backbone": fit.cell.backbone,
        "variant": fit.cell.variant.value,
        "repeat": fit.repeat,
        "fold": fit.fold,
    }
