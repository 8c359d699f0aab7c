"""The one split of an archive: patient-grouped, stratified, repeated, saved as a file.

A split table has one row per hip and repeat: `hip_id, patient_id, repeat, fold`. Fold k of a
repeat is the test set of fit k; everything else trains. The paper's 8:2 hold-out is five folds of
which only the first is tested, so that masks can be cross-fitted in it too.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from hipray.config.experiment import SplitSettings, SplitUnit
from hipray.data.manifest import label_column
from hipray.digests import digest_of
from hipray.errors import DataError
from hipray.vocab import REGIONS, LabelType

REDRAWS = 200
"""Tries at a division that has both classes of every label on both sides."""

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FoldIndices:
    """Rows of the manifest, as indices, on either side of one fold."""

    train: Indices
    test: Indices


def deal_split(manifest: pd.DataFrame, settings: SplitSettings) -> pd.DataFrame:
    """Return the split table of `manifest` (rows in manifest order within each repeat).

    Raises DataError where there are fewer patients than folds.
    """
    groups = manifest["patient_id"].to_numpy()
    units = len(set(groups)) if settings.unit is SplitUnit.PATIENT else len(manifest)
    if units < settings.folds:
        raise DataError(
            f"at least {settings.folds} {settings.unit}s for {settings.folds} folds",
            f"{units}",
            "add films or set split.folds lower; where the headers of films name all patients "
            "alike, name them in a column 'patient_id' of the table",
        )
    strata = _strata(manifest, settings)
    tables = []
    for repeat in range(settings.repeats):
        fold = _deal_once(groups, strata, settings=settings, seed=settings.seed + repeat)
        tables.append(
            pd.DataFrame(
                {
                    "hip_id": manifest["hip_id"].to_numpy(),
                    "patient_id": groups,
                    "repeat": np.int32(repeat),
                    "fold": fold.astype(np.int32),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def split_name(settings: SplitSettings) -> str:
    """Return a name that changes with the settings, for example `patient-5x1-3f2a9c`."""
    return f"{settings.unit}-{settings.folds}x{settings.repeats}-{digest_of(settings)[:6]}"


def fold_indices(
    manifest: pd.DataFrame, split: pd.DataFrame, *, repeat: int, fold: int
) -> FoldIndices:
    """Return the manifest rows that train and test in one fold."""
    rows = split[split["repeat"] == repeat].set_index("hip_id")["fold"]
    missing = set(manifest["hip_id"]) - set(rows.index)
    if missing:
        raise DataError(
            "every hip of the manifest in the split",
            f"{len(missing)} hips without a fold",
            "make the split again after ingest",
        )
    folds = rows.loc[manifest["hip_id"]].to_numpy()
    return FoldIndices(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold))


def hold_back(
    manifest: pd.DataFrame,
    rows: Indices,
    *,
    stratify: SplitSettings | None,
    fraction: float,
    seed: int,
) -> tuple[Indices, Indices]:
    """Divide training `rows` into (fit, inner validation) by patient, stratified like the split.

    With `stratify=None` labels play no part. The division does not depend on the cell, so that
    all cells of one fold hold back the same patients and their scores can be combined. For the
    same reason it is drawn anew while one side lacks a class of any region's label: a label that
    is rare beside the stratified one would else cost its cells a fold.
    """
    rng = np.random.default_rng(seed)
    patients = manifest["patient_id"].to_numpy(dtype=str)[rows]
    strata = _strata(manifest, stratify)[rows] if stratify else np.full(len(rows), "all")
    worst = _pool_rare(pd.Series(strata).groupby(patients, sort=False).max(), least=1 / fraction)
    held = _draw_held(worst, patients, fraction, rng)
    if stratify:
        classes = _find_classes(manifest.iloc[rows])
        lacking = _count_lacking(classes, held)
        for _ in range(REDRAWS):
            if not lacking:
                break
            other = _draw_held(worst, patients, fraction, rng)
            if (fewer := _count_lacking(classes, other)) < lacking:
                held, lacking = other, fewer
    return rows[~held], rows[held]


def _draw_held(
    strata: "pd.Series[str]",
    patients: npt.NDArray[np.str_],
    fraction: float,
    rng: np.random.Generator,
) -> npt.NDArray[np.bool_]:
    """Whether each hip's patient (n,) is held back, the same share of each patients' stratum."""
    inner: set[str] = set()
    for stratum in sorted(set(strata)):
        members = strata.index[strata == stratum].to_numpy()
        count = min(max(1, round(len(members) * fraction)), len(members) - 1)
        inner.update(rng.permutation(members)[:count])
    return np.isin(patients, sorted(inner))


def _find_classes(hips: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Whether each hip is of each class (n, C): those of any label that two patients have."""
    labels = hips[_label_columns()]
    classes = pd.concat([labels.eq(True), labels.eq(False)], axis=1).fillna(False).astype(bool)
    patients = classes.groupby(hips["patient_id"].to_numpy()).any().sum()
    return classes.to_numpy()[:, (patients >= 2).to_numpy()]


