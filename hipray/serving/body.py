"""Reading a request: a film from the body or its address, never more bytes than allowed.

The limit counts while the body arrives, and nothing of a film is written to disk.
"""

import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from http import HTTPStatus
from typing import Any

from pydantic import Field, ValidationError
from starlette.datastructures import FormData, Headers, QueryParams, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from hipray.config.base import Config
from hipray.dicom_objects import can_write
from hipray.serving.admission import Lane
from hipray.serving.bounds import (
    FORM_OVERHEAD_BYTES,
    MAX_BATCH_FILMS,
    MAX_BATCH_JSON_BYTES,
    MAX_JSON_BYTES,
    too_large,
)
from hipray.serving.films import FilmRequest, ScoreRequest, Stated, UploadedFilm
from hipray.serving.messages import Extras
from hipray.serving.problems import reject

JSON_TYPE = "application/json"
FORM_TYPE = "multipart/form-data"
FILE_FIELD = "file"
STATED_WORDS = (
    "'side' (left, right, unknown), 'sex' (female, male, unknown), 'age' in years, 'weight_kg' and "
    "'height_cm', and nothing else"
)

SWITCH = {"true": True, "false": False}
"""The values of a switch."""

SWITCHES = tuple(switch.name for switch in fields(Extras))
"""What a request's query may turn on."""


class BatchRequest(Config):
    """The JSON body of a batch request."""

    films: tuple[dict[str, Any], ...] = Field(min_length=1, max_length=MAX_BATCH_FILMS)
    """Each as the body of a score request; one that is not is a problem of that film alone."""


class _MemoryParser(MultiPartParser):
    spool_max_size = sys.maxsize  # films stay in memory: a temporary file would outlive a crash


def choose_lane(request: Request) -> Lane:
    """Return the line for a request: JSON names films, whatever else is read has one."""
    return Lane.NAMED if _content_type(request) == JSON_TYPE else Lane.SENT


async def read_request(request: Request, *, max_file_bytes: int) -> FilmRequest:
    """Return the address that a request names, or the film that it carries.

    Raises ProblemError: 400 for a malformed body, 413 for one that is too large, 415 for one of
    another type.
    """
    _refuse_coding(request)
    kind = _content_type(request)
    if kind == JSON_TYPE:
        return await _read_json(request)
    if kind == FORM_TYPE:
        return await _read_form(request, max_file_bytes)
    raise reject(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        f"send {JSON_TYPE} with a uri, or {FORM_TYPE} with the field '{FILE_FIELD}'",
    )


def read_extras(query: QueryParams) -> Extras:
    """Return what a request's query asks for beside the numbers; raises ProblemError (400)."""
    refuse_query({name: value for name, value in query.items() if name not in SWITCHES})
    if len(query.multi_items()) > len(query):
        raise reject(HTTPStatus.BAD_REQUEST, f"a query says each of {', '.join(SWITCHES)} once")
    try:
        asked = {name: SWITCH[query.get(name, "false")] for name in SWITCHES}
    except KeyError:
        raise reject(
            HTTPStatus.BAD_REQUEST, f"{', '.join(SWITCHES)} are either 'true' or 'false'"
        ) from None
    if asked["dicom"] and not can_write():
        raise reject(HTTPStatus.BAD_REQUEST, "this service is installed without hipray[dicomweb]")
    return Extras(**asked)


def refuse_query(query: Mapping[str, str]) -> None:
    """Raise ProblemError (400) where a query asks for anything: it would be left out silently."""
    if query:
        raise reject(
            HTTPStatus.BAD_REQUEST,
            f"the query of one film may have {', '.join(SWITCHES)} and nothing else, that of "
            "a batch nothing",
        )


async def _read_json(request: Request) -> ScoreRequest:
    chunks = [chunk async for chunk in limit_body(request, MAX_JSON_BYTES)]
    with _explain_film():
        return ScoreRequest.model_validate_json(b"".join(chunks), strict=True)


