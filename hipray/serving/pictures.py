"""What a caller may ask for beside the numbers, as base64 (RFC 4648): contours and heat as PNG, and
DICOM objects."""

import logging
from base64 import b64encode
from collections.abc import Callable
from typing import Any, TypeVar

from hipray.answers import StudyAnswer
from hipray.data.images import ReadResult
from hipray.dicom_objects import read_header, write_report, write_segmentation
from hipray.explanation import HeatMap
from hipray.overlay import draw_heat, draw_overlay
from hipray.pipeline import Explanations
from hipray.serving.messages import Extras, ScoredFilm
from hipray.vocab import LabelType, Region

METHOD = "grad-cam"

MadeT = TypeVar("MadeT")

logger = logging.getLogger(__name__)


def add_pictures(
    answer: dict[str, Any],
    extras: Extras,
    *,
    result: ReadResult,
    scored: ScoredFilm | None,
    working_px: int,
) -> None:
    """Add to an answer what a caller asked for; null where there is nothing to draw."""
    if extras.overlay:
        masks = scored.segmentation.unpack().masks if scored and scored.segmentation else None
        answer["overlay_png"] = _encode(draw_overlay(result, masks, working_px))
    if scored is not None and scored.explanations is not None:
        for hip in answer["hips"]:
            for region in hip["regions"]:
                region.update(_explain(scored.explanations, hip["index"], region))


def add_objects(
    answer: dict[str, Any],
    *,
    film: bytes,
    study: StudyAnswer,
    result: ReadResult,
    scored: ScoredFilm | None,
    working_px: int,
) -> None:
    """Add the answer as DICOM objects; null where the film is no DICOM or has no numbers.

    A header that no object can be made from costs the object and never the answer.
    """
    header = _or_nothing(lambda: read_header(film)) if scored is not None else None
    packed = scored.segmentation if scored is not None else None
    report = segmentation = None
    if header is not None:
        report = _or_nothing(lambda: write_report(header, study))
        if packed is not None:
            masks = packed.unpack().masks
            segmentation = _or_nothing(
                lambda: write_segmentation(header, result, masks, working_px)
            )
    answer["dicom_sr"], answer["dicom_seg"] = _encode(report), _encode(segmentation)


def _or_nothing(make: Callable[[], MadeT | None]) -> MadeT | None:
    try:
        return make()
    except Exception as error:  # its words may quote the header: only its kind is told
        logger.warning("a DICOM object was not made: %s", type(error).__name__)
        return None


def _explain(explanations: Explanations, hip: int, region: dict[str, Any]) -> dict[str, Any]:
    question = Region(region["region"]), LabelType(region["label_type"])
    found = explanations[question][hip]
    return {"explanation": _draw(found), "explanation_reason": found.reason}


def _draw(found: HeatMap) -> dict[str, Any] | None:
    if found.heat is None:
        return None
    picture = _encode(draw_heat(found.view, found.heat))
    return {"png": picture, "method": METHOD, "members": found.members}


def _encode(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode("ascii")
