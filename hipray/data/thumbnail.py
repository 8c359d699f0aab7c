"""A film small and in [0, 1]: what detectors and the search for its exposed area look at."""

import cv2
import numpy as np
from numpy.typing import NDArray

THUMBNAIL_PX = 256
THUMBNAIL_PERCENTILES = (0.5, 99.5)


def build_thumbnail(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the film at 256 px or less, scaled to [0, 1] by its 0.5 and 99.5 percentiles."""
    small = _shrink(pixels, THUMBNAIL_PX)
    low, high = np.percentile(small, THUMBNAIL_PERCENTILES)
    return np.asarray(np.clip((small - low) / max(float(high - low), 1e-6), 0, 1), np.float32)


def _shrink(pixels: NDArray[np.float32], longest: int) -> NDArray[np.float32]:
    """Return the image with its longest side at most `longest` px, by area averaging."""
    scale = longest / max(pixels.shape)
    if scale >= 1:
        return pixels
    size = tuple(max(1, round(side * scale)) for side in pixels.shape[::-1])
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.float32)
