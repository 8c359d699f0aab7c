"""Read labelme files: the region outlines that annotators draw on a radiograph (section 3.3.1)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from hipray.data.annotations.shapes import Mask, fill_outline, outline_of, read_bitmap
from hipray.vocab import REGION_ALIASES, Region, Side, parse_region

MAX_FILE_BYTES = 128 * 2**20  # labelme may embed the film itself, 8-bit or 16-bit, as base64
MAX_PIXELS = 100_000_000  # of the image a file says it was drawn on; beyond any film
MAX_SHAPES = 1000  # per file; a pelvis film has eight
ASPECT_TOLERANCE = 0.01  # relative; a rescaled film keeps its aspect up to rounding

_SIDES = {"left": Side.LEFT, "l": Side.LEFT, "right": Side.RIGHT, "r": Side.RIGHT}


@dataclass(frozen=True, eq=False)
class Annotation:
    """The masks of one film; `side_masks` holds those shapes whose side the file states.

    `masks` unites the shapes of a region over both sides, each (height, width). A file that could
    not be used has no masks and says in `problems` why.
    """

    masks: Mapping[Region, Mask] = field(default_factory=dict)
    side_masks: Mapping[Side, Mapping[Region, Mask]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Frame:
    """The size a file was drawn at, and the size its masks shall have, in pixels."""

    drawn: tuple[int, int]  # width, height
    wanted: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        return self.wanted[0] / self.drawn[0], self.wanted[1] / self.drawn[1]


def read_labelme(data: bytes, *, width: int, height: int, name: str) -> Annotation:
    """Return the masks of a labelme file for a film of `width` x `height` pixels; never raises.

    Polygons, rectangles, circles and masks of the same label are united. A shape that is broken,
    of an unknown label or more than a tenth outside the film is left out and told in `problems`.
    """
    try:
        content = _parse(data)
        frame = _find_frame(content, width=width, height=height)
        shapes = _find_shapes(content)
    except ValueError as error:
        return Annotation(problems=(f"{name}: {error}",))
    problems: list[str] = []
    sides = _find_sides(shapes, problems)
    masks: dict[Region, Mask] = {}
    side_masks: dict[Side, dict[Region, Mask]] = {}
    for index, (shape, side) in enumerate(zip(shapes, sides, strict=True)):
        try:
            region = _region_of(shape)
            mask = _mask_of(shape, frame)
        except ValueError as error:
            problems.append(f"shape {index + 1}: {error}; not used")
            continue
        _unite(masks, region, mask)
        if side is not None:
            _unite(side_masks.setdefault(side, {}), region, mask)
    told = tuple(f"{name}: {problem}" for problem in problems)
    return Annotation(masks, side_masks, told)


def read_image_path(data: bytes) -> str | None:
    """Return the path from a labelme file to its film, empty where it names none.

    None where the JSON is no labelme file: it may be a table.
    """
    try:
        content = _parse(data)
    except ValueError:
        return None
    if not isinstance(content.get("shapes"), list):
        return None
    path = content.get("imagePath")
    return path.replace("\\", "/") if isinstance(path, str) else ""


def _parse(data: bytes) -> Mapping[str, Any]:
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no valid JSON ({type(error).__name__})") from None
    if not isinstance(content, dict):
        raise ValueError("no labelme object")
    return content


def _find_shapes(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    shapes = content.get("shapes")
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise ValueError("no list of shapes")
    if not shapes:
        raise ValueError("no shape is drawn")
    if len(shapes) > MAX_SHAPES:
        raise ValueError(f"{len(shapes)} shapes, more than {MAX_SHAPES}")
    return shapes


def _find_frame(content: Mapping[str, Any], *, width: int, height: int) -> _Frame:
    """Return the drawn and the wanted size; a size that is not stated is taken as the film's."""
    stated = content.get("imageWidth"), content.get("imageHeight")
    wanted = (width, height)
    if stated == (None, None):
        return _Frame(wanted, wanted)
    drawn_width, drawn_height = (
        (width if stated[0] is None else stated[0]),
        (height if stated[1] is None else stated[1]),
    )
    if not all(type(value) is int and 0 < value < 10**6 for value in (drawn_width, drawn_height)):
        raise ValueError("imageWidth or imageHeight is no size in pixels")
    if drawn_width * drawn_height > MAX_PIXELS:
        raise ValueError(f"drawn on an image of {drawn_width} x {drawn_height}, larger than a film")
    ratio = (drawn_width / width) / (drawn_height / height)
    if abs(ratio - 1) <= ASPECT_TOLERANCE:
        return _Frame((drawn_width, drawn_height), wanted)
    turned = (drawn_height, drawn_width) == wanted
    raise ValueError(
        f"drawn on an image of {drawn_width} x {drawn_height}, the film is {width} x {height}"
        + (", turned by its EXIF orientation: save it upright and annotate again" if turned else "")
    )


