"""From a bundle back to the callable it holds."""

from typing import assert_never

from torch import nn

from hipray.bundles.bundle import ONNX_FILE, Bundle, BundleKind
from hipray.classification.classifier import Classifier
from hipray.classification.model import build_network as build_classifier_network
from hipray.classification.odds import OddsScale
from hipray.config.base import build_config
from hipray.config.experiment import ClassifierSettings, SegmenterSettings
from hipray.errors import BundleError
from hipray.runtime.engine import TORCH_ON_CPU, Engine
from hipray.runtime.network import Network, TorchNetwork, arrange
from hipray.runtime.onnx_network import OnnxNetwork
from hipray.segmentation.model import build_network as build_segmenter_network
from hipray.segmentation.segmenter import MaskNetwork, SegmenterNetwork
from hipray.vocab import Device, Precision, Region, Runtime, SegmenterArch

Model = SegmenterNetwork | Classifier
"""What a bundle holds."""

FILMS_AT_ONCE = {Device.CPU: 8, Device.CUDA: 32}
"""Films in one forward pass: more gain nothing on CPUs and take memory."""


def build_model(
    bundle: Bundle, engine: Engine = TORCH_ON_CPU, module: nn.Module | None = None
) -> Model:
    """Return what a bundle holds, on an engine; `module` is its network where it is built."""
    network = _build_network(bundle, engine, module)
    if bundle.description.kind is BundleKind.CLASSIFIER:
        return Classifier(
            network,
            settings=read_classifier_settings(bundle),
            odds=OddsScale.parse(bundle.description.model["odds"]),
            batch=FILMS_AT_ONCE[engine.device],
        )
    regions = tuple(Region(region) for region in bundle.description.model["regions"])
    return SegmenterNetwork(network, regions, read_segmenter_settings(bundle).size_px)


def build_module(bundle: Bundle) -> nn.Module:
    """Return a bundle's network with its weights, as torch takes it: grey values in 0..1."""
    model = bundle.description.model
    if bundle.description.kind is BundleKind.CLASSIFIER:
        classifier = build_classifier_network(
            model["cell"]["backbone"], read_classifier_settings(bundle), pretrained=False
        )
        classifier.load_state_dict(bundle.weights())
        return classifier
    segmenter = build_segmenter_network(
        SegmenterArch(model["arch"]), read_segmenter_settings(bundle),
        outputs=len(model["regions"]), pretrained=False,
    )  # fmt: skip
    segmenter.load_state_dict(bundle.weights())
    return MaskNetwork(segmenter)


def read_classifier_settings(bundle: Bundle) -> ClassifierSettings:
    """Return the settings of a classifier bundle."""
    return build_config(ClassifierSettings, bundle.description.model["settings"])


def read_segmenter_settings(bundle: Bundle) -> SegmenterSettings:
    """Return the settings of a segmenter bundle."""
    return build_config(SegmenterSettings, bundle.description.model["settings"])


def _build_network(bundle: Bundle, engine: Engine, module: nn.Module | None) -> Network:
    match engine.runtime:
        case Runtime.ONNX:
            return OnnxNetwork(_find_export(bundle))
        case Runtime.TORCH:
            module = module or build_module(bundle)
            if engine.device is Device.CUDA or engine.precision is Precision.BFLOAT16:
                module = arrange(module)
            return TorchNetwork(module, device=engine.torch_device, precision=engine.precision)
        case _:
            assert_never(engine.runtime)


def _find_export(bundle: Bundle) -> bytes:
    if ONNX_FILE not in bundle.files:
        note = bundle.description.onnx.reason
        raise BundleError(
            f"{ONNX_FILE} in the bundle of {bundle.description.name}",
            f"none ({note})",
            "set runtime = 'torch' or 'auto', or publish the release again",
        )
    return bundle.files[ONNX_FILE]
