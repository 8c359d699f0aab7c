"""Derive `schemas.json` from CRD files: python -m tests.k8s.derive_schemas CRD.yaml ...

Takes the CRDs of KubeRay v1.7.0 (ray-project/kuberay, ray-operator/config/crd/bases) and of the
Prometheus operator (prometheus-operator/prometheus-operator), both under Apache-2.0. What comes
out is plain JSON Schema: no descriptions, unknown fields refused as `kubectl --validate=strict`
does, and each subtree that occurs more than once kept once under `$defs`.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

TARGET = Path(__file__).with_name("schemas.json")
KINDS = ("RayCluster", "RayJob", "RayService", "PodMonitor", "PrometheusRule")
CORE = {"PodTemplateSpec": "headGroupSpec.template"}
"""Core Kubernetes types that the RayCluster schema contains, by where they stand in its spec."""

NESTED = ("items", "additionalProperties", "not")
LISTS = ("allOf", "anyOf", "oneOf")
PLAIN = ("type", "enum", "format", "pattern", "minimum", "maximum", "minLength", "maxLength",
         "minItems", "maxItems", "maxProperties", "minProperties", "uniqueItems")  # fmt: skip
SHARED_CHARACTERS = 400
"""Subtrees shorter than this are cheaper to repeat than to name."""


def strict(node: dict[str, Any]) -> dict[str, Any]:
    """Return a structural schema as JSON Schema in which unknown fields are an error."""
    out = {key: node[key] for key in PLAIN if key in node}
    for key in NESTED:
        if isinstance(node.get(key), dict):
            out[key] = strict(node[key])
    for key in LISTS:
        if key in node:
            out[key] = [strict(each) for each in node[key]]
    properties = node.get("properties")
    if properties is not None:
        out["properties"] = {name: strict(each) for name, each in properties.items()}
        if not node.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in (
            node
        ):
            out["additionalProperties"] = False
    required = [
        n for n in node.get("required", []) if "default" not in (properties or {}).get(n, {})
    ]
    if required:
        out["required"] = required
    if node.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
    if node.get("nullable") and "type" in out:
        out["type"] = [out["type"], "null"]
    return out


def _subtrees(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        text = json.dumps(node, sort_keys=True)
        if len(text) >= SHARED_CHARACTERS and ("properties" in node or "items" in node):
            yield text
        for each in node.values():
            yield from _subtrees(each)
    elif isinstance(node, list):
        for each in node:
            yield from _subtrees(each)


def _share(node: Any, names: dict[str, str], *, top: bool = False) -> Any:
    if isinstance(node, list):
        return [_share(each, names) for each in node]
    if not isinstance(node, dict):
        return node
    name = names.get(json.dumps(node, sort_keys=True))
    if name and not top:
        return {"$ref": f"#/$defs/{name}"}
    return {key: _share(each, names) for key, each in node.items()}


def _at(node: dict[str, Any], path: str) -> dict[str, Any]:
    for part in path.split("."):
        node = node["items"] if part == "[]" else node["properties"][part]
    return node


def derive(crds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the kinds' spec schemas and the core types, with shared subtrees under `$defs`."""
    specs = {}
    for crd in crds:
        kind, version = crd["spec"]["names"]["kind"], crd["spec"]["versions"][0]
        if kind in KINDS:
            specs[kind] = strict(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
    specs |= {name: _at(specs["RayCluster"], path) for name, path in CORE.items()}
    found = Counter(text for spec in specs.values() for text in _subtrees(spec))
    shared = sorted(
        (text for text, times in found.items() if times > 1), key=lambda t: (-len(t), t)
    )
    names = {text: f"s{number}" for number, text in enumerate(shared)}
    definitions = {name: _share(json.loads(text), names, top=True) for text, name in names.items()}
    return {
        "kinds": {k: _share(s, names, top=True) for k, s in specs.items()},
        "$defs": definitions,
    }


def main(paths: list[str]) -> None:
    """Write `schemas.json` from the CRD files."""
    derived = derive([yaml.safe_load(Path(path).read_text("utf-8")) for path in paths])
    about = {
        "source": "KubeRay v1.7.0 and Prometheus operator CRDs, Apache-2.0; see derive_schemas.py"
    }
    lines = json.dumps({"about": about, **derived}, separators=(",", ":"), sort_keys=True)
    TARGET.write_text(lines.replace(',"s', ',\n"s') + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
