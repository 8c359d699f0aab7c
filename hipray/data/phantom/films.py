"""Write a planned study as files: film, annotation and, if wanted, true masks."""

from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from hipray.config.phantom import FilmFormat, PhantomConfig
from hipray.data.phantom.archive import copy_path, film_path, truth_path
from hipray.data.phantom.decoys import encode_decoy
from hipray.data.phantom.dicom import FilmHeader, encode_film
from hipray.data.phantom.labelme import encode_labelme
from hipray.data.phantom.render import RenderedStudy, render_study, shows_hip
from hipray.data.phantom.study import DecoyKind, PhantomStudy, StudyKind
from hipray.data.png import encode_mask, encode_png
from hipray.vocab import REGIONS, Side

_LATERALITY = {Side.LEFT: "L", Side.RIGHT: "R", Side.UNKNOWN: "B"}


def write_study(config: PhantomConfig, study: PhantomStudy) -> dict[str, bytes]:
    """Return the study's files as relative name -> bytes; the same study gives the same bytes.

    `films/<name>.dcm` or `.png` is the film and `films/<name>.json` its labelme annotation;
    `truth/<name>-<side>-<region>.png` are the true masks where `write_truth` is set.
    """
    if not shows_hip(study):
        return {film_path(config, study): encode_decoy(config, study)}
    rendered = render_study(config, study)
    path = film_path(config, study)
    files = {path: _encode(config, rendered)}
    if study.decoy is DecoyKind.TRUNCATED:
        files[path] = files[path][: len(files[path]) // 2]
    if study.decoy is DecoyKind.COPY:
        files[copy_path(study)] = encode_hip_dicom(rendered, name=f"{study.name}-copy")
    if study.annotated:
        files |= _write_annotations(config, rendered, PurePosixPath(path))
    return files


def _write_annotations(
    config: PhantomConfig, rendered: RenderedStudy, path: PurePosixPath
) -> dict[str, bytes]:
    noise = config.annotator_noise_mm
    labelme = encode_labelme(rendered, image_name=path.name, noise_mm=noise)
    files = {str(path.with_suffix(".json")): labelme}
    if config.write_truth:
        for hip in rendered.hips:
            for region, mask in zip(REGIONS, hip.masks, strict=True):
                name = truth_path(rendered.study, hip.side, region)
                files[name] = encode_mask(mask)
    return files


def _encode(config: PhantomConfig, rendered: RenderedStudy) -> bytes:
    if config.film_format is FilmFormat.PNG and rendered.study.decoy is None:
        return encode_png(scale_to_bytes(rendered.film, rendered.bits))
    return encode_hip_dicom(rendered, name=rendered.study.name)


def encode_hip_dicom(rendered: RenderedStudy, *, name: str) -> bytes:
    """Return a rendered film as a DICOM file whose UIDs hash `name`."""
    study = rendered.study
    header = FilmHeader(
        patient=rendered.patient,
        laterality=_LATERALITY[study.laterality],
        body_part="PELVIS" if study.kind is StudyKind.PELVIS else "HIP",
        view="LL" if study.decoy is DecoyKind.LATERAL_VIEW else "AP",
        inverted=rendered.inverted,
    )
    return encode_film(
        rendered.film,
        bits=rendered.bits,
        spacing_mm=rendered.spacing_mm,
        header=header,
        name=f"{study.seed}/{name}",
    )


def scale_to_bytes(film: NDArray[np.uint16], bits: int) -> NDArray[np.uint8]:
    """Return a film of `bits` bits in 8 bits."""
    return np.asarray(np.rint(film * (255 / (2**bits - 1))), dtype=np.uint8)
