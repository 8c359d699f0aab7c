"""Draw a planned study: the film, and the truth it was drawn from."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hipray.config.labels import OSTEOPOROSIS_T
from hipray.config.phantom import PhantomConfig
from hipray.data.phantom.anatomy import (
    FIELD_OF_VIEW_MM,
    HEAD_IN_HIP_FILM,
    HEAD_IN_PELVIS_HALF,
    Femur,
    Field,
    Mask,
    build_femur,
    sample_pose,
    sample_shape,
)
from hipray.data.phantom.furniture import draw_furniture, sample_furniture
from hipray.data.phantom.mineral import build_mineral
from hipray.data.phantom.patient import (
    HipTruth,
    Patient,
    sample_patient,
    sample_truth,
)
from hipray.data.phantom.pelvis import add_gas, build_pelvis, build_soft_tissue
from hipray.data.phantom.streams import open_stream
from hipray.data.phantom.study import DecoyKind, PhantomStudy, StudyKind
from hipray.data.phantom.xray import develop, expose, sample_exposure, sample_look, vary_tissue
from hipray.errors import DataError
from hipray.vocab import REGIONS, Region, Side

_TISSUE_MEAN, _TISSUE_SD = 185.0, 32.0  # mm
_TISSUE_PER_T = 3.0  # mm: heavier people have denser bones
_MEAN_T = -2.39
_INVERTED_SHARE = 0.10  # of films stored as MONOCHROME1
_METAL = 9.0  # g/cm² of bone that stops as much as a stem of cobalt-chromium
_MOTION_MM = (2.5, 4.5)  # standard deviation of a blurred film
_HIP_DECOYS = (None, DecoyKind.LATERAL_VIEW, DecoyKind.COPY, DecoyKind.TRUNCATED)


@dataclass(frozen=True, eq=False)
class RenderedHip:
    """The truth of one hip, in the geometry of its film."""

    side: Side
    truth: HipTruth
    masks: Mask  # (4, H, W) in the order of REGIONS
    density: Field  # (H, W) areal density of the femur in g/cm²


@dataclass(frozen=True, eq=False)
class RenderedStudy:
    """A film with everything that is known about it."""

    study: PhantomStudy
    patient: Patient
    film: NDArray[np.uint16]  # (H, W), bone bright, 0 .. 2**bits - 1
    bits: int
    inverted: bool  # written as MONOCHROME1
    spacing_mm: float
    hips: tuple[RenderedHip, ...]

    @property
    def masks(self) -> Mask:
        """The true masks (4, H, W) in the order of REGIONS; of both hips on a pelvis film."""
        return np.asarray(np.stack([hip.masks for hip in self.hips]).any(axis=0))

    @property
    def density(self) -> Field:
        """The femurs' areal density (H, W) in g/cm²."""
        return np.asarray(np.stack([hip.density for hip in self.hips]).max(axis=0))


@dataclass(frozen=True, eq=False)
class _Scene:
    """One half of the patient on its square of film, as a canonical left hip."""

    truth: HipTruth
    femur: Femur
    density: Field
    bone: Field  # g/cm², femur and pelvis (and metal)
    soft: Field  # mm


def shows_hip(study: PhantomStudy) -> bool:
    """Tell whether the study's pixels are those of a hip film."""
    return study.decoy in _HIP_DECOYS


def render_study(config: PhantomConfig, study: PhantomStudy) -> RenderedStudy:
    """Draw a study's film, its true masks (4, H, W) and density maps.

    Hips are drawn as canonical left hips; a right hip is mirrored, as it lies on a film.
    Raises DataError for a decoy that shows no hip.
    """
    if not shows_hip(study):
        raise DataError("a study of a hip", f"the decoy '{study.decoy}'", "use write_study for it")
    patient = sample_patient(config.seed, study.patient_id)
    scenes = {side: _build_scene(config, study, patient, side) for side in study.sides}
    film, bits, inverted = _take_film(config, study, scenes)
    return RenderedStudy(
        study=study,
        patient=patient,
        film=film,
        bits=bits,
        inverted=inverted,
        spacing_mm=FIELD_OF_VIEW_MM / config.image_px,
        hips=tuple(_place_hip(scene, side, scenes) for side, scene in scenes.items()),
    )


