"""Members of a release that answer one question, combined out of fold."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hipray.config.evaluation import Combine
from hipray.evaluation.member_weights import fit_weights
from hipray.evaluation.results import select_cell
from hipray.metrics import FloatArray
from hipray.vocab import Cell, LabelType, Part, Region
from hipray.voting import combine_votes

HIP_FOLD = ["repeat", "fold", "part", "hip_id", "patient_id"]


def members_for(members: Sequence[Cell], region: Region, label_type: LabelType) -> list[Cell]:
    """Return the members that answer this question."""
    return [m for m in members if m.region == region and m.label_type == label_type]


def combine_members(
    predictions: pd.DataFrame, members: Sequence[Cell], combine: Combine
) -> pd.DataFrame:
    """Return one row per repeat, fold, part and hip that every one of these members scored.

    Columns: repeat, fold, part, hip_id, patient_id, label, probability. Weights are fitted on the
    inner hips of each repeat and fold, so that no test label moves them.
    """
    rows = _select_members(predictions, members)
    means = rows.groupby([*HIP_FOLD, "member"])["probability"].mean().unstack("member")
    scores = means.reindex(columns=[member.name for member in members]).dropna()
    combined = scores.assign(probability=_combine_scores(scores, rows, combine)).reset_index()
    labels = rows.groupby(HIP_FOLD, as_index=False)["label"].first()
    return combined[[*HIP_FOLD, "probability"]].merge(labels, on=HIP_FOLD)


def weigh_members(predictions: pd.DataFrame, members: Sequence[Cell]) -> dict[Cell, float]:
    """Return the weights of members of one region and label, from the inner hips of all folds."""
    rows = _select_members(predictions, members)
    inner = rows[rows["part"] == Part.INNER]
    scores = inner.pivot_table("probability", HIP_FOLD, "member")
    scores = scores.reindex(columns=[member.name for member in members]).dropna()
    labels = inner.groupby(HIP_FOLD)["label"].first().reindex(scores.index)
    weights = fit_weights(scores.to_numpy().T, labels.to_numpy(dtype=np.bool_))
    return dict(zip(members, map(float, weights), strict=True))


def _combine_scores(scores: pd.DataFrame, rows: pd.DataFrame, combine: Combine) -> FloatArray:
    """Return one probability per row of `scores`, which has one column per member."""
    values = scores.to_numpy(dtype=np.float64)
    if combine is Combine.WEIGHTED:
        return _weigh_scores(scores, rows)
    return combine_votes(values.T, [1.0] * values.shape[1], combine)


def _weigh_scores(scores: pd.DataFrame, rows: pd.DataFrame) -> FloatArray:
    labels = rows.groupby(HIP_FOLD)["label"].first().reindex(scores.index).to_numpy(dtype=np.bool_)
    values = scores.to_numpy(dtype=np.float64)
    inner = scores.index.get_level_values("part") == Part.INNER
    weighted = np.empty(len(scores))
    for place in scores.groupby(["repeat", "fold"]).indices.values():
        chosen = place[inner[place]]
        weights = fit_weights(values[chosen].T, labels[chosen])
        weighted[place] = combine_votes(values[place].T, weights.tolist(), Combine.WEIGHTED)
    return weighted


def _select_members(predictions: pd.DataFrame, members: Sequence[Cell]) -> pd.DataFrame:
    """The members' rows, with a column that names the member."""
    named = [select_cell(predictions, member).assign(member=member.name) for member in members]
    return pd.concat(named)