def _region_of(shape: Mapping[str, Any]) -> Region:
    label = shape.get("label")
    words = [word for word in _words(label) if word not in _SIDES]
    region = parse_region(" ".join(words))
    if region is None:
        known = ", ".join(sorted(REGION_ALIASES))
        shown = str(label)[:30].encode("utf-8", "backslashreplace").decode()
        raise ValueError(f"unknown label '{shown}' (known: {known})")
    return region


def _mask_of(shape: Mapping[str, Any], frame: _Frame) -> Mask:
    width, height = frame.wanted
    if shape.get("shape_type") == "mask":
        drawn = read_bitmap(shape, width=frame.drawn[0], height=frame.drawn[1])
        if frame.drawn == frame.wanted:
            return drawn
        resized = cv2.resize(drawn.astype(np.uint8), frame.wanted, interpolation=cv2.INTER_NEAREST)
        return np.asarray(resized, dtype=bool)
    points = (outline_of(shape) + 0.5) * frame.scale - 0.5
    return fill_outline(points, width=width, height=height)


def _unite(masks: dict[Region, Mask], region: Region, mask: Mask) -> None:
    masks[region] = masks[region] | mask if region in masks else mask


def _find_sides(shapes: Sequence[Mapping[str, Any]], problems: list[str]) -> list[Side | None]:
    """Return each shape's side: its own word, else that of its group; never a guess."""
    own = [_side_of(shape) for shape in shapes]
    groups = [_group_of(shape) for shape in shapes]
    by_group: dict[int, set[Side]] = {}
    for side, group in zip(own, groups, strict=True):
        if group is not None:
            by_group.setdefault(group, set()).update({side} if side else set())
    for group, sides in by_group.items():
        if len(sides) > 1:
            problems.append(f"group {group} holds shapes of both sides")
    if len(by_group) > 1 and not any(own):
        problems.append("groups without a side; write left or right in the shapes' descriptions")
    return [
        side or _single(by_group.get(group, set()) if group is not None else set())
        for side, group in zip(own, groups, strict=True)
    ]


def _single(sides: set[Side]) -> Side | None:
    return next(iter(sides)) if len(sides) == 1 else None


def _group_of(shape: Mapping[str, Any]) -> int | None:
    group = shape.get("group_id")
    return group if type(group) is int else None


def _side_of(shape: Mapping[str, Any]) -> Side | None:
    """Return the side that flags, description or label state, or None."""
    flags = shape.get("flags")
    words = [word for word, on in flags.items() if on is True] if isinstance(flags, dict) else []
    words += [*_words(shape.get("description")), *_words(shape.get("label"))]
    sides = {_SIDES[word.lower()] for word in words if word.lower() in _SIDES}
    return _single(sides)


def _words(text: object) -> list[str]:
    return text.lower().replace("_", " ").replace("-", " ").split() if isinstance(text, str) else []
