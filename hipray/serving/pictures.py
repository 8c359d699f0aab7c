"""The pictures of an answer: contours per film, heat per region, as base64 of PNG (RFC 4648)."""

from base64 import b64encode
from typing import Any

from hipray.data.images import ReadResult
from hipray.explanation import HeatMap
from hipray.overlay import draw_heat, draw_overlay
from hipray.pipeline import Explanations
from hipray.serving.messages import Extras, ScoredFilm
from hipray.vocab import LabelType, Region

METHOD = "grad-cam"


def add_pictures(
    answer: dict[str, Any],
    extras: Extras,
    *,
    result: ReadResult,
    film: ScoredFilm | None,
    working_px: int,
) -> None:
    """Add to an answer what a caller asked for; null where there is nothing to draw."""
    if extras.overlay:
        masks = film.segmentation.unpack().masks if film and film.segmentation else None
        answer["overlay_png"] = _encode(draw_overlay(result, masks, working_px))
    if film is not None and film.explanations is not None:
        for hip in answer["hips"]:
            for region in hip["regions"]:
                region.update(_explain(film.explanations, hip["index"], region))


def _explain(explanations: Explanations, hip: int, region: dict[str, Any]) -> dict[str, Any]:
    question = Region(region["region"]), LabelType(region["label_type"])
    found = explanations[question][hip]
    return {"explanation": _draw(found), "explanation_reason": found.reason}


def _draw(found: HeatMap) -> dict[str, Any] | None:
    if found.heat is None:
        return None
    picture = _encode(draw_heat(found.view, found.heat))
    return {"png": picture, "method": METHOD, "members": found.members}


def _encode(picture: bytes | None) -> str | None:
    return None if picture is None else b64encode(picture).decode("ascii")
