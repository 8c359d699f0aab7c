"""The configuration of a search: short forms, what is offered, and what is refused."""

from typing import Any

import pytest

from hipray.config.base import build_config
from hipray.config.experiment import ClassifierSettings, ClassWeighting, Experiment, Freeze
from hipray.config.tuning import Axis, Halving, SearchSpace, TuneRun, change_settings
from hipray.errors import ConfigError
from hipray.vocab import Variant

IMAGENET = {"classifier": {"weights": "imagenet"}}


def test_one_value_fixes_a_parameter_and_a_list_is_a_choice() -> None:
    space = build_config(
        SearchSpace, {"lr": 1e-4, "dropout": [0.1, 0.5], "size_px": 64, "class_weighting": "none"}
    )
    assert space.lr == Axis(choices=(1e-4,))
    assert space.dropout.choices == (0.1, 0.5)
    assert space.size_px == (64,)
    assert space.class_weighting == (ClassWeighting.NONE,)


def test_freezing_is_offered_only_where_there_are_start_weights() -> None:
    assert TuneRun().offered("vgg16")["freeze"] == (Freeze.NOTHING,)
    run = build_config(TuneRun, {"experiment": IMAGENET})
    assert run.offered("vgg16")["freeze"] == tuple(Freeze)


def test_augmentation_is_searched_only_where_the_variant_has_any() -> None:
    assert TuneRun().offered("vgg16")["augmentation"] == Axis(choices=(1.0,))
    augmented = TuneRun(variant=Variant.AUGMENTED).offered("vgg16")["augmentation"]
    assert augmented == Axis(low=0.0, high=2.0)


def test_a_factor_changes_the_three_settings_of_augmentation_only() -> None:
    changed = change_settings(ClassifierSettings(), {"augmentation": 2.0, "lr": 1e-3})
    assert changed == {
        "rotation_degrees": 6.0, "shift_px_at_224": 10.0, "batch_scale": 0.4, "lr": 1e-3,
    }  # fmt: skip
    assert change_settings(ClassifierSettings(), {"augmentation": 1.0}) == {}


def test_rungs_grow_by_the_factor_up_to_the_end() -> None:
    assert Halving(max_epochs=20, grace_epochs=2, reduction_factor=3).rungs() == (2, 6, 18, 20)
    assert Halving(max_epochs=4, grace_epochs=4).rungs() == (4,)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"space": {"lr": {"low": 1e-3, "high": 1e-4}}}, "the range is empty"),
        ({"space": {"dropout": []}}, "the range is empty"),
        ({"space": {"size_px": []}}, "at least 1 item"),
        ({"space": {"lr": {"low": 0, "high": 1, "log": True}}}, "begins above 0"),
        ({"space": {"lr": {"low": 1e-5, "high": 1e-3, "choices": [1]}}}, "either choices or low"),
        ({"space": {"lr": 1e-7}}, "cannot learn"),
        ({"space": {"dropout": [0.5, 1.0]}}, "less than 1"),
        ({"space": {"freeze": "half"}}, "would keep random weights for ever"),
        ({"space": {"augmentation": 2}}, "the original variant is not augmented"),
        ({"variant": "augmented", "space": {"augmentation": 9}}, "space.augmentation = 9"),
        ({"halving": {"max_epochs": 2}}, "max_epochs = 2 ends before grace_epochs = 4"),
        ({"fold": 5}, "outside the split of 1 repeats and 5 folds"),
        ({"repeat": 1}, "outside the split"),
        ({"grid": "grid", "experiment": IMAGENET}, "either grid or experiment"),
        ({"search": "grid"}, "'random' or 'optuna'"),
        ({"trials": 0}, "greater than or equal to 1"),
        ({"backbones": []}, "at least 1 item"),
        ({"space": {"learning_rate": 1}}, "unknown key 'space.learning_rate'"),
    ],
)
def test_a_search_that_cannot_be_meant_is_one_sentence(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("'", ".")) as refused:
        build_config(TuneRun, given)
    assert "\n" not in str(refused.value)


def test_a_named_grid_brings_its_own_experiment_so_its_limits_are_checked_later() -> None:
    run = build_config(TuneRun, {"grid": "grid", "fold": 7, "space": {"freeze": ["half"]}})
    assert run.experiment == Experiment()
