"""What the acceptance checks measure on a rendered archive: grey means and band energies."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hipray.config.phantom import PhantomConfig
from hipray.data.phantom import RenderedStudy, plan_archive, render_study
from hipray.vocab import Side

WAVELENGTHS_MM = (1.6, 2.1, 2.9, 4.2)
ORIENTATIONS = 4
BACKGROUND_MM = 8
FOLDS = KFold(5, shuffle=True, random_state=0)


@dataclass(frozen=True)
class Measures:
    """One archive's films as features, each with one row per hip."""

    grey: NDArray[np.float64]  # mean and SD of the whole film
    region_mean: NDArray[np.float64]  # (n, 4)
    energy: NDArray[np.float64]  # (n, 4, 16) log band energy within each region
    t_score: NDArray[np.float64]  # (n, 4) reported
    t_shown: NDArray[np.float64]  # (n, 4)
    area_cm2: NDArray[np.float64]  # (n, 4)
    density_error: NDArray[np.float64]  # (n, 4) region mean over BMD shown, minus one
    share_in_total: NDArray[np.float64]  # (n, 4)

    @property
    def osteoporotic(self) -> NDArray[np.bool_]:
        return self.t_score <= -2.5


def measure_archive(n: int, kappa: float) -> Measures:
    config = PhantomConfig(n_patients=n, n_second_hips=0, n_device_a=n, kappa=kappa)
    rows = [_measure(render_study(config, study)) for study in plan_archive(config)]
    return Measures(*(np.array(column) for column in zip(*rows, strict=True)))


def grey_auc(features: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression())
    scores = cross_val_predict(model, features, labels, cv=FOLDS, method="predict_proba")
    return float(roc_auc_score(labels, scores[:, 1]))


def predict_t(measures: Measures, region: int) -> NDArray[np.float64]:
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 3, 9)))
    features, target = measures.energy[:, region], measures.t_score[:, region]
    return np.asarray(cross_val_predict(model, features, target, cv=FOLDS))


def explained(target: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    return float(1 - ((target - predicted) ** 2).sum() / ((target - target.mean()) ** 2).sum())


def _measure(rendered: RenderedStudy) -> tuple[object, ...]:
    (hip,) = rendered.hips
    flip = slice(None, None, -1 if hip.side is Side.RIGHT else 1)
    film = np.ascontiguousarray(rendered.film[:, flip], np.float32) / (2**rendered.bits - 1)
    masks = hip.masks[..., flip]
    pixel_cm2 = rendered.spacing_mm**2 / 100
    means = [hip.density[mask].mean() for mask in hip.masks]
    return (
        [film.mean(), film.std()],
        [film[mask].mean() for mask in masks],
        _band_energies(film, masks, rendered.spacing_mm),
        hip.truth.t_score,
        hip.truth.t_shown,
        [mask.sum() * pixel_cm2 for mask in masks],
        [mean / bmd - 1 for mean, bmd in zip(means, hip.truth.bmd_shown, strict=True)],
        [(mask & masks[3]).sum() / mask.sum() for mask in masks],
    )


def _band_energies(film, masks, spacing_mm):  # type: ignore[no-untyped-def]
    local = film - cv2.GaussianBlur(film, (0, 0), BACKGROUND_MM / spacing_mm)
    spectrum, size = fft.rfft2(local), film.shape[0]
    fx, fy = np.fft.rfftfreq(size)[None] / spacing_mm, np.fft.fftfreq(size)[:, None] / spacing_mm
    radius, angle = np.maximum(np.hypot(fx, fy), 1e-6), np.arctan2(fy, fx)
    energies = []
    for wavelength in WAVELENGTHS_MM:
        ring = np.exp(-((np.log2(radius * wavelength) / 0.35) ** 2) / 2)
        for step in range(ORIENTATIONS):
            turn = np.angle(np.exp(2j * (angle - step * np.pi / ORIENTATIONS))) / 2
            band = fft.irfft2(spectrum * ring * np.exp(-((turn / 0.35) ** 2) / 2), s=film.shape)
            energies.append([np.log((band[mask] ** 2).mean() + 1e-8) for mask in masks])
    return np.array(energies).T
