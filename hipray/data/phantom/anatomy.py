"""The shape of a phantom femur: its outline and the four DXA regions, in millimetres.

Every hip is built as a canonical left hip: x runs lateral (image right), y distal (image down).
Regions lie as on a DXA report (neck box, trochanter, Ward's triangle; total hip holds them all).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hipray.vocab import REGIONS, Region, Sex

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]

FIELD_OF_VIEW_MM = 170.0
"""Side of the square that a hip film shows."""

WARDS_CENTRE = 0.74
"""Where Ward's triangle lies, as a share of the neck axis."""

HEAD_IN_HIP_FILM = (-25.0, -32.0)  # mm from the film's centre
HEAD_IN_PELVIS_HALF = (2.0, -32.0)  # mm from the half's centre: 174 mm between the two heads

_OUTLINE_BLUR_MM = 1.2  # rounds the corners where two shapes meet
_EDGE_PX = 4.0  # pixels below the outline where the signed distance is used
_NECK_CENTRE = 0.60  # of the neck axis: centre of the neck box
_NECK_HALF = 7.5  # mm: half the height of the neck box
_NECK_MARGIN = 3.0  # mm by which the neck box reaches beyond the neck
_WARDS_HALF = 8.0  # mm along the neck
_WARDS_SLOPE = 0.55
_TOTAL_DISTAL = 48.0  # mm below the crossing of the axes


@dataclass(frozen=True)
class FemurShape:
    """The measures of one femur as projected on the film (mm, radians)."""

    head_radius: float
    neck_shaft_angle: float
    shaft_lean: float
    neck_length: float  # head centre to the crossing of the axes, foreshortened
    neck_width: float
    shaft_width: float


@dataclass(frozen=True)
class HipPose:
    """Where and how large the hip lies on its square of film."""

    head_x: float  # mm from the centre
    head_y: float
    scale: float
    rotation: float  # radians


@dataclass(frozen=True, eq=False)
class FemurFrame:
    """Coordinates of every pixel in the bone's own axes, each (H, W) float32 in mm."""

    x: Field  # lateral of the head centre
    y: Field  # distal of the head centre
    t: Field  # along the neck axis
    w: Field  # across the neck axis
    u: Field  # along the shaft axis, from the crossing of the axes
    v: Field  # across the shaft axis, lateral positive
    pixel_mm: float  # side of a pixel in the bone's own millimetres


@dataclass(frozen=True, eq=False)
class Femur:
    """A femur on the grid: outline, regions and depth below the edge."""

    shape: FemurShape
    frame: FemurFrame
    outline: Mask  # (H, W)
    regions: Mask  # (R, H, W) in the order of REGIONS
    depth: Field  # (H, W) mm to the edge, 0 outside


def sample_shape(stream: np.random.Generator, sex: Sex) -> FemurShape:
    """Sample the measures of a patient's femurs."""
    male = sex is Sex.MALE
    length = stream.normal(51.0 if male else 46.0, 3.0)
    inward = np.radians(stream.normal(12.0, 7.0))  # rotation of the leg foreshortens the neck
    return FemurShape(
        head_radius=float(stream.normal(24.0 if male else 21.5, 1.2)),
        neck_shaft_angle=float(np.radians(np.clip(stream.normal(127.0, 5.0), 114.0, 142.0))),
        shaft_lean=float(np.radians(stream.normal(6.0, 2.5))),
        neck_length=float(length * np.cos(inward)),
        neck_width=float(stream.normal(33.0 if male else 29.0, 1.8)),
        shaft_width=float(stream.normal(31.5 if male else 28.5, 1.8)),
    )


def sample_pose(stream: np.random.Generator, head: tuple[float, float]) -> HipPose:
    """Sample the position of a hip whose head lies near `head` (mm from the centre)."""
    return HipPose(
        head_x=float(head[0] + np.clip(stream.normal(0, 2.5), -5, 5)),
        head_y=float(head[1] + np.clip(stream.normal(0, 2.5), -5, 5)),
        scale=float(np.clip(stream.normal(1.0, 0.05), 0.86, 1.14)),
        rotation=float(np.radians(np.clip(stream.normal(0.0, 4.0), -12, 12))),
    )


def build_femur(shape: FemurShape, pose: HipPose, size: int) -> Femur:
    """Lay a femur on a square grid of `size` pixels."""
    frame = _build_frame(shape, pose, size)
    inside = cv2.GaussianBlur(_distance(shape, frame), (0, 0), _OUTLINE_BLUR_MM / frame.pixel_mm)
    outline = inside > 0
    return Femur(
        shape=shape,
        frame=frame,
        outline=outline,
        regions=_draw_regions(shape, frame, outline),
        depth=_depth(inside, frame.pixel_mm),
    )


