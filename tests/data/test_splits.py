"""One split of an archive: by patient, stratified, repeatable."""

import warnings

import numpy as np
import pytest

from hipray.config.experiment import SplitSettings, SplitUnit
from hipray.data.manifest import label_column
from hipray.data.splits import deal_split, fold_indices, hold_back, split_name
from hipray.errors import DataError
from hipray.vocab import LabelType, Region
from tests.data.manifests import LABEL, make_manifest, make_row, make_study


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("folds", [2, 5])
def test_no_patient_lies_on_both_sides_of_any_fold(seed, folds) -> None:
    manifest = make_study(30, second_hips=12)
    split = deal_split(manifest, SplitSettings(folds=folds, repeats=2, seed=seed))
    for repeat in range(2):
        for fold in range(folds):
            sides = fold_indices(manifest, split, repeat=repeat, fold=fold)
            train, test = (set(manifest["patient_id"].iloc[rows]) for rows in vars(sides).values())
            assert train
            assert test
            assert not train & test


def test_every_hip_is_tested_exactly_once_in_each_repeat() -> None:
    manifest = make_study(30, second_hips=12)
    split = deal_split(manifest, SplitSettings(folds=4, repeats=3))
    for repeat in range(3):
        tested = [fold_indices(manifest, split, repeat=repeat, fold=k).test for k in range(4)]
        assert sorted(np.concatenate(tested)) == list(range(len(manifest)))


def test_labels_and_devices_are_spread_evenly_over_the_folds() -> None:
    manifest = make_study(120)
    split = deal_split(manifest, SplitSettings(folds=4))
    folds = [fold_indices(manifest, split, repeat=0, fold=k).test for k in range(4)]
    assert {len(rows) for rows in folds} <= {29, 30, 31}
    for column, value in ((LABEL, True), ("device", "device_a")):
        counts = [(manifest[column].iloc[rows] == value).sum() for rows in folds]
        assert max(counts) - min(counts) <= 2


def test_the_same_seed_deals_the_same_split_and_repeats_differ() -> None:
    manifest = make_study(40)
    settings = SplitSettings(folds=4, repeats=2)
    split = deal_split(manifest, settings)
    assert split.equals(deal_split(manifest, settings))
    assert not split.equals(deal_split(manifest, settings.model_copy(update={"seed": 1})))
    first, second = (split[split["repeat"] == r]["fold"].to_numpy() for r in (0, 1))
    assert not np.array_equal(first, second)


def test_the_order_of_rows_does_not_decide_who_is_tested_together() -> None:
    manifest = make_study(20, second_hips=5)
    split = deal_split(manifest, SplitSettings(folds=2))
    turned = manifest.iloc[::-1].reset_index(drop=True)
    sides = fold_indices(turned, split, repeat=0, fold=1)
    expected = fold_indices(manifest, split, repeat=0, fold=1)
    assert set(turned["hip_id"].iloc[sides.test]) == set(manifest["hip_id"].iloc[expected.test])


def test_fewer_patients_than_folds_are_refused_although_there_are_hips_enough() -> None:
    with pytest.raises(DataError, match=r"at least 5 patients for 5 folds, found 4"):
        deal_split(make_study(4, second_hips=4), SplitSettings(folds=5))


def test_the_papers_split_by_image_may_separate_the_hips_of_a_patient() -> None:
    manifest = make_study(20, second_hips=20)
    split = deal_split(manifest, SplitSettings(folds=5, unit=SplitUnit.IMAGE))
    assert (split.groupby("patient_id")["fold"].nunique() == 2).any()


def test_hips_ingested_after_the_split_are_refused() -> None:
    split = deal_split(make_study(10), SplitSettings(folds=2))
    with pytest.raises(DataError, match=r"2 hips without a fold"):
        fold_indices(make_study(12), split, repeat=0, fold=0)


def test_an_archive_without_the_stratifying_label_is_balanced_on_one_that_it_has() -> None:
    neck = label_column(LabelType.BMD, Region.FEMORAL_NECK)
    rows = [make_row(n, f"p{n}", **{LABEL: None, neck: n < 20}) for n in range(40)]
    manifest = make_manifest(rows)
    split = deal_split(manifest, SplitSettings(folds=4))
    counts = [
        manifest[neck].iloc[fold_indices(manifest, split, repeat=0, fold=k).test].sum()
        for k in range(4)
    ]
    assert counts == [5, 5, 5, 5]


def test_the_name_of_a_split_changes_with_its_settings() -> None:
    names = {split_name(SplitSettings(folds=f, seed=s)) for f in (2, 5) for s in (1, 2)}
    assert len(names) == 4
    assert split_name(SplitSettings(folds=5, repeats=2)).startswith("patient-5x2-")


