"""The scientific sections refuse what cannot mean anything."""

import pytest

from hipray.config.base import build_config
from hipray.config.experiment import Experiment, Freeze
from hipray.errors import ConfigError


def test_a_network_has_the_common_settings_but_where_it_has_its_own() -> None:
    experiment = build_config(
        Experiment, {"classifier": {"lr": 1e-3}, "backbones": {"vgg16": {"lr": 2e-5}}}
    )
    assert experiment.classifier_of("vgg16").lr == 2e-5
    assert experiment.classifier_of("resnet50") == experiment.classifier


def test_an_unknown_setting_of_one_network_is_refused_by_its_path() -> None:
    with pytest.raises(ConfigError, match=r"backbones\.vgg16\.learning_rate"):
        build_config(Experiment, {"backbones": {"vgg16": {"learning_rate": 1e-3}}})


def test_freezing_random_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="would keep random weights for ever"):
        build_config(Experiment, {"classifier": {"freeze": Freeze.HALF}})


def test_a_learning_rate_that_cannot_learn_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot learn"):
        build_config(Experiment, {"classifier": {"lr": 1e-6}})
