"""Near duplicates: the same exposure moved, turned, mirrored, cropped, toned or stored again.

Hips are alike in outline, but trabeculae and noise agree only in copies of one exposure. Three
sieves, each finer and dearer than the one before: cross-correlation of 32 px thumbnails over turns,
rotations and scales, of 64 px thumbnails about the best of them, and at last registration and the
correlation of fine detail away from bone edges, which agree in any two hips once these are
registered. Measured on files that were altered, read and framed again (three phantoms and a film of
a person): rotation to 15 degrees, quarter turns, mirroring, centred crops to 80 % of the side,
squeezing and shearing by a tenth, brightness, contrast, gamma, CLAHE, inversion, blur of 2 px,
noise of 10 and JPEG of 30 correlate at .42 or more. The 180,000 pairs among 600 distinct phantom
hips correlate at .195 or less. Not found: crops to 70 % or into a corner of the film, JPEG of 10,
and at the default limit noise of 20 grey levels or blur of 3 px (.24).

Legend of shapes: N films, S side in pixels.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from scipy import fft

from hipray.data.framing import Pixels, resize_square
from hipray.progress import track

Floats = npt.NDArray[np.float32]
Spectra = npt.NDArray[np.complex64]
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Turn(NamedTuple):
    """What is done to the second film of a pair, without loss, before the two are compared."""

    mirrored: bool = False
    quarters: int = 0
    """Counter-clockwise quarter turns after mirroring."""
    negative: bool = False
    """Whether bright and dark change places."""


class Candidate(NamedTuple):
    """Two rows that may show one exposure."""

    first: int
    second: int
    turn: Turn
    degrees: float
    """Rough rotation beside the turn."""


class Posed(NamedTuple):
    """A candidate with the warp (2, 3) that roughly lays the turned second film on the first."""

    first: int
    second: int
    turn: Turn
    warp: Floats


COARSE_PX, FINE_PX = 32, 64
"""Sides of the thumbnails of the first two sieves."""
COARSE_LEAST, FINE_LEAST = 0.75, 0.82
"""Correlation of thumbnails, of either sign, that few copies stay below."""
COARSE_SCALES, FINE_SCALES = (0.85, 1.0, 1.18), (0.8, 0.87, 0.93, 1.0, 1.08, 1.16, 1.25)
COARSE_ROTATIONS, FINE_ROTATIONS = (-10.0, 0.0, 10.0), (-4.0, 0.0, 4.0)
"""Degrees; the fine ones about the best of the coarse ones."""
QUARTERS = (1, 2, 3)
"""Quarter turns that are tried beside the upright film, mirrored or not, at one scale: no two
different hips come near each other there, so that even a poor fit tells."""
DETAIL_PX = 128
"""Side of the films that are registered by their outlines."""
GRAIN_PX = 192
"""Side of the films whose grain is compared: at less, most of it is gone."""
LEAST_OVERLAP = 0.2
"""Share of the frame that must be compared once two films are registered."""
MARGIN = 1 / 16
"""Share of the side along the frame that registration leaves out, and half of it along the edge of
what is exposed there: a cropped copy has edges of its own."""
SMOOTH_SHARE = 0.5
"""Share of the overlap compared: the rest, along the steepest edges, is left out."""
LEAST_FIT = 0.85
"""Correlation of registered outlines that no copy stays below, and half of all other pairs do."""
MAX_STRETCH = 1.25
"""Largest ratio of a copy's two scales: squeezed into a square, sheared."""
AT_ONCE = 500
"""What waits for a core, and after which progress is shown."""
DARK = 20
"""Grey level below which a pixel is air or border."""


def find_near_duplicates(films: Pixels, *, least_correlation: float) -> list[tuple[int, int]]:
    """Return pairs of rows of `films` (N, S, S) that show the same exposure, in order.

    All pairs are compared, on all cores: 600 films take three minutes of two busy ones.
    """
    small, large = resize_square(films, DETAIL_PX), resize_square(films, GRAIN_PX)
    candidates = _sieve_fine(small, _sieve_coarse(small))
    registrar = _Registrar(small, large)
    correlations = _map_on_all_cores(registrar.correlate, candidates, what="pairs", at_once=AT_ONCE)
    return sorted(
        {
            (posed.first, posed.second)
            for posed, correlation in zip(candidates, correlations, strict=True)
            if correlation >= least_correlation
        }
    )


def _map_on_all_cores(
    compute: Callable[[ItemT], ResultT], given: Sequence[ItemT], *, what: str, at_once: int
) -> list[ResultT]:
    """OpenCV and the transforms let other threads run while they compute."""
    with ThreadPoolExecutor() as pool, track(f"leakage guard: {what}", len(given)) as update:
        found: list[ResultT] = []
        for start in range(0, len(given), at_once):
            found += pool.map(compute, given[start : start + at_once])
            update(len(found))
    return found


