"""How decoded hips and refusals travel between processes: JSON notes beside raw grey values.

Used by the isolated reader and by batch scoring; nothing is ever unpickled.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from typing import Any

from hipray.data.exposed_area import Box
from hipray.data.film import FilmInfo
from hipray.data.framing import Pixels
from hipray.data.hips import Hip, HipGeometry
from hipray.data.refusals import Refusal
from hipray.vocab import Finding, RefusalCode, Sex, Side


def describe_hip(hip: Hip) -> dict[str, Any]:
    """Return everything of a hip but its pixels as JSON values."""
    fields = {name: getattr(hip, name) for name in hip.__dataclass_fields__ if name != "pixels"}
    return {**fields, "geometry": asdict(hip.geometry)}


def restore_hip(note: Mapping[str, Any], values: Pixels) -> Hip:
    """Return the hip that `describe_hip` described, with its grey values row by row."""
    geometry = HipGeometry(**{**note["geometry"], "box": Box(**note["geometry"]["box"])})
    return Hip(
        **{
            **note,
            "pixels": values.reshape(geometry.height, geometry.width),
            "side": Side(note["side"]),
            "geometry": geometry,
            "findings": tuple(Finding(finding) for finding in note["findings"]),
        }
    )


def describe_info(info: FilmInfo | None) -> dict[str, Any] | None:
    """Return what a header states as JSON values, None for none."""
    if info is None:
        return None
    return {**asdict(info), "taken": info.taken.isoformat() if info.taken else None}


def restore_info(note: Mapping[str, Any] | None) -> FilmInfo | None:
    """Return what `describe_info` described."""
    if note is None:
        return None
    return FilmInfo(
        **{
            **note,
            "side": Side(note["side"]),
            "taken": date.fromisoformat(note["taken"]) if note["taken"] else None,
            "sex": Sex(note["sex"]),
            "findings": tuple(Finding(finding) for finding in note["findings"]),
        }
    )


def describe_refusal(refusal: Refusal | None) -> dict[str, Any] | None:
    """Return a refusal as JSON values, None for none."""
    return None if refusal is None else asdict(refusal)


def restore_refusal(note: Mapping[str, Any] | None) -> Refusal | None:
    """Return the refusal that `describe_refusal` described."""
    return None if note is None else Refusal(**{**note, "code": RefusalCode(note["code"])})
