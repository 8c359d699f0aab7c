"""Schemas of every kind in k8s/, unknown fields refused: kinds of operators are derived from their
CRDs (schemas.json), Kubernetes' own are written here as the closed list of fields that are used."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
TEXTS: Schema = {"type": "array", "items": TEXT}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
WORDS: Schema = {"type": "object", "additionalProperties": TEXT}
PORT: Schema = {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65535}, TEXT]}
POD: Schema = {"$ref": "#/kinds/PodTemplateSpec"}


def one_of(*values: str) -> Schema:
    """Return a schema of fixed words."""
    return {"enum": list(values)}


def array(items: Schema) -> Schema:
    """Return a schema of a list with at least one entry."""
    return {"type": "array", "items": items, "minItems": 1}


def closed(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """Return a schema of a mapping without other keys."""
    return {
        "type": "object", "properties": properties, "required": list(required),
        "additionalProperties": False,
    }  # fmt: skip


META = closed(("name",), name=TEXT, namespace=TEXT, labels=WORDS, annotations=WORDS)
EXPRESSION = closed(
    ("key", "operator"), key=TEXT, operator=one_of("In", "NotIn", "Exists", "DoesNotExist"),
    values=TEXTS,
)  # fmt: skip
SELECTOR = closed(matchLabels=WORDS, matchExpressions=array(EXPRESSION))
PEER = closed(
    podSelector=SELECTOR,
    namespaceSelector=SELECTOR,
    ipBlock=closed(("cidr",), cidr=TEXT, **{"except": TEXTS}),
)
POLICY_PORT = closed(("protocol", "port"), protocol=one_of("TCP", "UDP"), port=PORT)
CLAIM = closed(
    ("accessModes", "resources"), accessModes={"const": ["ReadWriteOnce"]},
    resources=closed(("requests",), requests=closed(
        ("storage",), storage={"type": "string", "pattern": r"^[1-9]\d*[GT]i$"}
    )),
)  # fmt: skip
"""A disk of one node, which is all that Redis and MinIO can use."""
BACKEND = closed(
    ("service",),
    service=closed(("name", "port"), name=TEXT, port=closed(("number",), number=COUNT)),
)
JOB = closed(
    ("template",), backoffLimit=COUNT, activeDeadlineSeconds=COUNT, template=POD,
    ttlSecondsAfterFinished=COUNT,
    podFailurePolicy=closed(("rules",), rules=array(closed(
        ("action",), action=one_of("FailJob", "Ignore", "Count"),
        onExitCodes=closed(
            ("operator", "values"), containerName=TEXT, operator=one_of("In", "NotIn"),
            values=array({"type": "integer"}),
        ),
        onPodConditions=array(closed(("type",), type=TEXT, status=one_of("True", "False"))),
    ))),
)  # fmt: skip

CORE: dict[tuple[str, str], Schema] = {
    ("v1", "Namespace"): {},
    ("v1", "ConfigMap"): {"data": WORDS},
    ("v1", "ServiceAccount"): {
        "automountServiceAccountToken": FLAG,
        "imagePullSecrets": array(closed(("name",), name=TEXT)),
    },
    ("v1", "Service"): {"spec": closed(
        ("selector", "ports"), clusterIP=one_of("None"), selector=WORDS,
        ports=array(closed(("port",), name=TEXT, port=PORT, targetPort=PORT)),
    )},
    ("v1", "PersistentVolumeClaim"): {"spec": CLAIM},
    ("apps/v1", "StatefulSet"): {"spec": closed(
        ("serviceName", "selector", "template"), serviceName=TEXT, replicas=COUNT,
        selector=SELECTOR, template=POD,
        volumeClaimTemplates=array(closed(metadata=closed(name=TEXT), spec=CLAIM)),
    )},
    ("apps/v1", "Deployment"): {"spec": closed(
        ("selector", "template"), replicas=COUNT, selector=SELECTOR, template=POD,
        strategy=closed(type=one_of("Recreate", "RollingUpdate")),
    )},
    ("batch/v1", "Job"): {"spec": JOB},
    ("batch/v1", "CronJob"): {"spec": closed(
        ("schedule", "jobTemplate"), schedule=TEXT, timeZone=TEXT, suspend=FLAG,
        concurrencyPolicy=one_of("Allow", "Forbid", "Replace"), startingDeadlineSeconds=COUNT,
        successfulJobsHistoryLimit=COUNT, failedJobsHistoryLimit=COUNT,
        jobTemplate=closed(("spec",), spec=JOB),
    )},
    ("policy/v1", "PodDisruptionBudget"): {"spec": closed(
        ("selector",), maxUnavailable=COUNT, minAvailable=COUNT, selector=SELECTOR
    )},
    ("networking.k8s.io/v1", "NetworkPolicy"): {"spec": closed(
        ("podSelector", "policyTypes"), podSelector=SELECTOR,
        policyTypes=array(one_of("Ingress", "Egress")),
        ingress=array(closed(("from",), ports=array(POLICY_PORT), **{"from": array(PEER)})),
        egress=array(closed(ports=array(POLICY_PORT), to=array(PEER))),
    )},
    ("networking.k8s.io/v1", "Ingress"): {"spec": closed(
        ("tls", "rules"), ingressClassName=TEXT,
        tls=array(closed(("hosts", "secretName"), hosts=TEXTS, secretName=TEXT)),
        rules=array(closed(("host", "http"), host=TEXT, http=closed(("paths",), paths=array(
            closed(
                ("path", "pathType", "backend"), path=TEXT, pathType=one_of("Prefix", "Exact"),
                backend=BACKEND,
            )
        )))),
    )},
}  # fmt: skip
OWN_IMAGES = ("hipray-cpu", "hipray-gpu")
OWN_IMAGE = closed(
    ("name", "newName", "newTag"), name=one_of(*OWN_IMAGES), newName=TEXT, newTag=TEXT
)
MIRRORED = {**closed(("name",), name=one_of("redis", "minio/minio"), newName=TEXT, newTag=TEXT),
            "minProperties": 2}  # fmt: skip
IMAGES = {
    **array({"anyOf": [OWN_IMAGE, MIRRORED]}),
    "allOf": [{"contains": {"properties": {"name": {"const": name}}}} for name in OWN_IMAGES],
}
"""Each target by an entry of its own: one for both would give the GPU's pods the CPU's image."""
OPERATION = closed(
    ("op", "path"), op=one_of("add", "replace", "remove"), path=TEXT,
    value={},
)  # fmt: skip
TARGET = closed(("kind", "name"), kind=TEXT, name=TEXT)
PATCH: Schema = {"anyOf": [
    closed(("path",), path=TEXT), closed(("target", "patch"), target=TARGET, patch=TEXT),
    closed(("target", "path"), target=TARGET, path=TEXT),
]}  # fmt: skip
PLAIN_KUSTOMIZATION = closed(
    ("apiVersion", "kind", "resources"), kind={"const": "Kustomization"}, resources=array(TEXT),
    apiVersion={"const": "kustomize.config.k8s.io/v1beta1"}, namespace=TEXT,
    images=IMAGES, patches=array(PATCH),
)  # fmt: skip
OVERLAY = {
    **PLAIN_KUSTOMIZATION,
    "required": [*PLAIN_KUSTOMIZATION["required"], "namespace", "images"],
}
OPERATORS = {
    "RayCluster": "ray.io/v1",
    "RayJob": "ray.io/v1",
    "RayService": "ray.io/v1",
    "PodMonitor": "monitoring.coreos.com/v1",
    "PrometheusRule": "monitoring.coreos.com/v1",
}


@cache
def _derived() -> Schema:
    text = Path(__file__).with_name("schemas.json").read_text("utf-8")
    return {key: value for key, value in json.loads(text).items() if key != "about"}


@cache
def _validator(version: str, kind: str) -> Draft202012Validator | None:
    if OPERATORS.get(kind) == version:
        body: Schema = {"spec": {"$ref": f"#/kinds/{kind}"}}
    elif (version, kind) in CORE:
        body = CORE[version, kind]
    else:
        return None
    top = closed(
        ("apiVersion", "kind", "metadata", *(key for key in ("spec", "data") if key in body)),
        apiVersion=TEXT, kind=TEXT, metadata=META, **body,
    )  # fmt: skip
    return Draft202012Validator({**top, **_derived()})


def find_schema_errors(document: dict[str, Any]) -> list[str]:
    """Return what the API server would refuse, and kinds that are not known here."""
    version, kind = str(document.get("apiVersion")), str(document.get("kind"))
    validator = _validator(version, kind)
    if validator is None:
        return [f"unknown kind {version} {kind}"]
    return [
        f"{kind}/{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"
        for error in validator.iter_errors(document)
    ]


def find_kustomization_errors(kustomization: dict[str, Any], *, overlay: bool) -> list[str]:
    """Return where a kustomization.yaml differs from what is used here; overlays name more."""
    shape = Draft202012Validator(OVERLAY if overlay else PLAIN_KUSTOMIZATION)
    errors = [error.message[:200] for error in shape.iter_errors(kustomization)]
    operations = Draft202012Validator(array(OPERATION))
    for entry in [] if errors else kustomization.get("patches", []):
        patch = yaml.safe_load(entry.get("patch", "[]"))
        if patch:
            errors += [error.message[:200] for error in operations.iter_errors(patch)]
    return errors
