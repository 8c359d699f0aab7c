"""The one preprocessing path: any bytes -> canonical hips, or a refusal that says why.

Ingest, endpoint and batch call `read_hips` (or the isolated reader around it) and nothing else,
and networks are trained on what ingest kept of it, so a film means the same pixels everywhere.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from hipray.config.images import ImageLimits, Preprocessing
from hipray.data import detectors
from hipray.data.dicom import is_dicom, read_dicom
from hipray.data.exposed_area import find_exposed_box
from hipray.data.film import Film, FilmInfo
from hipray.data.hips import Hip, extract_hips, is_pelvis
from hipray.data.raster import is_raster, read_raster
from hipray.data.refusals import FilmRefused, Refusal, refuse
from hipray.data.thumbnail import build_thumbnail
from hipray.vocab import Finding, RefusalCode, Side

_LOGGER = logging.getLogger(__name__)

PREPROCESSING_VERSION = "4"
"""Raised with every change of what any film is answered with; releases pin it."""


@dataclass(frozen=True)
class ReadResult:
    """What one file holds: its hips, or why there are none.

    `film_info` is what the header states; None where no film could be read, and in batch scoring
    beyond the process that decoded it (`scoring.packing`).
    """

    name: str
    hips: tuple[Hip, ...] = ()
    film_info: FilmInfo | None = None
    refusal: Refusal | None = None


def read_hips(
    data: bytes,
    *,
    name: str,
    side: Side | None = None,
    limits: ImageLimits | None = None,
    preprocessing: Preprocessing | None = None,
) -> ReadResult:
    """Read any bytes as canonical hips; every outcome is a ReadResult and nothing is raised.

    `side` is what the caller's own records say about a film of one hip. It fills in where the file
    states none; where both speak and disagree, the side counts as unknown and nothing is flipped.
    A film that shows a pelvis is cut in two whatever hip the records are about.
    """
    preprocessing = preprocessing or Preprocessing()
    film = read_film(data, name=name, limits=limits, preprocessing=preprocessing)
    if isinstance(film, Refusal):
        return ReadResult(name, refusal=film)
    try:
        film = _state_side(film, side, preprocessing)
        hips = extract_hips(film, preprocessing)
    except Exception as error:  # a defect here must not end an archive's run, but must be seen
        _LOGGER.exception("cutting hips out of a decoded film failed")
        return ReadResult(name, film_info=film.info, refusal=_answer_failure(error))
    if isinstance(hips, Refusal):
        return ReadResult(name, film_info=film.info, refusal=hips)
    return ReadResult(name, hips, film.info)


def read_film(
    data: bytes,
    *,
    name: str,
    limits: ImageLimits | None = None,
    preprocessing: Preprocessing | None = None,
) -> Film | Refusal:
    """Decode any bytes as a film with bone bright, or say why not; nothing is raised.

    `name` is the file's name or key; the format is known by content alone, as archives misname.
    """
    try:
        with _quiet_decoders():
            return _decode_film(data, limits or ImageLimits(), preprocessing or Preprocessing())
    except FilmRefused as answer:
        return answer.refusal
    except Exception as error:  # decoders raise dozens of types, and each is an answer here
        return _answer_failure(error)


def _answer_failure(error: Exception) -> Refusal:
    # The type alone: messages of decoders quote values of the file.
    crash = isinstance(error, MemoryError)
    code = RefusalCode.DECODER_CRASH if crash else RefusalCode.UNREADABLE
    return Refusal(code, "decoder", f"decoding ended with {type(error).__name__}")


@contextmanager
def _quiet_decoders() -> Iterator[None]:
    # pydicom's warnings quote the values they complain about, names of patients among them.
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _decode_film(data: bytes, limits: ImageLimits, preprocessing: Preprocessing) -> Film:
    if not data:
        raise refuse(RefusalCode.UNREADABLE, detector="format", evidence="an empty file")
    if len(data) > limits.max_file_bytes:
        evidence = f"{len(data)} bytes, at most {limits.max_file_bytes}"
        raise refuse(RefusalCode.TOO_LARGE, detector="file_size", evidence=evidence)
    raster = is_raster(data) and not is_dicom(data)
    read = read_raster if raster else read_dicom
    return _judge_film(
        read(data, limits=limits, preprocessing=preprocessing), raster, preprocessing
    )


def _judge_film(film: Film, raster: bool, preprocessing: Preprocessing) -> Film:
    if not bool(np.isfinite(film.pixels).all()):
        evidence = "grey values that are no numbers"
        raise refuse(RefusalCode.UNREADABLE, detector="grey_values", evidence=evidence)
    refusal = detectors.check_is_radiograph(film.pixels, film.thumbnail, level=film.level)
    if refusal is not None:
        raise FilmRefused(refusal)
    if raster and preprocessing.correct_polarity and _is_negative(film):
        return _invert(film)
    return film


def _is_negative(film: Film) -> bool:
    height, width = film.pixels.shape
    exposed = find_exposed_box(film.thumbnail, height=height, width=width).cut(film.pixels)
    return detectors.is_negative(build_thumbnail(exposed))


def _invert(film: Film) -> Film:
    findings = (*film.info.findings, Finding.POLARITY_INVERTED)
    return replace(
        film, pixels=film.pixels.max() - film.pixels, info=replace(film.info, findings=findings)
    )


def _state_side(film: Film, side: Side | None, preprocessing: Preprocessing) -> Film:
    stated = film.info.side
    if side in (None, Side.UNKNOWN, stated) or is_pelvis(film, preprocessing):
        return film
    if stated is Side.UNKNOWN:
        return film.with_info(replace(film.info, side=side))
    findings = (*film.info.findings, Finding.SIDE_CONTRADICTED)
    return film.with_info(replace(film.info, side=Side.UNKNOWN, findings=findings))
