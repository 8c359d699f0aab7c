import logging
import time

import pytest

from hipray.distributed import silence
from hipray.distributed.silence import warn_of_silence


@pytest.mark.timeout(30)
def test_a_cluster_that_is_not_heard_of_for_long_is_told_again_and_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "SILENCE_S", 0.05)
    with caplog.at_level(logging.WARNING), warn_of_silence():
        while len(caplog.records) < 2:
            time.sleep(0.01)
    assert "no shard has ended" in caplog.text
    told = len(caplog.records)
    time.sleep(0.2)
    assert len(caplog.records) == told, "what has ended is silent for good reason"


def test_one_that_is_heard_of_is_not_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "SILENCE_S", 0.5)
    with caplog.at_level(logging.WARNING), warn_of_silence() as heard:
        for _ in range(100):
            time.sleep(0.01)
            heard()
    assert not caplog.records
