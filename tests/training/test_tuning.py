"""Trials, inner folds and chosen settings: the science of tuning, without Ray."""

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from hipray.config.base import load_config
from hipray.config.experiment import Experiment, TuningOrigin
from hipray.config.jobs import GridRun
from hipray.config.tuning import Axis, Halving, SearchSpace, TrialResources, TuneRun, Value
from hipray.data.dataset import HipArrays
from hipray.data.manifest import label_column, read_table, write_table
from hipray.errors import ConfigError, DataError, FitsFailedError
from hipray.storage import open_store
from hipray.training.checkpoints import CheckpointStore
from hipray.training.context import FitContext
from hipray.training.inputs import FitInputs
from hipray.training.lockstep import WORST_LOG_LOSS, Figures
from hipray.training.loop import run_epochs
from hipray.training.preparation import explain_optimism
from hipray.training.search_estimate import describe_search, expected_epochs
from hipray.training.trials import TrialFolder, read_study, trial_row, write_study
from hipray.training.tuned import conclude, describe_choices, hold_to_search, own_values
from hipray.training.tuning import (
    Search,
    _build_parts,
    deal_inner_folds,
    prepare_search,
    read_search,
    resolve_config,
    run_trial,
    settings_of_trial,
)
from hipray.vocab import LabelType, Region, Variant
from tests.small_workspace import BACKBONE, EXPERIMENT, SmallGrid, SmallWorkspace

TINY = EXPERIMENT.model_copy(
    update={"classifier": EXPERIMENT.classifier.model_copy(update={"size_px": 32})}
)
SPACE = SearchSpace(size_px=(32,), weight_decay=Axis(choices=(0, 1e-3)))
CHOSEN: dict[str, Value] = {"lr": 1e-3, "dropout": 0.0, "size_px": 32, "class_weighting": "none"}


def _config(workspace: SmallWorkspace, **changes: object) -> TuneRun:
    given: dict[str, object] = {
        "workspace": workspace.store.uri,
        "backbones": (BACKBONE,),
        "inner_folds": 2,
        "halving": Halving(max_epochs=2, grace_epochs=1),
        "space": SPACE,
        "experiment": TINY,
    }
    return TuneRun.model_validate(given | changes)


@pytest.fixture(scope="module")
def search(small_workspace: SmallWorkspace) -> Search:
    return read_search(small_workspace.store, _config(small_workspace), BACKBONE)


def _run(search: Search, context: FitContext | None = None) -> Figures:
    return run_trial(search, CHOSEN, context=context or FitContext(), report=lambda f: None)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_inner_folds_part_the_training_side_by_patient(
    small_workspace: SmallWorkspace, inputs: FitInputs, search: Search, count: int
) -> None:
    config = _config(small_workspace, inner_folds=count)
    outer = inputs.fold(search.fit)
    folds = deal_inner_folds(inputs.manifest, outer.train, config)
    patients = inputs.manifest["patient_id"].to_numpy()
    assert len(folds) == count
    for fold in folds:
        assert {*fold.train, *fold.test} == {*outer.train}
        assert not {*patients[fold.train]} & {*patients[fold.test]}
        assert not {*patients[fold.train], *patients[fold.test]} & {*patients[outer.test]}
    if count > 1:
        validated = np.concatenate([fold.test for fold in folds])
        assert sorted(validated) == sorted(outer.train), "each hip validates once"


def test_the_test_hips_of_the_outer_fold_change_no_figure(search: Search) -> None:
    test = search.inputs.fold(search.fit).test
    column = label_column(search.config.label_type, search.config.region)
    manifest = search.inputs.manifest.copy()
    manifest.loc[test, column] = ~manifest.loc[test, column]
    films = search.inputs.arrays.films.copy()
    films[test] = 255 - films[test]
    poisoned = replace(search.inputs, manifest=manifest)
    poisoned.__dict__["arrays"] = HipArrays(
        films, search.inputs.arrays.masks, search.inputs.arrays.has_mask
    )
    assert _timeless(_run(replace(search, inputs=poisoned))) == _timeless(_run(search))
    train = search.folds[0].train
    films[train] = 255 - films[train]
    assert _run(replace(search, inputs=poisoned)).log_loss != _run(search).log_loss


