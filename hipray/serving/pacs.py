"""Films that callers name in an allow-listed archive, fetched by WADO-RS (DICOM PS3.18, 10.4).

A caller chooses an archive by its configured name and a film by its UIDs, which are digits and
dots: no part of an address is theirs, and no redirect is followed.
"""

import math
import random
import re
import ssl
import time
from collections.abc import Sequence
from email.message import Message
from functools import cache
from http import HTTPStatus
from pathlib import Path

import httpx
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from hipray.config.serving import Pacs
from hipray.errors import (
    AccessDeniedError,
    ConfigError,
    NotFoundError,
    StorageError,
    StoreUnavailableError,
)
from hipray.serving.problems import reject
from hipray.storage import ObjectTooLargeError

DICOMWEB_SCHEME = "dicomweb://"
FILM_FORM = f"{DICOMWEB_SCHEME}NAME/STUDY/SERIES/FILM"

UID = re.compile(r"(?=.{1,64}$)(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
"""A DICOM unique identifier (PS3.5, 9.1)."""

ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'

ATTEMPTS = 3
FIRST_WAIT_S = 0.2
"""First wait before an archive that is busy is asked again; it doubles, with jitter."""

TRANSFER_S = 60.0
"""Seconds within which all of a film must arrive: its read timeout begins anew with each byte."""

LEAST_S = 0.001
"""Shortest time limit that the HTTP client is given: it takes none that is over."""

ENVELOPE_BYTES = 65_536
"""Bytes of boundaries and headers round one film."""

PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
DENIED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class PacsSource:
    """Reads films of the archives that callers may name."""

    def __init__(self, archives: Sequence[Pacs], *, max_bytes: int) -> None:
        """Raises ConfigError for two archives of one name."""
        self._archives = {archive.name: archive for archive in archives}
        if len(self._archives) < len(archives):
            raise ConfigError("archives of different names in pacs", "a name twice", "rename one")
        self._max_bytes = max_bytes

    def read(self, uri: str, *, timeout_s: float | None = None) -> bytes:
        """Return one film; raises ProblemError where it may not be named, and StorageError.

        An archive that does not answer is given up after `timeout_s`.
        """
        archive, address = self.find(uri)
        until = time.monotonic() + (math.inf if timeout_s is None else timeout_s)
        for attempt in range(ATTEMPTS - 1):
            try:
                return self._fetch(archive, address, until)
            except StoreUnavailableError:
                wait_s = random.uniform(0, FIRST_WAIT_S * 2**attempt)
                if time.monotonic() + wait_s >= until:
                    raise
                time.sleep(wait_s)
        return self._fetch(archive, address, until)

    def find(self, uri: str) -> tuple[Pacs, str]:
        """Return the archive of a uri and the address of its film there; raises ProblemError."""
        name, *uids = uri.removeprefix(DICOMWEB_SCHEME).split("/")
        if len(uids) != 3 or not all(map(UID.fullmatch, uids)):
            raise reject(HTTPStatus.BAD_REQUEST, f"the uri must have the form {FILM_FORM}")
        archive = self._archives.get(name)
        if archive is None:
            raise reject(HTTPStatus.FORBIDDEN, "this service may not read from this archive")
        study, series, instance = uids
        path = f"studies/{study}/series/{series}/instances/{instance}"
        return archive, f"{archive.url.rstrip('/')}/{path}"

    def _fetch(self, archive: Pacs, address: str, until: float) -> bytes:
        left_s = max(LEAST_S, until - time.monotonic())
        timeout = httpx.Timeout(
            min(archive.read_timeout_s, left_s), connect=min(archive.connect_timeout_s, left_s)
        )
        headers = {"accept": ACCEPT, **_authorize(archive)}
        try:
            # no proxy of the environment: it would read what is asked for, and the authorization
            with httpx.stream(
                "GET", address, headers=headers, timeout=timeout,
                trust_env=False, verify=_trusted(),
            ) as answer:  # fmt: skip
                _check_status(answer, archive)
                return self._receive(answer, archive, min(until, time.monotonic() + TRANSFER_S))
        except httpx.HTTPError as error:
            raise StoreUnavailableError(
                f"an answer of archive {archive.name}", type(error).__name__, "try again later"
            ) from None

    def _receive(self, answer: httpx.Response, archive: Pacs, until: float) -> bytes:
        body = bytearray()
        for chunk in answer.iter_bytes():
            body += chunk
            if time.monotonic() > until:
                raise StoreUnavailableError(
                    f"a film of archive {archive.name} in time", "a trickle", "try again later"
                )
            if len(body) > self._max_bytes + ENVELOPE_BYTES:
                raise self._too_large(archive)
        film = open_envelope(bytes(body), answer.headers.get("content-type", ""), archive.name)
        if len(film) > self._max_bytes:
            raise self._too_large(archive)
        return film

    def _too_large(self, archive: Pacs) -> ObjectTooLargeError:
        found = f"a larger one in archive {archive.name}"
        return ObjectTooLargeError(f"a film of {self._max_bytes} bytes", found, "raise the limit")


@cache
def _trusted() -> ssl.SSLContext:
    """The authorities of SSL_CERT_FILE or SSL_CERT_DIR where those are set."""
    return httpx.create_ssl_context()


def open_envelope(body: bytes, content_type: str, archive: str) -> bytes:
    """Return the one film of a multipart/related body; raises StorageError."""
    message = Message()
    message["content-type"] = content_type
    boundary = message.get_param("boundary")
    if message.get_content_type() == "application/dicom":
        return body
    films: list[bytearray] = []
    callbacks = {
        "on_part_begin": lambda: films.append(bytearray()),
        "on_part_data": lambda data, start, end: films[-1].extend(data[start:end]),
    }
    try:
        if isinstance(boundary, str):
            parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
            parser.write(body)
            parser.finalize()
    except MultipartParseError:
        films = []
    if len(films) != 1:
        raise StorageError(
            f"one film in an envelope from archive {archive}", f"{len(films)}", "see its settings"
        )
    return bytes(films[0])


def _authorize(archive: Pacs) -> dict[str, str]:
    if archive.authorization_file is None:
        return {}
    try:
        return {"authorization": Path(archive.authorization_file).read_text("ascii").strip()}
    except (OSError, UnicodeError) as error:
        raise AccessDeniedError(
            f"the authorization for archive {archive.name} in ASCII",
            getattr(error, "strerror", None) or type(error).__name__,
            "write the file",
        ) from None


def _check_status(answer: httpx.Response, archive: Pacs) -> None:
    status, asked = answer.status_code, f"a film of archive {archive.name}"
    if status == HTTPStatus.OK:
        return
    if status == HTTPStatus.NOT_FOUND:
        raise NotFoundError(asked, "none of these UIDs", "check them")
    if status in DENIED:
        raise AccessDeniedError(asked, f"status {status}", "check its authorization_file")
    if status in PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise StoreUnavailableError(asked, f"status {status}", "try again later")
    raise StorageError(asked, f"status {status}", "see the archive's settings")
