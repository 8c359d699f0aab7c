"""The mineral of a phantom femur: areal density in g/cm² with cortex and trabeculae.

Cortex and trabecular bone are the projection of a tube; the trabecular groups are those of the
Singh index (Singh et al. 1970), each fading at its own T-score.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy import fft

from hipray.data.phantom.anatomy import WARDS_CENTRE, Femur, Field, Mask, femur_axes
from hipray.data.phantom.patient import PerRegion
from hipray.vocab import REGIONS, Region

_COMPACT = 0.105  # g/cm² per mm: compact bone of 1.05 g/cm³
_SPONGY = 0.016  # g/cm² per mm: spongy bone of 0.16 g/cm³
_MIN_RADIUS = 14.0  # mm: half thickness of bone outside the shaft, at least
_SHAFT_START = 20.0  # mm below the crossing of the axes
_SHAFT_BLEND = 5.0  # mm over which metaphysis turns into shaft
_GROUP_CONTRAST = 0.34  # of a fully kept trabecular group
_FINE_CONTRAST = 0.10  # of the texture without direction
_FINE_MM = 1.3
_LEAST_KEPT = 0.12  # share of a trabecular group that no disease removes
_FADE_WIDTH = 0.55  # T units over which a group fades
_ASPECT = 5.0  # length of a trabecula over its width
_MATCH_PASSES = 4
_MATCH_BLUR_MM = 2.0
_EDGE_MM = 4.0  # reach of a faded bone edge
_TOTAL = REGIONS.index(Region.TOTAL_HIP)


@dataclass(frozen=True)
class TrabecularGroup:
    """One of Singh's groups: where it runs, how, and when it disappears."""

    along_neck: bool  # direction is that of the neck axis, else of the shaft axis
    turn_deg: float  # from that axis
    fades_at: float  # T-score of its region
    region: Region  # whose T-score governs it
    centre: tuple[float, float]  # (x, y) mm in head radii from the head centre
    reach: tuple[float, float]  # mm along and across its direction


SINGH_GROUPS = (
    # principal compressive, principal tensile
    TrabecularGroup(False, 8, -4.0, Region.FEMORAL_NECK, (0.1, 0.3), (30, 10)),
    TrabecularGroup(True, -12, -2.4, Region.FEMORAL_NECK, (0.9, 0.5), (34, 10)),
    # secondary compressive, secondary tensile
    TrabecularGroup(True, 62, -1.2, Region.TOTAL_HIP, (1.4, 1.9), (24, 13)),
    TrabecularGroup(False, -28, -1.6, Region.WARDS_TRIANGLE, (1.5, 1.3), (22, 12)),
    # trochanteric
    TrabecularGroup(False, -18, -1.8, Region.GREATER_TROCHANTER, (2.1, 0.7), (20, 12)),
)

MATCHING_ORDER = (
    Region.TOTAL_HIP,
    Region.GREATER_TROCHANTER,
    Region.FEMORAL_NECK,
    Region.WARDS_TRIANGLE,
)
"""In which order densities are matched; pixels of two regions belong to the later one."""


def build_mineral(
    stream: np.random.Generator,
    femur: Femur,
    *,
    t_shown: PerRegion,
    bmd_shown: PerRegion,
    edge_contrast: float,
) -> Field:
    """Return areal density (H, W) in g/cm² whose region means are `bmd_shown`."""
    cortical = float(np.clip(0.53 + 0.045 * t_shown[_TOTAL] + stream.normal(0, 0.05), 0.2, 0.75))
    compact, spongy = _project_tube(femur, cortical)
    texture = 1 + _build_texture(stream, femur, t_shown)
    density = _COMPACT * compact + _SPONGY * spongy * _loosen(femur) * texture
    density = np.where(femur.outline, np.maximum(density, 0.02), 0).astype(np.float32)
    matched = _match_regions(femur, density, bmd_shown)
    return _fade_edges(femur, matched, edge_contrast)


