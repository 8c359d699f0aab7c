"""What a training loop gets from the machine it runs on."""

import pytest
import torch

from hipray.training.context import local_context


def test_float32_stays_float32_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert local_context().device.type == "cuda"
    assert not torch.backends.cudnn.allow_tf32
