"""Rules on what stands beside Ray: policies, ingress, budgets, monitors, Redis and MinIO."""

from collections.abc import Iterator
from ipaddress import ip_network

from tests.k8s.containers import PROBES
from tests.k8s.kustomize import Document
from tests.k8s.openings import describe_policy, find_opening_problems
from tests.k8s.pods import count_cpus, gib
from tests.k8s.ray_documents import ENDPOINT
from tests.k8s.shapes import MOST_TRIES

REDIS_START = (
    "umask 077\n"
    "printf 'requirepass %s\\nappendonly yes\\ndir /data\\nmaxmemory-policy noeviction\\n' \\\n"
    '  "$REDIS_PASSWORD" > /run/redis/redis.conf\n'
    "exec redis-server /run/redis/redis.conf\n"
)
ROUTES = [("/", "Exact"), ("/v1", "Prefix"), ("/readyz", "Exact")]
ANNOTATIONS = {
    "nginx.ingress.kubernetes.io/proxy-body-size": "201m",
    "nginx.ingress.kubernetes.io/proxy-read-timeout": "75",
    "nginx.ingress.kubernetes.io/ssl-redirect": "true",
}
METRICS_PORTS = {"head": {"metrics", "as-metrics", "dash-metrics"}, "worker": {"metrics"}}
BUDGETS = {
    f"hipray-{name}": {**most, "selector": {"matchLabels": {"app.kubernetes.io/component": name}}}
    for name, most in (("serve", {"minAvailable": 1}), ("redis", {"maxUnavailable": 0}))
}
PROFILE = "pod-security.kubernetes.io"
RESTRICTED = {f"{PROFILE}/enforce": "restricted", f"{PROFILE}/warn": "restricted"}
LINK_LOCAL = ip_network("169.254.0.0/16")
READY = "/minio/health/ready"


def check_namespace(document: Document) -> Iterator[str]:
    if document["metadata"].get("labels") != RESTRICTED or "annotations" in document["metadata"]:
        yield "lets pods do more than the restricted profile"


def _check_network(block: Document) -> Iterator[str]:
    """Yield where a block is no network, or has the address that gives away the node's role."""
    try:
        network = ip_network(block["cidr"])
        spared = [ip_network(each) for each in block.get("except", [])]
    except ValueError as error:
        yield str(error)
        return
    if network.overlaps(LINK_LOCAL) and LINK_LOCAL not in spared:
        yield f"{network} has the metadata service"


def check_policy(document: Document) -> Iterator[str]:
    spec = document["spec"]
    rules = [(rule, "from") for rule in spec.get("ingress", [])]
    rules += [(rule, "to") for rule in spec.get("egress", [])]
    peers = [peer for rule, key in rules for peer in rule.get(key, [])]
    for peer in peers:
        yield from _check_network(peer["ipBlock"]) if "ipBlock" in peer else ()
    told = set(describe_policy(document["spec"]))
    yield from find_opening_problems(document["metadata"]["name"], told)


def check_ingress(document: Document) -> Iterator[str]:
    spec = document["spec"]
    if document["metadata"].get("annotations") != ANNOTATIONS:
        yield "has other limits, or answers without TLS"
    if spec.get("ingressClassName") != "nginx":
        yield "is of a controller that is not there"
    if {entry.get("secretName") for entry in spec.get("tls", [])} != {"hipray-tls"}:
        yield "has another certificate"
    opened = [
        (path["path"], path["pathType"]) for rule in spec["rules"] for path in rule["http"]["paths"]
    ]
    if opened != ROUTES:
        yield f"opens {opened} instead of {ROUTES}"
    covered = {host for entry in spec.get("tls", []) for host in entry["hosts"]}
    for rule in spec["rules"]:
        if rule["host"] not in covered:
            yield f"{rule['host']} is served without TLS"
        for path in rule["http"]["paths"]:
            if path["backend"]["service"] != ENDPOINT:
                yield f"opens {path['path']} of {path['backend']['service']}"


def check_budget(document: Document) -> Iterator[str]:
    spec, name = document["spec"], document["metadata"]["name"]
    if spec != BUDGETS.get(name):
        yield f"{name} lets a drain take too much, or blocks it"


def check_monitor(spec: Document) -> Iterator[str]:
    kind = spec["selector"]["matchLabels"]["ray.io/node-type"]
    ports = {each["port"] for each in spec["podMetricsEndpoints"]}
    if ports != METRICS_PORTS[kind]:
        yield f"asks ports {sorted(ports)} of {kind}"


def check_redis(spec: Document) -> Iterator[str]:
    (container,) = spec["template"]["spec"]["containers"]
    text = "".join(container.get("args", []))
    if container["name"] != "redis":
        return
    if spec.get("replicas") != 1:
        yield "is more than one on a volume, or none"
    if spec.get("serviceName") != "hipray-redis":
        yield "has no name in the network"
    if text != REDIS_START:
        yield "starts open, forgetful or not at all"
    yield from _check_sizes(spec, container["resources"])
    run = spec["template"]["spec"].get("volumes")
    if run != [{"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]:
        yield "writes its password to the node's disk"
    mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
    claims = {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
    if mounts.get("/data") not in claims:
        yield "forgets what the heads must remember"


def _check_sizes(spec: Document, resources: Document) -> Iterator[str]:
    """A head's state is some MiB, and its log on the volume some times that."""
    for amounts in resources.values():
        if not 0.1 <= count_cpus(amounts["cpu"]) <= 2 or not 0.25 <= gib(amounts["memory"]) <= 4:
            yield f"has {amounts} for a few MiB"
    for claim in spec.get("volumeClaimTemplates", []):
        storage = claim["spec"]["resources"]["requests"]["storage"]
        if not 1 <= gib(storage) <= 50:
            yield f"has a volume of {storage} for a few MiB"


def check_one_off(spec: Document) -> Iterator[str]:
    if not 3 <= spec.get("backoffLimit", 0) <= MOST_TRIES:
        yield "gives up before its store is there, or never"
    if not 300 <= spec.get("activeDeadlineSeconds", 0) <= 3600:
        yield "has no end"
    if not 60 <= spec.get("ttlSecondsAfterFinished", 0) <= 3600:
        yield "stands in the way of the next image, or goes before anyone has seen it"


def check_workload(spec: Document) -> Iterator[str]:
    """Yield where labels or the names of ports inside one workload differ."""
    labels, (container,) = (
        spec["template"]["metadata"]["labels"],
        spec["template"]["spec"]["containers"],
    )
    if not set(spec["selector"]["matchLabels"].items()) <= set(labels.items()):
        yield "does not select its own pods"
    if spec.get("replicas") != 1:
        yield "is none, or two on one volume"
    volumes = spec["template"]["spec"].get("volumes", [])
    keeps = any("persistentVolumeClaim" in each for each in volumes)
    if keeps and spec.get("strategy") != {"type": "Recreate"}:
        yield "starts a second pod on its volume before the first has gone"
    named = {port["name"] for port in container["ports"]}
    for probe in PROBES & set(container):
        ((_, asked),) = (
            (k, v) for k, v in container[probe].items() if k in ("tcpSocket", "httpGet")
        )
        if asked["port"] not in named or asked.get("path", READY) != READY:
            yield f"{probe} asks {asked}"