def _project_tube(femur: Femur, cortical_index: float) -> tuple[Field, Field]:
    """Return the path through compact and through spongy bone, each (H, W) in mm."""
    half = femur.shape.shaft_width / 2
    shaft = 1 / (1 + np.exp(-(femur.frame.u - _SHAFT_START) / _SHAFT_BLEND))
    radius = shaft * half + (1 - shaft) * max(femur.shape.neck_width / 2, _MIN_RADIUS)
    cortex = shaft * cortical_index * half + (1 - shaft) * (1.1 + 1.2 * cortical_index)
    from_axis = np.maximum(radius - femur.depth, 0)
    outer = np.sqrt(np.maximum(radius**2 - from_axis**2, 0))
    inner = np.sqrt(np.maximum((radius - cortex) ** 2 - from_axis**2, 0))
    return (
        np.asarray(2 * (outer - inner), dtype=np.float32),
        np.asarray(2 * inner, dtype=np.float32),
    )


def _loosen(femur: Femur) -> Field:
    """Return the share of spongy bone (H, W): less in Ward's triangle and down the shaft."""
    along = femur.frame.t - WARDS_CENTRE * femur.shape.neck_length
    wards = 1 - 0.55 * np.exp(-((along / 9) ** 2) - (femur.frame.w / 8) ** 2)
    marrow = np.exp(-np.maximum(femur.frame.u - 18, 0) / 22)
    return np.asarray(wards * marrow, dtype=np.float32)


def _build_texture(stream: np.random.Generator, femur: Femur, t_shown: PerRegion) -> Field:
    """Return the relative texture (H, W) of the trabeculae; coarser and poorer as T falls."""
    frame = femur.frame
    size, own_spacing = frame.x.shape[0], stream.uniform(0.88, 1.12)
    texture = _FINE_CONTRAST * _filter_noise(stream, size, _ring(size, frame.pixel_mm / _FINE_MM))
    shaft, _, neck = femur_axes(femur.shape)
    for group in SINGH_GROUPS:
        t_score = t_shown[REGIONS.index(group.region)]
        axis = neck if group.along_neck else shaft
        angle = float(np.arctan2(axis[1], axis[0]) + np.radians(group.turn_deg))
        spacing = own_spacing * (1.5 + 0.30 * float(np.clip(-t_score - 1, 0, 3)))
        gabor = _gabor(size, angle, frame.pixel_mm / spacing)
        kept = 1 / (1 + np.exp(-(t_score - group.fades_at) / _FADE_WIDTH))
        weight = _GROUP_CONTRAST * (_LEAST_KEPT + (1 - _LEAST_KEPT) * kept)
        texture += weight * _band(femur, group, angle) * _filter_noise(stream, size, gabor)
    return texture


def _band(femur: Femur, group: TrabecularGroup, angle: float) -> Field:
    """Return where a group lies, (H, W) in 0..1."""
    dx = femur.frame.x - group.centre[0] * femur.shape.head_radius
    dy = femur.frame.y - group.centre[1] * femur.shape.head_radius
    along = dx * np.cos(angle) + dy * np.sin(angle)
    across = dy * np.cos(angle) - dx * np.sin(angle)
    band = np.exp(-((along / group.reach[0]) ** 2) - (across / group.reach[1]) ** 2)
    return np.asarray(band, dtype=np.float32)


def _frequencies(size: int) -> tuple[Field, Field]:
    """Return the frequencies (x, y) of `rfft2` in cycles per pixel."""
    fx = np.fft.rfftfreq(size).astype(np.float32)[None, :]
    fy = np.fft.fftfreq(size).astype(np.float32)[:, None]
    return fx, fy