def _count_lacking(classes: npt.NDArray[np.bool_], held: npt.NDArray[np.bool_]) -> int:
    """How many classes are on one side only."""
    return int((~(classes[held].any(axis=0) & classes[~held].any(axis=0))).sum())


def _strata(manifest: pd.DataFrame, settings: SplitSettings) -> npt.NDArray[np.str_]:
    label = manifest[_stratum_column(manifest, settings)]
    # a patient's stratum is its greatest: the abnormal hip's, else a known one's
    known = label.map({True: "1", False: "0"}).astype(object).where(label.notna(), "-")
    return (known.astype(str) + "/" + manifest["device"].fillna("?").astype(str)).to_numpy(
        dtype=str
    )


def _pool_rare(strata: "pd.Series[str]", *, least: float) -> "pd.Series[str]":
    """Join strata of fewer than `least` members with others of their label.

    A share of each would be nobody, or everybody.
    """
    counts = strata.map(strata.value_counts())
    pooled = strata.str.split("/").str[0] + "/rare"
    return strata.where(counts >= least, pooled)


def _stratum_column(manifest: pd.DataFrame, settings: SplitSettings) -> str:
    """The configured label; where the archive has none of it, the label it has most of."""
    wanted = label_column(settings.stratify_label, settings.stratify_region)
    if manifest[wanted].notna().any():
        return wanted
    return str(manifest[_label_columns()].notna().sum().idxmax())


def _label_columns() -> list[str]:
    return [label_column(kind, region) for kind in LabelType for region in REGIONS]


def _deal_once(
    groups: npt.NDArray[np.str_],
    strata: npt.NDArray[np.str_],
    *,
    settings: SplitSettings,
    seed: int,
) -> Indices:
    # two seconds of CPU, for all who only read a split
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    strata = _pool_rare(pd.Series(strata), least=settings.folds).to_numpy(dtype=str)
    rare = {
        s for s, n in zip(*np.unique(strata, return_counts=True), strict=True) if n < settings.folds
    }
    strata = np.array(["rare" if s in rare else s for s in strata])
    if settings.unit is SplitUnit.PATIENT:
        dealer = StratifiedGroupKFold(settings.folds, shuffle=True, random_state=seed)
        # numbered by first appearance: pseudonyms must not decide who lands where
        parts = dealer.split(strata, _codes(strata), pd.factorize(groups)[0])
    else:
        dealer = StratifiedKFold(settings.folds, shuffle=True, random_state=seed)
        parts = dealer.split(strata, _codes(strata))
    fold = np.empty(len(strata), np.int64)
    with warnings.catch_warnings():
        # the rare have too few hips to be in every fold: no news
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for k, (_, test) in enumerate(parts):
            fold[test] = k
    return fold


def _codes(strata: npt.NDArray[np.str_]) -> Indices:
    return np.unique(strata, return_inverse=True)[1].astype(np.int64)
