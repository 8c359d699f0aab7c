"""The reference of the interface for people at `/docs`: the OpenAPI document as one plain page.

FastAPI's own pages load scripts from other hosts; this one loads nothing.
"""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from hipray import RESEARCH_NOTICE
from hipray.serving.page import Page, hash_of

STYLE = """
:root { color-scheme: light dark; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid; border-radius: .375rem; }
section { margin-top: 2rem; border-top: 1px solid; }
summary { cursor: pointer; }
"""


def build_reference(document: dict[str, Any]) -> Page:
    """Return the page of an OpenAPI document."""
    parts = [
        part
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for part in _describe(f"{method.upper()} {path}", operation)
    ]
    for name, schema in document.get("components", {}).get("schemas", {}).items():
        parts.append(_fold(f"#/components/schemas/{name}", schema))
    title = f"{escape(document['info']['title'])} {escape(document['info']['version'])}"
    html = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}: interface</title><style>{STYLE}</style></head><body>"
        f"<h1>{title}: interface</h1><p><strong>{escape(RESEARCH_NOTICE)}</strong></p>"
        '<p>For programs: <a href="openapi.json">openapi.json</a> (OpenAPI 3.1).</p>'
        f"{''.join(parts)}</body></html>"
    )
    return Page(
        html,
        f"default-src 'none'; style-src {hash_of(html, 'style')}; base-uri 'none'; "
        "frame-ancestors 'none'",
    )


def _describe(name: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<section><h2><code>{escape(name)}</code></h2>"
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    if operation.get("security"):
        yield "<p>Needs <code>Authorization: Bearer TOKEN</code>.</p>"
    for parameter in operation.get("parameters", []):
        words = f"{parameter['in']} <code>{escape(parameter['name'])}</code>"
        yield f"<p>{words}: {escape(parameter.get('description', ''))}</p>"
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        yield _fold(f"Send {kind}", body["schema"])
    for status, response in operation["responses"].items():
        for kind, body in response.get("content", {}).items():
            yield _fold(f"{status} {response['description']} ({kind})", body["schema"])
    yield "</section>"


def _fold(title: str, schema: dict[str, Any]) -> str:
    text = escape(json.dumps(schema, indent=1))
    return f"<details><summary>{escape(title)}</summary><pre>{text}</pre></details>"
