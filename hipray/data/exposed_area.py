"""Where the X-rays fell on a film, and where a pelvis has its midline."""

from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from hipray.data.thumbnail import build_thumbnail

ScalarT = TypeVar("ScalarT", bound=np.generic)

EDGE_STEP = 0.05
"""Grey step across a collimator's edge, as a share of the film's range."""
EDGE_ROWS = 0.7
"""Share of the rows that a straight edge must cross near the film's edge."""
FAR_EDGE_ROWS = 0.9
"""The same farther in, where a femoral shaft may run parallel to the edge over 0.72 of the rows."""
NEAR_BORDER = 0.1
"""How far near the edge is, as a share of the film."""
MAX_BORDER = 0.3
"""Widest border on one side, as a share of the film."""
MIN_EXPOSED = 0.45
"""Smallest exposed share of either side; below it the crop is not believed."""
MIDLINE_RANGE = 0.12
"""How far, as a share of the width, the midline may lie from the film's middle."""
MIN_SYMMETRY = 0.3
"""Correlation of a pelvis's halves with each other's mirror image."""
PELVIS_SYMMETRY = 0.75
"""The same from which a picture speaks for a pelvis against its header or without one. Of phantoms
1.1 to 1.5 times as wide as high, 75 % of 30 pelves and 4 % of 60 single hips reach it; MIN_SYMMETRY
all and 85 %."""
MIN_HALF = 0.3
"""Half a pelvis, as a share of the width; less is no basis for a correlation."""
OFF_CENTRE_COST = 1.5
"""Correlation that a midline loses per width off the middle: narrow halves correlate by chance."""
SYMMETRY_BLUR = 0.012
"""Standard deviation of the blur before mirroring, as a share of the width."""


@dataclass(frozen=True)
class Box:
    """A rectangle in film pixels, the lower and right edge outside it."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows inside the box."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns inside the box."""
        return self.right - self.left

    def cut(self, image: NDArray[ScalarT]) -> NDArray[ScalarT]:
        """Return the view of `image` inside the box."""
        return image[self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True)
class Midline:
    """The column about which a film is most symmetrical, and the correlation of its halves."""

    column: int
    symmetry: float

    @property
    def is_symmetrical(self) -> bool:
        """Whether this may be a pelvis, where its shape or header says so."""
        return self.symmetry >= MIN_SYMMETRY

    @property
    def is_of_pelvis(self) -> bool:
        """Whether the picture itself speaks for a pelvis."""
        return self.symmetry >= PELVIS_SYMMETRY


def find_exposed_box(thumbnail: NDArray[np.float32], *, height: int, width: int) -> Box:
    """Return the rectangle inside a film's straight borders; the whole film if unsure.

    Borders parallel to the film's edges are found on a 256 px thumbnail, so the box is true to
    1/256 of the longest side and lies inside the exposed area. A tilted collimator is left.
    """
    left, right = _find_borders(thumbnail)
    inner = thumbnail[:, left : thumbnail.shape[1] - right]
    top, bottom = _find_borders(np.ascontiguousarray(inner.T))
    scale_y, scale_x = height / thumbnail.shape[0], width / thumbnail.shape[1]
    box = Box(
        round(top * scale_y),
        round(left * scale_x),
        height - round(bottom * scale_y),
        width - round(right * scale_x),
    )
    believed = box.height >= MIN_EXPOSED * height and box.width >= MIN_EXPOSED * width
    return box if believed else Box(0, 0, height, width)


def _find_borders(image: NDArray[np.float32]) -> tuple[int, int]:
    """Return the widths of the border at the image's left and right, in its pixels."""
    step = np.zeros_like(image)
    step[:, 1:-1] = np.abs(image[:, 2:] - image[:, :-2])
    crossed = (step[_lively_rows(image)] > EDGE_STEP).mean(axis=0)
    reach = max(1, int(MAX_BORDER * image.shape[1]))
    near = int(NEAR_BORDER * image.shape[1])
    return _innermost_edge(crossed[:reach], near), _innermost_edge(crossed[::-1][:reach], near)


def _lively_rows(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the rows that show anything: those inside the border above and below show none."""
    quarter = image.shape[1] // 4
    lively = np.ptp(image[:, quarter : image.shape[1] - quarter], axis=1) > EDGE_STEP
    enough = lively.mean() >= MIN_EXPOSED
    return np.asarray(lively if enough else np.ones_like(lively), np.bool_)


def _innermost_edge(crossed: NDArray[Any], near: int) -> int:
    needed = np.where(np.arange(len(crossed)) < near, EDGE_ROWS, FAR_EDGE_ROWS)
    straight = np.flatnonzero(crossed >= needed)
    if not straight.size:
        return 0
    # The penumbra spreads the step over the pixels beside it.
    beyond = np.flatnonzero(crossed[straight[-1] :] < EDGE_ROWS)
    return int(straight[-1]) + (int(beyond[0]) if beyond.size else 1) + 1


def find_midline(pixels: NDArray[np.float32]) -> Midline:
    """Return the column about which the film is most symmetrical, and how much it is."""
    thumbnail = build_thumbnail(pixels)
    width = thumbnail.shape[1]
    coarse = cv2.GaussianBlur(thumbnail, (0, 0), max(1.0, SYMMETRY_BLUR * width))
    reach = int(MIDLINE_RANGE * width)
    columns = range(width // 2 - reach, width // 2 + reach + 1)
    scores = [_symmetry(coarse, column) for column in columns]
    costs = [OFF_CENTRE_COST * abs(column / width - 0.5) for column in columns]
    best = int(np.argmax(np.subtract(scores, costs)))
    column = round(columns[best] * pixels.shape[1] / width)
    return Midline(column, scores[best])


def _symmetry(image: NDArray[np.float32], column: int) -> float:
    half = min(column, image.shape[1] - column)
    if half < MIN_HALF * image.shape[1]:
        return -1.0
    left = image[:, column - half : column][:, ::-1].ravel()
    right = image[:, column : column + half].ravel()
    spread = float(left.std() * right.std())
    return float(np.mean((left - left.mean()) * (right - right.mean()))) / max(spread, 1e-6)
