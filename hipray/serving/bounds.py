"""The largest bodies of requests; this module loads no networks, so that the proxy may."""

from http import HTTPStatus

from hipray.serving.problems import ProblemError, reject

FORM_OVERHEAD_BYTES = 65_536
"""Bytes that a form may have beside its file: boundaries and part headers."""

MAX_JSON_BYTES = 16_384
"""Bytes of a JSON body; the longest uri is far below."""

MAX_BATCH_FILMS = 64
MAX_BATCH_JSON_BYTES = MAX_BATCH_FILMS * 4096
"""Bytes of a batch's JSON body: twice the longest uri and what may be stated for each film."""


def too_large(max_bytes: int) -> ProblemError:
    """Return the 413 that names the limit."""
    return reject(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body exceeds the limit of {max_bytes} bytes"
    )
