"""Pictures as PNG files."""

import cv2
import numpy as np
import numpy.typing as npt


def encode_png(picture: npt.NDArray[np.uint8]) -> bytes:
    """Return grey (H, W) or RGB (H, W, 3) pixels as PNG."""
    ordered = picture[:, :, ::-1] if picture.ndim == 3 else picture
    ok, data = cv2.imencode(".png", ordered)
    assert ok, "cv2 encodes any uint8 array as PNG"
    return bytes(data)


def encode_mask(mask: npt.NDArray[np.bool_]) -> bytes:
    """Return a mask (H, W) as grey PNG of 8 bits: 0 outside, 255 inside."""
    return encode_png(mask.astype(np.uint8) * np.uint8(255))