def _sieve_coarse(films: Pixels) -> list[Candidate]:
    """Candidates whose 32 px thumbnails cross-correlate at some shift, rotation and scale."""
    base = _spectra([_thumbnail(film, COARSE_PX, 0.0) for film in films])

    def compare(pose: tuple[Turn, float, float]) -> list[tuple[Candidate, float]]:
        turn, degrees, scale = pose
        moved = [_move(_turn(film, turn), scale, degrees) for film in films]
        other = _spectra([_thumbnail(film, COARSE_PX, 0.0) for film in moved])
        found = []
        for a in range(len(films) - 1):
            planes = _cross_correlate(base[a], other[a + 1 :], COARSE_PX)
            for negative, peaks in ((False, planes.max((1, 2))), (True, -planes.min((1, 2)))):
                for hit in np.flatnonzero(peaks >= COARSE_LEAST):
                    signed = turn._replace(negative=negative)
                    candidate = Candidate(a, a + 1 + int(hit), signed, degrees)
                    found.append((candidate, float(peaks[hit])))
        return found

    best: dict[tuple[int, int, Turn], tuple[float, float]] = {}
    for found in _map_on_all_cores(
        compare, list(_list_coarse_poses()), what="turns", at_once=os.cpu_count() or 1
    ):
        for (a, b, turn, degrees), peak in found:
            best[a, b, turn] = max(best.get((a, b, turn), (0.0, 0.0)), (peak, degrees))
    return [Candidate(*key, degrees) for key, (_, degrees) in sorted(best.items())]


def _list_coarse_poses() -> Iterator[tuple[Turn, float, float]]:
    for mirrored in (False, True):
        for degrees in COARSE_ROTATIONS:
            for scale in COARSE_SCALES:
                yield Turn(mirrored), degrees, scale
        for quarters in QUARTERS:
            yield Turn(mirrored, quarters), 0.0, 1.0


def _sieve_fine(films: Pixels, candidates: list[Candidate]) -> list[Posed]:
    """Candidates whose 64 px thumbnails still agree at some rotation and scale."""
    base = _spectra([_thumbnail(film, FINE_PX, 0.7) for film in films])

    def compare(group: tuple[tuple[int, Turn, float], list[int]]) -> list[Posed]:
        (b, turn, about), rows = group
        kept = []
        poses = [(scale, about + more) for scale in FINE_SCALES for more in FINE_ROTATIONS]
        turned = _turn(films[b], turn)
        other = _spectra([_thumbnail(_move(turned, *pose), FINE_PX, 0.7) for pose in poses])
        sign = -1 if turn.negative else 1
        for a in rows:
            planes = sign * _cross_correlate(base[a], other, FINE_PX)
            pose, y, x = np.unravel_index(int(planes.argmax()), planes.shape)
            if planes[pose, y, x] >= FINE_LEAST:
                warp = _rough_warp(*poses[int(pose)], shift=(int(x), int(y)))
                kept.append(Posed(a, b, turn, warp))
        return kept

    groups = list(_by_second(candidates))
    found = _map_on_all_cores(compare, groups, what="thumbnails", at_once=AT_ONCE)
    return [posed for kept in found for posed in kept]


def _rough_warp(scale: float, degrees: float, *, shift: tuple[int, int]) -> Floats:
    """The warp from the first film's pixels to the second's that a thumbnail match implies."""
    x, y = ((s if s < FINE_PX // 2 else s - FINE_PX) * DETAIL_PX / FINE_PX for s in shift)
    centre = ((DETAIL_PX - 1) / 2, (DETAIL_PX - 1) / 2)
    inverse = cv2.invertAffineTransform(cv2.getRotationMatrix2D(centre, degrees, scale))
    return np.asarray(inverse @ np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]]), np.float32)


def _by_second(
    candidates: list[Candidate],
) -> Iterator[tuple[tuple[int, Turn, float], list[int]]]:
    groups: dict[tuple[int, Turn, float], list[int]] = {}
    for a, b, turn, degrees in candidates:
        groups.setdefault((b, turn, degrees), []).append(a)
    yield from groups.items()


def _turn(film: Any, turn: Turn) -> Any:
    """A film, or a band of one, as `turn` says but for its sign."""
    mirrored = film[:, ::-1] if turn.mirrored else film
    return np.ascontiguousarray(np.rot90(mirrored, turn.quarters))


