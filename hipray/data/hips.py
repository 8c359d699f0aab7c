"""Film -> canonical hips: cut away the collimator, cut a pelvis in two, flip, scale, normalise.

The canonical hip is a LEFT hip as an AP film shows it: medial at the image's left, lateral at its
right, bone bright, uint8 from the percentiles of its own exposed pixels.
"""

import hashlib
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from hipray.config.images import Preprocessing
from hipray.data import detectors
from hipray.data.exposed_area import Box, ScalarT, find_exposed_box, find_midline
from hipray.data.film import Film, FilmInfo
from hipray.data.refusals import Refusal
from hipray.vocab import Finding, RefusalCode, Side

EXPORT_BITS = 8
MIN_HIP_PX = 48
"""Shorter side of a hip after cropping; a film above the size limit may still be mostly border."""


@dataclass(frozen=True)
class HipGeometry:
    """Where a canonical hip lies on its film, to carry masks there and back.

    `box` is in film pixels; a hip of the box's size is flipped where `flipped`, then shrunk to
    `height` x `width`.
    """

    film_height: int
    film_width: int
    box: Box
    flipped: bool
    height: int
    width: int

    def warp_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the film's mask (H, W) on the canonical hip (h, w); half-covered pixels count."""
        _expect_shape(mask, (self.film_height, self.film_width))
        cut = self.box.cut(mask).astype(np.float32)
        return np.asarray(_fit(_flip(cut, self.flipped), self.height, self.width) >= 0.5, np.bool_)

    def unwarp_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the canonical hip's mask (h, w) on the film (H, W), False outside the box."""
        _expect_shape(mask, (self.height, self.width))
        size = (self.box.width, self.box.height)
        grown = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        film = np.zeros((self.film_height, self.film_width), np.bool_)
        self.box.cut(film)[:] = _flip(np.asarray(grown >= 0.5), self.flipped)
        return film


@dataclass(frozen=True)
class _Layout:
    """Where a film is cut in two, and whether one that is left whole may be a pelvis."""

    midline: int | None = None
    doubtful: bool = False


@dataclass(frozen=True)
class Hip:
    """One canonical left hip: uint8 pixels (h, w) and where they come from.

    `side` is the patient's side as stated (UNKNOWN: nothing was flipped); `spacing_mm` is that of
    these pixels, after scaling.
    """

    pixels: NDArray[np.uint8]
    side: Side
    flipped: bool
    geometry: HipGeometry
    spacing_mm: float | None
    pixel_sha256: str
    findings: tuple[Finding, ...]


def _expect_shape(mask: NDArray[np.bool_], shape: tuple[int, int]) -> None:
    if mask.shape != shape:
        raise ValueError(f"mask of shape {mask.shape} on an image of shape {shape}")


def _flip(image: NDArray[ScalarT], flipped: bool) -> NDArray[ScalarT]:
    return image[:, ::-1] if flipped else image


