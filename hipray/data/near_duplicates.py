"""Near duplicates: the same exposure rotated, shifted, scaled, mirrored, toned or stored again.

Hips are alike in outline, but trabeculae and noise agree only in copies of one exposure. Three
sieves, each finer and dearer than the one before: cross-correlation of 32 px thumbnails, of 64 px
thumbnails over rotations and scales, and at last registration and the correlation of fine detail
away from bone edges, which agree in any two hips once these are registered. Measured on phantoms:
copies (rotation 3.5 degrees, scale 0.8-1.2, shift 6 px of 224, JPEG 85; n = 60) correlate at 0.21
or more, the 180,000 pairs among 600 distinct hips at 0.18 or less.

Legend of shapes: N films, S side in pixels.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import numpy.typing as npt

from hipray.data.framing import Pixels, resize_square
from hipray.progress import track

Floats = npt.NDArray[np.float32]
Spectra = npt.NDArray[np.complex64]
Candidate = tuple[int, int, bool]
"""Two rows, and whether the second is compared mirrored."""
Posed = tuple[int, int, bool, Floats]
"""A candidate with the warp (2, 3) that roughly lays the second film on the first."""

COARSE_PX, COARSE_LEAST = 32, 0.68
COARSE_SCALES = (0.85, 1.0, 1.18)
FINE_PX, FINE_LEAST = 64, 0.84
FINE_SCALES = (0.85, 0.93, 1.0, 1.08, 1.18)
FINE_ROTATIONS = (-3.0, 0.0, 3.0)  # degrees
DETAIL_PX = 128
LEAST_OVERLAP = 0.2
"""Share of the frame that must be compared once two films are registered."""
GRAIN_PX = 192
SMOOTH_SHARE = 0.5
"""Share of the overlap compared: the rest, along the steepest edges, is left out."""
MAX_STRETCH = 1.03
"""Largest ratio of a copy's two scales; four of five pairs of distinct hips need more."""
AT_ONCE = 500
"""Pairs that wait for a core, and after which progress is shown."""
DARK = 20
"""Grey level below which a pixel is air or border."""


def find_near_duplicates(films: Pixels, *, least_correlation: float) -> list[tuple[int, int]]:
    """Return pairs of rows of `films` (N, S, S) that show the same exposure, in order.

    All pairs are compared: about 40 microseconds a pair, 8 milliseconds for one in twenty, which
    all cores share.
    """
    small, large = resize_square(films, DETAIL_PX), resize_square(films, GRAIN_PX)
    candidates = _sieve_fine(small, _sieve_coarse(small))
    outlines = [_band_pass(film, 0.7, 4.0) for film in small]
    textures = [_band_pass(film, 0.5, 1.5) for film in large]
    grain = [_band_pass(film, 0.0, 1.0) for film in large]

    def correlate(candidate: Posed) -> float:
        a, b, mirrored, pose = candidate
        rough = _register(outlines[a], _mirror(outlines[b], mirrored), pose, blur=5)
        if rough is None:
            return 0.0
        rough[:, 2] *= GRAIN_PX / DETAIL_PX
        warp = _register(textures[a], _mirror(textures[b], mirrored), rough, blur=3)
        if warp is None:
            return 0.0
        return _correlate_grain(large[a], grain[a], _mirror(grain[b], mirrored), warp)

    correlations = _map_on_all_cores(correlate, candidates)
    return sorted(
        {
            (a, b)
            for (a, b, _, _), correlation in zip(candidates, correlations, strict=True)
            if correlation >= least_correlation
        }
    )


def _map_on_all_cores(correlate: Callable[[Posed], float], candidates: list[Posed]) -> list[float]:
    """OpenCV lets other threads run while it registers."""
    found: list[float] = []
    with (
        ThreadPoolExecutor() as pool,
        track("leakage guard: pairs", len(candidates)) as update,
    ):
        for start in range(0, len(candidates), AT_ONCE):
            found += pool.map(correlate, candidates[start : start + AT_ONCE])
            update(len(found))
    return found


def _sieve_coarse(films: Pixels) -> list[Candidate]:
    """Candidates whose 32 px thumbnails cross-correlate at some shift and scale."""
    base = _spectra([_thumbnail(film, COARSE_PX, 0.0) for film in films])
    found: set[Candidate] = set()
    for mirrored in (False, True):
        for scale in COARSE_SCALES:
            moved = [_move(film, scale, 0.0, mirrored) for film in films]
            other = _spectra([_thumbnail(film, COARSE_PX, 0.0) for film in moved])
            for a in range(len(films) - 1):
                peaks = _peaks(base[a] * other[a + 1 :].conj(), COARSE_PX)
                hits = np.flatnonzero(peaks >= COARSE_LEAST)
                found.update((a, a + 1 + int(hit), mirrored) for hit in hits)
    return sorted(found)


def _sieve_fine(films: Pixels, candidates: list[Candidate]) -> list[Posed]:
    """Candidates whose 64 px thumbnails still agree at some rotation and scale."""
    base = _spectra([_thumbnail(film, FINE_PX, 0.7) for film in films])
    poses = [(scale, angle) for scale in FINE_SCALES for angle in FINE_ROTATIONS]
    kept: list[Posed] = []
    for b, mirrored, rows in _by_second(candidates):
        moved = [_move(films[b], scale, angle, mirrored) for scale, angle in poses]
        other = _spectra([_thumbnail(film, FINE_PX, 0.7) for film in moved]).conj()
        for a in rows:
            planes = np.fft.irfft2(base[a] * other, s=(FINE_PX, FINE_PX))
            pose, y, x = np.unravel_index(int(planes.argmax()), planes.shape)
            if planes[pose, y, x] >= FINE_LEAST:
                warp = _rough_warp(*poses[int(pose)], mirrored, shift=(int(x), int(y)))
                kept.append((a, b, mirrored, warp))
    return kept


