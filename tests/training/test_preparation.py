"""What a grid settles before anything is trained."""

from dataclasses import replace

import pyarrow as pa
import pytest

from hipray.config.experiment import (
    Experiment,
    LeakageSettings,
    MattingSettings,
    SplitSettings,
    SplitUnit,
    TuningOrigin,
)
from hipray.data.manifest import MANIFEST_SCHEMA, mask_column, read_manifest, write_table
from hipray.errors import ConfigError, DataError, LeakageError
from hipray.training.preparation import (
    check_divisions,
    chosen_folds,
    explain_optimism,
    prepare,
    refuse_idle_settings,
    require_same_data,
    split_key,
)
from hipray.vocab import REGIONS, MaskSource, Region, Variant
from tests.small_workspace import EXPERIMENT, grid_config


def configure(store, **changes):
    return grid_config(store).model_copy(update=changes)


def experiment(**sections) -> Experiment:
    return EXPERIMENT.model_copy(update=sections)


def write_manifest(store, manifest, key):
    table = pa.Table.from_pandas(manifest, schema=MANIFEST_SCHEMA, preserve_index=False)
    write_table(store, key, table)


def without_masks(manifest, rows):
    changed = manifest.copy()
    changed.loc[rows, [mask_column(region) for region in REGIONS]] = None
    return changed


def test_the_split_is_dealt_once_and_then_read(small_workspace) -> None:
    config = configure(small_workspace.store)
    first = prepare(small_workspace.store, config)
    written = small_workspace.store.info(split_key(config))
    again = prepare(small_workspace.store, config)
    assert again.inputs.split.equals(first.inputs.split)
    assert again.plan == first.plan
    assert small_workspace.store.info(split_key(config)) == written


def test_an_unknown_network_is_refused_before_anything_is_read(small_workspace) -> None:
    config = configure(small_workspace.store, backbones=("resnet5O",), manifest="none.parquet")
    with pytest.raises(ConfigError, match=r"backbone 'resnet5O'; did you mean .*resnet50"):
        prepare(small_workspace.store, config)


def test_a_leaking_split_is_refused_before_anything_is_trained(small_workspace) -> None:
    by_image = SplitSettings(folds=5, unit=SplitUnit.IMAGE)
    config = configure(small_workspace.store, experiment=experiment(split=by_image))
    with pytest.raises(LeakageError, match=r"\(same_patient\)"):
        prepare(small_workspace.store, config)


def test_an_override_keeps_the_count_of_leaks_and_tells_it(small_workspace, caplog) -> None:
    by_image = SplitSettings(folds=5, unit=SplitUnit.IMAGE)
    guard = LeakageSettings(allow=True)
    config = configure(small_workspace.store, experiment=experiment(split=by_image, leakage=guard))
    first = prepare(small_workspace.store, config).leaks
    known = prepare(small_workspace.store, config).leaks
    assert first.allowed
    count = first.counts()["same_patient"]
    assert count > 0
    assert known == first
    assert f"{count} same_patient" in caplog.text


def test_the_segmented_variant_without_any_annotation_is_refused(small_workspace) -> None:
    store = small_workspace.store
    manifest = read_manifest(store)
    write_manifest(store, without_masks(manifest, manifest.index), "bare.parquet")
    with pytest.raises(DataError, match=r"annotated masks for the segmented variant, found none"):
        prepare(store, configure(store, manifest="bare.parquet"))
    plan = prepare(
        store, configure(store, manifest="bare.parquet", variants=(Variant.ORIGINAL,))
    ).plan
    assert len(plan) == 3


def test_true_masks_must_be_there_for_every_hip(small_workspace) -> None:
    store = small_workspace.store
    write_manifest(store, without_masks(read_manifest(store), [0, 3]), "part.parquet")
    true = experiment(matting=MattingSettings(mask=MaskSource.TRUE))
    with pytest.raises(DataError, match=r"matting.mask = 'true', found 2 hips without"):
        prepare(store, configure(store, manifest="part.parquet", experiment=true))