def _fit(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    if image.shape == (height, width):
        return image
    image = np.ascontiguousarray(image)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def hash_pixels(pixels: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of the shape and the grey values."""
    digest = hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]}:".encode())
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()


def extract_hips(film: Film, preprocessing: Preprocessing) -> tuple[Hip, ...] | Refusal:
    """Return the canonical hips of a film: one, or two where it shows a whole pelvis."""
    box = _exposed_box(film, preprocessing)
    layout = _find_layout(film, box, preprocessing)
    if layout.doubtful:
        findings = (*film.info.findings, Finding.PELVIS_SUSPECTED)
        film = film.with_info(replace(film.info, findings=findings))
    hips = []
    for part, side in _split(film.info, box, layout):
        if min(part.height, part.width) < MIN_HIP_PX:
            evidence = f"{part.height} x {part.width} px inside the exposed area"
            return Refusal(RefusalCode.TOO_SMALL, "hip_size", evidence)
        hip, metal = _build_hip(film, part, side, preprocessing)
        if preprocessing.refuse_implant and metal is not None:
            implant = _refuse_implant(metal, side, film.info.bits)
            if implant is not None:
                return implant
        hips.append(hip)
    return tuple(hips)


def is_pelvis(film: Film, preprocessing: Preprocessing) -> bool:
    """Whether `extract_hips` would cut the film in two."""
    layout = _find_layout(film, _exposed_box(film, preprocessing), preprocessing)
    return layout.midline is not None


def _exposed_box(film: Film, preprocessing: Preprocessing) -> Box:
    height, width = film.pixels.shape
    if preprocessing.crop_to_exposure:
        return find_exposed_box(film.thumbnail, height=height, width=width)
    return Box(0, 0, height, width)


def _split(info: FilmInfo, box: Box, layout: _Layout) -> list[tuple[Box, Side]]:
    if layout.midline is None:
        return [(box, info.side)]
    # An AP film is shown as if facing the patient: the right hip lies at the image's left.
    return [
        (replace(box, right=layout.midline), Side.RIGHT),
        (replace(box, left=layout.midline), Side.LEFT),
    ]


def _find_layout(film: Film, box: Box, preprocessing: Preprocessing) -> _Layout:
    """Tell a pelvis from one hip by shape, header and symmetry.

    A stated side outweighs the shape, as does a text that names both for a series of films: only
    with a picture that speaks for it is a film cut against them.
    """
    info, aspect = film.info, box.width / box.height
    narrowest = min(preprocessing.stated_pelvis_aspect, preprocessing.pelvis_aspect)
    wide = aspect >= narrowest
    if not (wide or info.both_sides):
        return _Layout()
    midline = find_midline(box.cut(film.pixels))
    shaped = aspect >= _pelvis_aspect(info, preprocessing) and midline.is_symmetrical
    if info.both_sides:
        cut = wide or midline.is_of_pelvis
    elif info.side is Side.UNKNOWN:
        cut = shaped
    else:
        cut = shaped and info.names_pelvis and midline.is_of_pelvis
    if cut:
        return _Layout(box.left + midline.column)
    return _Layout(doubtful=info.both_sides or shaped or midline.is_of_pelvis)


def _pelvis_aspect(info: FilmInfo, preprocessing: Preprocessing) -> float:
    return preprocessing.stated_pelvis_aspect if info.names_pelvis else preprocessing.pelvis_aspect


def _build_hip(
    film: Film, box: Box, side: Side, preprocessing: Preprocessing
) -> tuple[Hip, detectors.Metal | None]:
    flipped = side is Side.RIGHT
    height, width = _canonical_size(box, preprocessing.canonical_px)
    film_height, film_width = film.pixels.shape
    geometry = HipGeometry(film_height, film_width, box, flipped, height, width)
    grey, exposed = _cut_film(film, geometry)
    low, high = (float(v) for v in np.percentile(grey[exposed], preprocessing.percentiles))
    pixels = _normalise(grey, low, high)
    spacing = film.info.spacing_mm
    metal = detectors.find_metal(pixels)
    hip = Hip(
        pixels=pixels,
        side=side,
        flipped=flipped,
        geometry=geometry,
        spacing_mm=None if spacing is None else spacing * box.height / height,
        pixel_sha256=hash_pixels(pixels),
        findings=_find(film.info, side, pixels, spread=(high - low) / film.level, metal=metal),
    )
    return hip, metal


def _canonical_size(box: Box, longest: int) -> tuple[int, int]:
    scale = min(1.0, longest / max(box.height, box.width))
    return max(1, round(box.height * scale)), max(1, round(box.width * scale))


def _cut_film(film: Film, geometry: HipGeometry) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    grey = geometry.box.cut(film.pixels)
    size = (geometry.height, geometry.width)
    if film.padding is None:
        return _fit(_flip(grey, geometry.flipped), *size), np.ones(size, np.bool_)
    padded = geometry.box.cut(film.padding)
    if padded.all():
        padded = np.zeros_like(padded)
    filled = np.where(padded, grey[~padded].min(), grey).astype(np.float32)
    exposed = ~geometry.warp_mask(film.padding)
    exposed = exposed if exposed.any() else np.ones(size, np.bool_)
    return _fit(_flip(filled, geometry.flipped), *size), exposed


def _normalise(grey: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    scaled = (grey - np.float32(low)) * np.float32(255.0 / max(high - low, 1e-6))
    return np.asarray(np.rint(np.clip(scaled, 0, 255)), np.uint8)


def _find(
    info: FilmInfo,
    side: Side,
    pixels: NDArray[np.uint8],
    *,
    spread: float,
    metal: detectors.Metal | None,
) -> tuple[Finding, ...]:
    unseen_view = Finding.VIEW_UNSTATED in info.findings
    checks = (
        (Finding.SIDE_UNKNOWN, side is Side.UNKNOWN),
        (Finding.SPACING_UNKNOWN, info.spacing_mm is None),
        (Finding.LOW_CONTRAST, detectors.has_low_contrast(spread)),
        (Finding.WRONG_VIEW_SUSPECTED, unseen_view and detectors.ends_in_air(pixels)),
        (Finding.METAL_SUSPECTED, metal is not None),
        (Finding.BURNED_IN_TEXT, detectors.has_border_text(pixels)),
    )
    found = [finding for finding, present in checks if present]
    return tuple(dict.fromkeys((*info.findings, *found)))


def _refuse_implant(metal: detectors.Metal, side: Side, bits: int) -> Refusal | None:
    # An 8-bit export may have been windowed until bone saturates as metal does.
    if not (metal.is_hard_edged or (metal.is_plateau and bits > EXPORT_BITS)):
        return None
    hip = "hip" if side is Side.UNKNOWN else f"{side} hip"
    evidence = (
        f"saturated object on {metal.area_share:.1%} of the {hip}, edge {metal.edge_step:.0f}"
    )
    return Refusal(RefusalCode.IMPLANT, "metal", evidence)
