"""Heat maps of what speaks for "abnormal" on a view: Grad-CAM (Selvaraju et al. 2017, section 3).

Each channel of the last feature map before pooling is weighted by the mean gradient of the log
odds with respect to it; what is positive in the weighted sum is kept, enlarged to the view and
divided by its maximum.
Legend of shapes: N hips, P side of the view, B = N, C channels, h x w cells of the feature map.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from hipray.data.framing import Pixels, resize_square
from hipray.data.person import People

NO_MAP = "the network does not show a feature map before its pooling"
NO_GRADIENT = "no gradient of the answer reaches the network's last feature map"

HeatValues = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Unexplained:
    """Why a network has no heat map."""

    reason: str


@dataclass(frozen=True)
class HeatMap:
    """Where the members of one region and label see what speaks for "abnormal", on one view."""

    view: Pixels
    """(P, P) uint8, the view at the largest size that a member looks at."""
    heat: Pixels | None
    """(P, P) uint8, 255 where all members see most; None where no member has a map."""
    members: int
    """How many members the mean is over."""
    reason: str | None
    """Why a member has no map."""


class _Recorder(nn.Module):
    """A timm network that keeps its last feature map, cut off from what comes before it."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.feature_map: torch.Tensor | None = None

    def forward(self, films: torch.Tensor) -> torch.Tensor:
        network: Any = self.features
        with torch.no_grad():
            found = network.forward_features(films)
        if not isinstance(found, torch.Tensor):
            pooled: torch.Tensor = network.forward_head(found)
            return pooled
        self.feature_map = found.detach().requires_grad_()
        answer: torch.Tensor = network.forward_head(self.feature_map)
        return answer


class Explainer:
    """Explains the answers of one torch network, whose own modules stay as they are."""

    def __init__(
        self, network: nn.Module, *, size_px: int, device: torch.device | None = None
    ) -> None:
        self._device = device or torch.device("cpu")
        self._network = network.eval().to(self._device)
        self._size_px = size_px

    def __call__(self, views: Pixels, people: People) -> HeatValues | Unexplained:
        """Return heat (N, P, P) within 0..1 on views (N, P, P) uint8 of people (N, C)."""
        if self._watched is None:
            return Unexplained(NO_MAP)
        films = torch.from_numpy(resize_square(views, self._size_px)).to(self._device)
        told = torch.from_numpy(np.ascontiguousarray(people)).to(self._device)
        cells = explain_films(self._watched, films[:, None].float() / 255, told)
        if isinstance(cells, Unexplained):
            return cells
        side = views.shape[1]
        grown = F.interpolate(cells[:, None], (side, side), mode="bilinear", align_corners=False)
        return np.asarray(normalise(grown[:, 0]).cpu().numpy(), np.float32)

    @cached_property
    def _watched(self) -> nn.Module | None:
        return watch(self._network)


def watch(network: nn.Module) -> nn.Module | None:
    """Return a copy of a network that records, sharing its weights; None where it cannot.

    The copy has a module tree of its own, so that other threads may use the network meanwhile.
    """
    features = network.features
    if not (hasattr(features, "forward_features") and hasattr(features, "forward_head")):
        return None
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    watched = copy.deepcopy(network, dict(shared))
    watched.features = _Recorder(watched.features)  # type: ignore[arg-type]
    return watched


def explain_films(
    watched: nn.Module, films: torch.Tensor, people: torch.Tensor
) -> torch.Tensor | Unexplained:
    """Return Grad-CAM (B, h, w) of films (B, 1, P, P) with values in 0..1; 0 and above."""
    recorder = watched.features
    assert isinstance(recorder, _Recorder), "only a watched network can be explained"
    # a caller's inference mode would forbid the gradient
    with torch.inference_mode(False), torch.enable_grad():
        odds = _log_odds(watched(films, people)).sum()
        feature_map, recorder.feature_map = recorder.feature_map, None
        layout = None if feature_map is None else _lay_out(feature_map, recorder.features)
        if feature_map is None or layout is None:
            return Unexplained(NO_MAP)
        (gradient,) = torch.autograd.grad(odds, feature_map, allow_unused=True)
    slopes = None if gradient is None else _lay_out(gradient, recorder.features)
    if slopes is None or not slopes.any():
        return Unexplained(NO_GRADIENT)
    weights = slopes.mean((2, 3), keepdim=True)
    return (weights * layout.detach()).sum(1).clamp(min=0)


def _log_odds(answers: torch.Tensor) -> torch.Tensor:
    """What rises with the log odds of abnormal (B,): of two logits, or of one score."""
    if answers.shape[1] == 1:
        return -answers[:, 0]  # a lower T- or Z-score is the abnormal one
    return answers[:, 1] - answers[:, 0]


def _lay_out(found: torch.Tensor, features: nn.Module) -> torch.Tensor | None:
    """A feature map as (B, C, h, w): from channels last and from tokens, too."""
    width, prefix = getattr(features, "num_features", None), _count_prefix(features)
    if found.ndim == 3:
        tokens = found[:, prefix:]
        side = math.isqrt(tokens.shape[1])
        if side * side != tokens.shape[1]:
            return None
        found = tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)
    elif found.ndim == 4 and found.shape[1] != width and found.shape[3] == width:
        found = found.permute(0, 3, 1, 2)
    return found if found.ndim == 4 and found.shape[2] * found.shape[3] > 1 else None


def _count_prefix(features: nn.Module) -> int:
    """How many tokens are no part of the image."""
    count = getattr(features, "num_prefix_tokens", 0)
    return count if isinstance(count, int) else 0


def normalise(maps: torch.Tensor) -> torch.Tensor:
    """Return maps (B, h, w) divided by their maxima; an empty one stays empty."""
    most = maps.amax((1, 2), keepdim=True)
    return torch.where(most > 0, maps / most.clamp(min=torch.finfo(maps.dtype).tiny), maps)


def merge_maps(found: Sequence[HeatValues | Unexplained], *, views: Pixels) -> list[HeatMap]:
    """Return the mean of the members' maps (N, p, p) of any side p, on views (N, P, P)."""
    maps = [
        [_enlarge(heat, views.shape[1]) for heat in heats]
        for heats in found
        if not isinstance(heats, Unexplained)
    ]
    reason = next((heat.reason for heat in found if isinstance(heat, Unexplained)), None)
    if not maps:
        return [HeatMap(view, None, 0, reason) for view in views]
    mean = np.rint(255 * np.mean(maps, axis=0)).astype(np.uint8)
    return [HeatMap(view, heat, len(maps), reason) for view, heat in zip(views, mean, strict=True)]


def _enlarge(heat: HeatValues, side: int) -> HeatValues:
    return np.asarray(cv2.resize(heat, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)
