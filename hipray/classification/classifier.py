"""The classifier: views of hips in, the log odds of being abnormal out.

Legend of shapes: N hips, P side of the view in pixels.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hipray.classification.losses import unweight_logit
from hipray.data.framing import Pixels, resize_square


class Classifier:
    """One trained network with the class weights its logits must be freed of."""

    def __init__(
        self,
        module: nn.Module,
        *,
        size_px: int,
        weights: tuple[float, float] = (1.0, 1.0),
        device: torch.device | None = None,
        batch: int = 32,
    ) -> None:
        self._device = device or torch.device("cpu")
        self._module = module.eval().to(self._device)
        self._size_px = size_px
        self._weights = weights
        self._batch = batch

    @torch.inference_mode()
    def __call__(self, views: Pixels) -> npt.NDArray[np.float64]:
        """Return log odds (N,) of square views (N, P, P) uint8 of any side."""
        odds = []
        for start in range(0, len(views), self._batch):
            films = resize_square(views[start : start + self._batch], self._size_px)
            batch = torch.from_numpy(np.ascontiguousarray(films)).to(self._device)
            logits = self._module(batch[:, None].float() / 255).double()
            odds.append((logits[:, 1] - logits[:, 0]).cpu().numpy())
        flat = np.concatenate(odds) if odds else np.zeros(0)
        return unweight_logit(flat.astype(np.float64), self._weights)