def _build_frame(shape: FemurShape, pose: HipPose, size: int) -> FemurFrame:
    spacing = FIELD_OF_VIEW_MM / size
    axis = (np.arange(size, dtype=np.float32) + 0.5) * spacing - FIELD_OF_VIEW_MM / 2
    dx = (axis[None, :] - pose.head_x) / pose.scale
    dy = (axis[:, None] - pose.head_y) / pose.scale
    cos, sin = np.cos(pose.rotation), np.sin(pose.rotation)
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    shaft, lateral, neck = femur_axes(shape)
    t, w = x * neck[0] + y * neck[1], x * neck[1] - y * neck[0]
    cross_x, cross_y = shape.neck_length * neck
    u = (x - cross_x) * shaft[0] + (y - cross_y) * shaft[1]
    v = (x - cross_x) * lateral[0] + (y - cross_y) * lateral[1]
    x, y, t, w, u, v = (np.asarray(field, dtype=np.float32) for field in (x, y, t, w, u, v))
    return FemurFrame(x=x, y=y, t=t, w=w, u=u, v=v, pixel_mm=spacing / pose.scale)


def femur_axes(
    shape: FemurShape,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the unit vectors (x, y) of the shaft, of lateral and of the neck."""
    lean, bend = shape.shaft_lean, np.pi - shape.neck_shaft_angle
    shaft = np.array([-np.sin(lean), np.cos(lean)])
    lateral = np.array([np.cos(lean), np.sin(lean)])
    return shaft, lateral, np.cos(bend) * shaft + np.sin(bend) * lateral


def _distance(shape: FemurShape, frame: FemurFrame) -> Field:
    """Return the signed distance to the femur's edge in mm, positive inside."""
    half = shape.shaft_width / 2
    head = shape.head_radius - np.hypot(frame.x, frame.y)
    neck = np.minimum(_neck_half_width(shape, frame.t) - np.abs(frame.w), frame.t)
    neck = np.minimum(neck, 1.05 * shape.neck_length - frame.t)
    flare = 9 * np.exp(-np.maximum(frame.u + 4, 0) / 20)
    shaft = np.minimum(half + flare - np.abs(frame.v), frame.u + 4)
    parts = (
        head,
        neck,
        shaft,
        _ellipse(frame, (-17, 9), (20, 15)),  # greater trochanter, its tip
        _ellipse(frame, (-2, 12), (22, 15)),  # greater trochanter, its base
        _ellipse(frame, (34, -(half + 3)), (13, 8)),  # lesser trochanter
    )
    return np.asarray(np.maximum.reduce(parts), dtype=np.float32)


def _depth(inside: Field, pixel_mm: float) -> Field:
    """Return the distance to the outline (H, W) in mm, 0 outside, exact below one pixel.

    The distance transform counts whole pixels; near the edge the signed distance is finer.
    """
    whole = cv2.distanceTransform((inside > 0).astype(np.uint8), cv2.DIST_L2, 5) - 0.5
    slope = np.hypot(*np.gradient(inside)) / pixel_mm
    fine = np.maximum(inside / np.maximum(slope, 0.2), 0) / pixel_mm
    deep = np.clip(whole / _EDGE_PX, 0, 1)
    depth = (deep * whole + (1 - deep) * np.minimum(fine, _EDGE_PX)) * pixel_mm
    return np.where(inside > 0, depth, 0).astype(np.float32)


def _neck_half_width(shape: FemurShape, along: Field) -> Field:
    """Return the neck's half width in mm, wide at the head and at the trochanters."""
    part = along / shape.neck_length
    half = shape.neck_width / 2
    to_head = np.clip((0.42 - part) / 0.42, 0, 1) ** 2
    to_shaft = np.clip((part - 0.62) / 0.5, 0, 1) ** 1.5
    width = half + (0.92 * shape.head_radius - half) * to_head + 13 * to_shaft
    return np.asarray(width, dtype=np.float32)


def _ellipse(frame: FemurFrame, centre: tuple[float, float], semi: tuple[float, float]) -> Field:
    """Return a signed distance (approximate) to an ellipse in the shaft's axes."""
    radius = np.hypot((frame.u - centre[0]) / semi[0], (frame.v - centre[1]) / semi[1])
    return np.asarray((1 - radius) * min(semi), dtype=np.float32)


def _draw_regions(shape: FemurShape, frame: FemurFrame, outline: Mask) -> Mask:
    """Return the masks (R, H, W) in the order of `REGIONS`."""
    start = _NECK_CENTRE * shape.neck_length - _NECK_HALF
    total = outline & (frame.t > start) & (frame.u < _TOTAL_DISTAL)
    beyond = frame.t > start + 2 * _NECK_HALF
    across = np.abs(frame.w) < _neck_half_width(shape, frame.t) + _NECK_MARGIN
    along = frame.t - WARDS_CENTRE * shape.neck_length
    wards = (np.abs(along) < _WARDS_HALF) & (np.abs(frame.w) < _WARDS_SLOPE * (along + _WARDS_HALF))
    neck = total & ~beyond & across
    trochanter = outline & beyond & (frame.u < 6) & (frame.v > -6)
    drawn = {
        Region.FEMORAL_NECK: neck,
        Region.GREATER_TROCHANTER: trochanter,
        Region.WARDS_TRIANGLE: total & wards,
        Region.TOTAL_HIP: total,
    }
    return np.stack([drawn[region] for region in REGIONS])
