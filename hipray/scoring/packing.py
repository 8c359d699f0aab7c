"""The compact form in which decoded films travel to the model: JSON notes and grey values.

A film's header, with the patient's id in it, stays where the film was decoded: what travels may be
spilled to a disk. Nothing is unpickled.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from hipray.data.exposure import Box
from hipray.data.film import SpacingSource
from hipray.data.framing import Pixels
from hipray.data.hips import Hip, HipGeometry
from hipray.data.images import ReadResult
from hipray.data.person import Person
from hipray.data.refusals import Refusal
from hipray.scoring.films import ReadFilm
from hipray.scoring.shards import Entry
from hipray.vocab import Finding, RefusalCode, Sex, Side


def pack_films(films: Sequence[ReadFilm]) -> tuple[str, bytes]:
    """Return films as JSON notes and the grey values of all their hips, one after the other."""
    hips = (hip for film in films for hip in film.result.hips)
    pixels = b"".join(np.ascontiguousarray(hip.pixels).tobytes() for hip in hips)
    return json.dumps([_describe_film(film) for film in films]), pixels


def unpack_films(notes: str, pixels: bytes | memoryview) -> list[ReadFilm]:
    """Return the films that `pack_films` packed, their pixels read-only views of `pixels`."""
    films = json.loads(notes)
    shapes = [
        (hip["geometry"]["height"], hip["geometry"]["width"]) for f in films for hip in f["hips"]
    ]
    hip_pixels = _cut_pixels(pixels, shapes)
    return [_restore_film(film, hip_pixels) for film in films]


def _cut_pixels(pixels: bytes | memoryview, shapes: Sequence[tuple[int, int]]) -> Iterator[Pixels]:
    start = 0
    for height, width in shapes:
        values = np.frombuffer(pixels, np.uint8, count=height * width, offset=start)
        start += height * width
        yield values.reshape(height, width)


def _describe_film(film: ReadFilm) -> dict[str, Any]:
    refusal = film.result.refusal
    return {
        "entry": asdict(film.entry),
        "etag": film.etag,
        "file_id": film.file_id,
        "patient_id": film.patient_id,
        "person": asdict(film.person),
        "seconds": film.seconds,
        "refusal": None if refusal is None else asdict(refusal),
        "hips": [_describe_hip(hip) for hip in film.result.hips],
    }


def _describe_hip(hip: Hip) -> dict[str, Any]:
    fields = {name: getattr(hip, name) for name in hip.__dataclass_fields__ if name != "pixels"}
    return {**fields, "geometry": asdict(hip.geometry)}


def _restore_film(note: dict[str, Any], pixels: Iterator[Pixels]) -> ReadFilm:
    entry, refusal = Entry(**note["entry"]), note["refusal"]
    result = ReadResult(
        entry.key,
        tuple(_restore_hip(hip, next(pixels)) for hip in note["hips"]),
        refusal=None if refusal is None else _restore_refusal(refusal),
    )
    person = Person(**{**note["person"], "sex": Sex(note["person"]["sex"])})
    return ReadFilm(
        entry, note["etag"], note["file_id"], note["patient_id"], person, result, note["seconds"]
    )


def _restore_refusal(fields: dict[str, Any]) -> Refusal:
    return Refusal(RefusalCode(fields["code"]), fields["detector"], fields["evidence"])


def _restore_hip(fields: dict[str, Any], pixels: Pixels) -> Hip:
    geometry = {**fields["geometry"], "box": Box(**fields["geometry"]["box"])}
    return Hip(
        **{
            **fields,
            "pixels": pixels,
            "side": Side(fields["side"]),
            "geometry": HipGeometry(**geometry),
            "spacing_source": SpacingSource(fields["spacing_source"]),
            "findings": tuple(Finding(finding) for finding in fields["findings"]),
        }
    )