def _build_scene(
    config: PhantomConfig, study: PhantomStudy, patient: Patient, side: Side
) -> _Scene:
    """Build one half of the patient; every stream is named, so none depends on another."""
    truth = sample_truth(config, patient, side=side, t_shift=study.t_shift)
    own = (config.seed, patient.patient_id, side)
    head = HEAD_IN_PELVIS_HALF if study.kind is StudyKind.PELVIS else HEAD_IN_HIP_FILM
    pose = sample_pose(open_stream(*own, "pose"), head)
    shape = sample_shape(open_stream(config.seed, patient.patient_id, "shape"), patient.sex)
    femur = build_femur(shape, pose, config.image_px)
    density = build_mineral(
        open_stream(*own, "mineral"),
        femur,
        t_shown=truth.t_shown,
        bmd_shown=truth.bmd_shown,
        edge_contrast=config.edge_contrast,
    )
    total = truth.t_shown[REGIONS.index(Region.TOTAL_HIP)]
    pelvis = build_pelvis(
        open_stream(*own, "pelvis"), shape, pose, size=config.image_px, t_shown=total
    )
    bone = pelvis + density
    if study.kind is StudyKind.IMPLANT:
        bone = np.maximum(bone, _build_prosthesis(femur))
    body = open_stream(config.seed, patient.patient_id, "body")
    thickness = max(90.0, body.normal(_TISSUE_MEAN, _TISSUE_SD) + _TISSUE_PER_T * (total - _MEAN_T))
    soft = build_soft_tissue(
        open_stream(*own, "tissue"), pose, size=config.image_px, thickness_mm=thickness
    )
    return _Scene(truth, femur, density, bone, add_gas(open_stream(*own, "gas"), soft, pose))


def _build_prosthesis(femur: Femur) -> Field:
    """Return the metal of a total hip replacement (H, W): cup, head, neck and stem."""
    frame, shape = femur.frame, femur.shape
    cup = np.abs(np.hypot(frame.x, frame.y) - shape.head_radius - 3) < 3
    cup &= frame.y < 0.4 * shape.head_radius
    head = np.hypot(frame.x, frame.y) < 0.65 * shape.head_radius
    neck = (np.abs(frame.w) < 6) & (frame.t > 0) & (frame.t < shape.neck_length)
    taper = np.clip(0.38 * shape.shaft_width - 0.05 * frame.u, 4, None)
    stem = (np.abs(frame.v) < taper) & (frame.u > -12) & (frame.u < 110)
    metal = (cup | head | neck | stem).astype(np.float32) * _METAL
    return np.asarray(cv2.GaussianBlur(metal, (0, 0), 0.5 / frame.pixel_mm))


def _take_film(
    config: PhantomConfig, study: PhantomStudy, scenes: dict[Side, _Scene]
) -> tuple[NDArray[np.uint16], int, bool]:
    """Expose, develop and furnish the film; return it with its bits and its polarity."""
    stream = open_stream(study.seed, "film")
    spacing = FIELD_OF_VIEW_MM / config.image_px
    bone = _join({side: scene.bone for side, scene in scenes.items()})
    soft = _join({side: scene.soft for side, scene in scenes.items()})
    exposure, look = sample_exposure(stream), sample_look(stream)
    inverted = bool(stream.random() < _INVERTED_SHARE)
    raw = expose(
        open_stream(study.seed, "quanta"),
        exposure,
        bone=bone,
        soft=vary_tissue(open_stream(study.seed, "uneven"), soft, spacing),
        spacing_mm=spacing,
    )
    if study.kind is StudyKind.BLURRED:
        sd = open_stream(study.seed, "motion").uniform(*_MOTION_MM) / spacing
        raw = np.asarray(cv2.GaussianBlur(raw, (0, 0), sd))
    furniture = sample_furniture(
        open_stream(study.seed, "furniture"),
        shortcut=config.shortcut,
        osteoporotic=_is_osteoporotic(scenes),
    )
    developed = develop(raw, look, bone=bone, spacing_mm=spacing)
    film = draw_furniture(developed, furniture, side=study.laterality, spacing_mm=spacing)
    return np.rint(film * (2**look.bits - 1)).astype(np.uint16), look.bits, inverted


def _is_osteoporotic(scenes: dict[Side, _Scene]) -> bool:
    total = REGIONS.index(Region.TOTAL_HIP)
    return any(scene.truth.t_score[total] <= OSTEOPOROSIS_T for scene in scenes.values())


def _place_hip(scene: _Scene, side: Side, scenes: dict[Side, _Scene]) -> RenderedHip:
    """Return a hip's truth in film geometry: blank where the other hip lies."""
    layers = np.concatenate([scene.density[None], scene.femur.regions.astype(np.float32)])
    placed = _join({s: layers if s is side else np.zeros_like(layers) for s in scenes})
    return RenderedHip(side, scene.truth, placed[1:] > 0.5, placed[0])


def _join(halves: dict[Side, Field]) -> Field:
    """Lay canonical halves (..., H, W) on the film: the patient's right side is image left."""
    placed = [halves[Side.RIGHT][..., ::-1]] if Side.RIGHT in halves else []
    placed += [halves[Side.LEFT]] if Side.LEFT in halves else []
    return np.ascontiguousarray(np.concatenate(placed, axis=-1))