def parse_film(fields: Mapping[str, Any]) -> ScoreRequest:
    """Return one film of a batch; raises ProblemError (400)."""
    with _explain_film():
        return ScoreRequest.model_validate_json(json.dumps(fields), strict=True)


@contextmanager
def _explain_film() -> Iterator[None]:
    try:
        yield
    except ValidationError:
        raise reject(
            HTTPStatus.BAD_REQUEST,
            'a film is {"uri": "s3://bucket/key"} and may state ' + STATED_WORDS,
        ) from None


async def read_batch(request: Request) -> BatchRequest:
    """Return the films that a batch request names; raises ProblemError (400, 413, 415)."""
    _refuse_coding(request)
    if _content_type(request) != JSON_TYPE:
        raise reject(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {JSON_TYPE} with a list of films")
    chunks = [chunk async for chunk in limit_body(request, MAX_BATCH_JSON_BYTES)]
    try:
        return BatchRequest.model_validate_json(b"".join(chunks))
    except ValidationError:
        raise reject(
            HTTPStatus.BAD_REQUEST,
            'the body must be {"films": [{"uri": "s3://bucket/key"}, ...]} with 1 to '
            f"{MAX_BATCH_FILMS} films",
        ) from None


def _refuse_coding(request: Request) -> None:
    """Raise ProblemError (415) for a packed body (RFC 9110, 8.4): it may unpack without a bound."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise reject(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send the body as it is, without Content-Encoding"
        )


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read_form(request: Request, max_file_bytes: int) -> UploadedFilm:
    body = limit_body(request, max_file_bytes, overhead=FORM_OVERHEAD_BYTES)
    form = await _parse_form(request.headers, body)
    try:
        film = form.get(FILE_FIELD)
        if not isinstance(film, UploadFile) or len(form.getlist(FILE_FIELD)) != 1:
            raise reject(
                HTTPStatus.BAD_REQUEST, f"the form must have one file, in the field '{FILE_FIELD}'"
            )
        if (film.size or 0) > max_file_bytes:
            raise too_large(max_file_bytes)
        return UploadedFilm(await film.read(), _read_stated(form))
    finally:
        await form.close()


def _read_stated(form: FormData) -> Stated:
    given = [(name, value) for name, value in form.multi_items() if name != FILE_FIELD]
    fields = dict(given)
    if len(fields) < len(given):
        raise reject(HTTPStatus.BAD_REQUEST, "the form states a fact twice")
    try:
        return Stated.model_validate(fields)
    except ValidationError:
        raise reject(
            HTTPStatus.BAD_REQUEST, f"beside '{FILE_FIELD}' the form may state {STATED_WORDS}"
        ) from None


async def _parse_form(headers: Headers, body: AsyncGenerator[bytes, None]) -> FormData:
    try:
        return await _MemoryParser(
            headers, body, max_files=1, max_fields=len(Stated.model_fields)
        ).parse()
    except (MultiPartException, ValueError, LookupError):  # the latter: its charset
        raise reject(
            HTTPStatus.BAD_REQUEST, f"the form is malformed; send one file in '{FILE_FIELD}'"
        ) from None


async def limit_body(
    request: Request, max_bytes: int, *, overhead: int = 0
) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives; raises ProblemError (413) with the first byte beyond.

    `overhead` is what the body may have beside the content that `max_bytes` speaks of.
    """
    refuse_announced(request, max_bytes, overhead=overhead)
    received = 0
    async for chunk in _stream(request):
        received += len(chunk)
        if received > max_bytes + overhead:
            raise too_large(max_bytes)
        yield chunk


def refuse_announced(request: Request, max_bytes: int, *, overhead: int) -> None:
    """Raise ProblemError (413) where the length that a request states is beyond the limit."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes + overhead:
        raise too_large(max_bytes)


async def _stream(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise reject(HTTPStatus.BAD_REQUEST, "the body ended early") from None
