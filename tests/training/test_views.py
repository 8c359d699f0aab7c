"""What a classifier looks at: whole films, or one region cut out by the right mask."""

import dataclasses

import numpy as np
import pytest

from hipray.config.experiment import ClassifierSettings, MattingSettings
from hipray.data.framing import resize_square
from hipray.training.views import augment_views, build_views, labelled_rows
from hipray.vocab import REGIONS, Cell, LabelType, MaskSource, Region, Variant

SETTINGS = ClassifierSettings(size_px=64)


def cell(region=Region.TOTAL_HIP, variant=Variant.ORIGINAL):
    return Cell(region, LabelType.T_SCORE, "resnet10t", variant)


def build(inputs, chosen, *, masks=None, matting=None):
    return build_views(
        chosen, inputs.manifest, inputs.arrays, masks=masks,
        classifier=SETTINGS, matting=matting or MattingSettings(),
    )  # fmt: skip


def test_hips_without_a_label_drop_out_of_their_cell_only(inputs) -> None:
    wards = labelled_rows(inputs.manifest, cell(Region.WARDS_TRIANGLE))
    hips = labelled_rows(inputs.manifest, cell())
    assert len(wards) == 18
    assert len(hips) == 34
    assert inputs.manifest["label_t_score_wards_triangle"].iloc[wards].notna().all()


def test_whole_views_are_the_framed_hips_with_their_labels(inputs) -> None:
    views = build(inputs, cell(Region.WARDS_TRIANGLE))
    assert np.array_equal(views.films, resize_square(inputs.arrays.films[views.rows], 64))
    labels = inputs.manifest["label_t_score_wards_triangle"].iloc[views.rows].astype(int)
    assert np.array_equal(views.labels, labels)


def test_matted_views_are_cut_by_the_mask_of_their_own_region(inputs) -> None:
    masks = np.zeros_like(inputs.arrays.masks)
    masks[:, REGIONS.index(Region.TOTAL_HIP), 40:104, 60:124] = True
    views = build(
        inputs, cell(variant=Variant.SEGMENTED), masks=masks,
        matting=MattingSettings(margin_fraction=0),
    )  # fmt: skip
    assert np.array_equal(views.films, inputs.arrays.films[:, 40:104, 60:124])


def test_hips_whose_region_was_not_found_have_no_view(inputs) -> None:
    masks = np.ones_like(inputs.arrays.masks)
    masks[[1, 4]] = False
    views = build(inputs, cell(variant=Variant.SEGMENTED), masks=masks)
    assert sorted(set(range(34)) - set(views.rows)) == [1, 4]
    assert len(views.films) == len(views.labels) == 32


def test_true_masks_are_used_only_where_they_are_asked_for(inputs) -> None:
    matting = MattingSettings(mask=MaskSource.TRUE)
    chosen = cell(variant=Variant.SEGMENTED)
    blank = np.zeros_like(inputs.arrays.masks)
    assert len(build(inputs, chosen, masks=blank).rows) == 0
    assert len(build(inputs, chosen, masks=blank, matting=matting).rows) == 34


def test_a_predicted_matting_without_masks_is_a_defect(inputs) -> None:
    with pytest.raises(ValueError, match=r"needs predicted masks"):
        build(inputs, cell(variant=Variant.SEGMENTED))


def test_missing_labels_never_become_normal(inputs) -> None:
    manifest = inputs.manifest.copy()
    manifest.loc[[0, 5], "label_t_score_total_hip"] = None
    views = build(dataclasses.replace(inputs, manifest=manifest), cell())
    assert not {0, 5} & set(views.rows)


def test_the_original_variant_trains_on_the_film_alone(inputs) -> None:
    films = np.array(inputs.arrays.films[:2])
    assert np.array_equal(augment_views(films, Variant.ORIGINAL, SETTINGS), films[:, None])


@pytest.mark.parametrize("variant", [Variant.AUGMENTED, Variant.SEGMENTED])
def test_the_other_variants_train_on_seven_copies_the_film_first(inputs, variant) -> None:
    films = np.array(inputs.arrays.films[:2])
    copies = augment_views(films, variant, SETTINGS)
    assert copies.shape == (2, 7, 192, 192)
    assert np.array_equal(copies[:, 0], films)
    assert all((copies[0, n] != films[0]).any() for n in range(1, 7))
