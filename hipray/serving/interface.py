"""What the OpenAPI document says: each operation with its bodies, answers and problems."""

from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, TypeAdapter

from hipray.answers import StudyAnswer
from hipray.releases.release import Release
from hipray.serving.access import BEARER
from hipray.serving.body import FILE_FIELD, FORM_TYPE, JSON_TYPE
from hipray.serving.bounds import MAX_BATCH_FILMS
from hipray.serving.clock import Step
from hipray.serving.films import ScoreRequest, Stated
from hipray.serving.paths import Path
from hipray.serving.problems import FILE_REFUSALS, PROBLEM_TYPE, ProblemCode

Schema = dict[str, Any]


FILE: Schema = {"type": "string", "format": "binary"}
BASE64: Schema = {"type": ["string", "null"], "contentEncoding": "base64"}
TIMINGS: Schema = {
    "type": "object",
    "description": "Milliseconds of each step; which there are depends on the graph.",
    "properties": {step.value: {"type": "number", "minimum": 0} for step in Step},
    "required": [Step.TOTAL.value],
    "additionalProperties": False,
}
PROBLEM_MEMBERS: Schema = {
    "title": {"type": "string"},
    "status": {"type": "integer"},
    "detail": {"type": "string"},
    "code": {"enum": [code.value for code in ProblemCode]},
}


def _object(required: Schema, **optional: Schema) -> Schema:
    members = {**required, **optional}
    return {"type": "object", "properties": members, "required": [*required]}


def _inline(schema: Schema) -> Schema:
    """A JSON schema with its definitions in place: OpenAPI has them elsewhere."""
    known = {f"#/$defs/{name}": body for name, body in schema.pop("$defs", {}).items()}

    def fill(node: Any) -> Any:
        if isinstance(node, dict):
            target = known.get(node.get("$ref", ""), {})
            merged = {k: fill(v) for k, v in (target | node).items() if k != "$ref"}
            if "prefixItems" in merged:  # tuples of one kind; many readers know lists only
                merged["items"] = merged.pop("prefixItems")[0]
            return merged
        return [fill(item) for item in node] if isinstance(node, list) else node

    filled: Schema = fill(schema)
    return filled


def _schema_of(model: type[BaseModel]) -> Schema:
    return _inline(model.model_json_schema())


def _form_fields() -> Schema:
    """What a form may state: a field is left out instead of being null."""
    fields: Schema = {}
    for name, told in _schema_of(Stated)["properties"].items():
        choices = [each for each in told.get("anyOf", [told]) if each.get("type") != "null"]
        fields[name] = {**choices[0], "description": told.get("description", "")}
    return fields


def _answer_schema() -> Schema:
    study = _inline(TypeAdapter(StudyAnswer).json_schema(mode="serialization"))
    region = study["properties"]["hips"]["items"]["properties"]["regions"]["items"]
    region["properties"] |= {
        "explanation": {
            "type": ["object", "null"],
            "properties": {
                "png": {"type": "string", "contentEncoding": "base64"},
                "method": {"type": "string"},
                "members": {"type": "integer"},
            },
        },
        "explanation_reason": {"type": ["string", "null"]},
    }
    return study


ANSWER = _answer_schema()
REQUEST_ID: Schema = {"type": "string", "format": "uuid"}
FILM_ANSWER: Schema = {
    **ANSWER,
    "properties": {
        **ANSWER["properties"],
        "request_id": REQUEST_ID,
        "timings_ms": TIMINGS,
        "overlay_png": BASE64,
        "dicom_sr": BASE64,
        "dicom_seg": BASE64,
    },
    "required": [*ANSWER["properties"], "request_id", "timings_ms"],
}
FILM_RESULT: Schema = {
    "oneOf": [
        _object({"answer": _object({**ANSWER["properties"], "timings_ms": TIMINGS})}),
        _object({"problem": _object(PROBLEM_MEMBERS)}),
    ]
}
PROBLEM: Schema = _object(
    {
        "type": {"type": "string"},
        **PROBLEM_MEMBERS,
        "request_id": REQUEST_ID,
        "research_notice": {"type": "string"},
    }
)
STATE: Schema = _object({"status": {"type": "string"}, "research_notice": {"type": "string"}})
READY: Schema = _object(
    {
        **STATE["properties"],
        "release": {"type": "string"},
        "release_digest": {"type": "string"},
    }
)
MODELS: Schema = _schema_of(Release)
MODELS["properties"]["digest"] = {"type": "string"}


def _switch(name: str, description: str) -> Schema:
    schema = {"type": "boolean", "default": False}
    return {"name": name, "in": "query", "description": description, "schema": schema}


FILM_REF: Schema = {"$ref": "#/components/schemas/Film"}
FILM: Schema = _schema_of(ScoreRequest)

