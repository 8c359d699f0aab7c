"""The checks themselves: each file is spoilt in many ways, and something must complain."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.entrypoints import ROOT, check_head_memory
from tests.k8s.kustomize import Document, build, read_documents
from tests.k8s.mutation import spoil, spoil_everywhere
from tests.k8s.overlays import find_overlay_problems
from tests.k8s.rules import find_problems
from tests.k8s.schemas import find_kustomization_errors, find_schema_errors

BASE, JOBS = ROOT / "k8s/base", ROOT / "k8s/jobs"
FREE = {"labels", "annotations", "data", "matchLabels", "rayStartParams", "requests", "limits"}
"""Maps whose keys are anyone's."""


def _documents() -> list[tuple[str, Document]]:
    return [
        (f"{path.name}:{document['kind']}/{document['metadata']['name']}", document)
        for folder in (BASE, JOBS, ROOT / "k8s/overlays/prod", ROOT / "k8s/overlays/dev")
        for path in sorted(folder.glob("*.yaml"))
        if path.name not in {"kustomization.yaml", "settings.patch.yaml"}
        for document in read_documents(path)
    ]


def _complaints(document: Document) -> list[str]:
    return find_schema_errors(document) or find_problems(document)


def _places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key)
            if key not in FREE:
                yield from _places(value, (*path, key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _places(value, (*path, number))


def _resources(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield each place below which something asks for CPUs and memory and has limits."""
    entries = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in entries:
        if key == "resources" and "limits" in value:
            yield (*path, key)
        elif isinstance(value, dict | list):
            yield from _resources(value, (*path, key))


def _one_place_per_key(document: Document) -> list[tuple[Any, ...]]:
    """The last place of each key; a Service selects by labels, which are anyone's too."""
    free = FREE | ({"selector"} if document["kind"] == "Service" else set())
    places = [p for p in _places(document) if not free & set(p[:-1]) and p[-1] not in free]
    return list({path[-1]: path for path in places}.values())


def _at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


DOCUMENTS = _documents()
IDS = [name for name, _ in DOCUMENTS]


@pytest.mark.parametrize("document", [d for _, d in DOCUMENTS], ids=IDS)
def test_each_misspelt_key_is_found(document: Document) -> None:
    for path in _one_place_per_key(document):
        spoilt = copy.deepcopy(document)
        parent = _at(spoilt, path[:-1])
        parent[f"{path[-1]}x"] = parent.pop(path[-1])
        assert find_schema_errors(spoilt), path


@pytest.mark.parametrize("document", [d for _, d in DOCUMENTS], ids=IDS)
def test_each_number_or_flag_written_as_text_is_found(document: Document) -> None:
    for path in _one_place_per_key(document):
        value = _at(document, path)
        if not isinstance(value, bool | int) or path[-1] in {"port", "targetPort"}:
            continue  # ports may have names
        spoilt = copy.deepcopy(document)
        _at(spoilt, path[:-1])[path[-1]] = f"{value}!"
        assert find_schema_errors(spoilt), path


@pytest.mark.parametrize("document", [d for _, d in DOCUMENTS], ids=IDS)
def test_whatever_asks_for_more_than_it_may_have_is_found(document: Document) -> None:
    for path in _resources(document):
        for key, more in (("cpu", "16"), ("memory", "900Gi")):
            spoilt = copy.deepcopy(document)
            _at(spoilt, path)["requests"][key] = more
            assert _complaints(spoilt), path


CLUSTER_IN = {
    "RayCluster": "spec", "RayJob": "spec/rayClusterSpec", "RayService": "spec/rayClusterConfig",
}  # fmt: skip
HEAD, GROUP = "headGroupSpec", "workerGroupSpecs/0"
POD = f"{GROUP}/template/spec"
CONTAINER = f"{POD}/containers/0"
APPARMOR = {"container.apparmor.security.beta.kubernetes.io/ray-worker": "unconfined"}
RAY_SLIPS: list[tuple[str, Any]] = [
    ("authOptions/mode", "disabled"),
    ("authOptions", None),
    ("authOptions/secretName", "another"),
    ("rayVersion", "2.59.0"),
    ("enableInTreeAutoscaling", False),
    ("autoscalerOptions/version", "v3"),
    ("autoscalerOptions/version", "v1"),
    ("networkPolicy", {"mode": "DenyAll"}),
    (f"{HEAD}/rayStartParams/num-cpus", None),
    (f"{HEAD}/rayStartParams/num-cpus", 0),
    (f"{HEAD}/rayStartParams/redis-password", "x"),
    (f"{HEAD}/template/spec/automountServiceAccountToken", False),
    (f"{GROUP}/maxReplicas", None),
    (f"{GROUP}/maxReplicas", 2147483647),
    (f"{GROUP}/minReplicas", 60),
    (f"{GROUP}/suspend", True),
    (f"{POD}/restartPolicy", "Always"),
    (f"{POD}/automountServiceAccountToken", True),
    (f"{POD}/hostNetwork", True),
    (f"{POD}/securityContext/runAsNonRoot", False),
    (f"{POD}/securityContext/runAsUser", 0),
    (f"{POD}/securityContext/seccompProfile", None),
    (f"{POD}/volumes/+", {"name": "host", "hostPath": {"path": "/"}}),
    (f"{CONTAINER}/image", "hipray:0.1.0"),
    (f"{CONTAINER}/image", "hipray-cpu:0.1.0-gpu"),
    (f"{CONTAINER}/image", "hipray:latest"),
    (f"{CONTAINER}/image", "hipray"),
    (f"{CONTAINER}/resources/limits", None),
    (f"{CONTAINER}/resources/requests/cpu", "1"),
    (f"{CONTAINER}/resources/limits/amd.com~gpu", "1"),
    (f"{CONTAINER}/readinessProbe", {"tcpSocket": {"port": 1}}),
    (f"{CONTAINER}/env", [{"name": "REDIS_PASSWORD", "value": "x"}]),
    (f"{CONTAINER}/securityContext/allowPrivilegeEscalation", True),
    (f"{CONTAINER}/securityContext/privileged", True),
    (f"{CONTAINER}/securityContext/capabilities", None),
    (f"{CONTAINER}/securityContext/readOnlyRootFilesystem", False),
    (f"{CONTAINER}/securityContext/runAsUser", 0),
    (f"{CONTAINER}/securityContext/capabilities/add", ["NET_ADMIN"]),
    (f"{CONTAINER}/securityContext/seccompProfile", {"type": "Unconfined"}),
    (f"{CONTAINER}/startupProbe", {"tcpSocket": {"port": 1}}),
    (f"{CONTAINER}/volumeMounts", []),
    (f"{CONTAINER}/envFrom", []),
    (f"{POD}/serviceAccountName", None),
    (f"{POD}/volumes/0/emptyDir", {}),
    (f"{GROUP}/rayStartParams/num-cpus", "64"),
    (f"{HEAD}/rayStartParams/dashboard-host", "0.0.0.0"),
    ("gcsFaultToleranceOptions", {"redisAddress": "redis.example.org:6379"}),
    ("autoscalerOptions/securityContext", None),
    ("autoscalerOptions/idleTimeoutSeconds", 120000),
    (f"{CONTAINER}/env", [{"name": "RAY_AUTH_MODE", "value": "disabled"}]),
    (f"{CONTAINER}/env", [{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}]),
    (f"{CONTAINER}/ports", [{"containerPort": 8265, "hostPort": 8265}]),
    (f"{CONTAINER}/image", "hipray:latest-cpu"),
    (f"{CONTAINER}/imagePullPolicy", "IfNotPresentt"),
    (f"{HEAD}/serviceType", "LoadBalancer"),
    (f"{HEAD}/template/spec/containers/0/ports", None),
    (f"{HEAD}/template/spec/containers/0/ports/5/name", "as-metric"),
    (f"{HEAD}/template/spec/containers/0/ports/+", {"name": "ssh", "containerPort": 22}),
    (f"{HEAD}/template/spec/containers/0/image", "hipray-gpu:0.1.0"),
    (f"{HEAD}/enableIngress", True),
    (f"{GROUP}/numOfHosts", 16),
    (f"{POD}/securityContext/runAsGroup", 0),
    *(
        (f"{place}/volumes/{number}/emptyDir/sizeLimit", size)
        for place in (POD, f"{HEAD}/template/spec")
        for number in (0, 1)
        for size in ("512Mi", "1Mi", "201Gi", "2000Gi", "1Ti", "300000Mi")
    ),
    ("suspend", True),
    ("autoscalerOptions/upscalingMode", "Default"),
    ("autoscalerOptions/resources/limits/memory", "512MB"),
    ("upgradeStrategy", {"type": "Recreate"}),
    ("managedBy", "kueue.x-k8s.io/multikueue"),
    ("headServiceAnnotations", {"service.beta.kubernetes.io/aws-load-balancer-type": "nlb"}),
    (f"{GROUP}/idleTimeoutSeconds", 5),
    (f"{GROUP}/resources", {"CPU": "64"}),
    (f"{GROUP}/labels", {"market-type": "spot"}),
    (f"{GROUP}/priority", 5),
    (f"{GROUP}/template/metadata/annotations", APPARMOR),
    (f"{HEAD}/template/metadata/annotations", APPARMOR),
    (f"{HEAD}/template/spec/volumes/1", {"name": "ray-logs", "emptyDir": {}}),
    (f"{HEAD}/template/spec/containers/0/volumeMounts/1", {"name": "tmp", "mountPath": "/tmp/x"}),
    (f"{POD}/initContainers", [{"name": "first", "image": "hipray-cpu:0.1.0"}]),
    (f"{POD}/shareProcessNamespace", True),
    (f"{POD}/activeDeadlineSeconds", 60),
    (f"{POD}/nodeSelector", {"disk": "ssd"}),
    (f"{POD}/priorityClassName", "system-cluster-critical"),
    (f"{POD}/imagePullSecrets", [{"name": "mine"}]),
    (f"{POD}/dnsPolicy", "Default"),
    (f"{POD}/volumes/0/emptyDir/medium", "Memory"),
    (f"{POD}/volumes/+", {"name": "more", "secret": {"secretName": "hipray-redis"}}),
    (f"{CONTAINER}/args", ["sleep infinity"]),
    (f"{CONTAINER}/envFrom/1/secretRef/name", "hipray-redis"),
    (f"{CONTAINER}/volumeMounts/0/readOnly", True),
    (f"{CONTAINER}/workingDir", "/tmp"),
]
RAY_DOCUMENTS = [(name, d) for name, d in DOCUMENTS if "ray.io" in d["apiVersion"]]


@pytest.mark.parametrize(("path", "value"), RAY_SLIPS)
def test_a_slip_in_any_ray_cluster_is_found(path: str, value: Any) -> None:
    for name, document in RAY_DOCUMENTS:
        spoilt = copy.deepcopy(document)
        spoil(spoilt, f"{CLUSTER_IN[document['kind']]}/{path}", value)
        assert _complaints(spoilt), name


EVERYWHERE = {"ipBlock": {"cidr": "0.0.0.0/0"}}
HALF = {"ipBlock": {"cidr": "0.0.0.0/1"}}
IN_ANY = [{"key": "kubernetes.io/metadata.name", "operator": "Exists"}]
ANY_NAMESPACE = {"namespaceSelector": {"matchExpressions": IN_ANY}}
SUBMIT = "exec python cluster/submit.py --installed"
HTTPS = [{"protocol": "TCP", "port": 443}]
FAILURES = "spec/jobTemplate/spec/podFailurePolicy/rules"


def _codes(*codes: int) -> Document:
    return {"containerName": "submit", "operator": "In", "values": [*codes]}


FINAL_CODES = "spec/jobTemplate/spec/podFailurePolicy/rules/0/onExitCodes/values"
SPREAD = f"spec/rayClusterConfig/{POD}/topologySpreadConstraints"
CRON_POD = "spec/jobTemplate/spec/template/spec"
INCREMENTAL = {"gatewayClassName": "istio", "stepSizePercent": 5, "intervalSeconds": 1}
RULE = {"policy": "DeleteCluster", "condition": {"jobStatus": "FAILED"}}
OTHER_SLIPS: list[tuple[str, str, Any]] = [
    ("RayJob", "metadata/name", "h" * 48),
    ("RayJob", "spec/shutdownAfterJobFinishes", None),
    ("RayJob", "spec/deletionStrategy", {"deletionRules": [RULE]}),
    ("RayJob", "spec/activeDeadlineSeconds", None),
    ("RayJob", "spec/preRunningDeadlineSeconds", None),
    ("RayJob", "spec/backoffLimit", None),
    ("RayJob", "spec/clusterSelector", {"ray.io/cluster": "hipray"}),
    ("RayJob", "spec/entrypoint", "python /opt/hipray/jobs/gird.py"),
    ("RayJob", "spec/entrypoint", "python /opt/hipray/jobs/grid.py --set scalling.lanes=2"),
    ("RayJob", "spec/entrypoint", "python jobs/grid.py"),
    ("RayJob", "spec/submitterPodTemplate/spec/securityContext", None),
    ("RayJob", "spec/backoffLimit", 100),
    ("RayJob", "spec/submissionMode", "HTTPMode"),
    ("RayJob", "spec/submitterPodTemplate/metadata/labels/app.kubernetes.io~component", "grid"),
    ("RayJob", "spec/submitterPodTemplate/spec/containers/0/name", "submitter"),
    ("RayJob", "spec/entrypointNumCpus", 64),
    ("RayJob", "spec/ttlSecondsAfterFinished", 6000000),
    ("RayJob", "spec/submitterConfig", {"backoffLimit": 3000}),
    ("RayJob", "spec/submitterPodTemplate/spec/serviceAccountName", "hipray-worker"),
    ("RayJob", "spec/submitterPodTemplate/spec/containers/0/envFrom", None),
    ("RayJob", "spec/entrypoint", 'python /opt/hipray/jobs/grid.py --workspace "$WORKSPACE"'),
    ("RayJob", "spec/entrypointNumGpus", 1),
    ("RayJob", "spec/entrypointResources", '{"TPU": 4}'),
    ("RayJob", "spec/runtimeEnvYAML", "env_vars: {RAY_AUTH_MODE: disabled}"),
    ("RayJob", "spec/jobId", "once"),
    ("RayJob", "spec/managedBy", "kueue.x-k8s.io/multikueue"),
    ("RayJob", "spec/metadata", {"user": "someone"}),
    ("RayJob", "spec/suspend", True),
    ("RayJob", "metadata/name", "hipray-gird"),
    *(
        (kind, "metadata/annotations", {key: "true"})
        for kind in CLUSTER_IN
        for key in ("ray.io/overwrite-container-cmd", "ray.io/ft-enabled")
    ),
    ("RayService", "spec/managedBy", "kueue.x-k8s.io/multikueue"),
    ("RayService", "spec/serviceUnhealthySecondThreshold", 1),
    ("RayService", "spec/upgradeStrategy/clusterUpgradeOptions", INCREMENTAL),
    ("RayService", "spec/rayClusterDeletionDelaySeconds", 10**6),
    ("PodMonitor", "spec/jobLabel", "app"),
    ("PodMonitor", "spec/namespaceSelector", {"any": True}),
    ("PodMonitor", "spec/podTargetLabels", None),
    ("PodMonitor", "spec/sampleLimit", 1),
    ("PodMonitor", "spec/podMetricsEndpoints/0/interval", "15m"),
    ("PodMonitor", "spec/podMetricsEndpoints/0/path", "/metric"),
    ("PersistentVolumeClaim", "spec/accessModes", ["ReadOnlyMany"]),
    ("PersistentVolumeClaim", "spec/accessModes", ["ReadWriteTwice"]),
    ("PersistentVolumeClaim", "spec/resources/requests", None),
    ("PersistentVolumeClaim", "spec/resources/requests/storage", "20GB"),
    ("PersistentVolumeClaim", "spec/resources/requests/storage", "0Gi"),
    ("PersistentVolumeClaim", "spec/resources/requests/storage", None),
    ("Deployment", "spec/template/spec/containers/0/volumeMounts/0/readOnly", True),
    ("Deployment", "spec/template/spec/containers/0/args", ["server", "/tmp"]),
    ("Deployment", "spec/template/spec/containers/0/env/1/valueFrom/secretKeyRef/name", "other"),
    ("Deployment", "spec/strategy", None),
    ("Deployment", "spec/strategy", {"type": "RollingUpdate"}),
    ("Job", "spec/backoffLimit", None),
    ("Job", "spec/backoffLimit", 0),
    ("Job", "spec/backoffLimit", 600),
    ("Job", "spec/activeDeadlineSeconds", None),
    ("Job", "spec/activeDeadlineSeconds", 10),
    ("Job", "spec/ttlSecondsAfterFinished", None),
    ("Job", "spec/ttlSecondsAfterFinished", 10**6),
    ("Job", "spec/template/spec/containers/0/args", ["import boto3\nif True:\n"]),
    ("Job", "spec/template/spec/containers/0/envFrom/1/secretRef/name", "hipray-redis"),
    ("RayService", "spec/suspend", True),
    ("RayService", f"{SPREAD}/0/matchLabelKeys", None),
    ("RayService", f"{SPREAD}/0/matchLabelKeys", ["app.kubernetes.io/component"]),
    ("RayService", f"{SPREAD}/0/nodeTaintsPolicy", None),
    ("RayService", f"{SPREAD}/0/nodeTaintsPolicy", "Ignore"),
    ("RayService", f"{SPREAD}/0/maxSkew", 2),
    ("CronJob", f"{CRON_POD}/serviceAccountName", "hipray-worker"),
    ("CronJob", f"{CRON_POD}/securityContext/runAsGroup", 0),
    ("CronJob", "spec/timeZone", "Europe/Belin"),
    ("CronJob", "spec/startingDeadlineSeconds", 5),
    ("CronJob", "spec/jobTemplate/spec/backoffLimit", 6000),
    ("CronJob", FINAL_CODES.replace("values", "operator"), "NotIn"),
    ("RayService", "spec/rayClusterDeletionDelaySeconds", 0),
    ("RayService", "metadata/name", "h" * 48),
    ("RayService", "spec/upgradeStrategy/type", "None"),
    ("RayService", "spec/excludeHeadPodFromServeSvc", None),
    ("CronJob", "spec/concurrencyPolicy", "Allow"),
    *(
        ("CronJob", f"{FAILURES}/{place}", {"action": action, "onExitCodes": codes})
        for place in ("+", "0")
        for action in ("Ignore", "Count")
        for codes in (_codes(75), _codes(2, 3, 4, 5, 6, 11, 143), _codes(2))
    ),
    ("CronJob", f"{FAILURES}/+", {"action": "Ignore", "onExitCodes": _codes(75)}),
    ("CronJob", f"{FAILURES}/0/action", "Ignore"),
    ("CronJob", f"{FAILURES}/1/action", "Count"),
    ("Namespace", "metadata/labels/pod-security.kubernetes.io~enforce", "baseline"),
    ("Namespace", "metadata/labels/pod-security.kubernetes.io~enforce", None),
    ("Namespace", "metadata/labels/pod-security.kubernetes.io~enforc", "restricted"),
    ("Namespace", "metadata/labels/pod-security.kubernetes.io~enforce-version", "v1.0"),
    ("Namespace", "metadata/labels/pod-security.kubernetes.io~warn", "privileged"),
    ("Namespace", "metadata/labels", None),
    ("Namespace", "metadata/annotations", {"scheduler.alpha.kubernetes.io/node-selector": "x"}),
    ("CronJob", f"{FINAL_CODES}/+", 75),
    ("CronJob", FINAL_CODES, [2]),
    ("CronJob", FINAL_CODES, [2, 3, 4, 6, 143]),
    ("CronJob", f"{CRON_POD}/securityContext/runAsUser", 0),
    ("CronJob", "spec/schedule", "* * * * *"),
    ("CronJob", "spec/schedule", "30 2 * *"),
    ("CronJob", f"{CRON_POD}/restartPolicy", "OnFailure"),
    ("CronJob", f"{CRON_POD}/containers/0/env", []),
    ("CronJob", f"{CRON_POD}/containers/0/env/0/value", "http://another:8265"),
    ("CronJob", f"{CRON_POD}/containers/0/env/2", {"name": "RAY_AUTH_TOKEN", "value": "x"}),
    ("CronJob", f"{CRON_POD}/containers/0/args", ["exec python cluster/sumbit.py score"]),
    ("CronJob", f"{CRON_POD}/containers/0/args", [f"{SUBMIT} score --images a --set actor=2"]),
    ("CronJob", FINAL_CODES.replace("values", "containerName"), "another"),
    ("NetworkPolicy", "spec/podSelector", {"matchLabels": {"app": "x"}}),
    ("NetworkPolicy", "spec/ingress", [{"from": [ANY_NAMESPACE], "ports": HTTPS}]),
    ("NetworkPolicy", "spec/egress", [{"to": [HALF], "ports": HTTPS}]),
    ("NetworkPolicy", "spec/ingress", [{"from": [EVERYWHERE]}]),
    ("NetworkPolicy", "spec/ingress", [{"ports": HTTPS}]),
    ("NetworkPolicy", "spec/ingress", [{"from": [{"namespaceSelector": {}}]}]),
    ("NetworkPolicy", "spec/ingress", [{"from": [{"podSelector": {}}]}]),
    ("NetworkPolicy", "spec/egress", [{"to": [EVERYWHERE], "ports": HTTPS}]),
    ("NetworkPolicy", "spec/egress", [{"ports": HTTPS}]),
    ("Ingress", "spec/tls/0/hosts", ["other.example.org"]),
    ("Ingress", "spec/rules/0/http/paths/0/backend/service/name", "hipray-head-svc"),
    ("Ingress", "spec/rules/0/http/paths/0/backend/service/port/number", 8265),
    ("Ingress", "spec/rules/0/http/paths/0/path", "/docs"),
    ("Ingress", "spec/rules/0/http/paths/0/pathType", "Prefix"),
    ("Ingress", "spec/rules/0/http/paths/1/path", "/"),
    ("Ingress", "spec/ingressClassName", "ngnix"),
    ("Ingress", "spec/tls/0/secretName", "hipray-ray-token"),
    ("Ingress", "metadata/annotations/nginx.ingress.kubernetes.io~ssl-redirect", "false"),
    ("PodDisruptionBudget", "spec/maxUnavailable", 2),
    ("PodMonitor", "spec/podMetricsEndpoints/0/port", "as-metric"),
    ("PodMonitor", "spec/podMetricsEndpoints/+", {"port": "dash-metricss"}),
    ("PodMonitor", "spec/selector/matchLabels/ray.io~node-type", "wroker"),
    ("Service", "spec/type", "LoadBalancer"),
    ("StatefulSet", "spec/template/spec/containers/0/image", "redis"),
    ("PrometheusRule", "spec/groups/0/rules/0/exprs", "up"),
]


REDIS = "spec/template/spec/containers/0"
REDIS_SLIPS: list[tuple[str, Any]] = [
    ("spec/replicas", 2),
    ("spec/volumeClaimTemplates", None),
    (f"{REDIS}/volumeMounts/0/mountPath", "/var/data"),
    (f"{REDIS}/args", ["exec redis-server"]),
    (f"{REDIS}/env", [{"name": "REDIS_PASSWORD", "value": "hunter2"}]),
    (f"{REDIS}/env/0/valueFrom/secretKeyRef/key", "passwd"),
    (f"{REDIS}/readinessProbe", None),
    (f"{REDIS}/image", "redis:7.2.10"),
    (f"{REDIS}/image", "redis:7.4.5"),
    ("spec/volumeClaimTemplates/0/spec/accessModes", ["ReadOnlyMany"]),
    ("spec/volumeClaimTemplates/0/spec/resources/requests/storage", "4"),
    ("spec/serviceName", "redis"),
    *(
        (f"{REDIS}/resources", {"requests": amounts, "limits": amounts})
        for amounts in (
            {"cpu": "1m", "memory": "256Mi"},
            {"cpu": "16", "memory": "256Mi"},
            {"cpu": "500m", "memory": "64Gi"},
            {"cpu": "500m", "memory": "8Mi"},
        )
    ),
    *(
        ("spec/volumeClaimTemplates/0/spec/resources/requests/storage", size)
        for size in ("4Ti", "51Gi", "400Gi")
    ),
]


@pytest.mark.parametrize(("path", "value"), REDIS_SLIPS)
def test_a_slip_in_what_the_heads_remember_with_is_found(path: str, value: Any) -> None:
    (redis,) = [copy.deepcopy(d) for _, d in DOCUMENTS if d["metadata"]["name"] == "hipray-redis"
                and d["kind"] == "StatefulSet"]  # fmt: skip
    spoil(redis, path, value)
    assert _complaints(redis)


@pytest.mark.parametrize(("kind", "path", "value"), OTHER_SLIPS)
def test_a_slip_in_any_other_place_is_found(kind: str, path: str, value: Any) -> None:
    documents = [document for _, document in DOCUMENTS if document["kind"] == kind]
    assert documents
    for document in documents:
        spoilt = copy.deepcopy(document)
        spoil(spoilt, path, value)
        assert _complaints(spoilt), document["metadata"]["name"]


STAGE = "applications/0/deployments/0"
SERVE_SLIPS: list[tuple[str, Any]] = [
    (f"{STAGE}/num_replica", 3),
    (f"{STAGE}/autoscaling_config/max_replicas", 1000),
    (f"{STAGE}/name", "segmenter"),
    ("applications/0/args/cpus_per_stage", 6),
    ("applications/0/args/gpus_per_stage", 1),
    ("applications/0/args/gpus_per_stage", 0.1),
    ("applications/0/args/scaling/matting/min_replicas", 5),
    ("applications/0/args/scaling/matting/max_replicas", 1000),
    ("applications/0/args/scaling/matting/max_replicas_per_nodes", 1),
    ("applications/0/args/scaling/segmentor", {"min_replicas": 2}),
    (f"{STAGE}/autoscaling_config/min_replica", 2),
    ("applications/0/args/relaese", "x"),
    ("applications/0/args/token_sha256", None),
    ("applications/0/args/host", "127.0.0.1"),
    ("applications/0/import_path", "hipray.serving.app:app"),
    ("applications/0/args/allowed_prefixes", ["s3://"]),
    ("applications/0/args/allow_phantom_release", True),
    ("applications/0/args/max_replicas", 4000),
    ("http_options/request_timeout_s", 5),
    ("http_options/keep_alive_timeout_s", 5),
    ("http_options/port", 8001),
    ("proxy_location", "HeadOnly"),
    (f"{STAGE}/ray_actor_options", {"num_cpus": 64}),
    (f"{STAGE}/autoscaling_config/upscale_delay_s", 100000),
    ("target_capacity", 0),
]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HIPRAY_RELEASE", "older", "answers with default and scores with older"),
        ("AWS_ENDPOINT_URL", "http://store:9000", "sends films to http://store:9000 in the clear"),
    ],
)
def test_a_slip_in_the_settings_of_production_is_found(name: str, value: str, said: str) -> None:
    standing, jobs = (build(ROOT / "k8s/overlays" / each) for each in ("prod", "prod/jobs"))
    (settings,) = [each for each in standing if each["kind"] == "ConfigMap"]
    settings["data"][name] = value
    assert list(find_overlay_problems(standing, jobs)) == [said]


@pytest.mark.parametrize(
    ("network", "taken"),
    [
        ("10.0.7.0/24", True),
        ("172.31.8.9/32", True),
        ("192.168.1.128/25", True),
        ("10.0.0.0/16", False),
        ("172.32.8.9/32", False),
        ("169.254.169.254/32", False),
        ("0.0.0.0/0", False),
    ],
)
def test_only_private_endpoints_stand_beside_the_public_addresses_of_a_store(
    network: str, taken: bool
) -> None:
    (policy,) = [copy.deepcopy(d) for _, d in DOCUMENTS if d["metadata"]["name"] == "ray-to-store"]
    policy["spec"]["egress"][0]["to"].append({"ipBlock": {"cidr": network}})
    assert (_complaints(policy) == []) is taken


GRID = "python /opt/hipray/jobs/grid.py --preset grid"


PLACE = '--workspace "$HIPRAY_WORKSPACE"'


@pytest.mark.parametrize(
    ("job", "before", "after"),
    [
        ("grid", "--preset grid", "--preset grid --dry-run"),
        ("grid", "grid.py", "segment.py"),
        ("grid", " --set scaling.gpus_per_lane=0.5", ""),
        ("grid", "scaling.lanes=8", "scaling.lanes=80"),
        ("grid", "cpus_per_lane=3", "cpus_per_lane=8"),
        ("grid", "cpus_per_lane=3", "cpus_per_lane=4"),
        *((job, PLACE, "--workspace /tmp/work") for job in ("grid", "report", "score", "tune")),
        ("grid", PLACE, f"{PLACE} --workspace /tmp/work"),
        ("grid", PLACE, "--workspace s3://hospital-hipray/osteoporosis"),
        ("score", PLACE, f"{PLACE} --output /tmp/x"),
        ("score", PLACE, f"{PLACE} --set output=/tmp/x"),
        ("score", PLACE, f'{PLACE} --output "$HIPRAY_ARCHIVE/scores"'),
        ("score", '"$HIPRAY_ARCHIVE"', '"$HIPRAY_INCOMING"'),
        ("score", '"$HIPRAY_ARCHIVE"', "/tmp/films"),
        ("score", "actors=4", "actors=4000"),
        ("score", "actors=4", "actors=17"),
        ("score", "actors=4", "actors=4 --set max_actors=4000"),
        ("score", "cpus_per_actor=4", "cpus_per_actor=0"),
        ("tune", "resources.max_concurrent=8", "resources.max_concurrent=800"),
        ("tune", "resources.max_concurrent=8", "resources.max_concurrent=9"),
        ("tune", "--set resources.max_concurrent=8 ", ""),
        *((job, PLACE, f"{PLACE} '--dry-'run") for job in ("grid", "report", "score", "tune")),
        ("score", ' --release "$HIPRAY_RELEASE"', ""),
        ("score", '"$HIPRAY_RELEASE"', "default"),
        ("score", "actors=4", "actors=4 --set max_failed_fraction=1"),
        ("score", "actors=4", "actors=4 --set max_failed_fraction=0"),
        ("score", "actors=4", "actors=4 --set gpus_per_actor=0.5"),
        *(
            (job, PLACE, f"{PLACE} --set storage.endpoint_url={url}")
            for job in ("grid", "report", "score", "tune")
            for url in ("http://store:9000", "https://store.example.org")
        ),
    ],
)
def test_a_slip_in_the_command_of_a_job_is_found(job: str, before: str, after: str) -> None:
    name = f"hipray-{job}"
    (found,) = [d for _, d in RAY_DOCUMENTS if d["metadata"]["name"] == name]
    spoilt = copy.deepcopy(found)
    assert before in spoilt["spec"]["entrypoint"]
    spoilt["spec"]["entrypoint"] = spoilt["spec"]["entrypoint"].replace(before, after)
    assert _complaints(spoilt)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("--set actors=2", "--set actors=2 --dry-run"),
        ("--set actors=2", "--set actors=2 --set max_failed_fraction=0.9"),
        ("--set actors=2", "--set actors=2 --set gpus_per_actor=2"),
        ("--set actors=2", "--set actors=2 --set storage.endpoint_url=http://store:9000"),
        (' --release "$HIPRAY_RELEASE"', ""),
        ('--release "$HIPRAY_RELEASE"', "--release default"),
    ],
)
def test_a_slip_in_the_command_of_a_night_is_found(before: str, after: str) -> None:
    (night,) = [copy.deepcopy(d) for _, d in DOCUMENTS if d["kind"] == "CronJob"]
    (container,) = night["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert before in container["args"][0]
    container["args"] = [container["args"][0].replace(before, after)]
    assert _complaints(night)


@pytest.mark.parametrize("job", ["grid", "tune", "score"])
def test_a_job_of_days_with_a_deadline_of_hours_is_found(job: str) -> None:
    (found,) = [copy.deepcopy(d) for _, d in DOCUMENTS if d["metadata"]["name"] == f"hipray-{job}"
                and d["kind"] == "RayJob"]  # fmt: skip
    found["spec"]["activeDeadlineSeconds"] = 24 * 3600 - 1
    assert _complaints(found)


def test_a_worker_that_always_stands_for_nobody_is_found() -> None:
    for name, document in RAY_DOCUMENTS:
        spoilt = copy.deepcopy(document)
        serves = document["kind"] == "RayService"
        for key in ("minReplicas", "replicas"):
            spoil(spoilt, f"{CLUSTER_IN[document['kind']]}/{GROUP}/{key}", 0 if serves else 1)
        assert _complaints(spoilt), name


NETWORKS = (
    "169.254.169.254/32", "169.254.0.0/24", "0.0.0.0/0", "128.0.0.0/1", "10.1.2.3/24",
    "300.1.2.3/32", "10.1.2.3/33", "10.1.2/32",
)  # fmt: skip


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", ["ray-to-store", "head-to-kubernetes"])
def test_a_policy_with_the_metadata_service_or_no_network_is_found(name: str, network: str) -> None:
    (policy,) = [copy.deepcopy(d) for _, d in DOCUMENTS if d["metadata"]["name"] == name]
    policy["spec"]["egress"][0]["to"] = [{"ipBlock": {"cidr": network}}]
    assert _complaints(policy)


@pytest.mark.parametrize(
    "script",
    [
        'boto3.client("s3").create_buckets(Bucket="hipray-dev")',
        's3 = boto3.client("s3")\ns3.create_bucket(Name="hipray-dev")',
        's3 = boto3.client("s3")\ns3.create_bucket()',
        's3 = boto3.client("s4")',
        's3 = boto3.client("s3", verify=False)',
        's3 = boto3.clinet("s3")',
        'import os\nos.system("id")',
        'from os import system\nsystem("id")',
        'print("made")',
    ],
)
def test_a_script_of_the_bucket_that_s3_does_not_know_is_found(script: str) -> None:
    (job,) = [copy.deepcopy(d) for _, d in DOCUMENTS if d["kind"] == "Job"]
    job["spec"]["template"]["spec"]["containers"][0]["args"] = [f"import boto3\n{script}\n"]
    assert _complaints(job)


OVERLAY_SLIPS: list[tuple[str, str, str, Any]] = [
    *(
        ("prod", "ConfigMap/hipray-settings", f"data/{key}", value)
        for key, value in (
            ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_ACCESS_KEY_ID", "x"), ("RAY_AUTH_TOKEN", "x"),
            ("RAY_AUTH_MODE", "disabled"), ("MLFLOW_TRACKING_PASSWORD", "x"),
            ("AWS_ENDPOINT_URL_S3", "http://store:9000"), ("AWS_ENDPOINT_URL", "HTTP://store"),
        )
    ),
    ("prod", "PrometheusRule/hipray", "spec/groups/0/rules", []),
    ("prod", "PrometheusRule/hipray", "spec/groups", []),
    ("prod", "PrometheusRule/hipray", "spec/groups/0/rules/0/expr", "vector(0) > 1"),
    ("prod", "CronJob/hipray-score", "spec/suspend", True),
    ("dev", "CronJob/hipray-score", "spec/suspend", None),
    ("dev", "CronJob/hipray-score", "spec/suspend", False),
    ("dev", "RayJob/hipray-score", "spec/entrypoint",
     'python /opt/hipray/jobs/score.py --workspace "$HIPRAY_WORKSPACE" '
     '--release "$HIPRAY_RELEASE" --images "$HIPRAY_ARCHIVE"'),
    ("prod", "RayJob/hipray-score", "spec/entrypoint",
     'python /opt/hipray/jobs/score.py --workspace "$HIPRAY_WORKSPACE" '
     '--release "$HIPRAY_RELEASE" --images "$HIPRAY_ARCHIVE" --allow-phantom-release true'),
    ("prod", "RayJob/hipray-report", "spec/entrypoint",
     'python /opt/hipray/jobs/report.py gird --workspace "$HIPRAY_WORKSPACE"'),
    ("prod", "RayJob/hipray-tune", "spec/entrypoint",
     'python /opt/hipray/jobs/tune.py --workspace "$HIPRAY_WORKSPACE" --run grid'),
    ("prod", "RayJob/hipray-tune", "spec/entrypoint",
     'python /opt/hipray/jobs/tune.py --workspace "$HIPRAY_WORKSPACE" --set grid=gird'),
    ("prod", "RayCluster/hipray", "spec/workerGroupSpecs/0/template/spec/containers/0/resources",
     {"requests": {"cpu": "2", "memory": "8Gi"}, "limits": {"cpu": "2", "memory": "8Gi"}}),
    ("prod", "Ingress/hipray",
     "metadata/annotations/nginx.ingress.kubernetes.io~proxy-read-timeout", "65"),
]  # fmt: skip


@pytest.mark.parametrize(("overlay", "place", "path", "value"), OVERLAY_SLIPS)
def test_a_slip_in_what_an_overlay_makes_is_found(
    overlay: str, place: str, path: str, value: Any
) -> None:
    standing, jobs = _build(overlay), _build(f"{overlay}/jobs")
    (found,) = [d for d in standing + jobs if f"{d['kind']}/{d['metadata']['name']}" == place]
    spoil(found, path, value)
    if place == "RayCluster/hipray":
        for group in found["spec"]["workerGroupSpecs"][1:]:
            found["spec"]["workerGroupSpecs"].remove(group)
    assert list(find_overlay_problems(standing, jobs))


def _build(overlay: str) -> list[Document]:
    return build(ROOT / "k8s/overlays" / overlay)


@pytest.mark.parametrize(("http", "run", "delay"), [(80, 70, 120), (150, 140, 120), (65, 60, 64)])
def test_an_endpoint_that_is_given_up_while_it_answers_is_found(
    http: int, run: int, delay: int
) -> None:
    standing, jobs = _build("prod"), _build("prod/jobs")
    (service,) = [each for each in standing if each["kind"] == "RayService"]
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    config["http_options"] |= {"request_timeout_s": http, "keep_alive_timeout_s": 200}
    config["applications"][0]["args"]["request_timeout_s"] = run
    service["spec"]["serveConfigV2"] = yaml.safe_dump(config)
    service["spec"]["rayClusterDeletionDelaySeconds"] = delay
    assert [*find_overlay_problems(standing, jobs), *_complaints(service)]


def test_a_cluster_that_goes_before_its_last_answers_is_found() -> None:
    (service,) = [copy.deepcopy(d) for _, d in DOCUMENTS if d["kind"] == "RayService"]
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    config["http_options"] |= {"request_timeout_s": 150, "keep_alive_timeout_s": 200}
    service["spec"]["serveConfigV2"] = yaml.safe_dump(config)
    (said,) = _complaints(service)
    assert "still answers" in said


@pytest.mark.parametrize(
    ("lanes", "gib", "fits"), [(8, 14, True), (8, 13, False), (32, 50, True), (32, 49, False)]
)
def test_a_head_without_room_for_its_lanes_is_found(lanes: int, gib: float, fits: bool) -> None:
    complaints = list(check_head_memory(f"{GRID} --set scaling.lanes={lanes}", gib))
    assert (complaints == []) is fits


def test_a_grid_that_leaves_its_lanes_to_the_cluster_is_found() -> None:
    assert list(check_head_memory(GRID, 1000))


@pytest.mark.parametrize(("path", "value"), SERVE_SLIPS)
def test_a_slip_inside_the_serve_configuration_is_found(path: str, value: Any) -> None:
    (service,) = [copy.deepcopy(d) for _, d in DOCUMENTS if d["kind"] == "RayService"]
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    spoil(config, path, value)
    service["spec"]["serveConfigV2"] = yaml.safe_dump(config)
    assert _complaints(service)


MAY_GO = {
    f"applications/0/{key} left out"
    for key in (
        "deployments", "args/rollout_timeout_s", "args/allow_phantom_release", "args/scaling",
        "args/scaling/segmenter", "args/scaling/matting", "args/scaling/ensemble",
        *(f"args/scaling/{stage}/{key}" for stage in ("segmenter", "matting", "ensemble")
          for key in ("min_replicas", "max_replicas_per_node")),
        "deployments/0/autoscaling_config", "deployments/0/max_replicas_per_node",
    )
}  # fmt: skip
"""What an endpoint of one replica on one node does not say."""


@pytest.mark.parametrize("folder", ["base", "overlays/dev", "overlays/prod"])
def test_each_slip_in_a_serve_configuration_is_found(folder: str) -> None:
    (service,) = [d for d in build(ROOT / "k8s" / folder) if d["kind"] == "RayService"]
    for slip, config in spoil_everywhere(yaml.safe_load(service["spec"]["serveConfigV2"])):
        spoilt = copy.deepcopy(service)
        spoilt["spec"]["serveConfigV2"] = yaml.safe_dump(config)
        assert _complaints(spoilt) or slip in MAY_GO, slip


def test_a_secret_in_a_file_is_found() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}
    assert find_schema_errors(secret)
    assert find_problems(secret)


