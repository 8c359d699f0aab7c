"""The views a classifier trains on: the whole film or a matted region, once or seven times.

Legend of shapes: N hips, n hips with a view, P side of the view in pixels, M moved copies (1, or 7
when augmented), C numbers that tell a person.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from hipray.config.experiment import ClassifierSettings, MattingSettings, Target
from hipray.config.labels import DEFAULT_BMD_Z, LabelRules
from hipray.data.augment import move_film, paper_moves
from hipray.data.dataset import HipArrays
from hipray.data.framing import Mask, Pixels
from hipray.data.manifest import label_column, score_column
from hipray.data.person import People, encode_people, read_people
from hipray.data.splits import Indices
from hipray.matting.cutting import cut_views
from hipray.vocab import REGIONS, Cell, DxaQuantity, LabelType, MaskSource, Variant, View


@dataclass(frozen=True)
class Measured:
    """The DXA quantity behind a label."""

    quantity: DxaQuantity
    usual_threshold: float
    """Score at or below which the label is abnormal by default."""


MEASURED = {
    LabelType.T_SCORE: Measured(DxaQuantity.T, LabelRules().t_threshold),
    LabelType.BMD: Measured(DxaQuantity.Z, DEFAULT_BMD_Z),
}


@dataclass(frozen=True)
class LabelledViews:
    """The usable hips of one cell as views with labels."""

    rows: Indices
    """(n,) manifest rows."""
    films: Pixels
    """(n, P, P) uint8."""
    labels: Indices
    """(n,) 0 normal, 1 abnormal."""
    people: People
    """(n, C) what is known of the person."""
    scores: npt.NDArray[np.float64]
    """(n,) the T- or Z-score that the label is about; NaN where it is not reported."""

    def take(self, places: Indices) -> "LabelledViews":
        """Return the views at these places of this collection."""
        return LabelledViews(
            self.rows[places], self.films[places], self.labels[places],
            self.people[places], self.scores[places],
        )  # fmt: skip

    def places_of(self, rows: Indices) -> Indices:
        """Return where the hips of these manifest rows lie; hips without a view lie nowhere."""
        return np.flatnonzero(np.isin(self.rows, rows)).astype(np.int64)


def labelled_rows(manifest: pd.DataFrame, cell: Cell) -> Indices:
    """Return the rows whose label is known for this cell; the others drop out of it only."""
    labels = manifest[label_column(cell.label_type, cell.region)]
    return np.flatnonzero(labels.notna().to_numpy()).astype(np.int64)


def build_views(
    cell: Cell,
    manifest: pd.DataFrame,
    arrays: HipArrays,
    *,
    masks: Mask | None,
    classifier: ClassifierSettings,
    matting: MattingSettings,
) -> LabelledViews:
    """Return the views of every labelled hip of `cell`.

    `masks` (N, R, S, S) are out-of-fold masks in manifest order, needed for predicted mattings.
    Hips whose region cannot be cut out have no view.
    """
    rows = labelled_rows(manifest, cell)
    column = manifest[label_column(cell.label_type, cell.region)]
    cut = cut_views(
        arrays.films[rows],
        _masks_of(cell, rows, masks=arrays.masks if matting.mask is MaskSource.TRUE else masks),
        view=cell.variant.view,
        settings=matting,
        size_px=classifier.size_px,
    )
    rows, films = rows[cut.present], cut.films[cut.present]
    if classifier.target is Target.SCORE:
        known = manifest[measured_column(cell)].iloc[rows].notna().to_numpy()
        rows, films = rows[known], films[known]
    chosen = manifest.iloc[rows]
    return LabelledViews(
        rows=rows.astype(np.int64),
        films=films,
        labels=column.iloc[rows].astype(int).to_numpy().astype(np.int64),
        people=encode_people(read_people(chosen)),
        scores=chosen[measured_column(cell)].to_numpy(dtype=np.float64),
    )


def _masks_of(cell: Cell, rows: Indices, *, masks: Mask | None) -> Mask | None:
    """The masks (n, S, S) of a cell's region; None where it looks at whole films."""
    if cell.variant.view is View.WHOLE:
        return None
    if masks is None:
        raise ValueError(f"{cell.name} needs predicted masks")
    own: Mask = masks[rows, REGIONS.index(cell.region)]
    return own


def measured_column(cell: Cell) -> str:
    """Return the manifest column of the score that a cell's label is about."""
    return score_column(MEASURED[cell.label_type].quantity, cell.region)


def count_moves(variant: Variant, settings: ClassifierSettings) -> int:
    """Return how many training images a variant makes of one film."""
    return 1 if variant is Variant.ORIGINAL else len(paper_moves(settings))


def augment_views(films: Pixels, variant: Variant, settings: ClassifierSettings) -> Pixels:
    """Return the training copies (n, M, P, P) of films (n, P, P): the film itself comes first.

    Only the original variant trains on the film alone; the segmented one is augmented as in the
    paper's third experiment.
    """
    if variant is Variant.ORIGINAL:
        return films[:, None]
    moves = paper_moves(settings)
    assert len(moves) == count_moves(variant, settings)
    return np.stack([np.stack([move_film(film, move) for move in moves]) for film in films])
