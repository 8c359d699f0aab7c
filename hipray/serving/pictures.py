"""What a caller may ask for beside the numbers, as base64 (RFC 4648): contours and heat as PNG, and
DICOM objects."""

import logging
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hipray.answers import StudyAnswer
from hipray.data.images import ReadResult
from hipray.dicom_objects import read_header, write_report, write_segmentation
from hipray.explanation import HeatMap
from hipray.overlay import draw_heat, draw_overlay
from hipray.serving.messages import Extras, ScoredFilm
from hipray.vocab import LabelType, Region

METHOD = "grad-cam"

MadeT = TypeVar("MadeT")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drawn:
    """What an answer gets beside its numbers, as JSON values."""

    members: dict[str, Any] = field(default_factory=dict)
    """Of the answer."""
    regions: dict[tuple[int, Region, LabelType], dict[str, Any]] = field(default_factory=dict)
    """Of the answer of each hip, region and label."""

    def __or__(self, other: "Drawn") -> "Drawn":
        return Drawn(self.members | other.members, self.regions | other.regions)


def draw_pictures(
    study: StudyAnswer,
    extras: Extras,
    *,
    result: ReadResult,
    scored: ScoredFilm | None,
    working_px: int,
) -> Drawn:
    """Return the pictures that a caller asked for; null where there is nothing to draw."""
    drawn = Drawn()
    if extras.overlay:
        masks = scored.segmentation.unpack().masks if scored and scored.segmentation else None
        drawn.members["overlay_png"] = _encode(draw_overlay(result, masks, working_px))
    if scored is not None and scored.explanations is not None:
        for hip in study.hips:
            for region in hip.regions:
                found = scored.explanations[region.region, region.label_type][hip.index]
                drawn.regions[hip.index, region.region, region.label_type] = _explain(found)
    return drawn


def write_objects(
    study: StudyAnswer,
    *,
    film: bytes,
    result: ReadResult,
    scored: ScoredFilm | None,
    working_px: int,
) -> Drawn:
    """Return the answer as DICOM objects; null where the film is no DICOM, a deflated one, or has
    no numbers.

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
    return Drawn({"dicom_sr": _encode(report), "dicom_seg": _encode(segmentation)})


def _or_nothing(make: Callable[[], MadeT | None]) -> MadeT | None:
    try:
        return make()
    except Exception as error:  # its words may quote the header: only its kind is told
        logger.warning("a DICOM object was not made: %s", type(error).__name__)
        return None


def _explain(found: HeatMap) -> dict[str, Any]:
    return {"explanation": _draw(found), "explanation_reason": found.reason}


def _draw(found: HeatMap) -> dict[str, Any] | None:
    if found.heat is None:
        return None
    picture = _encode(draw_heat(found.view, found.heat))
    return {"png": picture, "method": METHOD, "members": found.members}


def _encode(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode("ascii")
