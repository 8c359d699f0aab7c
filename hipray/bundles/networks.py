"""From a bundle back to the callable it holds."""

from typing import assert_never

from torch import nn

from hipray.bundles.bundle import ONNX_FILE, Bundle
from hipray.classification.classifier import Classifier
from hipray.classification.model import build_network as build_classifier_network
from hipray.classification.spec import ClassifierSpec
from hipray.errors import BundleError
from hipray.runtime.devices import torch_device
from hipray.runtime.engine import TORCH_ON_CPU, Engine
from hipray.runtime.network import Network, TorchNetwork, arrange
from hipray.runtime.onnx_network import OnnxNetwork
from hipray.segmentation.model import build_network as build_segmenter_network
from hipray.segmentation.segmenter import MaskNetwork, SegmenterNetwork
from hipray.segmentation.spec import SegmenterSpec
from hipray.vocab import Device, Precision, Runtime

Model = SegmenterNetwork | Classifier
"""What a bundle holds."""

FILMS_AT_ONCE = {Device.CPU: 8, Device.CUDA: 32}
"""Films in one forward pass: more gain nothing on CPUs and take memory."""


def build_model(
    bundle: Bundle, engine: Engine = TORCH_ON_CPU, module: nn.Module | None = None
) -> Model:
    """Return what a bundle holds, on an engine; `module` is its network where it is built."""
    network = _build_network(bundle, engine, module)
    match bundle.description.model:
        case ClassifierSpec(settings=settings, odds=odds):
            batch = FILMS_AT_ONCE[engine.device]
            return Classifier(network, settings=settings, odds=odds, batch=batch)
        case SegmenterSpec(regions=regions, settings=settings):
            return SegmenterNetwork(network, regions, settings.size_px)
        case strange:
            assert_never(strange)


def build_module(bundle: Bundle) -> nn.Module:
    """Return a bundle's network with its weights, as torch takes it: grey values in 0..1."""
    match bundle.description.model:
        case ClassifierSpec(cell=cell, settings=settings):
            classifier = build_classifier_network(cell.backbone, settings, pretrained=False)
            classifier.load_state_dict(bundle.weights())
            return classifier
        case SegmenterSpec(arch=arch, regions=regions, settings=settings):
            segmenter = build_segmenter_network(
                arch, settings, outputs=len(regions), pretrained=False
            )
            segmenter.load_state_dict(bundle.weights())
            return MaskNetwork(segmenter)
        case strange:
            assert_never(strange)


def _build_network(bundle: Bundle, engine: Engine, module: nn.Module | None) -> Network:
    match engine.runtime:
        case Runtime.ONNX:
            return OnnxNetwork(_find_export(bundle))
        case Runtime.TORCH:
            module = module or build_module(bundle)
            if engine.device is Device.CUDA or engine.precision is Precision.BFLOAT16:
                module = arrange(module)
            return TorchNetwork(module, device=torch_device(engine), precision=engine.precision)
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
