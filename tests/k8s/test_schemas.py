"""The schemas of operators' kinds are what their CRDs say, unknown fields refused."""

import json
import os
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.k8s.derive_schemas import TARGET, derive, strict

CRDS = "HIPRAY_CRDS"
"""Folder of the CRD files that derive_schemas.py names: they are not part of this repository."""


def test_the_schemas_are_what_derives_from_the_crds() -> None:
    if CRDS not in os.environ:
        pytest.skip(f"{CRDS} names no folder of CRD files")
    paths = sorted(Path(os.environ[CRDS]).glob("*.yaml"))
    derived = derive([yaml.safe_load(path.read_text("utf-8")) for path in paths])
    written = json.loads(TARGET.read_text("utf-8"))
    assert derived == {key: written[key] for key in written if key != "about"}


SPEC = {
    "type": "object", "required": ["replicas", "name"],
    "properties": {
        "replicas": {"type": "integer", "default": 1, "description": "how many"},
        "name": {"type": "string", "nullable": True},
        "port": {"type": "string", "x-kubernetes-int-or-string": True},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}  # fmt: skip
"""A spec as a CRD writes it: what is required and has a default may be left out."""


@pytest.mark.parametrize(
    ("spec", "taken"),
    [
        ({"name": "a", "replicas": 2, "port": 80, "labels": {"any": "thing"}}, True),
        ({"name": None}, True),
        ({"replicas": 2}, False),
        ({"name": "a", "replica": 2}, False),
        ({"name": "a", "replicas": "2"}, False),
        ({"name": "a", "labels": {"any": 1}}, False),
    ],
)
def test_a_derived_schema_takes_what_the_api_server_takes(
    spec: dict[str, object], taken: bool
) -> None:
    assert Draft202012Validator(strict(SPEC)).is_valid(spec) is taken