def test_tested_folds_are_all_or_those_that_are_named(small_workspace) -> None:
    store = small_workspace.store
    assert chosen_folds(configure(store)) == (0, 1, 2)
    assert chosen_folds(configure(store, test_folds=(0,))) == (0,)
    with pytest.raises(ConfigError, match=r"test_folds within 0..2, found \[3\]"):
        chosen_folds(configure(store, test_folds=(0, 3)))


def test_results_are_optimistic_where_the_tuner_saw_the_tested_hips(small_workspace):
    store = small_workspace.store
    data = prepare(store, configure(store)).data

    def explain(*, split=data.split, folds=(0,)):
        origin = TuningOrigin(run="tune", split=split, repeat=0, fold=0)
        config = configure(store, test_folds=folds, experiment=experiment(tuning=origin))
        return explain_optimism(config, data)

    assert explain() is None
    assert "other folds are tested here" in explain(folds=(0, 1))
    assert "another split" in explain(split="of other data")
    assert explain_optimism(configure(store), data) is None


def test_an_own_setting_of_an_unknown_network_is_refused(small_workspace) -> None:
    store = small_workspace.store
    own = experiment(backbones={"vgg_16": {"lr": 1e-3}})
    with pytest.raises(ConfigError, match="backbone 'vgg_16'"):
        prepare(store, configure(store, experiment=own))


def test_settings_of_a_network_that_is_not_trained_are_refused_unless_they_were_tuned(
    small_workspace,
) -> None:
    idle = experiment(backbones={"vgg16": {"lr": 1e-5}})
    with pytest.raises(ConfigError, match="vgg16; add it to backbones"):
        refuse_idle_settings(configure(small_workspace.store, experiment=idle))
    origin = TuningOrigin(run="search", split="s", repeat=0, fold=0)
    tuned = idle.model_copy(update={"tuning": origin})
    refuse_idle_settings(configure(small_workspace.store, experiment=tuned))


def test_a_run_is_not_judged_by_a_manifest_that_it_did_not_learn_from(small_workspace) -> None:
    preparation = prepare(small_workspace.store, configure(small_workspace.store))
    require_same_data(preparation.inputs, preparation.data)
    changed = replace(preparation.inputs, manifest=preparation.inputs.manifest.assign(age=50.0))
    with pytest.raises(DataError, match="ingested again since"):
        require_same_data(changed, preparation.data)


def test_a_hip_that_changed_its_patient_gets_a_new_split(small_workspace) -> None:
    store, config = small_workspace.store, configure(small_workspace.store)
    before = prepare(store, config)
    moved = read_manifest(store)
    moved.loc[0, "patient_id"] = moved.loc[5, "patient_id"]
    write_manifest(store, moved, "moved.parquet")
    other = configure(store, manifest="moved.parquet")
    split = prepare(store, other).inputs.split
    assert split["patient_id"].nunique() < before.inputs.split["patient_id"].nunique()
    prepare(store, config)  # the next tests find the split they expect


def test_start_weights_that_are_not_there_are_refused_before_anything_is_trained(
    small_workspace,
) -> None:
    settings = EXPERIMENT.classifier.model_copy(update={"weights": "gone.safetensors"})
    config = configure(small_workspace.store, experiment=experiment(classifier=settings))
    with pytest.raises(ConfigError, match=r"no file .*gone.safetensors"):
        prepare(small_workspace.store, config)


def test_a_fit_that_lacks_a_class_is_named_before_anything_is_trained(small_workspace) -> None:
    store = small_workspace.store
    manifest = read_manifest(store)
    manifest["label_t_score_total_hip"] = manifest.index < 2
    write_manifest(store, manifest, "rare.parquet")
    rare = prepare(store, configure(store, manifest="rare.parquet", regions=(Region.TOTAL_HIP,)))
    with pytest.raises(DataError, match=r"in the training set of total_hip-t_score.*r0f"):
        check_divisions(rare.inputs, rare.plan)