def _timeless(figures: Figures) -> Figures:
    return replace(figures, seconds=0.0)


def test_a_trial_has_a_figure_after_every_epoch_and_ends_with_its_lowest(search: Search) -> None:
    heard: list[Figures] = []
    last = run_trial(search, CHOSEN, context=FitContext(), report=heard.append)
    assert [figures.epoch for figures in heard] == [1, 2]
    assert last.log_loss == min(last.curve) == last.curve[last.best_epoch - 1]
    assert 0 < last.log_loss < WORST_LOG_LOSS
    assert 0 <= last.auroc <= 1
    assert last.ended and last.seconds > 0


def test_folds_in_lockstep_learn_as_each_would_alone(search: Search) -> None:
    settings = settings_of_trial(TINY, BACKBONE, CHOSEN)
    together = _run(search)
    alone = []
    for part in _build_parts(search, settings, FitContext()):
        history = run_epochs(
            part.task, epochs=2, patience=2, seed=settings.seed, context=FitContext()
        )
        alone.append(history.inner_loss)  # no class weights: the loss is the log loss
    expected = np.minimum.accumulate(np.mean(alone, axis=0))
    assert together.curve == pytest.approx(expected, rel=1e-4)


class KilledError(Exception):
    """Stands for the death of a process."""


def test_a_killed_trial_goes_on_after_its_last_epoch_with_the_same_figures(
    search: Search, tmp_path: Path
) -> None:
    context = FitContext(checkpoints=CheckpointStore(open_store(str(tmp_path))))
    heard: list[int] = []

    def die(figures: Figures) -> None:
        heard.append(figures.epoch)
        raise KilledError

    with pytest.raises(KilledError):
        run_trial(search, CHOSEN, context=context, report=die)
    resumed = run_trial(search, CHOSEN, context=context, report=lambda f: heard.append(f.epoch))
    assert heard == [1, 2], "the first epoch was not trained again"
    assert _timeless(resumed) == _timeless(_run(search))
    again = run_trial(search, CHOSEN, context=context, report=lambda f: heard.append(f.epoch))
    assert heard == [1, 2], "nothing was left to train"
    assert (again.log_loss, again.auroc, again.epoch) == (resumed.log_loss, resumed.auroc, 2)


def test_one_factor_scales_all_augmentation() -> None:
    settings = settings_of_trial(Experiment(), BACKBONE, {"augmentation": 0.5, "lr": 1e-3})
    assert (settings.rotation_degrees, settings.shift_px_at_224, settings.batch_scale) == (
        1.5, 2.5, 0.1,
    )  # fmt: skip
    assert settings.lr == 1e-3


def test_one_class_in_an_inner_part_is_refused_before_any_trial(
    small_workspace: SmallWorkspace, inputs: FitInputs
) -> None:
    config = _config(small_workspace)
    manifest = inputs.manifest.copy()
    column = label_column(config.label_type, config.region)
    manifest[column] = pd.array([True] * len(manifest), "boolean")
    search = read_search(
        small_workspace.store, config, BACKBONE, inputs=replace(inputs, manifest=manifest)
    )
    with pytest.raises(DataError, match="normal and abnormal hips in the training part of inner"):
        _run(search)


def test_one_class_in_the_archive_is_refused_before_ray_is_asked(
    small_workspace: SmallWorkspace,
) -> None:
    store = small_workspace.store
    table = read_table(store, "manifest.parquet")
    column = label_column(LabelType.T_SCORE, Region.TOTAL_HIP)
    ones = pa.array([True] * len(table), pa.bool_())
    write_table(
        store, "ones.parquet", table.set_column(table.column_names.index(column), column, ones)
    )
    with pytest.raises(DataError, match="normal and abnormal hips for total_hip t_score"):
        prepare_search(store, _config(small_workspace, manifest="ones.parquet"))


