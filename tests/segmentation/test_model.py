"""U-Net and U-Net++ with one independent output per region."""

import pytest
import segmentation_models_pytorch as smp
import torch

from hipray.config.experiment import SegmenterSettings
from hipray.errors import ConfigError
from hipray.segmentation.model import build_network
from hipray.vocab import SegmenterArch

SMALL = SegmenterSettings(encoder="mobilenet_v2", decoder_channels=(16, 8, 8, 8, 8), size_px=64)


@pytest.mark.parametrize("arch", SegmenterArch)
@pytest.mark.parametrize("outputs", [1, 4])
def test_both_networks_answer_each_pixel_of_each_region(arch, outputs) -> None:
    network = build_network(arch, SMALL, outputs=outputs).eval()
    with torch.inference_mode():
        assert network(torch.rand(2, 1, 64, 64)).shape == (2, outputs, 64, 64)


@pytest.mark.parametrize("arch", SegmenterArch)
def test_an_untrained_network_answers_with_the_shares_of_its_regions(arch) -> None:
    shares = [0.13, 0.02, 0.04, 0.005]
    network = build_network(arch, SMALL, outputs=4, shares=shares).eval()
    unmoved = build_network(arch, SMALL, outputs=4).eval()
    with torch.inference_mode():
        films = torch.rand(4, 1, 64, 64)
        told = torch.sigmoid(network(films)).mean((0, 2, 3))
        untold = torch.sigmoid(unmoved(films)).mean((0, 2, 3))
    assert torch.allclose(told, torch.tensor(shares), rtol=0.5)
    assert (untold > 0.25).all()


def test_a_region_that_is_nowhere_annotated_starts_with_a_finite_answer() -> None:
    network = build_network(SegmenterArch.UNET, SMALL, outputs=1, shares=[0.0]).eval()
    with torch.inference_mode():
        assert torch.isfinite(network(torch.rand(1, 1, 64, 64))).all()


def test_an_unknown_encoder_is_refused_with_names_to_take() -> None:
    settings = SMALL.model_copy(update={"encoder": "resnet19"})
    with pytest.raises(ConfigError, match=r"segmenter.encoder = 'resnet19'; take one of"):
        build_network(SegmenterArch.UNET, settings, outputs=4)


def test_an_encoder_starts_from_a_published_file_with_its_colours_summed() -> None:
    published = smp.Unet("mobilenet_v2", encoder_weights=None).encoder.state_dict()
    settings = SMALL.model_copy(update={"weights": "w.safetensors"})
    own = build_network(SegmenterArch.UNET, settings, outputs=4, start=published).state_dict()
    first = "features.0.0.weight"
    assert torch.equal(own[f"encoder.{first}"], published[first].sum(1, keepdim=True))
    others = {name for name in published if name != first}
    assert all(torch.equal(own[f"encoder.{name}"], published[name]) for name in others)


def test_a_whole_network_starts_from_its_own_file() -> None:
    settings = SMALL.model_copy(update={"weights": "w.safetensors"})
    whole = build_network(SegmenterArch.UNET, settings, outputs=4).state_dict()
    own = build_network(
        SegmenterArch.UNET, settings, outputs=4, start=whole, shares=[0.1] * 4
    ).state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize("outputs", [1, 4])
def test_a_file_of_another_network_is_refused(outputs) -> None:
    settings = SMALL.model_copy(update={"weights": "w.safetensors"})
    other = {"conv1.weight": torch.zeros(3)}
    if outputs == 1:
        other = build_network(SegmenterArch.UNET, settings, outputs=4).state_dict()
    with pytest.raises(ConfigError, match=r"in w\.safetensors, found others"):
        build_network(SegmenterArch.UNET, settings, outputs=outputs, start=other)


def test_a_bundles_network_is_built_without_reaching_for_start_weights() -> None:
    settings = SMALL.model_copy(update={"weights": "imagenet"})
    network = build_network(SegmenterArch.UNET, settings, outputs=4, pretrained=False)
    assert sum(p.numel() for p in network.parameters()) > 1e6
