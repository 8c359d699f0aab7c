"""The closed shapes of this project's documents: every field that is used, and what it may hold.

schemas.py says what Kubernetes and its operators take; here is the small part of it that stands in
k8s/, so that whatever else appears there is found without a rule of its own.
"""

from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from tests.cluster.shapes import const, exact, words
from tests.k8s.kustomize import Document
from tests.k8s.pods import GOODBYE, GPU_TAINT, list_pods
from tests.k8s.schemas import COUNT, TEXT, Schema, array, closed, one_of

LONGEST_IDLE_S = 3600
LONGEST_TTL_S = 24 * 3600
MOST_TRIES = 10
MOST_WORKERS = 16
"""No group of this project may grow beyond it; a larger number is a slip."""


def between(least: int, most: int) -> Schema:
    """Return a schema of whole numbers from one to another."""
    return {"type": "integer", "minimum": least, "maximum": most}


LABELS = exact(
    **{"app.kubernetes.io/part-of": const("hipray"), "app.kubernetes.io/component": TEXT}
)
STAYS = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
META = closed(("name", "labels"), name=TEXT, namespace=TEXT, labels=LABELS)
"""Without annotations: the operator's own change what it makes of a document."""

SIZE = words(r"^[1-9]\d*[MG]i$")
AMOUNTS = closed(
    ("cpu", "memory"), cpu=words(r"^([1-9]\d*m|[1-9]|1[0-6])$"), memory=SIZE,
    **{"nvidia.com/gpu": const("1")},
)  # fmt: skip
RESOURCES = exact(requests=AMOUNTS, limits=AMOUNTS)
CLOSED = {
    "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}  # fmt: skip
"""All that a container may say of its own security."""
OF_AUTOSCALER = {key: CLOSED[key] for key in ("allowPrivilegeEscalation", "capabilities")}
"""The operator's container writes to its root."""

PROBE = closed(
    tcpSocket=exact(port=TEXT), httpGet=exact(path=TEXT, port=TEXT),
    initialDelaySeconds=between(0, 300),
)  # fmt: skip
CONTAINER = closed(
    ("name", "image", "imagePullPolicy", "resources", "securityContext"),
    name=TEXT, image=TEXT, imagePullPolicy=const("IfNotPresent"), command=array(TEXT),
    args=array(TEXT), env=array({}), envFrom=array({}), resources=RESOURCES,
    ports=array(exact(name=TEXT, containerPort=COUNT)), lifecycle=const(GOODBYE),
    readinessProbe=PROBE, livenessProbe=PROBE, securityContext=const(CLOSED),
    volumeMounts=array(exact(name=TEXT, mountPath=TEXT)),
)  # fmt: skip
DISK_SIZE = words(r"^([1-9]\d?|1\d\d|200)Gi$")
"""Below one a home does not start; beyond 200 a pod fits on no node's disk."""
VOLUME: Schema = {"oneOf": [
    exact(name=TEXT, emptyDir=exact(sizeLimit=DISK_SIZE)),
    exact(name=const("run"), emptyDir=exact(medium=const("Memory"), sizeLimit=SIZE)),
    exact(name=const("data"), persistentVolumeClaim=exact(claimName=TEXT)),
]}  # fmt: skip
SPREAD = exact(
    maxSkew=const(1),
    topologyKey=one_of("kubernetes.io/hostname", "topology.kubernetes.io/zone"),
    whenUnsatisfiable=one_of("DoNotSchedule", "ScheduleAnyway"),
    nodeTaintsPolicy=const("Honor"),
    matchLabelKeys=const(["ray.io/cluster"]),
    labelSelector=const({"matchLabels": {"app.kubernetes.io/component": "serve"}}),
)
POD = exact(
    metadata=closed(("labels",), labels=LABELS, annotations=const(STAYS)),
    spec=closed(
        ("automountServiceAccountToken", "securityContext", "containers"),
        restartPolicy=const("Never"), serviceAccountName=TEXT,
        automountServiceAccountToken={"type": "boolean"},
        terminationGracePeriodSeconds=between(10, 60), tolerations=const(GPU_TAINT),
        topologySpreadConstraints=array(SPREAD), volumes=array(VOLUME),
        containers={**array(CONTAINER), "maxItems": 1},
        securityContext=exact(
            runAsNonRoot=const(True), runAsUser=between(1, 65535), runAsGroup=between(1, 65535),
            fsGroup=between(1, 65535), seccompProfile=const({"type": "RuntimeDefault"}),
        ),
    ),
)  # fmt: skip

TEMPLATE: Schema = {}
"""A pod, which is looked at by itself."""


def group(least: Schema) -> Schema:
    """Return a schema of a group of workers with a number that always stands."""
    return exact(
        groupName=TEXT, minReplicas=least, replicas=COUNT, maxReplicas=between(1, MOST_WORKERS),
        rayStartParams=const({}), template=TEMPLATE,
    )  # fmt: skip


CLUSTER: dict[str, Schema] = {
    "rayVersion": TEXT,
    "authOptions": const({"mode": "token", "secretName": "hipray-ray-token"}),
    "enableInTreeAutoscaling": const(True),
    "autoscalerOptions": exact(
        version=const("v2"), upscalingMode=const("Conservative"),
        idleTimeoutSeconds=between(60, LONGEST_IDLE_S), resources=RESOURCES,
        securityContext=const(OF_AUTOSCALER),
    ),
    "headGroupSpec": exact(rayStartParams=const({"num-cpus": "0"}), template=TEMPLATE),
    "workerGroupSpecs": array(group(const(0))),
}  # fmt: skip
"""Nothing behind a feature gate that is off, no Service or Ingress of the operator's own."""
REDIS = {
    "redisAddress": "hipray-redis:6379",
    "redisPassword": {"valueFrom": {"secretKeyRef": {"name": "hipray-redis", "key": "password"}}},
}
REMEMBERING = exact(**CLUSTER, gcsFaultToleranceOptions=const(REDIS))
JOB: dict[str, Schema] = {
    "entrypoint": TEXT, "submissionMode": const("K8sJobMode"),
    "backoffLimit": between(1, MOST_TRIES),
    "activeDeadlineSeconds": between(3600, 15 * 24 * 3600),
    "preRunningDeadlineSeconds": between(600, 2 * 3600),
    "shutdownAfterJobFinishes": const(True),
    "ttlSecondsAfterFinished": between(300, LONGEST_TTL_S),
    "submitterConfig": exact(backoffLimit=between(0, MOST_TRIES)),
    "submitterPodTemplate": TEMPLATE, "rayClusterSpec": exact(**CLUSTER),
}  # fmt: skip
SERVING = {"workerGroupSpecs": {**array(group(between(1, MOST_WORKERS))), "maxItems": 1}}
"""Only an endpoint has workers whom nobody asked for: callers do not wait for nodes."""
SERVICE = exact(
    upgradeStrategy=const({"type": "NewCluster"}), serveConfigV2=TEXT,
    rayClusterDeletionDelaySeconds=between(90, 600), excludeHeadPodFromServeSvc=const(True),
    rayClusterConfig=exact(**CLUSTER | SERVING, gcsFaultToleranceOptions=const(REDIS)),
)  # fmt: skip
INTERVAL = "15s"
MONITOR = exact(
    selector=exact(
        matchLabels=exact(
            **{
                "ray.io/node-type": one_of("head", "worker"),
                "app.kubernetes.io/part-of": const("hipray"),
            }
        )
    ),
    podMetricsEndpoints=array(exact(port=TEXT, interval=const(INTERVAL))),
    podTargetLabels=const(["ray.io/cluster", "app.kubernetes.io/component"]),
)

SPECS: dict[str, Schema] = {
    "RayCluster": REMEMBERING,
    "RayJob": closed(tuple(JOB), **JOB, entrypointNumCpus=between(1, 16)),
    "RayService": SERVICE,
    "PodMonitor": MONITOR,
}
METAS: dict[str, Schema] = {"PodMonitor": closed(("name",), name=TEXT, namespace=TEXT)}


@cache
def _validator(kind: str) -> Draft202012Validator:
    if kind == "Pod":
        return Draft202012Validator(POD)
    top = exact(apiVersion=TEXT, kind=TEXT, metadata=METAS.get(kind, META), spec=SPECS[kind])
    return Draft202012Validator(top)


def find_shape_errors(document: Document) -> list[str]:
    """Return where a document or one of its pods differs from its shape."""
    kind = document["kind"]
    found = _list_errors(kind, document) if kind in SPECS else []
    pods = (e for where, pod in list_pods(document) for e in _list_errors("Pod", pod, where))
    return [*found, *pods]


def _list_errors(kind: str, node: Any, where: str = "") -> list[str]:
    return [
        f"{kind} {where}/{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"
        for error in _validator(kind).iter_errors(node)
    ]
