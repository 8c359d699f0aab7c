"""Plan the phantom archive: who is filmed, on which side, and measured by which device."""

import csv
import io
from collections.abc import Iterable, Sequence
from itertools import count

import numpy as np

from hipray.config.phantom import FilmFormat, PhantomConfig
from hipray.data.phantom.patient import (
    NO_SHIFT,
    PerRegion,
    match_prevalence,
    sample_patient,
    sample_truth,
)
from hipray.data.phantom.scanner import Densitometer
from hipray.data.phantom.streams import derive_seed, open_stream
from hipray.data.phantom.study import DecoyKind, PhantomClone, PhantomStudy, StudyKind
from hipray.vocab import REGIONS, Side

FILM_FOLDER = "films"
TRUTH_FOLDER = "truth"
DXA_COLUMNS = (
    "file",
    "patient_id",
    "side",
    "sex",
    "age",
    "weight_kg",
    "height_cm",
    "device",
    "region",
    "bmd_g_cm2",
    "t_score",
    "z_score",
)

_SIDES = (Side.LEFT, Side.RIGHT)
_SUFFIX = {FilmFormat.DICOM: "dcm", FilmFormat.PNG: "png"}
_DECOY_SUFFIX = {DecoyKind.PHOTO: "png", DecoyKind.TEXT_PAGE: "png", DecoyKind.THUMBNAIL: "png"}


def plan_archive(config: PhantomConfig) -> list[PhantomStudy]:
    """Return every film of the archive: first the hips with a report, then the extra material.

    The plan is pure data and the same for the same config; each study is drawn from its own seed,
    so any subset in any order gives the same files.
    """
    hips = _plan_hips(config)
    extra = _plan_extra(config, t_shift=hips[0].t_shift)
    return hips + extra


def plan_clones(config: PhantomConfig, studies: Sequence[PhantomStudy]) -> list[PhantomClone]:
    """Return `config.clones` clones, dealt evenly over the hip films of `studies`."""
    originals = [study.name for study in studies if study.kind is StudyKind.HIP]
    return [
        PhantomClone(f"clone-{index:07d}", originals[index % len(originals)], index)
        for index in range(config.clones)
    ]


def film_path(config: PhantomConfig, study: PhantomStudy) -> str:
    """Return the film's path within the archive."""
    suffix = _SUFFIX[config.film_format]
    if study.decoy is not None:
        suffix = _DECOY_SUFFIX.get(study.decoy, "dcm")
    return f"{FILM_FOLDER}/{study.name}.{suffix}"


def copy_path(study: PhantomStudy) -> str:
    """Return the path of the second file of a `DecoyKind.COPY` study."""
    return f"{FILM_FOLDER}/{study.name}-copy.dcm"


def clone_path(clone: PhantomClone) -> str:
    """Return the clone's path within the archive."""
    return f"{FILM_FOLDER}/{clone.name}.dcm"


def truth_path(study: PhantomStudy, side: Side, region: str) -> str:
    """Return the path of one true mask."""
    return f"{TRUTH_FOLDER}/{study.name}-{side}-{region}.png"