def test_more_inner_folds_than_patients_are_refused(
    small_workspace: SmallWorkspace, inputs: FitInputs
) -> None:
    config = _config(small_workspace, inner_folds=20)
    with pytest.raises(DataError, match="at least 20 patients for inner_folds = 20"):
        deal_inner_folds(inputs.manifest, np.arange(8), config)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"manifest": "none.parquet"}, DataError, "hipray ingest"),
        ({"backbones": ("vgg99",)}, ConfigError, "timm network"),
        ({"variant": Variant.SEGMENTED}, DataError, "segmenter fits of this experiment done"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence(
    small_workspace: SmallWorkspace,
    changes: dict[str, object],
    error: type[Exception],
    words: str,
) -> None:
    if changes.get("variant"):
        other = TINY.segmenter.model_copy(update={"seed": 77})
        changes = changes | {"experiment": TINY.model_copy(update={"segmenter": other})}
    with pytest.raises(error, match=words):
        prepare_search(small_workspace.store, _config(small_workspace, **changes))


def test_a_segmented_trial_takes_the_finished_segmenters_masks(small_grid: SmallGrid) -> None:
    config = TuneRun(
        workspace=small_grid.store.uri,
        grid=small_grid.config.run,
        backbones=(BACKBONE,),
        variant=Variant.SEGMENTED,
        inner_folds=1,
        space=SPACE,
        halving=Halving(max_epochs=1, grace_epochs=1),
    )
    config = resolve_config(small_grid.store, config)
    assert config.experiment == small_grid.config.experiment
    search = read_search(small_grid.store, config, BACKBONE)
    assert search.masks is not None and search.masks.any()
    assert _run(search).log_loss < WORST_LOG_LOSS


def test_settings_tuned_on_another_fold_are_no_place_to_begin(
    small_workspace: SmallWorkspace,
) -> None:
    origin = TuningOrigin(run="before", split="s", repeat=0, fold=1)
    config = _config(small_workspace, experiment=TINY.model_copy(update={"tuning": origin}))
    with pytest.raises(ConfigError, match="one tuned in 'before' on repeat 0 and fold 1"):
        resolve_config(small_workspace.store, config)


def _write_small_study(workspace: SmallWorkspace, config: TuneRun) -> None:
    own = own_values(config, BACKBONE)
    assert own is not None
    better = own | {"lr": 3e-4, "dropout": 0.25}
    figures = Figures(2, 0.6, 0.7, 2, 5.0, (0.65, 0.6), ended=True)
    weak = Figures(1, 0.8, 0.5, 1, 2.0, (0.8,))
    rows = [
        trial_row(own, weak, own=True, max_epochs=2) | {"error": None},
        trial_row(better, figures, own=False, max_epochs=2) | {"error": None},
        trial_row(own | {"lr": 9e-4}, None, own=False, max_epochs=2) | {"error": "died"},
    ]
    write_study(workspace.store, config, BACKBONE, rows)


def test_the_chosen_settings_are_a_grids_configuration_as_they_are(
    small_workspace: SmallWorkspace, tmp_path: Path
) -> None:
    store = small_workspace.store
    config = _config(small_workspace, run="chosen", space=SPACE, variant=Variant.AUGMENTED)
    data = prepare_search(store, config)
    _write_small_study(small_workspace, config)
    choices, trials = conclude(store, config, data)
    assert list(trials["status"]) == ["finished", "stopped", "failed"]
    path = tmp_path / "tuned.toml"
    path.write_bytes(store.read("runs/chosen/tuned.toml"))
    grid = load_config(
        GridRun, path=str(path), section="grid", overrides=[f"workspace={store.uri}"]
    )
    settings = grid.experiment.classifier_of(BACKBONE)
    assert (settings.lr, settings.dropout, settings.size_px) == (3e-4, 0.25, 32)
    assert grid.experiment.model_copy(update={"backbones": {}, "tuning": None}) == TINY
    assert grid.experiment.tuning == TuningOrigin(run="chosen", split=data.split, repeat=0, fold=0)
    assert grid.run == "chosen-grid"
    why = explain_optimism(grid, data)
    assert why is not None and "tuned in 'chosen' on all but fold 0" in why
    assert explain_optimism(grid.model_copy(update={"test_folds": (0,)}), data) is None
    said = describe_choices(config, choices)
    assert "inner log loss 0.6000 (own settings: 0.8000), AUROC 0.700" in said
    assert "optimistic" in said and "fold 0" in said


def test_names_that_toml_must_quote_come_back(small_workspace: SmallWorkspace) -> None:
    name = "resnet10t.c3_in1k"
    config = _config(small_workspace, run="quoted", backbones=(name,))
    own = own_values(config, name)
    assert own is not None
    row = trial_row(own, Figures(1, 0.5, 0.5, 1, 1.0, (0.5,)), own=True, max_epochs=2)
    write_study(small_workspace.store, config, name, [row])
    conclude(small_workspace.store, config, prepare_search(small_workspace.store, config))
    text = small_workspace.store.read("runs/quoted/tuned.toml").decode()
    assert list(tomllib.loads(text)["grid"]["experiment"]["backbones"]) == [name]


def test_a_search_whose_trials_all_failed_is_not_finished(small_workspace: SmallWorkspace) -> None:
    config = _config(small_workspace, run="failed")
    row = trial_row({"lr": 1e-3}, None, own=False, max_epochs=2) | {"error": "no weights"}
    with pytest.raises(FitsFailedError, match="1 failed, the first with: no weights"):
        write_study(small_workspace.store, config, BACKBONE, [row])
    assert read_study(small_workspace.store, config, BACKBONE) is None


def test_a_changed_search_is_refused_under_the_same_name(small_workspace: SmallWorkspace) -> None:
    store = small_workspace.store
    config = _config(small_workspace, run="held")
    data = prepare_search(store, config)
    hold_to_search(store, config, data)
    elsewhere = {"workspace": "moved", "resources": TrialResources(cpus_per_trial=2)}
    hold_to_search(store, config.model_copy(update=elsewhere), data)
    changed = config.model_copy(update={"trials": 99, "space": SearchSpace(size_px=(32, 64))})
    with pytest.raises(ConfigError, match=r"other values of space\.size_px, .*trials"):
        hold_to_search(store, changed, data)
    with pytest.raises(DataError, match="the data that run 'held' was begun with"):
        hold_to_search(store, config, replace(data, labels="others"))


def test_equal_settings_are_one_trial_with_one_outcome(small_workspace: SmallWorkspace) -> None:
    config = _config(small_workspace, run="outcome")
    figures = Figures(2, 0.6, 0.7, 2, 5.0, (0.65, 0.6), ended=True)
    TrialFolder(small_workspace.store, config, BACKBONE, {"lr": 1e-3, "dropout": 0}).conclude(
        figures
    )
    same = TrialFolder(small_workspace.store, config, BACKBONE, {"dropout": 0, "lr": 1e-3})
    other = TrialFolder(small_workspace.store, config, BACKBONE, {"dropout": 0, "lr": 2e-3})
    assert same.read_outcome() == figures
    assert other.read_outcome() is None


def test_the_plan_of_a_search_is_told_without_training(small_workspace: SmallWorkspace) -> None:
    before = len(list(small_workspace.store.list()))
    text = describe_search(small_workspace.store, _config(small_workspace, run="planned"))
    for words in (f"{BACKBONE}: 16 trials", "2 inner folds", "never seen", "1e-05 to 0.001 (log)"):
        assert words in text
    assert len(list(small_workspace.store.list())) == before


def test_the_expected_epochs_lie_between_the_first_rung_and_the_last() -> None:
    config = TuneRun(halving=Halving(max_epochs=9, grace_epochs=1, reduction_factor=3))
    assert expected_epochs(config) == pytest.approx(1 + 2 / 3 + 6 / 9)
    assert expected_epochs(TuneRun(halving=Halving(max_epochs=4))) == 4