def test_every_folder_of_manifests_is_spoilt() -> None:
    spoilt = {name.partition(":")[0] for name, _ in DOCUMENTS}
    written = {path.name for path in Path(ROOT / "k8s").rglob("*.yaml")}
    assert written - spoilt == {
        "kustomization.yaml", "settings.patch.yaml", "grid.16-gpus.patch.yaml",
    }  # fmt: skip


KUSTOMIZATIONS = sorted((ROOT / "k8s").rglob("kustomization.yaml"))


def _place(path: Path) -> str:
    return str(path.parent.relative_to(ROOT / "k8s"))


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=_place)
def test_a_kustomization_has_known_keys_and_each_slip_in_it_is_found(path: Path) -> None:
    (kustomization,) = read_documents(path)
    overlay = "overlays" in path.parts
    assert find_kustomization_errors(kustomization, overlay=overlay) == []
    free = {"namespace left out", "images left out", "patches left out"}
    for slip, spoilt in spoil_everywhere(kustomization):
        found = find_kustomization_errors(spoilt, overlay=overlay)
        assert found or _fails(path.parent, spoilt) or slip in free - _needed(overlay), slip


@pytest.mark.parametrize("overlay", ["dev", "dev/jobs", "prod", "prod/jobs"])
def test_an_overlay_with_one_image_for_both_targets_is_found(overlay: str) -> None:
    (kustomization,) = read_documents(ROOT / "k8s/overlays" / overlay / "kustomization.yaml")
    for number in range(2):
        spoilt = copy.deepcopy(kustomization)
        del spoilt["images"][number]
        assert find_kustomization_errors(spoilt, overlay=True)


def _needed(overlay: bool) -> set[str]:
    return {"namespace left out", "images left out"} if overlay else set()


def _fails(folder: Path, kustomization: Document) -> bool:
    """Whether kustomize itself, or what it makes, would be refused."""
    try:
        documents = build(folder, kustomization)
    except (ValueError, KeyError, TypeError, OSError):
        return True
    return any(_complaints(document) for document in documents)


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_an_overlay_sets_only_settings_that_exist(overlay: str) -> None:
    (base,) = read_documents(BASE / "settings.yaml")
    (patch,) = read_documents(ROOT / f"k8s/overlays/{overlay}/settings.patch.yaml")
    assert patch["metadata"]["name"] == base["metadata"]["name"]
    endpoint = {"AWS_ENDPOINT_URL"}  # a store of one's own; without it AWS
    assert set(patch["data"]) <= set(base["data"]) | endpoint
    assert all(isinstance(value, str) for value in patch["data"].values())
