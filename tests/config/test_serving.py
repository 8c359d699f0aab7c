import pytest

from hipray.config.base import build_config
from hipray.config.jobs import ServeRun
from hipray.config.serving import ReplicaBounds
from hipray.errors import ConfigError


def test_a_deployment_may_have_bounds_of_its_own() -> None:
    config = build_config(
        ServeRun, {"max_replicas": 4, "scaling": {"ensemble": {"min_replicas": 2}}}
    )
    assert config.scaling.ensemble.limit(config.max_replicas) == (2, 4)
    assert config.scaling.ingress.limit(config.max_replicas) == (1, 4)
    assert ReplicaBounds(min_replicas=8).limit(4) == (8, 8)


def test_bounds_that_cross_are_refused() -> None:
    with pytest.raises(ConfigError, match="min_replicas"):
        build_config(ServeRun, {"scaling": {"ingress": {"min_replicas": 3, "max_replicas": 2}}})