def _gabor(size: int, angle: float, frequency: float) -> Field:
    """Return the spectrum of a Gabor filter whose stripes run along `angle`.

    `frequency` is in cycles per pixel; stripes finer than the grid are drawn at its limit.
    """
    centre = min(frequency, 0.45)
    fx, fy = _frequencies(size)
    across = fy * np.cos(angle) - fx * np.sin(angle)
    along = fx * np.cos(angle) + fy * np.sin(angle)
    width = centre * 0.28  # one octave of bandwidth
    spectrum = sum(
        np.exp(-(((across - sign * centre) / width) ** 2) / 2 - (along * _ASPECT / width) ** 2 / 2)
        for sign in (-1, 1)
    )
    return np.asarray(spectrum, dtype=np.float32)


def _ring(size: int, frequency: float) -> Field:
    """Return the spectrum of a filter that keeps one frequency in every direction."""
    centre = min(frequency, 0.45)
    fx, fy = _frequencies(size)
    spectrum = np.exp(-(((np.hypot(fx, fy) - centre) / (0.28 * centre)) ** 2) / 2)
    return np.asarray(spectrum, dtype=np.float32)


def _filter_noise(stream: np.random.Generator, size: int, spectrum: Field) -> Field:
    """Return white noise through `spectrum`, (size, size), with unit standard deviation."""
    noise = fft.rfft2(stream.standard_normal((size, size), dtype=np.float32))
    field = fft.irfft2(noise * spectrum, s=(size, size))
    return np.asarray(field / field.std(), dtype=np.float32)


def _match_regions(femur: Femur, density: Field, bmd: PerRegion) -> Field:
    """Rescale `density` smoothly until each region's mean is its BMD."""
    parts = _separate(femur.regions)
    gains = [_smooth_gain(part, _MATCH_BLUR_MM / femur.frame.pixel_mm) for part in parts]
    places = [REGIONS.index(region) for region in MATCHING_ORDER]
    total = femur.regions[_TOTAL]
    matched = density * np.float32(bmd[_TOTAL] / density[total].mean())
    for _ in range(_MATCH_PASSES):
        for place, part, gain in zip(places, parts, gains, strict=True):
            if part.any():
                target = _target(matched, femur.regions[place], part, bmd=bmd[place])
                matched *= np.exp(gain * np.log(target / matched[part].mean()))
    return np.asarray(matched, dtype=np.float32)


def _separate(regions: Mask) -> list[Mask]:
    """Return the pixels that each region's mean is corrected on, in the order of matching."""
    wholes = regions[[REGIONS.index(region) for region in MATCHING_ORDER]]
    return [whole & ~wholes[turn + 1 :].any(axis=0) for turn, whole in enumerate(wholes)]


def _target(density: Field, whole: Mask, part: Mask, *, bmd: float) -> float:
    """Return the mean that `part` needs for its `whole` region to have its BMD."""
    others = float(density[whole & ~part].sum())
    wanted = (bmd * int(whole.sum()) - others) / int(part.sum())
    return max(wanted, 0.2 * bmd)


def _smooth_gain(part: Mask, blur_px: float) -> Field:
    """Return a soft mask (H, W) whose mean inside `part` is one."""
    soft = cv2.GaussianBlur(part.astype(np.float32), (0, 0), blur_px)
    return np.asarray(soft / max(float(soft[part].mean()), 1e-6) if part.any() else soft)


def _fade_edges(femur: Femur, density: Field, edge_contrast: float) -> Field:
    """Blend bone into its surroundings near the edge; `edge_contrast` 1 leaves it sharp."""
    if edge_contrast >= 1:
        return density
    pixel = femur.frame.pixel_mm
    outside = cv2.distanceTransform((~femur.outline).astype(np.uint8), cv2.DIST_L2, 5) * pixel
    near = np.exp(-(((femur.depth + outside) / _EDGE_MM) ** 2)) * (1 - edge_contrast)
    blurred = cv2.GaussianBlur(density, (0, 0), _EDGE_MM / pixel)
    return np.asarray((1 - near) * density + near * blurred, dtype=np.float32)
