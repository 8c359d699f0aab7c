"""Export to ONNX: one file that answers stored films, checked against torch before it is kept.

The exporter is torch's tracing one: it needs nothing beside `onnx`, takes a second or two for each
of the paper's networks, and what it cannot trace is refused by the check.
Legend of shapes: B films, P side in pixels, C numbers that tell a person.
"""

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hipray.data.framing import Pixels
from hipray.data.person import People
from hipray.runtime.network import Network, PixelNetwork, TorchNetwork
from hipray.runtime.onnx_network import ANSWERS, FILMS, PEOPLE, OnnxNetwork
from hipray.vocab import Precision

OPSET = 18
"""Version of the operators in the file; ONNX Runtime has known it since 1.14."""
TOLERANCE = 1e-4
"""Largest difference between an answer of torch and of the exported network."""
TRACED_FILMS = 2
"""Films that the exporter traces the network with."""


@dataclass(frozen=True)
class Probe:
    """What a network is compared on; the same arrays go to every runtime."""

    films: Pixels
    """(B, P, P) uint8, at the network's own size."""
    people: People | None = None
    """(B, C)."""


@dataclass(frozen=True)
class Export:
    """An exported network, or why there is none."""

    model: bytes | None
    difference: float | None = None
    """Largest difference from torch on the probe."""
    reason: str = ""
    """Why there is no model."""


def export_network(module: nn.Module, probe: Probe) -> Export:
    """Return a module of grey values (B, 1, P, P) in 0..1 as ONNX, checked on `probe`.

    Nothing is raised: a network that cannot be exported, or answers otherwise, stays with torch.
    """
    try:
        model = _trace(module, probe)
        difference = compare(TorchNetwork(module), OnnxNetwork(model), probe)
    except Exception as error:  # exporter and runtime raise dozens of types
        return Export(None, reason=f"the export failed ({type(error).__name__})")
    if not difference <= TOLERANCE:
        reason = f"the exported network differs by {difference:.2g}, more than {TOLERANCE:g}"
        return Export(None, difference, reason)
    return Export(model, difference)


def measure_bfloat16(module: nn.Module, probe: Probe) -> float:
    """Return the largest change of an answer when torch computes in bfloat16."""
    lowered = TorchNetwork(module, precision=Precision.BFLOAT16)
    return compare(TorchNetwork(module), lowered, probe)


def compare(one: Network, other: Network, probe: Probe) -> float:
    """Return the largest difference of two networks' answers; NaN where one has a NaN.

    The whole probe at once and one film alone: an export may have frozen the size of its batch.
    """
    differences = [
        np.abs(one(films, people) - other(films, people)).max()
        for films, people in (
            (probe.films, probe.people),
            (probe.films[:1], None if probe.people is None else probe.people[:1]),
        )
    ]
    return float(np.max(differences))


def _trace(module: nn.Module, probe: Probe) -> bytes:
    told = () if probe.people is None else (probe.people,)
    given = tuple(torch.from_numpy(a[:TRACED_FILMS].copy()) for a in (probe.films, *told))
    names = [FILMS, PEOPLE][: len(given)]
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        warnings.simplefilter("ignore")  # it warns of itself, and of shapes that are constant here
        torch.onnx.export(
            PixelNetwork(module).eval(),
            given,
            path,
            dynamo=False,
            input_names=names,
            output_names=[ANSWERS],
            dynamic_axes={name: {0: "batch"} for name in (*names, ANSWERS)},
            opset_version=OPSET,
        )
        return path.read_bytes()
