"""The compact form in which decoded films travel to the model: JSON notes and grey values.

A film's header, with the patient's id in it, stays where the film was decoded: what travels may be
spilled to a disk. Nothing is unpickled.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from hipray.data.framing import Pixels
from hipray.data.images import ReadResult
from hipray.data.person import Person
from hipray.data.transport import describe_hip, describe_refusal, restore_hip, restore_refusal
from hipray.scoring.films import ReadFilm
from hipray.scoring.shards import Entry
from hipray.vocab import Sex


def pack_films(films: Sequence[ReadFilm]) -> tuple[str, bytes]:
    """Return films as JSON notes and the grey values of all their hips, one after the other."""
    hips = (hip for film in films for hip in film.result.hips)
    pixels = b"".join(np.ascontiguousarray(hip.pixels).tobytes() for hip in hips)
    return json.dumps([_describe_film(film) for film in films]), pixels


def unpack_films(notes: str, pixels: bytes | memoryview) -> list[ReadFilm]:
    """Return the films that `pack_films` packed, their pixels read-only views of `pixels`."""
    films = json.loads(notes)
    counts = [
        hip["geometry"]["height"] * hip["geometry"]["width"] for f in films for hip in f["hips"]
    ]
    hip_pixels = _cut_pixels(pixels, counts)
    return [_restore_film(film, hip_pixels) for film in films]


def _cut_pixels(pixels: bytes | memoryview, counts: Sequence[int]) -> Iterator[Pixels]:
    start = 0
    for count in counts:
        yield np.frombuffer(pixels, np.uint8, count=count, offset=start)
        start += count


def _describe_film(film: ReadFilm) -> dict[str, Any]:
    return {
        "entry": asdict(film.entry),
        "etag": film.etag,
        "file_id": film.file_id,
        "patient_id": film.patient_id,
        "person": asdict(film.person),
        "fetch_seconds": film.fetch_seconds,
        "decode_seconds": film.decode_seconds,
        "refusal": describe_refusal(film.result.refusal),
        "hips": [describe_hip(hip) for hip in film.result.hips],
    }


def _restore_film(note: dict[str, Any], pixels: Iterator[Pixels]) -> ReadFilm:
    entry = Entry(**note["entry"])
    result = ReadResult(
        entry.key,
        tuple(restore_hip(hip, next(pixels)) for hip in note["hips"]),
        refusal=restore_refusal(note["refusal"]),
    )
    person = Person(**{**note["person"], "sex": Sex(note["person"]["sex"])})
    return ReadFilm(
        entry=entry,
        etag=note["etag"],
        file_id=note["file_id"],
        patient_id=note["patient_id"],
        person=person,
        result=result,
        fetch_seconds=note["fetch_seconds"],
        decode_seconds=note["decode_seconds"],
    )