def dxa_csv(config: PhantomConfig, studies: Iterable[PhantomStudy]) -> bytes:
    """Return the DXA reports as CSV: one row per hip and region reported.

    BMD is in g/cm² with 3 decimals, T and Z with 1; T follows from the printed BMD.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(DXA_COLUMNS)
    for study in studies:
        writer.writerows(_report_rows(config, study))
    return text.getvalue().encode()


def _report_rows(config: PhantomConfig, study: PhantomStudy) -> list[list[str]]:
    if study.device is None:
        return []
    patient = sample_patient(config.seed, study.patient_id)
    rows = []
    for side in study.sides:
        truth = sample_truth(config, patient, side=side, t_shift=study.t_shift)
        head = [film_path(config, study), patient.patient_id, side.value, patient.sex.value]
        head += [str(patient.age), f"{patient.weight_kg:.1f}", f"{patient.height_cm:.1f}"]
        for region in study.device.regions:
            place = REGIONS.index(region)
            scores = [f"{truth.bmd[place]:.3f}", f"{truth.t_score[place]:.1f}"]
            scores += [f"{truth.z_score[place]:.1f}"]
            rows.append([*head, study.device.value, region.value, *scores])
    return rows


def _plan_hips(config: PhantomConfig) -> list[PhantomStudy]:
    """Plan the hips with a report; counts of patients, hips and device A are exact."""
    stream = open_stream(config.seed, "plan")
    patients = [_patient_id(number) for number in range(1, config.n_patients + 1)]
    first = [_SIDES[flip] for flip in stream.integers(0, 2, config.n_patients)]
    both = set(stream.permutation(config.n_patients)[: config.n_second_hips].tolist())
    sides = [_SIDES if n in both else (first[n],) for n in range(config.n_patients)]
    on_a = _deal_device_a(stream, [len(s) for s in sides], config.n_device_a)
    hips = [
        (patient, side, Densitometer.A if number in on_a else Densitometer.B)
        for number, patient in enumerate(patients)
        for side in sides[number]
    ]
    t_shift = _archive_shift(config, hips)
    return [
        _study(config, patient, (side,), StudyKind.HIP, device=device, t_shift=t_shift)
        for patient, side, device in hips
    ]


def _deal_device_a(stream: np.random.Generator, hips: Sequence[int], wanted: int) -> set[int]:
    """Choose patients whose hips add up to `wanted`; a patient's hips share the device."""
    chosen: set[int] = set()
    left = wanted
    for number in stream.permutation(len(hips)).tolist():
        if hips[number] <= left:
            chosen.add(number)
            left -= hips[number]
    return chosen


def _archive_shift(
    config: PhantomConfig, hips: Sequence[tuple[str, Side, Densitometer]]
) -> PerRegion:
    if not config.exact_prevalence:
        return NO_SHIFT
    return match_prevalence(
        config,
        [(sample_patient(config.seed, patient), side, device) for patient, side, device in hips],
    )


def _plan_extra(config: PhantomConfig, *, t_shift: PerRegion) -> list[PhantomStudy]:
    numbers = count(config.n_patients + 1)
    studies = []
    for kind, wanted in (
        (StudyKind.PELVIS, config.pelvis_films),
        (StudyKind.IMPLANT, config.implants),
        (StudyKind.BLURRED, config.blurred),
        (StudyKind.DECOY, config.decoys),
    ):
        for index in range(wanted):
            patient = _patient_id(next(numbers))
            studies.append(_extra_study(config, patient, kind, index=index, t_shift=t_shift))
    return studies


def _extra_study(
    config: PhantomConfig, patient: str, kind: StudyKind, *, index: int, t_shift: PerRegion
) -> PhantomStudy:
    stream = open_stream(config.seed, patient, "plan")
    side = _SIDES[int(stream.integers(2))]
    device = Densitometer.A if stream.random() < 0.5 else Densitometer.B
    if kind is StudyKind.PELVIS:
        return _study(config, patient, _SIDES, kind, device=device, t_shift=t_shift)
    if kind is StudyKind.BLURRED:
        return _study(config, patient, (side,), kind, device=device, t_shift=t_shift)
    decoy = tuple(DecoyKind)[index % len(DecoyKind)] if kind is StudyKind.DECOY else None
    return _study(config, patient, (side,), kind, t_shift=t_shift, decoy=decoy)


def _study(
    config: PhantomConfig,
    patient: str,
    sides: tuple[Side, ...],
    kind: StudyKind,
    *,
    device: Densitometer | None = None,
    t_shift: PerRegion,
    decoy: DecoyKind | None = None,
) -> PhantomStudy:
    letter = sides[0].value[0].upper() if len(sides) == 1 else "B"
    return PhantomStudy(
        name=f"{patient}-{letter}",
        patient_id=patient,
        sides=sides,
        kind=kind,
        seed=derive_seed(config.seed, patient, letter),
        device=device,
        t_shift=t_shift,
        decoy=decoy,
    )


def _patient_id(number: int) -> str:
    return f"P{number:07d}"
