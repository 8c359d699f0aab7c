"""Whether an answer is what the OpenAPI document says, with every member that it has."""

from functools import cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker

from hipray.serving.interface import OPERATIONS
from hipray.serving.paths import Path


def assert_documented(answer: httpx.Response) -> None:
    """Check status, type and body of an answer of the interface; others are not described."""
    asked = answer.request
    if asked.url.path not in {*Path} or asked.method != OPERATIONS[Path(asked.url.path)].method:
        return
    path, kind = Path(asked.url.path), answer.headers["content-type"].partition(";")[0]
    known = described(path)
    assert (answer.status_code, kind) in known, f"{path} does not say that it answers so"
    validator = known[answer.status_code, kind]
    if validator is not None:
        validator.validate(answer.json())


@cache
def described(path: Path) -> dict[tuple[int, str], Draft202012Validator | None]:
    """Return by status and type what the body must be; None for plain text."""
    responses: dict[str, Any] = {}
    for guarded in (False, True):
        responses |= OPERATIONS[path].document(guarded=guarded)["responses"]
    return {
        (int(status), kind): _validator_of(body["schema"]) if kind.endswith("json") else None
        for status, response in responses.items()
        for kind, body in response["content"].items()
    }


def _validator_of(schema: dict[str, Any]) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(_close(schema), format_checker=FormatChecker())


def _close(node: Any) -> Any:
    """The schema with no members but those that it names."""
    if isinstance(node, list):
        return [_close(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _close(value) for key, value in node.items()}
    return {"additionalProperties": False, **closed} if "properties" in node else closed