@pytest.mark.parametrize("seed", range(5))
def test_held_back_patients_are_none_of_those_that_are_fitted(seed) -> None:
    manifest = make_study(30, second_hips=12)
    settings = SplitSettings(folds=5)
    train = fold_indices(manifest, deal_split(manifest, settings), repeat=0, fold=0).train
    kept, held = hold_back(manifest, train, stratify=settings, fraction=0.2, seed=seed)
    patients = manifest["patient_id"].to_numpy()
    assert not set(patients[kept]) & set(patients[held])
    assert sorted([*kept, *held]) == sorted(train)
    assert 0.1 < len(set(patients[held])) / len(set(patients[train])) < 0.35


def test_both_sides_of_a_held_back_part_have_both_labels() -> None:
    manifest = make_study(24)
    rows = np.arange(24)
    kept, held = hold_back(manifest, rows, stratify=SplitSettings(), fraction=0.2, seed=3)
    for part in (kept, held):
        assert set(manifest[LABEL].iloc[part]) == {True, False}


def test_a_label_that_is_rare_beside_the_stratified_one_has_both_classes_on_both_sides() -> None:
    rare = label_column(LabelType.BMD, Region.FEMORAL_NECK)
    rows = [make_row(n, f"p{n}", **{LABEL: n % 4 == 0, rare: n % 50 == 1}) for n in range(200)]
    manifest = make_manifest(rows)
    for seed in range(20):
        parts = hold_back(
            manifest, np.arange(200), stratify=SplitSettings(), fraction=0.2, seed=seed
        )
        for part in parts:
            assert set(manifest[rare].iloc[part]) == {True, False}


def test_a_class_of_one_patient_changes_nothing() -> None:
    rare = label_column(LabelType.BMD, Region.FEMORAL_NECK)
    manifest = make_study(40).assign(**{rare: False})
    alone = manifest.assign(**{rare: manifest.index == 7})
    kept, same = (
        hold_back(m, np.arange(40), stratify=SplitSettings(), fraction=0.2, seed=1)[0]
        for m in (manifest, alone)
    )
    assert np.array_equal(kept, same)


def test_holding_back_is_repeatable_and_follows_its_seed() -> None:
    manifest, rows = make_study(40), np.arange(40)
    held = [
        hold_back(manifest, rows, stratify=SplitSettings(), fraction=0.2, seed=seed)[1]
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(held[0], held[1])
    assert not np.array_equal(held[0], held[2])


def test_the_only_patient_of_a_stratum_is_not_taken_from_training() -> None:
    rows = [make_row(n, f"p{n}", **{LABEL: n == 0}) for n in range(10)]
    manifest = make_manifest(rows)
    kept, held = hold_back(manifest, np.arange(10), stratify=SplitSettings(), fraction=0.3, seed=0)
    assert 0 in kept
    assert len(held) == 3


def test_holding_back_without_strata_does_not_look_at_labels() -> None:
    manifest, rows = make_study(40, second_hips=10), np.arange(50)
    turned = manifest.assign(**{LABEL: ~manifest[LABEL]})
    parts = [hold_back(m, rows, stratify=None, fraction=0.2, seed=1) for m in (manifest, turned)]
    assert np.array_equal(parts[0][1], parts[1][1])
    assert manifest["patient_id"].iloc[parts[0][1]].nunique() == 8


def test_a_stratum_rarer_than_the_folds_is_dealt_without_a_warning() -> None:
    rows = [make_row(n, f"p{n}", device="A" if n else "B") for n in range(12)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split = deal_split(make_manifest(rows), SplitSettings(folds=3))
    assert sorted(split["fold"].value_counts()) == [4, 4, 4]


@pytest.mark.parametrize("each", [1, 2])
def test_densitometers_of_few_patients_leave_both_labels_on_either_side(each) -> None:
    rows = [
        make_row(n, f"p{n}", **{LABEL: n % 10 == 0}, device=f"serial-{n // each}")
        for n in range(120)
    ]
    manifest = make_manifest(rows)
    settings = SplitSettings(folds=5)
    split = deal_split(manifest, settings)
    for fold in range(5):
        train, test = vars(fold_indices(manifest, split, repeat=0, fold=fold)).values()
        assert 1 <= manifest[LABEL].iloc[test].sum() <= 4
        kept, held = hold_back(manifest, train, stratify=settings, fraction=0.2, seed=fold)
        assert 0.15 < len(held) / len(train) < 0.25
        for part in (kept, held):
            assert set(manifest[LABEL].iloc[part]) == {True, False}
