"""Job configurations refuse what cannot run."""

import pytest

from hipray.config.base import build_config
from hipray.config.jobs import Scaling
from hipray.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"workers_per_fit": 2, "local_lanes": True}, "needs Ray Train workers"),
        ({"workers_per_fit": 2, "gpus_per_lane": 0.5}, "needs whole GPUs"),
        ({"lanes": 0}, "greater than or equal to 1"),
    ],
)
def test_lanes_that_cannot_run_are_refused(settings, words) -> None:
    with pytest.raises(ConfigError, match=words):
        build_config(Scaling, settings)
