"""What the OpenAPI document says of the bodies and parameters of the interface."""

from typing import Any

from pydantic import BaseModel

from hipray.serving.body import (
    FILE_FIELD,
    FORM_TYPE,
    JSON_TYPE,
    MAX_BATCH_FILMS,
    ScoreRequest,
    Stated,
)


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a model with its definitions in place: OpenAPI has them elsewhere."""
    schema = model.model_json_schema()
    known = {f"#/$defs/{name}": body for name, body in schema.pop("$defs", {}).items()}

    def fill(node: Any) -> Any:
        if isinstance(node, dict):
            target = known.get(node.get("$ref", ""), {})
            return {k: fill(v) for k, v in (target | node).items() if k != "$ref"}
        return [fill(item) for item in node] if isinstance(node, list) else node

    filled: dict[str, Any] = fill(schema)
    return filled


def _switch(name: str, description: str) -> dict[str, Any]:
    schema = {"type": "boolean", "default": False}
    return {"name": name, "in": "query", "description": description, "schema": schema}


SCORE = {
    "parameters": [
        _switch("overlay", "Add the hips with their contours as PNG, base64."),
        _switch("explain", "Add a Grad-CAM heat map of each region as PNG, base64."),
    ],
    "requestBody": {
        "required": True,
        "content": {
            JSON_TYPE: {"schema": _schema_of(ScoreRequest)},
            FORM_TYPE: {
                "schema": {
                    "type": "object",
                    "properties": {
                        FILE_FIELD: {"type": "string", "format": "binary"},
                        **_schema_of(Stated)["properties"],
                    },
                    "required": [FILE_FIELD],
                }
            },
        },
    },
}

BATCH = {
    "requestBody": {
        "required": True,
        "content": {
            JSON_TYPE: {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["films"],
                    "properties": {
                        "films": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": MAX_BATCH_FILMS,
                            "items": _schema_of(ScoreRequest),
                        }
                    },
                }
            }
        },
    }
}
