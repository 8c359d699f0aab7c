"""What fits cost in time, and the order of work that follows from it."""

from dataclasses import replace

import pytest

from hipray.config.experiment import Budget, ClassifierSettings, Experiment
from hipray.data.dataset import DataIdentity
from hipray.training.costs import (
    PAPER_COPIES,
    PAPER_FILMS,
    SECONDS_PER_FIT,
    SEGMENT_SECONDS_AT_128,
    TRAIN_SECONDS_AT_64,
    FilmCounts,
    count_films,
    estimate_seconds,
)
from hipray.training.plan import build_cells, order_fits, plan_fits
from hipray.vocab import (
    Backbone,
    Cell,
    Fit,
    LabelType,
    Region,
    SegmenterArch,
    SegmenterFit,
    Variant,
)

CELL = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, "resnet50", Variant.AUGMENTED)


def seconds(cell=CELL, films=PAPER_FILMS, **settings):
    experiment = Experiment(classifier=ClassifierSettings(**settings))
    return estimate_seconds(Fit(cell, 0, 0), experiment, films) - SECONDS_PER_FIT


def test_every_word_of_the_vocabulary_has_its_cost() -> None:
    assert set(PAPER_FILMS.labelled) == {(r, k) for r in Region for k in LabelType}
    assert set(TRAIN_SECONDS_AT_64) == {backbone.value for backbone in Backbone}
    assert set(SEGMENT_SECONDS_AT_128) == set(SegmenterArch)


def test_equal_epochs_cost_the_augmented_arms_seven_times_as_much() -> None:
    original = replace(CELL, variant=Variant.ORIGINAL)
    assert seconds(budget=Budget.EQUAL_EPOCHS) == pytest.approx(PAPER_COPIES * seconds(original))
    assert seconds(budget=Budget.EQUAL_STEPS) == pytest.approx(seconds(original))


def test_cost_grows_with_epochs_area_and_labelled_hips() -> None:
    assert seconds(epochs=80) == pytest.approx(2 * seconds(epochs=40))
    assert seconds(size_px=128) == pytest.approx(4 * seconds(size_px=64))
    half = FilmCounts(139, {key: n / 2 for key, n in PAPER_FILMS.labelled.items()})
    assert seconds(films=half) == pytest.approx(seconds() / 2)


def test_an_unknown_network_is_estimated_too() -> None:
    cell = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, "resnet10t", Variant.ORIGINAL)
    assert seconds(cell) > 0


def test_the_films_of_a_manifest_are_counted_by_region_and_label(small_workspace, inputs) -> None:
    films = count_films(inputs.manifest)
    assert films.hips == 34
    assert films.labelled[Region.TOTAL_HIP, LabelType.T_SCORE] == 34
    assert films.labelled[Region.WARDS_TRIANGLE, LabelType.BMD] < 34


def test_mask_makers_come_first_and_then_the_longest_fits() -> None:
    experiment = Experiment(classifier=ClassifierSettings(budget=Budget.EQUAL_EPOCHS))
    settings = experiment.segmenter.model_copy(
        update={"archs": (SegmenterArch.UNET, SegmenterArch.UNETPP)}
    )
    experiment = experiment.model_copy(update={"segmenter": settings})
    plan = plan_fits(
        build_cells(Region, LabelType, [b.value for b in Backbone], Variant),
        experiment,
        data=DataIdentity("films", "labels", "split"),
        test_folds=(0,),
    )
    assert plan == order_fits(plan, experiment, PAPER_FILMS)
    makers, others = plan[:5], plan[5:]
    assert {p.fit.arch for p in makers} == {SegmenterArch.UNET}
    assert any(isinstance(p.fit, SegmenterFit) for p in others)
    costs = [estimate_seconds(p.fit, experiment, PAPER_FILMS) for p in others]
    assert costs == sorted(costs, reverse=True)
    first = next(p.fit.cell for p in others if isinstance(p.fit, Fit))
    assert (first.backbone, first.variant is Variant.ORIGINAL) == ("vgg16", False)
