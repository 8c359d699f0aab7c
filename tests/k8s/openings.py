"""What each NetworkPolicy opens, as sentences: a policy that opens anything else is found."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.k8s.kustomize import Document, read_documents

NODES, HEADS = "pods ray.io/is-ray-node=yes", "pods ray.io/node-type=head"
REDIS, CLEANUP = "pods app.kubernetes.io/component=redis", "pods ray.io/node-type=redis-cleanup"
SUBMITTERS = "pods app.kubernetes.io/component=submit"
ENDPOINT = "pods app.kubernetes.io/component=serve"
MINIO = "pods app.kubernetes.io/component=minio"
BUCKET = "pods app.kubernetes.io/component=minio-bucket"
OF_MINIO = "pods app.kubernetes.io/component in head, cpu, gpu, serve, minio-bucket"
PRIVATE = "10.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16"

FEW = "/(?:2[4-9]|3[0-2])"
"""A network of 256 addresses at most."""

OPENINGS: dict[str, set[str]] = {
    "deny-all": {"every pod: neither in nor out"},
    "names": {"every pod out to pods k8s-app=kube-dns of kube-system: TCP 53, UDP 53"},
    "ray-to-ray": {f"{NODES} in from {NODES}: all ports", f"{NODES} out to {NODES}: all ports"},
    "ray-to-store": {f"{NODES} out to 0.0.0.0/0 but {PRIVATE}: TCP 443"},
    "head-to-kubernetes": {f"{HEADS} out to 0.0.0.0/0 but 169.254.0.0/16: TCP 443, TCP 6443"},
    "head-to-redis": {f"{HEADS} out to {REDIS}: TCP 6379"},
    "redis-from-head": {
        f"{REDIS} in from {HEADS}: TCP 6379", f"{REDIS} in from {CLEANUP}: TCP 6379",
    },
    "cleanup-to-redis": {f"{CLEANUP} out to {REDIS}: TCP 6379"},
    "head-from-operator-and-submitters": {
        f"{HEADS} in from <namespace>: TCP 8265", f"{HEADS} in from {SUBMITTERS}: TCP 8265",
    },
    "submitters-to-head": {f"{SUBMITTERS} out to {HEADS}: TCP 8265"},
    "endpoint-from-ingress": {f"{ENDPOINT} in from <namespace>: TCP 8000"},
    "metrics-from-prometheus": {f"{NODES} in from <namespace>: TCP 8080, TCP 44217, TCP 44227"},
    "minio": {
        f"{MINIO} in from {NODES}: TCP 9000", f"{MINIO} in from {BUCKET}: TCP 9000",
    },
    "to-minio": {f"{OF_MINIO} out to {MINIO}: TCP 9000"},
}  # fmt: skip
"""Every policy by name, and all that it lets through; <namespace> is one that has the operator, the
ingress controller or Prometheus of a place."""
OF_NAMESPACES = (
    "head-from-operator-and-submitters", "endpoint-from-ingress", "metrics-from-prometheus",
)  # fmt: skip
"""The policies with such a namespace, in the order of the first line of their file."""
NARROWER: dict[str, set[str]] = {
    "ray-to-store": {f"{NODES} out to <hosts> but nothing: TCP <port>"},
    "head-to-kubernetes": {f"{HEADS} out to <hosts> but nothing: TCP 443, TCP 6443"},
}
"""What a place may write instead, as the policies say: the address of its store or API server."""
ADDED: dict[str, set[str]] = {
    "ray-to-store": {f"{NODES} out to <private> but nothing: TCP 443"},
}
"""What a place may write beside: its private endpoints of AWS's services."""
PLACES = {
    "<namespace>": "[a-z0-9](?:[-a-z0-9]*[a-z0-9])?", "<port>": r"\d+",
    "<hosts>": rf"(?:\d{{1,3}}\.){{3}}\d{{1,3}}{FEW}",
    "<private>": rf"(?:10\.\d{{1,3}}|172\.(?:1[6-9]|2\d|3[01])|192\.168)(?:\.\d{{1,3}}){{2}}{FEW}",
}  # fmt: skip