def _rough_warp(scale: float, angle: float, mirrored: bool, *, shift: tuple[int, int]) -> Floats:
    """The warp from the first film's pixels to the second's that a thumbnail match implies."""
    x, y = ((s if s < FINE_PX // 2 else s - FINE_PX) * DETAIL_PX / FINE_PX for s in shift)
    centre = ((DETAIL_PX - 1) / 2, (DETAIL_PX - 1) / 2)
    forward = cv2.getRotationMatrix2D(centre, -angle if mirrored else angle, scale)
    inverse = cv2.invertAffineTransform(forward)
    return np.asarray(inverse @ np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]]), np.float32)


def _by_second(candidates: list[Candidate]) -> Iterator[tuple[int, bool, list[int]]]:
    groups: dict[tuple[int, bool], list[int]] = {}
    for a, b, mirrored in candidates:
        groups.setdefault((b, mirrored), []).append(a)
    for (b, mirrored), rows in groups.items():
        yield b, mirrored, rows


def _move(film: Pixels, scale: float, angle: float, mirrored: bool) -> Pixels:
    side = film.shape[0]
    if scale != 1.0 or angle:
        centre = ((side - 1) / 2, (side - 1) / 2)
        matrix = cv2.getRotationMatrix2D(centre, angle, scale)
        film = np.asarray(cv2.warpAffine(film, matrix, (side, side)), np.uint8)
    return np.ascontiguousarray(film[:, ::-1]) if mirrored else film


def _thumbnail(film: Pixels, side: int, low: float) -> Floats:
    small = cv2.resize(film, (side, side), interpolation=cv2.INTER_AREA)
    window = np.hanning(side)
    band = _band_pass(np.asarray(small, np.uint8), low, 3.0)
    return np.asarray(band * np.outer(window, window), np.float32)


def _spectra(thumbnails: list[Floats]) -> Spectra:
    """Spectra of unit-norm thumbnails: products then correlate in -1..1."""
    stack = np.stack(thumbnails)
    norm = np.linalg.norm(stack, axis=(1, 2), keepdims=True)
    return np.asarray(np.fft.rfft2(stack / np.maximum(norm, 1e-6)), np.complex64)


def _peaks(products: Spectra, side: int) -> npt.NDArray[np.float64]:
    peaks: npt.NDArray[np.float64] = np.fft.irfft2(products, s=(side, side)).max(axis=(1, 2))
    return peaks


def _band_pass(film: Pixels, low: float, high: float) -> Floats:
    """Difference of Gaussians, divided by its local spread so that tone curves do not matter."""
    values = film.astype(np.float32)
    fine = cv2.GaussianBlur(values, (0, 0), low) if low else values
    band = fine - cv2.GaussianBlur(values, (0, 0), high)
    spread = np.sqrt(cv2.GaussianBlur(band * band, (0, 0), 3 * high)) + 1.0
    return np.asarray(band / spread, np.float32)


def _mirror(film: Floats, mirrored: bool) -> Floats:
    return np.ascontiguousarray(film[:, ::-1]) if mirrored else film


def _register(fixed: Floats, moving: Floats, pose: Floats, *, blur: int) -> Floats | None:
    """The affine warp that lays `moving` on `fixed` best.

    None where it does not converge, or where it stretches: copies are turned and scaled, while
    two different hips only fit each other when one is sheared.
    """
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
    try:
        _, warp = cv2.findTransformECC(
            fixed, moving, pose.copy(), cv2.MOTION_AFFINE, criteria, None, blur
        )
    except cv2.error:  # no convergence: not the same film
        return None
    largest, smallest = np.linalg.svd(np.asarray(warp)[:, :2], compute_uv=False)
    stretched = largest > MAX_STRETCH * smallest
    return None if stretched else np.asarray(warp, np.float32)


def _correlate_grain(film: Pixels, fixed: Floats, moving: Floats, warp: Floats) -> float:
    """Correlation of two registered films' grain where both are exposed and no edge is steep."""
    size = (GRAIN_PX, GRAIN_PX)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = np.asarray(cv2.warpAffine(moving, warp, size, flags=flags))
    inside = np.asarray(cv2.warpAffine(np.ones_like(moving), warp, size, flags=flags)) > 0.99
    inside &= film > DARK
    if inside.mean() < LEAST_OVERLAP:
        return 0.0
    slope = _steepness(film)
    inside &= slope <= np.quantile(slope[inside], SMOOTH_SHARE)
    if fixed[inside].std() == 0 or moved[inside].std() == 0:
        return 0.0
    return float(np.corrcoef(fixed[inside], moved[inside])[0, 1])


def _steepness(film: Pixels) -> Floats:
    smooth = cv2.GaussianBlur(film.astype(np.float32), (0, 0), 2.5)
    across, along = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    return np.asarray(np.hypot(across, along), np.float32)