def _move(film: Pixels, scale: float, degrees: float) -> Pixels:
    side = film.shape[0]
    if scale == 1.0 and not degrees:
        return film
    centre = ((side - 1) / 2, (side - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, degrees, scale)
    return np.asarray(cv2.warpAffine(film, matrix, (side, side)), np.uint8)


def _thumbnail(film: Pixels, side: int, low: float) -> Floats:
    small = cv2.resize(film, (side, side), interpolation=cv2.INTER_AREA)
    window = np.hanning(side)
    band = _band_pass(np.asarray(small, np.uint8), low, 3.0)
    return np.asarray(band * np.outer(window, window), np.float32)


def _spectra(thumbnails: Sequence[Floats]) -> Spectra:
    """Spectra of unit-norm thumbnails: products then correlate in -1..1."""
    stack = np.stack(thumbnails)
    norm = np.linalg.norm(stack, axis=(1, 2), keepdims=True)
    return np.asarray(fft.rfft2(stack / np.maximum(norm, 1e-6)), np.complex64)


def _cross_correlate(one: Spectra, others: Spectra, side: int) -> Floats:
    """Correlation of one film with others at every shift, (N, side, side)."""
    return np.asarray(fft.irfft2(one * others.conj(), s=(side, side)), np.float32)


def _band_pass(film: Pixels, low: float, high: float) -> Floats:
    """Difference of Gaussians, divided by its local spread so that tone curves do not matter."""
    values = film.astype(np.float32)
    fine = cv2.GaussianBlur(values, (0, 0), low) if low else values
    band = fine - cv2.GaussianBlur(values, (0, 0), high)
    spread = np.sqrt(cv2.GaussianBlur(band * band, (0, 0), 3 * high)) + 1.0
    return np.asarray(band / spread, np.float32)


class _Registrar:
    """Lays films on each other and compares their grain."""

    def __init__(self, small: Pixels, large: Pixels) -> None:
        self._large = large
        self._exposed = [_find_inner(film) for film in small]
        self._outlines = [_band_pass(film, 0.7, 4.0) for film in small]
        self._textures = [_band_pass(film, 0.5, 1.5) for film in large]
        self._grain = [_band_pass(film, 0.0, 1.0) for film in large]

    def correlate(self, posed: Posed) -> float:
        """Return the correlation of the grain of two films; 0 where they cannot be registered."""
        a, b, turn, pose = posed
        mask = self._exposed[a] & _warp_mask(_turn(self._exposed[b], turn), pose)
        moving = [_signed(_turn(band[b], turn), turn) for band in
                  (self._outlines, self._textures, self._grain)]  # fmt: skip
        fit, rough = _register(self._outlines[a], moving[0], pose, mask, blur=5)
        if fit < LEAST_FIT or _stretch_of(rough) > MAX_STRETCH:
            return 0.0
        rough[:, 2] *= GRAIN_PX / DETAIL_PX
        large_mask = cv2.resize(mask, (GRAIN_PX, GRAIN_PX), interpolation=cv2.INTER_NEAREST)
        fit, warp = _register(self._textures[a], moving[1], rough, large_mask, blur=3)
        if not fit or _stretch_of(warp) > MAX_STRETCH:
            return 0.0
        return _correlate_grain(self._large[a], self._grain[a], moving[2], warp)


def _find_inner(film: Pixels) -> Pixels:
    """1 where a film is exposed and neither its frame nor the exposure's edge is near, else 0."""
    reach = round(MARGIN * film.shape[0])
    exposed = np.zeros_like(film)
    exposed[reach:-reach, reach:-reach] = (film > DARK)[reach:-reach, reach:-reach]
    return np.asarray(cv2.erode(exposed, np.ones((reach + 1, reach + 1), np.uint8)), np.uint8)


def _warp_mask(mask: Pixels, warp: Floats) -> Pixels:
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(mask, warp, mask.shape, flags=flags), np.uint8)


def _signed(band: Floats, turn: Turn) -> Floats:
    return -band if turn.negative else band


def _register(
    fixed: Floats, moving: Floats, pose: Floats, mask: Pixels, *, blur: int
) -> tuple[float, Floats]:
    """The affine warp that lays `moving` on `fixed` best inside `mask`, and how well it does.

    Evangelidis & Psarakis 2008, doi 10.1109/TPAMI.2008.113. The fit is 0 without convergence.
    """
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
    try:
        fit, warp = cv2.findTransformECC(
            fixed, moving, pose.copy(), cv2.MOTION_AFFINE, criteria, mask, blur
        )
    except cv2.error:
        return 0.0, pose
    return max(float(fit), 0.0), np.asarray(warp, np.float32)


def _stretch_of(warp: Floats) -> float:
    """The ratio of the two scales of a warp."""
    largest, smallest = np.linalg.svd(warp[:, :2], compute_uv=False)
    return float(largest / max(smallest, 1e-6))


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
