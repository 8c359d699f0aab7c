"""Loading a bundle to be asked: verified, on an engine, and counted in memory."""

from dataclasses import dataclass, field
from typing import assert_never

from torch import nn

from hipray.bundles.bundle import (
    ONNX_FILE,
    WEIGHTS_FILE,
    measure_files,
    read_description,
    read_files,
)
from hipray.bundles.golden import check_golden
from hipray.bundles.networks import Model, build_model, build_module
from hipray.classification.spec import ClassifierSpec
from hipray.runtime.engine import TORCH_ON_CPU, Engine
from hipray.runtime.memory import MemoryGauge
from hipray.segmentation.spec import SegmenterSpec
from hipray.storage import Store
from hipray.vocab import Runtime


@dataclass(frozen=True)
class Loading:
    """How networks are loaded."""

    engine: Engine = TORCH_ON_CPU
    verify: bool = True
    """Check each network's golden answers."""
    explaining: bool = False
    """Whether explanations will be asked for: they take torch's networks beside the others."""
    gauge: MemoryGauge = field(default_factory=MemoryGauge)
    """Counts what each network takes in memory and refuses what does not fit."""


@dataclass(frozen=True)
class LoadedModel:
    """What a bundle holds, ready to be asked."""

    model: Model
    spec: ClassifierSpec | SegmenterSpec
    """What the bundle says that it is."""
    module: nn.Module | None
    """Its network in torch; None where nothing needs it."""


def load_model(store: Store, digest: str, loading: Loading) -> LoadedModel:
    """Load one bundle; raises BundleError, and MemoryLimitError where it does not fit."""
    on_torch = loading.engine.runtime is Runtime.TORCH
    unused = _list_unused(loading)
    description = read_description(store, digest)

    def build() -> LoadedModel:
        bundle = read_files(store, digest, description, leave_out=unused)
        module = build_module(bundle) if on_torch or loading.explaining else None
        model = build_model(bundle, loading.engine, module)
        if loading.verify:
            check_golden(bundle, model, precision=loading.engine.precision)
        return LoadedModel(model, bundle.description.model, module)

    size = measure_files(store, digest, leave_out=unused)
    return loading.gauge.load(description.name, size, build)


def _list_unused(loading: Loading) -> set[str]:
    match loading.engine.runtime:
        case Runtime.TORCH:
            return {ONNX_FILE}
        case Runtime.ONNX:
            return set() if loading.explaining else {WEIGHTS_FILE}
        case _:
            assert_never(loading.engine.runtime)