SCORE: Schema = {
    "parameters": [
        _switch("overlay", "Add the hips with their contours as PNG, base64."),
        _switch("explain", "Add a Grad-CAM heat map of each region as PNG, base64."),
        _switch(
            "dicom",
            "Add a structured report and a segmentation as DICOM, base64; by default "
            "for films in the body only: they name the patient.",
        ),
    ],
    "requestBody": {
        "required": True,
        "content": {
            JSON_TYPE: {"schema": FILM_REF},
            FORM_TYPE: {
                "schema": {
                    **_object(
                        {FILE_FIELD: {"type": "string", "format": "binary"}}, **_form_fields()
                    ),
                    "additionalProperties": False,
                }
            },
        },
    },
}

BATCH: Schema = {
    "requestBody": {
        "required": True,
        "content": {
            JSON_TYPE: {
                "schema": {
                    **_object(
                        {
                            "films": {
                                "type": "array",
                                "minItems": 1,
                                "maxItems": MAX_BATCH_FILMS,
                                "items": {
                                    "anyOf": [FILM_REF, {"type": "object"}],
                                    "description": "One that is not as the body of a score "
                                    "request is a problem of that film alone.",
                                },
                            }
                        }
                    ),
                    "additionalProperties": False,
                    "example": {"films": [{"uri": "s3://bucket/key", "side": "left"}]},
                }
            }
        },
    }
}


@dataclass(frozen=True)
class Operation:
    """What the document says of one path, and under which name."""

    name: str
    answer: Schema | None
    """Schema of its JSON; None for plain text."""
    method: str = "GET"
    guarded: bool = False
    request: Schema = field(default_factory=dict)
    problems: tuple[int, ...] = (500, 503)

    def document(self, *, guarded: bool) -> Schema:
        """Return the operation object; `guarded` tells whether the service has tokens."""
        kind = "text/plain" if self.answer is None else JSON_TYPE
        body = {"schema": self.answer or {"type": "string"}}
        strangers = [401 if guarded else 421] if self.guarded else []
        statuses = [*self.problems, *strangers]
        told = {
            **self.request,
            "responses": {
                "200": {"description": "The answer.", "content": {kind: body}},
                **{str(s): RESPONSES.get(s, PROBLEM_RESPONSE) for s in sorted(statuses)},
            },
        }
        return {**told, "security": [{BEARER: []}]} if guarded and self.guarded else told


PROBLEM_RESPONSE: Schema = {
    "description": "A problem (RFC 9457).",
    "content": {PROBLEM_TYPE: {"schema": PROBLEM}},
}

NO_FILM_MEMBERS: Schema = {
    **FILM_ANSWER,
    "properties": {
        **PROBLEM["properties"],
        **FILM_ANSWER["properties"],
        "code": {"enum": sorted(FILE_REFUSALS)},
    },
    "required": sorted({*PROBLEM["required"], *FILM_ANSWER["required"]}),
}
NO_FILM_RESPONSE: Schema = {
    "description": "The file is no film: a problem (RFC 9457) with the answer's members beside it.",
    "content": {PROBLEM_TYPE: {"schema": NO_FILM_MEMBERS}},
}
TOO_LARGE_RESPONSE: Schema = {
    "description": "A problem (RFC 9457); with the answer's members where the film is too large "
    "and not its body.",
    "content": {PROBLEM_TYPE: {"schema": {"anyOf": [PROBLEM, NO_FILM_MEMBERS]}}},
}
RESPONSES = {413: TOO_LARGE_RESPONSE, 422: NO_FILM_RESPONSE}
"""Problems that say more than others."""

FILM_PROBLEMS = (400, 403, 404, 408, 409, 413, 415, 422, 500, 502, 503)
BATCH_ANSWER = _object(
    {
        "request_id": REQUEST_ID,
        "release_digest": {"type": "string"},
        "results": {"type": "array", "items": FILM_RESULT},
        "timings_ms": TIMINGS,
    }
)

OPERATIONS = {
    Path.SCORE: Operation("score", FILM_ANSWER, "POST", True, SCORE, FILM_PROBLEMS),
    Path.SCORE_BATCH: Operation(
        "score_batch", BATCH_ANSWER, "POST", True, BATCH, (400, 408, 413, 415, 500, 503)
    ),
    Path.MODELS: Operation("models", MODELS, guarded=True),
    Path.METRICS: Operation("metrics", None, guarded=True),
    Path.HEALTHZ: Operation("healthz", STATE),
    Path.READYZ: Operation("readyz", READY),
}


def describe_api(api: FastAPI, *, guarded: bool) -> None:
    """Make the document say how callers identify themselves, and what FastAPI adds by itself."""

    def build() -> Schema:
        if api.openapi_schema is None:
            document = get_openapi(
                title=api.title,
                version=api.version,
                description=api.description,
                routes=api.routes,
            )
            for methods in document["paths"].values():
                methods.pop("head", None)  # GET without a body: no operation of its own
            components = document.setdefault("components", {})
            components.setdefault("schemas", {})["Film"] = FILM
            if guarded:
                scheme = {"type": "http", "scheme": BEARER}
                components["securitySchemes"] = {BEARER: scheme}
            api.openapi_schema = document
        return api.openapi_schema

    api.openapi = build  # type: ignore[method-assign]
