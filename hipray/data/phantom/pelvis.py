"""The pelvis and soft tissue around a phantom hip, in the frame of the canonical left hip."""

import cv2
import numpy as np

from hipray.data.phantom.anatomy import FIELD_OF_VIEW_MM, FemurShape, Field, HipPose

_CUE_PER_T = 0.06  # relative density of the pelvis per T unit: a weaker cue, as in life
_CUE_NOISE = 0.8  # T units
_MIDLINE_FROM_HEAD = 87.0  # mm: half the distance of the two heads in a pelvis film
_BLUR_MM = 2.0


def build_pelvis(
    stream: np.random.Generator, shape: FemurShape, pose: HipPose, *, size: int, t_shown: float
) -> Field:
    """Return the areal density (H, W) of the pelvic bones in g/cm²."""
    spacing = FIELD_OF_VIEW_MM / size
    density = np.zeros((size, size), np.float32)
    for bone in _bones(shape.head_radius):
        _paint(density, pose, bone, weight=float(stream.uniform(0.40, 0.75)))
    density = cv2.GaussianBlur(density, (0, 0), _BLUR_MM / spacing)
    density += _acetabulum(shape, pose, size) * np.float32(stream.uniform(0.40, 0.75))
    cue = 1 + _CUE_PER_T * (t_shown + stream.normal(0, _CUE_NOISE))
    return np.asarray(density * max(cue, 0.3), dtype=np.float32)


def _bones(head: float) -> tuple[tuple[float, float, float, float, float], ...]:
    """Return ellipses (x, y, semi-x, semi-y in mm from the head; turn in degrees)."""
    return (
        (-28, -head - 36, 30, 30, -25),  # body of the ilium
        (-14, -head - 16, 20, 14, 0),  # roof of the acetabulum
        (-52, 2, 36, 8, 14),  # superior ramus of the pubis
        (-80, 16, 7, 18, 0),  # body of the pubis
        (-26, 42, 11, 26, 12),  # ischium
        (-56, 50, 32, 6, -32),  # inferior ramus
    )


def _paint(
    density: Field,
    pose: HipPose,
    bone: tuple[float, float, float, float, float],
    *,
    weight: float,
) -> None:
    """Raise `density` (in place) to `weight` g/cm² inside one ellipse."""
    size = density.shape[0]
    per_mm = size / FIELD_OF_VIEW_MM
    x, y, semi_x, semi_y, turn = bone
    cos, sin = np.cos(pose.rotation), np.sin(pose.rotation)
    column = (pose.head_x + pose.scale * (cos * x - sin * y)) * per_mm + size / 2
    row = (pose.head_y + pose.scale * (sin * x + cos * y)) * per_mm + size / 2
    layer = np.zeros_like(density)
    axes = (round(semi_x * pose.scale * per_mm), round(semi_y * pose.scale * per_mm))
    angle = float(np.degrees(pose.rotation)) + turn
    cv2.ellipse(layer, (round(column), round(row)), axes, angle, 0, 360, weight, -1)
    np.maximum(density, layer, out=density)


def _acetabulum(shape: FemurShape, pose: HipPose, size: int) -> Field:
    """Return the subchondral arc (H, W), one at its crest, over and medial of the head."""
    axis = ((np.arange(size) + 0.5) / size - 0.5) * FIELD_OF_VIEW_MM
    dx = (axis[None, :] - pose.head_x) / pose.scale
    dy = (axis[:, None] - pose.head_y) / pose.scale
    ring = np.exp(-(((np.hypot(dx, dy) - shape.head_radius - 6.5) / 3.5) ** 2) / 2)
    toward = np.cos(np.arctan2(dy, dx) - np.radians(-125) - pose.rotation)
    open_below = 1 / (1 + np.exp(-(toward - 0.1) / 0.1))
    return np.asarray(ring * open_below, dtype=np.float32)


def build_soft_tissue(
    stream: np.random.Generator, pose: HipPose, *, size: int, thickness_mm: float
) -> Field:
    """Return soft tissue (H, W) in mm: thickest over the hip, ending at skin and thigh gap."""
    axis = (((np.arange(size) + 0.5) / size - 0.5) * FIELD_OF_VIEW_MM).astype(np.float32)
    x, y = axis[None, :] - pose.head_x, axis[:, None] - pose.head_y
    skin = stream.uniform(102, 165) + 0.15 * y  # mm lateral of the head
    lateral = np.sqrt(np.clip((skin - x) / 25, 0, 1))
    gap_top = stream.uniform(55, 85)  # mm below the head: where the thighs part
    gap = np.clip((y - gap_top) / 25, 0, 1) * np.clip((-x - _MIDLINE_FROM_HEAD + 18) / 18, 0, 1)
    return np.asarray(thickness_mm * lateral * (1 - gap), dtype=np.float32)


def add_gas(stream: np.random.Generator, soft: Field, pose: HipPose) -> Field:
    """Return `soft` with bowel gas in half of the hips: bubbles above and medial of the head."""
    if stream.random() < 0.5:
        return soft
    size = soft.shape[0]
    per_mm = size / FIELD_OF_VIEW_MM
    bubbles = np.zeros_like(soft)
    for _ in range(int(stream.integers(1, 5))):
        x = pose.head_x + stream.uniform(-62, -28)
        y = pose.head_y + stream.uniform(-52, -20)
        axes = (round(stream.uniform(4, 13) * per_mm), round(stream.uniform(3, 9) * per_mm))
        centre = (round(x * per_mm + size / 2), round(y * per_mm + size / 2))
        turn = float(stream.uniform(0, 180))
        cv2.ellipse(bubbles, centre, axes, turn, 0, 360, float(stream.uniform(8, 30)), -1)
    bubbles = cv2.GaussianBlur(bubbles, (0, 0), 1.5 * per_mm)
    return np.asarray(np.maximum(soft - bubbles, 0), dtype=np.float32)
