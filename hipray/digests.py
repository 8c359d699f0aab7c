"""Content digests: what makes two pieces of work the same work."""

import hashlib
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel


def digest_bytes(data: bytes) -> str:
    """Return the sha256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """Return the sha256 of `value` as canonical JSON (sorted keys; models by their fields)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_as_json)
    return digest_bytes(text.encode())


def _as_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"no canonical JSON for {type(value).__name__}")


@cache
def source_digest(*packages: str) -> str:
    """Return one digest of the Python source below the named packages of hipray.

    A finished fit is reused only while the code that shaped it is the same.
    """
    total = hashlib.sha256()
    for package in sorted(packages):
        root = Path(str(resources.files("hipray") / package))
        files = [root.with_suffix(".py")] if not root.is_dir() else sorted(root.rglob("*.py"))
        for path in files:
            total.update(f"{package}/{path.name}\0".encode() + path.read_bytes())
    return total.hexdigest()
