"""The plan of a grid in words, before anything is trained."""

import re

import pytest

from hipray.cli import COMMANDS
from hipray.config.base import load_config
from hipray.config.experiment import LeakageSettings
from hipray.config.jobs import GridRun, PhantomRun, Scaling
from hipray.data.dataset import DataIdentity
from hipray.data.manifest import label_column
from hipray.data.splits import fold_indices
from hipray.storage import open_store
from hipray.training.classifier import deal_inner
from hipray.training.costs import PAPER_FILMS, FilmCounts
from hipray.training.estimate import describe_plan, estimate_grid_seconds
from hipray.training.plan import build_cells, plan_fits
from hipray.training.preparation import chosen_folds, read_inputs
from hipray.vocab import Cell, Fit, LabelType, Region, Variant
from tests.small_workspace import EXPERIMENT, grid_config, ingest, write_archive


def test_without_a_manifest_the_papers_archive_is_planned_for(tmp_path) -> None:
    text = describe_plan(open_store(str(tmp_path)), GridRun(workspace=str(tmp_path)))
    assert "72 = 4 regions x 2 labels x 3 backbones x 3 variants" in text
    assert "365 = 5 segmenters + 360 classifiers (1 x 5 folds by patient, 5 tested)" in text
    assert "139 hips (the paper's archive" in text
    assert "Ward's triangle 72" in text
    assert not list(tmp_path.iterdir())


def test_a_workspace_is_planned_by_its_own_manifest(small_workspace) -> None:
    text = describe_plan(small_workspace.store, grid_config(small_workspace.store))
    assert "images     34 hips (manifest of the workspace); labelled: Total hip 34" in text
    assert "patients   30" in text
    assert "9 = 3 segmenters + 6 classifiers" in text
    assert "leak guard on" in text


def test_an_overridden_guard_is_said_aloud(small_workspace) -> None:
    experiment = EXPERIMENT.model_copy(update={"leakage": LeakageSettings(allow=True)})
    config = grid_config(small_workspace.store, experiment=experiment)
    assert "leak guard OVERRIDDEN, leaks are counted" in (
        describe_plan(small_workspace.store, config)
    )


def seconds_of(store, **changes):
    settings = EXPERIMENT.classifier.model_copy(update={"epochs": 200, **changes})
    experiment = EXPERIMENT.model_copy(update={"classifier": settings})
    text = describe_plan(store, grid_config(store, experiment=experiment))
    amount, unit = re.search(r"\((\d+) (s|min) of one core", text).groups()
    return int(amount) * {"s": 1, "min": 60}[unit]


def test_more_epochs_and_larger_films_take_longer(small_workspace) -> None:
    store = small_workspace.store
    plain = seconds_of(store)
    assert seconds_of(store, epochs=400) > 1.5 * plain
    assert seconds_of(store, size_px=128) > 2 * plain


def test_without_a_number_lanes_are_as_many_as_the_machine_holds(small_workspace) -> None:
    config = grid_config(small_workspace.store)
    assert "as many lanes as the cluster holds" in describe_plan(small_workspace.store, config)
    scaling = Scaling(lanes=4, gpus_per_lane=0.25)
    text = describe_plan(small_workspace.store, config.model_copy(update={"scaling": scaling}))
    assert "4 lanes x 1 CPU, 0.25 GPU = 4 CPU, 1 GPU" in text
    assert re.search(r"memory +about [\d.]+ GiB of a GPU for the largest fit", text)


def test_the_paper_in_miniature_is_all_its_cells_in_half_an_hour(tmp_path) -> None:
    config = load_config(GridRun, preset="paper-mini", section="grid")
    text = describe_plan(open_store(str(tmp_path)), config)
    assert "72 = 4 regions x 2 labels x 3 backbones x 3 variants" in text
    assert "112 = 40 segmenters + 72 classifiers (1 x 5 folds by image, 1 tested)" in text
    plan = plan_of(config)
    counts = FilmCounts(40, {key: 40 for key in PAPER_FILMS.labelled})
    assert estimate_grid_seconds(plan, config, counts) < 2 * 25 * 60, "two cores, 25 minutes"


@pytest.mark.parametrize("job", ["phantom", "ingest", "grid", "report", "release"])
def test_every_job_of_the_path_takes_the_miniature(job) -> None:
    config = load_config(COMMANDS[job].config, preset="paper-mini", section=job)
    assert getattr(config, "run", "paper-mini") == "paper-mini"


def test_every_trained_and_inner_part_of_the_miniature_has_both_classes(tmp_path) -> None:
    phantom = load_config(PhantomRun, preset="paper-mini", section="phantom").phantom
    store = ingest(tmp_path / "work", write_archive(tmp_path / "archive", phantom)).store
    config = load_config(GridRun, preset="paper-mini", section="grid")
    inputs = read_inputs(store, config)
    settings = config.experiment.classifier
    fold = fold_indices(inputs.manifest, inputs.split, repeat=0, fold=0)
    cell = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, "vgg16", Variant.ORIGINAL)
    kept, held = deal_inner(
        Fit(cell, 0, 0), inputs.manifest, fold.train,
        settings=settings, split=config.experiment.split,
    )  # fmt: skip
    assert len(inputs.manifest) == 40
    for region in Region:
        for kind in LabelType:
            labels = inputs.manifest[label_column(kind, region)]
            assert labels.notna().all(), "all regions are labelled"
            assert {labels.iloc[part].nunique() for part in (kept, held, fold.test)} == {2}


def plan_of(config):
    return plan_fits(
        build_cells(config.regions, config.label_types, config.backbones, config.variants),
        config.experiment,
        data=DataIdentity("a", "b", "c"),
        test_folds=chosen_folds(config),
    )
