"""U-Net and U-Net++ with one independent output per region."""

import pytest
import torch

from hipray.config.experiment import SegmenterSettings
from hipray.errors import ConfigError
from hipray.segmentation.model import build_network
from hipray.vocab import SegmenterArch

SMALL = SegmenterSettings(encoder="mobilenet_v2", decoder_channels=(16, 8, 8, 8, 8), size_px=64)


@pytest.mark.parametrize("arch", SegmenterArch)
@pytest.mark.parametrize("outputs", [1, 4])
def test_both_networks_answer_each_pixel_of_each_region(arch, outputs):
    network = build_network(arch, SMALL, outputs=outputs).eval()
    with torch.inference_mode():
        assert network(torch.rand(2, 1, 64, 64)).shape == (2, outputs, 64, 64)


def test_an_unknown_encoder_is_refused_with_names_to_take():
    settings = SMALL.model_copy(update={"encoder": "resnet19"})
    with pytest.raises(ConfigError, match=r"segmenter.encoder = 'resnet19'; take one of"):
        build_network(SegmenterArch.UNET, settings, outputs=4)


def test_a_bundles_network_is_built_without_reaching_for_start_weights():
    settings = SMALL.model_copy(update={"weights": "imagenet"})
    network = build_network(SegmenterArch.UNET, settings, outputs=4, pretrained=False)
    assert sum(p.numel() for p in network.parameters()) > 1e6
