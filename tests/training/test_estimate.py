"""The plan of a grid in words, before anything is trained."""

import re

from hipray.config.experiment import LeakageSettings
from hipray.config.jobs import GridRun
from hipray.storage import open_store
from hipray.training.estimate import describe_plan
from tests.small_workspace import EXPERIMENT, grid_config


def test_without_a_manifest_the_papers_archive_is_planned_for(tmp_path):
    text = describe_plan(open_store(str(tmp_path)), GridRun(workspace=str(tmp_path)))
    assert "72 = 4 regions x 2 labels x 3 backbones x 3 variants" in text
    assert "365 = 5 segmenters + 360 classifiers (1 x 5 folds by patient, 5 tested)" in text
    assert "139 hips (the paper's archive" in text
    assert "Ward's triangle 72" in text
    assert not list(tmp_path.iterdir())


def test_a_workspace_is_planned_by_its_own_manifest(small_workspace):
    text = describe_plan(small_workspace.store, grid_config(small_workspace.store))
    assert "images     34 hips (manifest of the workspace); labelled: Total hip 34" in text
    assert "patients   30" in text
    assert "9 = 3 segmenters + 6 classifiers" in text
    assert "leak guard on" in text


def test_an_overridden_guard_is_said_aloud(small_workspace):
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


def test_more_epochs_and_larger_films_take_longer(small_workspace):
    store = small_workspace.store
    plain = seconds_of(store)
    assert seconds_of(store, epochs=400) > 1.5 * plain
    assert seconds_of(store, size_px=128) > 2 * plain