def find_opening_problems(name: str, told: set[str]) -> list[str]:
    """Return what a policy lets through beyond what it may, and what it no longer does."""
    if name not in OPENINGS:
        return ["is a policy that tests/k8s/openings.py does not know"]
    ways = [OPENINGS[name], *([NARROWER[name]] if name in NARROWER else [])]
    beside = {text for text in told for known in ADDED.get(name, ()) if _fits(text, known)}
    return min((_compare(told, known, beside) for known in ways), key=len)


def _compare(told: set[str], known: set[str], beside: set[str]) -> list[str]:
    found = {each: [text for text in told if _fits(text, each)] for each in known}
    covered = beside.union(*found.values())
    lost = [f"no longer opens: {each}" for each, texts in sorted(found.items()) if not texts]
    return lost + [f"also opens: {each}" for each in sorted(told - covered)]


def _fits(text: str, known: str) -> bool:
    pattern = re.escape(known)
    for word, place in PLACES.items():
        pattern = pattern.replace(re.escape(word), place)
    return re.fullmatch(pattern, text) is not None


def describe_policy(spec: Document) -> Iterator[str]:
    """Yield a sentence per peer that a policy lets its pods hear from or speak to."""
    pods = _describe_pods(spec["podSelector"])
    kinds = set(spec["policyTypes"])
    rules = [
        (way, rule, peers)
        for way, key, peers in (("in from", "ingress", "from"), ("out to", "egress", "to"))
        for rule in spec.get(key, [])
    ]
    ways = {"Ingress" if way == "in from" else "Egress" for way, _, _ in rules}
    if not rules and kinds == {"Ingress", "Egress"}:
        yield f"{pods}: neither in nor out"
    elif ways != kinds:
        yield f"{pods}: types {sorted(kinds)} and rules {sorted(ways)}"
    for way, rule, peers in rules:
        ports = [f"{port['protocol']} {port['port']}" for port in rule.get("ports", [])]
        for peer in rule.get(peers) or [{}]:
            told = ", ".join(sorted(ports, key=_by_number)) or "all ports"
            yield f"{pods} {way} {_describe_peer(peer)}: {told}"


def _by_number(port: str) -> tuple[int, str]:
    return int(port.partition(" ")[2]), port


def _describe_peer(peer: Document) -> str:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        spared = ", ".join(sorted(block.get("except", [])))
        return f"{block['cidr']} but {spared or 'nothing'}"
    parts = []
    if "podSelector" in peer:
        parts.append(_describe_pods(peer["podSelector"]))
    if "namespaceSelector" in peer:
        names = peer["namespaceSelector"].get("matchLabels", {})
        known = set(peer["namespaceSelector"]) == {"matchLabels"} and set(names) == {NAMESPACE}
        parts.append(names[NAMESPACE] if known else f"namespaces {peer['namespaceSelector']}")
    return " of ".join(parts) or "everywhere"


NAMESPACE = "kubernetes.io/metadata.name"


def read_namespaces(path: Path) -> dict[str, str]:
    """Return the namespace that each policy trusts by the first line of their file."""
    header = path.read_text("utf-8").partition("\n")[0]
    found = re.fullmatch(r"# Namespaces named here: ([a-z0-9-]+(?:, [a-z0-9-]+)*)\.", header)
    names = found[1].split(", ") if found else []
    return dict(zip(OF_NAMESPACES, names, strict=True))


def find_namespace_problems(path: Path) -> Iterator[str]:
    """Yield each policy of a file that trusts another namespace than the file's first line says."""
    policies = {each["metadata"]["name"]: each["spec"] for each in read_documents(path)}
    for name, namespace in read_namespaces(path).items():
        (trusted,) = {
            _describe_peer(peer)
            for rule in policies[name]["ingress"]
            for peer in rule["from"]
            if "namespaceSelector" in peer
        }
        if trusted != namespace:
            yield f"{name} trusts {trusted} instead of {namespace}"


def _describe_pods(selector: dict[str, Any]) -> str:
    labels = [f"{key}={value}" for key, value in selector.get("matchLabels", {}).items()]
    labels += [
        f"{each['key']} {each['operator'].lower()} {', '.join(each.get('values', []))}"
        for each in selector.get("matchExpressions", [])
    ]
    return f"pods {' and '.join(labels)}" if labels else "every pod"
