"""Turn areal density and soft tissue into a radiograph: beam, scatter, noise, vendor look.

Attenuation follows power laws fitted to the NIST tables for cortical bone and soft tissue at
48-62 keV; the constants stand for a diagnostic hip examination at 70-85 kVp with a grid.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from hipray.data.phantom.anatomy import Field

_QUANTA_PIXEL_MM = 0.2  # quanta are stated per pixel of this side
_SCATTER_MM = 25.0  # reach of scattered radiation
_GRADIENT_SD = 0.07  # of soft tissue, from one side of the film to the other
_TISSUE_SD, _TISSUE_MM = 0.03, 18.0  # unevenness of soft tissue
_UNSHARP_MM = 1.5
METAL_G_CM2 = 4.0  # twice the densest cortical bone: what absorbs more is metal
_SATURATION = 6.0  # times the intensity behind bone: the detector shows no more in air


@dataclass(frozen=True)
class Exposure:
    """The physics of one exposure."""

    energy_kev: float
    scatter_to_primary: float
    blur_mm: float  # of focal spot and detector
    quanta: float  # per 0.2 mm pixel behind median bone


@dataclass(frozen=True)
class VendorLook:
    """What the vendor's software makes of the raw film."""

    flatten: float  # share of the background taken away
    flatten_mm: float
    low_percentile: float
    high_percentile: float
    gamma: float
    unsharp: float
    bits: int


def sample_exposure(stream: np.random.Generator) -> Exposure:
    """Sample beam energy, scatter, blur and dose."""
    return Exposure(
        energy_kev=float(stream.uniform(48, 62)),
        scatter_to_primary=float(stream.uniform(0.3, 0.9)),
        blur_mm=float(stream.uniform(0.15, 0.35)),
        quanta=float(stream.uniform(1500, 8000)),
    )


def sample_look(stream: np.random.Generator) -> VendorLook:
    """Sample a vendor's processing; bits stored are 10, 12 or 14."""
    return VendorLook(
        flatten=float(stream.uniform(0.35, 0.75)),
        flatten_mm=float(stream.uniform(14, 26)),
        low_percentile=float(stream.uniform(0.5, 6)),
        high_percentile=float(stream.uniform(97, 99.8)),
        gamma=float(stream.uniform(0.7, 1.45)),
        unsharp=float(stream.uniform(0, 0.7)),
        bits=int(stream.choice((10, 12, 14))),
    )


def vary_tissue(stream: np.random.Generator, soft: Field, spacing_mm: float) -> Field:
    """Return soft tissue (H, W) in mm with a gradient and low-frequency unevenness."""
    height, width = soft.shape
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :]
    slope_x, slope_y = stream.normal(0, _GRADIENT_SD, 2)
    noise = blur(stream.standard_normal(soft.shape, dtype=np.float32), _TISSUE_MM / spacing_mm)
    uneven = _TISSUE_SD * noise / noise.std()
    return np.asarray(soft * np.maximum(1 + slope_x * x + slope_y * y + uneven, 0.1))


def expose(
    stream: np.random.Generator,
    exposure: Exposure,
    *,
    bone: Field,
    soft: Field,
    spacing_mm: float,
) -> Field:
    """Return -log of the detected intensity (H, W): bone is high.

    `bone` is in g/cm², `soft` in mm; intensity is exp(-mu_b * bone - mu_s * soft) plus scatter.
    """
    relative = exposure.energy_kev / 50
    mu_bone = 0.70 * relative**-2.1  # cm²/g
    mu_soft = 0.0227 * relative**-0.53  # 1/mm
    primary = np.exp(-mu_bone * bone - mu_soft * soft)
    detected = primary + exposure.scatter_to_primary * blur(primary, _SCATTER_MM / spacing_mm)
    detected = blur(detected, exposure.blur_mm / spacing_mm)
    behind_bone = float(np.median(detected[bone > 0.2]))
    per_pixel = exposure.quanta * (spacing_mm / _QUANTA_PIXEL_MM) ** 2
    quanta = np.minimum(detected / behind_bone, _SATURATION) * per_pixel
    # Some thousand quanta per pixel: the Gaussian stands for Poisson and is ten times faster.
    quanta += np.sqrt(quanta) * stream.standard_normal(quanta.shape, dtype=np.float32)
    return np.asarray(-np.log(np.maximum(quanta, 1) / per_pixel), dtype=np.float32)


def develop(raw: Field, look: VendorLook, *, bone: Field, spacing_mm: float) -> Field:
    """Return the film (H, W) in 0..1 as the vendor shows it, bone bright.

    The window is set on the body: air, and metal in `bone` (g/cm²), are cut off by it.
    """
    flat = raw - look.flatten * blur(raw, look.flatten_mm / spacing_mm)
    body = flat[(raw > -np.log(0.9 * _SATURATION)) & (bone < METAL_G_CM2)]
    low, high = np.percentile(body, (look.low_percentile, look.high_percentile))
    film = np.clip((flat - low) / max(float(high - low), 1e-6), 0, 1) ** look.gamma
    film = film + look.unsharp * (film - blur(film, _UNSHARP_MM / spacing_mm))
    return np.asarray(np.clip(film, 0, 1), dtype=np.float32)


def blur(field: Field, sd_px: float) -> Field:
    """Blur (H, W) by a Gaussian of `sd_px` pixels; wide ones on a coarser grid."""
    step = int(sd_px // 6)
    if step < 2:
        return np.asarray(cv2.GaussianBlur(field, (0, 0), max(sd_px, 0.05)))
    height, width = field.shape
    small_size = (max(width // step, 1), max(height // step, 1))
    small = cv2.resize(field, small_size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sd_px / step, borderType=cv2.BORDER_REFLECT)
    whole = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.GaussianBlur(whole, (0, 0), step))  # the coarse grid must not show
