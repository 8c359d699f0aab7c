"""The leakage guard refuses a split whose test result could be learned from its training set."""

import numpy as np
import pandas as pd
import pytest

from hipray.config.experiment import LeakageSettings, SplitSettings, SplitUnit
from hipray.data.dataset import load_arrays
from hipray.data.leakage import LeakKind, check_mask_origins, find_leaks, refuse_leaks
from hipray.data.manifest import read_manifest
from hipray.data.near_duplicates import find_near_duplicates
from hipray.data.splits import deal_split
from hipray.errors import LeakageError
from tests.data.copies import COPIES
from tests.data.manifests import make_manifest, make_row, make_study


def check_split(manifest, split, films, *, allow=False, **how):
    duplicates = find_near_duplicates(
        films, least_grain=LeakageSettings().near_duplicate_correlation
    )
    report = find_leaks(manifest, split, duplicates, allow=allow, **how)
    refuse_leaks(report, listed_at="leaks.json")
    return report


@pytest.fixture(scope="module")
def films(small_workspace):
    store = small_workspace.store
    return np.array(load_arrays(store, read_manifest(store), side=192).films)


def split_of(manifest, folds):
    return pd.DataFrame(
        {
            "hip_id": manifest["hip_id"],
            "patient_id": manifest["patient_id"],
            "repeat": 0,
            "fold": folds,
        }
    )


def make_pair(**changes):
    return make_manifest([make_row(0, "p0"), make_row(1, "p1", **changes), make_row(2, "p2")])


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (LeakKind.SAME_PATIENT, {"patient_id": "p0"}),
        (LeakKind.SAME_PIXELS, {"pixel_sha256": "pixels-0"}),
        (LeakKind.AUGMENTED_SIBLING, {"parent_hip_id": "h0"}),
    ],
)
def test_related_hips_on_both_sides_are_refused_and_named(films, kind, changes) -> None:
    manifest = make_pair(**changes)
    with pytest.raises(LeakageError, match=f"1 pairs: h0 and h1 .{kind}.;"):
        check_split(manifest, split_of(manifest, [0, 1, 0]), films[:3])


@pytest.mark.parametrize(
    "changes", [{"patient_id": "p0"}, {"pixel_sha256": "pixels-0"}, {"parent_hip_id": "h0"}]
)
def test_related_hips_on_one_side_are_no_leak(films, changes) -> None:
    manifest = make_pair(**changes)
    report = check_split(manifest, split_of(manifest, [0, 0, 1]), films[:3])
    assert report.leaks == ()


@pytest.mark.parametrize("name", ["mirrored", "all but mirrored", "cropped 15 %"])
def test_a_moved_copy_under_another_patient_is_refused(films, name) -> None:
    manifest = make_pair()
    stack = np.stack([films[0], COPIES[name](films[0]), films[1]])
    with pytest.raises(LeakageError, match=r"h0 and h1 \(near_duplicate\)"):
        check_split(manifest, split_of(manifest, [0, 1, 0]), stack)


def test_siblings_of_one_original_are_refused_even_without_their_parent(films) -> None:
    manifest = make_manifest(
        [make_row(n, f"p{n}", parent_hip_id=parent) for n, parent in enumerate(["x", "x", None])]
    )
    with pytest.raises(LeakageError, match=r"augmented_sibling"):
        check_split(manifest, split_of(manifest, [0, 1, 1]), films[:3])


def test_a_split_by_patient_of_distinct_films_passes(small_workspace, films) -> None:
    manifest = read_manifest(small_workspace.store)
    split = deal_split(manifest, SplitSettings(folds=3, repeats=2))
    report = check_split(manifest, split, films)
    assert report.leaks == ()
    assert not report.allowed


def test_an_override_counts_every_leak_instead_of_refusing(small_workspace, films) -> None:
    manifest = read_manifest(small_workspace.store)
    settings = SplitSettings(folds=5, unit=SplitUnit.IMAGE)
    split = deal_split(manifest, settings)
    apart = (split.groupby("patient_id")["fold"].nunique() > 1).sum()
    assert apart > 0
    report = check_split(manifest, split, films, allow=True)
    assert report.allowed
    assert report.counts() == {
        "same_patient": apart, "same_pixels": 0, "near_duplicate": 0, "augmented_sibling": 0,
    }  # fmt: skip


def test_only_folds_that_are_tested_can_leak(films) -> None:
    manifest = make_pair(patient_id="p0")
    split = split_of(manifest, [1, 2, 0])
    assert check_split(manifest, split, films[:3], test_folds=(0,)).leaks == ()
    with pytest.raises(LeakageError):
        check_split(manifest, split, films[:3], test_folds=(0, 2))


def test_a_long_list_of_leaks_is_cut_short_in_the_message(films) -> None:
    manifest = make_manifest([make_row(n, "p0") for n in range(6)])
    with pytest.raises(LeakageError, match=r"9 pairs: .* and 4 more;"):
        check_split(manifest, split_of(manifest, [0, 0, 0, 1, 1, 1]), films[:6])


def origins_of(manifest, folds):
    return pd.DataFrame({"hip_id": manifest["hip_id"], "fold": folds})


def test_masks_from_segmenters_that_never_saw_the_patient_pass() -> None:
    manifest = make_study(6, second_hips=2)
    folds = [0, 1, 2, 0, 1, 2, 0, 1]
    origins = origins_of(manifest, folds)
    assert check_mask_origins(split_of(manifest, folds), origins, repeat=0, allow=False) == 0


def test_a_mask_from_a_segmenter_that_trained_on_the_hip_is_refused() -> None:
    manifest = make_study(6)
    folds = [0, 1, 2, 0, 1, 2]
    origins = origins_of(manifest, [0, 1, 2, 0, 1, 0])
    split = split_of(manifest, folds)
    with pytest.raises(LeakageError, match=r"1 masks from segmenters trained on the same patient"):
        check_mask_origins(split, origins, repeat=0, allow=False)
    assert check_mask_origins(split, origins, repeat=0, allow=True) == 1


def test_a_mask_from_a_segmenter_that_trained_on_the_other_hip_is_refused() -> None:
    manifest = make_manifest([make_row(0, "p0"), make_row(1, "p0"), make_row(2, "p1")])
    folds = [0, 1, 1]
    split = split_of(manifest, folds)
    with pytest.raises(LeakageError, match=r"2 masks"):
        check_mask_origins(split, origins_of(manifest, folds), repeat=0, allow=False)
