"""From a bundle back to the callable it holds."""

import torch

from hipray.bundles.bundle import Bundle
from hipray.classification.classifier import Classifier
from hipray.classification.model import build_network as build_classifier_network
from hipray.classification.odds import OddsScale
from hipray.config.base import build_config
from hipray.config.experiment import ClassifierSettings, SegmenterSettings
from hipray.segmentation.model import build_network as build_segmenter_network
from hipray.segmentation.segmenter import SegmenterNetwork
from hipray.vocab import Region, SegmenterArch


def build_segmenter_part(bundle: Bundle) -> SegmenterNetwork:
    """Return the network of a segmenter bundle."""
    model = bundle.description.model
    settings = build_config(SegmenterSettings, model["settings"])
    regions = tuple(Region(region) for region in model["regions"])
    module = build_segmenter_network(
        SegmenterArch(model["arch"]), settings, outputs=len(regions), pretrained=False
    )
    module.load_state_dict(bundle.weights())
    return SegmenterNetwork(module, regions, settings.size_px)


def build_classifier(bundle: Bundle, device: torch.device | None = None) -> Classifier:
    """Return the classifier of a classifier bundle."""
    model = bundle.description.model
    settings = build_config(ClassifierSettings, model["settings"])
    module = build_classifier_network(model["cell"]["backbone"], settings, pretrained=False)
    module.load_state_dict(bundle.weights())
    odds = OddsScale.parse(model["odds"])
    return Classifier(module, settings=settings, odds=odds, device=device)
