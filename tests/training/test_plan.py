"""The plan: what makes two fits the same work, and what each waits for."""

import pytest

from hipray.config.experiment import Experiment, MattingSettings, SegmenterSettings, SplitSettings
from hipray.data.dataset import DataIdentity
from hipray.training.plan import (
    build_cells,
    plan_fits,
)
from hipray.vocab import (
    Fit,
    LabelType,
    MaskSource,
    Region,
    SegmenterArch,
    SegmenterFit,
    Variant,
)

DATA = DataIdentity("films", "labels", "split")
BACKBONES = ("vgg16", "resnet50", "densenet121")
SMALL = Experiment(split=SplitSettings(folds=3, repeats=2))


def plan(experiment=SMALL, *, data=DATA, variants=tuple(Variant), folds=(0, 1, 2), **changes):
    cells = build_cells([Region.TOTAL_HIP], [LabelType.T_SCORE], ["resnet50"], variants)
    return plan_fits(cells, experiment, data=data, test_folds=folds, **changes)


def segmenters(fits):
    return {p.name: p.digest for p in fits if isinstance(p.fit, SegmenterFit)}


def classifiers(fits, variant=None):
    return {
        p.name: p.digest
        for p in fits
        if isinstance(p.fit, Fit) and variant in (None, p.fit.cell.variant)
    }


def change(section, **values):
    part = getattr(SMALL, section).model_copy(update=values)
    return SMALL.model_copy(update={section: part})


def test_the_papers_grid_has_72_cells() -> None:
    cells = build_cells(Region, LabelType, BACKBONES, Variant)
    assert len(cells) == len(set(cells)) == 72


def test_a_fit_is_planned_for_every_cell_repeat_and_tested_fold() -> None:
    fits = plan(folds=(0, 2))
    assert len(classifiers(fits)) == 3 * 2 * 2
    assert len({p.digest for p in fits}) == len(fits)


def test_segmenters_come_first_and_cover_every_fold_even_of_untested_ones() -> None:
    fits = plan(folds=(0,))
    assert len(segmenters(fits)) == 3 * 2
    assert all(isinstance(p.fit, SegmenterFit) for p in fits[:6])


def test_the_longest_fits_start_first() -> None:
    cells = build_cells([Region.TOTAL_HIP], [LabelType.BMD], BACKBONES, [Variant.ORIGINAL])
    fits = plan_fits(cells, SMALL, data=DATA, test_folds=(0,), has_masks=False)
    assert [p.fit.cell.backbone for p in fits[::2]] == ["vgg16", "resnet50", "densenet121"]


def test_a_segmented_fit_waits_for_all_segmenters_of_its_repeat() -> None:
    fits = plan()
    by_digest = {p.digest: p for p in fits}
    for planned in fits:
        if isinstance(planned.fit, Fit) and planned.fit.cell.variant is Variant.SEGMENTED:
            needed = [by_digest[digest].fit for digest in planned.needs]
            assert {fit.repeat for fit in needed} == {planned.fit.repeat}
            assert sorted(fit.fold for fit in needed) == [0, 1, 2]
        else:
            assert planned.needs == ()


def test_one_net_per_region_makes_four_segmenters_of_every_fold() -> None:
    fits = plan(change("segmenter", per_region=True))
    assert len(segmenters(fits)) == 4 * 6
    segmented = [p for p in fits if p.name == "total_hip-t_score-resnet50-segmented-r0f0"]
    assert len(segmented[0].needs) == 12


def test_only_the_first_network_cuts_masks() -> None:
    archs = (SegmenterArch.UNETPP, SegmenterArch.UNET)
    fits = plan(change("segmenter", archs=archs))
    names = {p.digest: p.name for p in fits}
    needs = {names[d].split("-")[0] for p in fits for d in p.needs}
    assert needs == {"unetpp"}
    assert len(segmenters(fits)) == 12


def test_a_second_network_leaves_the_first_ones_fits_as_they_are() -> None:
    both = plan(change("segmenter", archs=(SegmenterArch.UNET, SegmenterArch.UNETPP)))
    assert segmenters(plan()).items() <= segmenters(both).items()
    assert classifiers(plan()) == classifiers(both)


def test_true_masks_need_no_segmenter() -> None:
    fits = plan(SMALL.model_copy(update={"matting": MattingSettings(mask=MaskSource.TRUE)}))
    assert all(p.needs == () for p in fits)


def test_without_annotations_no_segmenter_is_planned() -> None:
    assert segmenters(plan(variants=[Variant.ORIGINAL], has_masks=False)) == {}


def test_new_labels_retrain_classifiers_and_no_segmenter() -> None:
    after = plan(data=DataIdentity("films", "other labels", "split"))
    assert segmenters(after) == segmenters(plan())
    assert not set(classifiers(after).values()) & set(classifiers(plan()).values())


@pytest.mark.parametrize("changed", ["films", "split"])
def test_other_films_or_another_deal_retrain_everything_matted(changed) -> None:
    after = plan(data=DataIdentity(**(vars(DATA) | {changed: "other"})))
    assert not set(segmenters(after).values()) & set(segmenters(plan()).values())
    matted = classifiers(after, Variant.SEGMENTED).values()
    assert not set(matted) & set(classifiers(plan(), Variant.SEGMENTED).values())


def test_segmenter_settings_touch_only_what_uses_masks() -> None:
    after = plan(SMALL.model_copy(update={"segmenter": SegmenterSettings(lr=2e-3)}))
    assert segmenters(after).values() != segmenters(plan()).values()
    for variant in (Variant.ORIGINAL, Variant.AUGMENTED):
        assert classifiers(after, variant) == classifiers(plan(), variant)
    matted = classifiers(after, Variant.SEGMENTED).values()
    assert not set(matted) & set(classifiers(plan(), Variant.SEGMENTED).values())


def test_matting_settings_touch_only_the_segmented_variant() -> None:
    after = plan(change("matting", margin_fraction=0.1))
    assert segmenters(after) == segmenters(plan())
    assert classifiers(after, Variant.AUGMENTED) == classifiers(plan(), Variant.AUGMENTED)
    assert classifiers(after, Variant.SEGMENTED) != classifiers(plan(), Variant.SEGMENTED)


def test_classifier_settings_leave_the_segmenters_as_they_are() -> None:
    after = plan(change("classifier", seed=2))
    assert segmenters(after) == segmenters(plan())
    assert not set(classifiers(after).values()) & set(classifiers(plan()).values())


def test_replaced_start_weights_are_other_fits() -> None:
    own = change("classifier", weights="start.safetensors")
    first, same, other = (
        classifiers(plan(own, starts={"start.safetensors": digest})) for digest in "aab"
    )
    assert first == same
    assert not set(first.values()) & set(other.values())
