"""Draw the report's figures as PNG bytes, without the global state of pyplot.

Every figure carries a caption with the data source and the number of hips and patients.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hipray.evaluation.calibration import CalibrationBin
from hipray.evaluation.decisions import DecisionCurve
from hipray.evaluation.intervals import Interval
from hipray.evaluation.layout import format_interval
from hipray.evaluation.segmenters import Overlap, SegmenterResult
from hipray.evaluation.statistics import Sample
from hipray.metrics import FloatArray, count_confusion
from hipray.vocab import DataSource

DOTS_PER_INCH = 110  # legible on a phone, about 25 kB a figure
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito 2008
MARKERS = ("o", "s", "^", "D", "v", "P")  # colour is never the only difference


@dataclass(frozen=True)
class Curve:
    """One model of a figure: its name, pooled hips and what the legend says."""

    name: str
    sample: Sample
    auroc: Interval
    bins: tuple[CalibrationBin, ...]


@dataclass(frozen=True)
class FigureCaption:
    """What every figure states: title, data source and counts."""

    title: str
    source: DataSource
    n_hips: int
    n_patients: int

    @property
    def line(self) -> str:
        """The counts in one line."""
        return f"{self.source} data, n = {self.n_hips} hips of {self.n_patients} patients"


def draw_roc(curves: Sequence[Curve], caption: FigureCaption) -> bytes:
    """Draw ROC curves with AUROC and interval in the legend."""
    figure, axes = _open_figure(caption)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    for index, curve in enumerate(curves):
        false_rate, true_rate = trace_roc(curve.sample)
        label = f"{curve.name} {format_interval(curve.auroc)}"
        axes.plot(false_rate, true_rate, color=COLOURS[index % len(COLOURS)], label=label)
    axes.set_xlabel("1 - specificity")
    axes.set_ylabel("Sensitivity")
    axes.legend(loc="lower right", fontsize=8, title="AUROC", title_fontsize=8)
    return _render(figure)


def draw_calibration(curves: Sequence[Curve], caption: FigureCaption) -> bytes:
    """Draw the observed rate over the mean probability per bin; areas show the hips in a bin."""
    figure, axes = _open_figure(caption)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    for index, curve in enumerate(curves):
        axes.scatter(
            [b.mean_probability for b in curve.bins],
            [b.rate for b in curve.bins],
            s=[6 + 120 * b.n / curve.sample.labels.size for b in curve.bins],
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            alpha=0.75,
            label=curve.name,
        )
    axes.set_xlabel("Mean predicted probability")
    axes.set_ylabel("Observed share abnormal")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.05, 1.05)
    axes.legend(loc="upper left", fontsize=8)
    return _render(figure)


def draw_confusion(curves: Sequence[Curve], caption: FigureCaption) -> bytes:
    """Draw one confusion matrix per model, truth in rows and decision in columns."""
    figure = Figure(figsize=(1.0 + 2.2 * len(curves), 3.2), layout="constrained")
    figure.suptitle(f"{caption.title}\n{caption.line}", fontsize=9)
    for index, curve in enumerate(curves):
        counts = count_confusion(curve.sample.labels, curve.sample.positives)
        table = np.array([[counts.tn, counts.fp], [counts.fn, counts.tp]])
        axes = figure.add_subplot(1, len(curves), index + 1)
        axes.imshow(table, cmap="Blues", vmin=0, vmax=max(1, int(table.sum())))
        for row, column in np.ndindex(2, 2):
            axes.text(column, row, str(table[row, column]), ha="center", va="center")
        axes.set_xticks([0, 1], ["normal", "abnormal"], fontsize=7)
        axes.set_yticks([0, 1], ["normal", "abnormal"], fontsize=7, rotation=90, va="center")
        axes.set_xlabel(f"called\n{curve.name}", fontsize=8)
    return _render(figure)


def draw_overlap_boxes(results: Sequence[SegmenterResult], caption: FigureCaption) -> bytes:
    """Draw the foreground IoU per region and network; whiskers at 1.5 interquartile ranges."""
    figure, axes = _open_figure(caption)
    names = [f"{result.region.display_name}\n{result.arch} ({result.n_hips})" for result in results]
    axes.boxplot([result.hips[Overlap.IOU] for result in results], orientation="horizontal")
    axes.set_yticks(range(1, len(names) + 1), names, fontsize=7)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("Foreground IoU per hip, out of fold")
    return _render(figure)


def draw_decision_curve(curve: DecisionCurve, caption: FigureCaption) -> bytes:
    """Draw net benefit over the threshold probability with intervals (Vickers and Elkin 2006)."""
    figure, axes = _open_figure(caption)
    thresholds = [point.threshold for point in curve.points]
    for name, colour, style, bounds in (
        ("model", COLOURS[0], "-", [point.model for point in curve.points]),
        ("call all abnormal", "grey", "--", [point.treat_all for point in curve.points]),
    ):
        axes.plot(thresholds, [b.value for b in bounds], color=colour, linestyle=style, label=name)
        low, high = [b.low for b in bounds], [b.high for b in bounds]
        axes.fill_between(thresholds, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(0, color="grey", linewidth=0.8, linestyle=":", label="call none")
    axes.set_ylim(-0.1, max(0.1, max(point.model.value for point in curve.points) + 0.1))
    axes.set_xlabel("Threshold probability")
    axes.set_ylabel("Net benefit per hip")
    axes.legend(loc="upper right", fontsize=8)
    return _render(figure)


def trace_roc(sample: Sample) -> tuple[FloatArray, FloatArray]:
    """Return false and true positive rates from (0, 0) to (1, 1), one point per distinct score."""
    order = np.argsort(-sample.scores, kind="stable")
    ends = np.flatnonzero(np.diff(-sample.scores[order], append=np.inf) > 0)
    hits = np.cumsum(sample.labels[order])[ends]
    alarms = np.cumsum(~sample.labels[order])[ends]
    false_rate = np.concatenate([[0.0], alarms / max(1, alarms[-1])])
    return false_rate, np.concatenate([[0.0], hits / max(1, hits[-1])])


def _open_figure(caption: FigureCaption) -> tuple[Figure, Any]:
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(f"{caption.title}\n{caption.line}", fontsize=9)
    return figure, axes


def _render(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    # No software or date tag: equal numbers give equal bytes.
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()
