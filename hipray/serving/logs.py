"""What a replica logs: one JSON object per line on stderr, where Ray keeps it.

A traceback is told by its frames and the kinds of its errors: their texts may quote a file's
values or an address, which may name a patient.
"""

import json
import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

TOLD = "told"
"""The attribute of a record whose members go into the line as they are."""

CURRENT_REQUEST: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that a task of the ingress works on; empty outside of one. Tasks that
outlive a request may have been started by one, so lines state an id only where it is theirs."""

ROOT = logging.getLogger("hipray")


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, TOLD, {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = describe_error(record.exc_info[1])
        return json.dumps(line)


def describe_error(error: BaseException) -> list[dict[str, Any]]:
    """Return the kind and frames of an error and of those that led to it, the last one first."""
    chain: list[dict[str, Any]] = []
    current: BaseException | None = error
    while current is not None and len(chain) < 8:
        frames = traceback.extract_tb(current.__traceback__)
        told = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        chain.append({"kind": type(current).__name__, "frames": told})
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )
    return chain


def open_logs() -> None:
    """Send what hipray logs in this process to stderr as JSON, once."""
    if any(isinstance(handler.formatter, JsonFormatter) for handler in ROOT.handlers):
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    ROOT.addHandler(handler)
    ROOT.setLevel(logging.INFO)
    ROOT.propagate = False
    # its remarks on malformed forms are lines of plain text, and the answer says the same
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
