"""Heat maps on networks whose answer is known to come from one place."""

import threading
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hipray.classification.classifier import Classifier
from hipray.classification.model import build_network
from hipray.config.experiment import ClassifierSettings, Target
from hipray.data.person import NOBODY, encode_people
from hipray.explanation import Explainer, HeatMap, Unexplained, merge_maps, watch
from hipray.overlay import draw_heat
from hipray.runtime.network import TorchNetwork
from hipray.vocab import Backbone

SIDE = 64
CELLS = 8


class BrightCorner(nn.Module):
    """Two channels, the film and its upper left quarter; only the second one is answered with."""

    num_features = 2

    def forward_features(self, films: torch.Tensor) -> torch.Tensor:
        cells = nn.functional.adaptive_avg_pool2d(films, CELLS)
        corner = torch.zeros_like(cells)
        corner[:, :, : CELLS // 2, : CELLS // 2] = 1
        return torch.cat([cells, cells * corner], 1)

    def forward_head(self, found: torch.Tensor) -> torch.Tensor:
        return found[:, 1:].mean((2, 3))

    def forward(self, films: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(films))


class ChannelsLast(BrightCorner):
    def forward_features(self, films: torch.Tensor) -> torch.Tensor:
        return super().forward_features(films).permute(0, 2, 3, 1)

    def forward_head(self, found: torch.Tensor) -> torch.Tensor:
        return super().forward_head(found.permute(0, 3, 1, 2))


class Tokens(BrightCorner):
    """The same cells as tokens after one that is no part of the image."""

    num_prefix_tokens = 1

    def forward_features(self, films: torch.Tensor) -> torch.Tensor:
        cells = super().forward_features(films).flatten(2).transpose(1, 2)
        return torch.cat([torch.ones_like(cells[:, :1]), cells], 1)

    def forward_head(self, found: torch.Tensor) -> torch.Tensor:
        return found[:, 1:, 1:].mean(1)


class ClassToken(Tokens):
    """Answers from the class token alone, so that no gradient reaches the image."""

    def forward_head(self, found: torch.Tensor) -> torch.Tensor:
        return found[:, 0, 1:]


class TwoLogits(nn.Module):
    """Logits of normal and abnormal; `sign` says which of them the features speak for."""

    def __init__(self, features: nn.Module, sign: float = 1.0, outputs: int = 2) -> None:
        super().__init__()
        self.features = features
        self.dense = nn.Linear(1, outputs, bias=False)
        with torch.no_grad():
            self.dense.weight.zero_()
            self.dense.weight[-1] = sign

    def forward(self, films: torch.Tensor, people: torch.Tensor | None = None) -> torch.Tensor:
        return self.dense(self.features(films))


def explain(network: nn.Module, *, size_px: int = SIDE) -> np.ndarray | Unexplained:
    views = np.random.default_rng(0).integers(100, 255, (2, SIDE, SIDE), np.uint8)
    return Explainer(network, size_px=size_px)(views, encode_people([NOBODY] * 2))


def blockwise(heat: np.ndarray) -> np.ndarray:
    return heat.reshape(2, 2, SIDE // 2, 2, SIDE // 2).mean((2, 4))


@pytest.mark.parametrize("features", [BrightCorner, ChannelsLast, Tokens])
@pytest.mark.parametrize("size_px", [SIDE, SIDE // 2])
def test_a_network_that_looks_at_one_corner_puts_the_heat_there(
    features: type[nn.Module], size_px: int
) -> None:
    heat = explain(TwoLogits(features()), size_px=size_px)
    assert heat.shape == (2, SIDE, SIDE)
    assert heat.max() == pytest.approx(1, abs=1e-5)
    quarters = blockwise(heat).reshape(2, 4)
    assert (quarters[:, 0] > 0.5).all()
    assert (quarters[:, 1:] < 0.1).all()


def test_what_speaks_for_normal_is_no_heat() -> None:
    assert not explain(TwoLogits(BrightCorner(), sign=-1.0)).any()


def test_a_lower_score_is_what_speaks_for_abnormal() -> None:
    assert explain(TwoLogits(BrightCorner(), sign=-1.0, outputs=1)).any()
    assert not explain(TwoLogits(BrightCorner(), outputs=1)).any()


def test_a_network_that_reads_one_token_only_has_a_reason_and_no_map() -> None:
    found = explain(TwoLogits(ClassToken()))
    assert isinstance(found, Unexplained)
    assert "no gradient" in found.reason


def test_a_network_without_a_feature_map_has_a_reason_and_no_map() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 1))
    found = explain(TwoLogits(flat))
    assert isinstance(found, Unexplained)
    assert "feature map" in found.reason


@pytest.mark.parametrize("backbone", ["resnet10t", "mobilenetv3_small_050", "mixer_s32_224"])
def test_timm_networks_of_any_make_are_explained(backbone: str) -> None:
    size_px = 224 if backbone == "mixer_s32_224" else SIDE
    for target in Target:
        settings = ClassifierSettings(size_px=size_px, target=target)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            heat = explain(build_network(backbone, settings), size_px=size_px)
        assert heat.shape == (2, SIDE, SIDE)
        assert np.isfinite(heat).all()


@pytest.mark.full
@pytest.mark.parametrize("backbone", [*(b.value for b in Backbone), "swin_tiny_patch4_window7_224"])
def test_the_papers_networks_are_explained(backbone: str) -> None:
    heat = explain(build_network(backbone, ClassifierSettings(size_px=224)), size_px=224)
    assert heat.shape == (2, SIDE, SIDE)
    assert np.isfinite(heat).all()


def test_explaining_leaves_the_network_as_it_was_and_shares_its_weights() -> None:
    network = build_network("resnet10t", ClassifierSettings(size_px=SIDE)).eval()
    before = {name: id(module) for name, module in network.named_modules()}
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    explain(network)
    assert {name: id(module) for name, module in network.named_modules()} == before
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    watched = watch(network)
    ours, theirs = list(watched.parameters()), list(network.parameters())
    assert [p.data_ptr() for p in ours] == [p.data_ptr() for p in theirs]


def test_explaining_works_inside_inference_mode() -> None:
    network = TwoLogits(BrightCorner())
    with torch.inference_mode():
        inside = explain(network)
    assert np.array_equal(inside, explain(network))


def test_scores_are_the_same_while_another_thread_explains() -> None:
    network = build_network("resnet10t", ClassifierSettings(size_px=SIDE))
    classifier = Classifier(TorchNetwork(network), settings=ClassifierSettings(size_px=SIDE))
    views, people = np.full((2, SIDE, SIDE), 90, np.uint8), encode_people([NOBODY] * 2)
    alone = classifier(views, people)

    def explain_again() -> None:
        for _ in range(5):
            Explainer(network, size_px=SIDE)(views, people)

    explaining = threading.Thread(target=explain_again)
    explaining.start()
    found = [classifier(views, people) for _ in range(5)]
    explaining.join()
    assert all(np.allclose(odds, alone, atol=1e-6) for odds in found)


def test_members_maps_are_averaged_at_the_size_of_the_largest_view() -> None:
    views = np.zeros((1, 4, 4), np.uint8)
    small, large = np.ones((1, 2, 2), np.float32), np.zeros((1, 4, 4), np.float32)
    (merged,) = merge_maps([small, large, Unexplained("one has none")], views=views)
    assert merged.heat is not None
    assert merged.heat.tolist() == [[128] * 4] * 4
    assert (merged.members, merged.reason) == (2, "one has none")


def test_without_any_map_the_reason_is_given() -> None:
    found = merge_maps([Unexplained("none")], views=np.zeros((2, 4, 4), np.uint8))
    assert [(m.heat, m.members, m.reason) for m in found] == [(None, 0, "none")] * 2
    assert all(isinstance(m, HeatMap) for m in found)


def test_a_view_without_heat_is_drawn_as_it_is() -> None:
    view = np.arange(256, dtype=np.uint8).reshape(16, 16)
    cold = np.asarray(Image.open(BytesIO(draw_heat(view, np.zeros_like(view)))))
    hot = np.asarray(Image.open(BytesIO(draw_heat(view, np.full_like(view, 255)))))
    assert np.array_equal(cold, np.repeat(view[:, :, None], 3, 2))
    assert (hot != cold).mean() > 0.9
