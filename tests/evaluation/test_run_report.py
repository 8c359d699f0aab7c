"""What the report of a run evaluates as its release."""

from dataclasses import dataclass, replace

import pandas as pd
import pytest

from hipray.config.experiment import Experiment, MattingSettings, SplitSettings, SplitUnit
from hipray.config.jobs import GridRun
from hipray.config.labels import BmdRule, LabelRules
from hipray.data.dataset import DataIdentity
from hipray.data.flow import Flow
from hipray.data.labels import LabelSource
from hipray.evaluation.members import choose_members
from hipray.evaluation.run_report import _choose_members, _describe_labels, _protocol
from hipray.training.plan import PlannedFit
from hipray.training.results import RunResults
from hipray.training.run_plan import RunPlan
from hipray.vocab import (
    HEADLINE_REGIONS,
    Backbone,
    Cell,
    Fit,
    LabelType,
    MaskSource,
    Region,
    Variant,
)

BACKBONES = (Backbone.VGG16, Backbone.RESNET50)


def list_cells(*variants: Variant) -> list[Cell]:
    return [
        Cell(region, label_type, backbone, variant)
        for region in Region
        for label_type in LabelType
        for backbone in BACKBONES
        for variant in variants
    ]


@dataclass(frozen=True)
class Planned:
    """A run's plan of two folds per cell."""

    cells: list[Cell]
    variants: tuple[Variant, ...]

    @property
    def fits(self) -> list[Fit]:
        return [Fit(cell, 0, fold) for cell in self.cells for fold in (0, 1)]

    def finish(self, done: list[Fit]) -> RunResults:
        plan = RunPlan(
            config=GridRun(backbones=BACKBONES, variants=self.variants or tuple(Variant)),
            data=DataIdentity(films="", labels="", split=""),
            leaks={},
            leaks_allowed=False,
            optimistic=None,
            source="",
            fits=tuple(PlannedFit(fit, fit.name) for fit in self.fits),
        )
        empty = pd.DataFrame()
        return RunResults(
            plan=plan,
            classifiers=[(fit, None) for fit in done],
            segmenters=[],
            predictions=empty,
            fits=empty,
            mask_scores=empty,
            open_fits=len(self.fits) - len(done),
        )


@pytest.fixture
def full() -> Planned:
    variants = (Variant.ORIGINAL, Variant.SEGMENTED)
    return Planned(list_cells(*variants), variants)


def test_members_are_the_headline_t_score_cells_of_the_segmented_variant(full) -> None:
    members = _choose_members(full.finish(full.fits))
    assert set(members) == {
        Cell(region, LabelType.T_SCORE, backbone, Variant.SEGMENTED)
        for region in HEADLINE_REGIONS
        for backbone in BACKBONES
    }


def test_a_run_without_segmented_cells_is_released_in_its_first_variant() -> None:
    variants = (Variant.AUGMENTED, Variant.ORIGINAL)
    planned = Planned(list_cells(*variants), variants)
    members = _choose_members(planned.finish(planned.fits))
    assert {member.variant for member in members} == {Variant.AUGMENTED}


def test_a_cell_with_an_open_fit_is_no_member(full) -> None:
    waiting = Fit(Cell(Region.TOTAL_HIP, LabelType.T_SCORE, BACKBONES[0], Variant.SEGMENTED), 0, 1)
    members = _choose_members(full.finish([fit for fit in full.fits if fit != waiting]))
    assert waiting.cell not in members
    assert len(members) == 3


def test_a_run_without_a_finished_headline_cell_has_no_members() -> None:
    trochanter = [Cell(Region.GREATER_TROCHANTER, LabelType.T_SCORE, "vgg16", Variant.SEGMENTED)]
    assert choose_members(trochanter, backbones=("vgg16",), variants=(Variant.SEGMENTED,)) == ()


def test_the_protocol_names_what_a_network_is_trained_with_beside_the_rest() -> None:
    experiment = Experiment(backbones={Backbone.VGG16: {"lr": 1e-5, "size_px": 96}})
    results = Planned([], ()).finish([])
    config = GridRun(experiment=experiment)
    results = replace(results, plan=results.plan.model_copy(update={"config": config}))
    assert _protocol(results)["Classifier, vgg16"] == "lr = 1e-05, size_px = 96"


@pytest.mark.parametrize(
    ("experiment", "said"),
    [
        (Experiment(), "never saw the patient"),
        (Experiment(split=SplitSettings(unit=SplitUnit.IMAGE)), "never saw the film;"),
        (Experiment(matting=MattingSettings(mask=MaskSource.TRUE)), "annotated masks"),
    ],
)
def test_the_protocol_promises_no_more_of_masks_than_was_kept(experiment, said) -> None:
    results = Planned([], ()).finish([])
    config = GridRun(experiment=experiment)
    results = replace(results, plan=results.plan.model_copy(update={"config": config}))
    assert said in _protocol(results)["Masks"]


def test_a_report_says_how_each_label_was_made_and_what_it_rests_on() -> None:
    flow = Flow(
        rules=LabelRules(bmd_rule=BmdRule.AM_PERCENT, t_threshold=-2.0).model_dump(mode="json"),
        bases={
            Region.TOTAL_HIP: {LabelType.T_SCORE: {LabelSource.COMPUTED: 9, LabelSource.GIVEN: 1}},
            Region.FEMORAL_NECK: {LabelType.T_SCORE: {LabelSource.COMPUTED_T: 4}},
        },
    )
    described = _describe_labels(flow, GridRun())
    neck = GridRun(regions=(Region.FEMORAL_NECK,), label_types=(LabelType.T_SCORE,))
    (only,) = _describe_labels(flow, neck).values()
    assert " 0 from reported figures, 4 from a score" in only
    assert described[LabelType.T_SCORE] == (
        "T-score at or below -2; in the ingested archive 1 labels as it gives them, "
        "9 from reported figures, 4 from a score that was computed from BMD"
    )
    assert described[LabelType.BMD].startswith("BMD at or below 85 % of the age-matched mean; ")
