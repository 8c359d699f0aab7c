"""Comparing answers: numbers within the tolerance of equal runtimes, all else exactly."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

TOLERANCE = 1e-5


def without_request(answer: httpx.Response) -> dict[str, Any]:
    """Return an answer less what differs between two equal requests."""
    assert answer.status_code == 200, answer.text
    return {k: v for k, v in answer.json().items() if k not in ("request_id", "timings_ms")}


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from flatten(inner, f"{path}/{key}")
    else:
        yield path, value


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    ours, theirs = dict(flatten(found)), dict(flatten(json.loads(json.dumps(wanted))))
    assert ours.keys() == theirs.keys()
    for path, value in theirs.items():
        if isinstance(value, float):
            assert ours[path] == pytest.approx(value, abs=TOLERANCE), path
        else:
            assert ours[path] == value, path
