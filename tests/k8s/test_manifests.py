"""Every manifest, as written and as the overlays make it, against schemas and rules."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.policies import read_place
from tests.k8s.containers import SUBMITTER_ENV
from tests.k8s.entrypoints import ROOT, check_entrypoint
from tests.k8s.images import Target
from tests.k8s.kustomize import Document, build, read_documents
from tests.k8s.openings import OPENINGS, find_namespace_problems, read_namespaces
from tests.k8s.overlays import (
    find_overlay_problems,
    find_region_problems,
    find_unnamed_ports,
    list_own_images,
    read_role,
    read_settings,
)
from tests.k8s.pods import count_cpus, gib, list_pods
from tests.k8s.ray_documents import ENDPOINT, LONGEST_NAME, cluster_of
from tests.k8s.rules import find_problems
from tests.k8s.schemas import find_schema_errors
from tests.k8s.secrets_script import find_secrets_problems
from tests.k8s.shapes import REDIS

K8S = ROOT / "k8s"
OVERLAYS = ("dev", "dev/jobs", "prod", "prod/jobs")
SIZE = K8S / "overlays/prod/jobs/grid.16-gpus.patch.yaml"
FILES = sorted(
    path for path in K8S.rglob("*.yaml") if path.name != "kustomization.yaml" and path != SIZE
)


def _names(documents: list[Document], kind: str) -> set[str]:
    return {each["metadata"]["name"] for each in documents if each["kind"] == kind}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(K8S)))
def test_a_manifest_has_known_fields_and_keeps_the_rules(path: Path) -> None:
    documents = read_documents(path)
    assert documents
    assert [error for each in documents for error in find_schema_errors(each)] == []
    assert [problem for each in documents for problem in find_problems(each)] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_an_overlay_makes_keeps_them_too(overlay: str) -> None:
    documents = build(K8S / "overlays" / overlay)
    assert [error for each in documents for error in find_schema_errors(each)] == []
    assert [problem for each in documents for problem in find_problems(each)] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_overlays_are_read_as_kubectl_reads_them(overlay: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    folder = K8S / "overlays" / overlay
    made = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60
    )
    assert made.returncode == 0, made.stderr
    assert _by_name(list(yaml.safe_load_all(made.stdout))) == _by_name(build(folder))


def _by_name(documents: list[Document]) -> dict[tuple[str, str], Document]:
    for each in documents:
        text = each.get("spec", {}).get("serveConfigV2")
        if text:  # kustomize takes its last line end away
            each["spec"]["serveConfigV2"] = text.rstrip()
    return {(each["kind"], each["metadata"]["name"]): each for each in documents}


@pytest.mark.parametrize("path", [*FILES, SIZE], ids=lambda path: str(path.relative_to(K8S)))
def test_every_manifest_is_used(path: Path) -> None:
    kustomization = (path.parent / "kustomization.yaml").read_text("utf-8")
    assert path.name in kustomization


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_every_pod_starts_behind_a_closed_door(overlay: str) -> None:
    policies = [
        each for each in build(K8S / "overlays" / overlay) if each["kind"] == "NetworkPolicy"
    ]
    everything = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert [each["metadata"]["name"] for each in policies if each["spec"] == everything] == [
        "deny-all"
    ]


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_no_policy_opens_the_dashboard_to_the_ingress(overlay: str) -> None:
    for each in build(K8S / "overlays" / overlay):
        if each["kind"] != "NetworkPolicy":
            continue
        for rule in each["spec"].get("ingress", []):
            ports = {port["port"] for port in rule.get("ports", [])}
            if "ingress-nginx" in str(rule["from"]):
                assert ports == {8000}


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_the_namespace_enforces_the_restricted_profile(overlay: str) -> None:
    (namespace,) = [e for e in build(K8S / "overlays" / overlay) if e["kind"] == "Namespace"]
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_what_pods_name_exists(overlay: str) -> None:
    documents = build(K8S / "overlays" / overlay) + build(K8S / "overlays" / overlay / "jobs")
    text = yaml.safe_dump_all(documents)
    accounts = {pod["spec"].get("serviceAccountName") for d in documents for _, pod in list_pods(d)}
    assert accounts - {None} <= _names(documents, "ServiceAccount")
    assert _references(documents, "configMapRef") <= _names(documents, "ConfigMap")
    made = _made_secrets()
    secrets = _references(documents, "secretRef") | _references(documents, "secretKeyRef")
    assert secrets | {"hipray-ray-token"} <= set(made)
    keys = re.findall(r"secretKeyRef:\s+key: (\S+)\s+name: (\S+)", text)
    assert keys
    assert [(name, key) for key, name in keys if key not in made[name]] == []
    assert "auth_token" in made["hipray-ray-token"], "the key that the operator looks for"
    assert "hipray-ray-token" in text


def _made_secrets() -> dict[str, list[str]]:
    script = (K8S / "secrets.sh").read_text("utf-8")
    calls = re.findall(r"^(?:if .*; then )?make_secret ([^;\n]+)", script, re.M)
    return {name: keys for name, *keys in (call.split() for call in calls)}


def test_the_secrets_are_random_go_to_kubectl_and_are_printed_nowhere(tmp_path: Path) -> None:
    seen = tmp_path / "seen.yaml"
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        f'#!/bin/bash\nif [[ "$*" == *create* ]]; then (cat; echo ---) >> {seen}; exit; fi\n'
        'if [[ "$*" == *"get secret"* ]]; then exit 1; fi\n'
    )
    kubectl.chmod(0o700)
    ended = subprocess.run(
        ["bash", str(K8S / "secrets.sh"), "hipray", "--store"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    made = [each for each in yaml.safe_load_all(seen.read_text()) if each]
    values = [value for secret in made for value in secret["stringData"].values()]
    assert {s["metadata"]["name"]: [*s["stringData"]] for s in made} == _made_secrets()
    assert len(set(values)) == len(values)
    for value in values:
        assert re.fullmatch(r"[0-9a-f]{64}", value)
        assert value not in ended.stdout + ended.stderr


def _build_both(overlay: str) -> tuple[list[Document], list[Document]]:
    return build(K8S / "overlays" / overlay), build(K8S / "overlays" / overlay / "jobs")


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_endpoint_jobs_and_cluster_have_one_place_image_workspace_and_release(overlay: str) -> None:
    assert list(find_overlay_problems(*_build_both(overlay))) == []


@pytest.mark.parametrize("overlay", ["prod", "prod/jobs"])
def test_a_new_tag_of_each_target_leaves_gpu_pods_their_gpu_image(overlay: str) -> None:
    folder = K8S / "overlays" / overlay
    (kustomization,) = read_documents(folder / "kustomization.yaml")
    for entry in kustomization["images"]:
        entry["newTag"] = entry["newTag"].replace("0.1.0", "0.2.0")
    documents = build(folder, kustomization)
    assert [problem for each in documents for problem in find_problems(each)] == []
    images = list_own_images(documents)
    assert {image.version for image in images} == {"0.2.0"}
    assert {image.target for image in images} == set(Target)


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_each_port_that_prometheus_asks_is_one_of_a_pod(overlay: str) -> None:
    assert list(find_unnamed_ports([d for half in _build_both(overlay) for d in half])) == []


def test_a_port_that_no_pod_names_is_found() -> None:
    documents = build(K8S / "overlays/prod")
    (cluster,) = [each for each in documents if each["kind"] == "RayCluster"]
    (container,) = cluster_of(cluster)["headGroupSpec"]["template"]["spec"]["containers"]
    container["ports"] = []
    assert list(find_unnamed_ports(documents)) == [
        "hipray-head asks ['as-metrics', 'dash-metrics'] of no pod"
    ]


def test_the_grid_on_16_gpus_keeps_the_rules() -> None:
    folder = K8S / "overlays/prod/jobs"
    text = (folder / "kustomization.yaml").read_text("utf-8")
    used = yaml.safe_load(re.sub(r"(?m)^# (patches:|  - path:|    target:)", r"\1", text))
    documents = build(folder, used)
    assert [problem for each in documents for problem in find_problems(each)] == []
    (grid,) = [each for each in documents if each["metadata"]["name"] == "hipray-grid"]
    assert cluster_of(grid)["workerGroupSpecs"][0]["maxReplicas"] == 16
    assert "scaling.lanes=32" in grid["spec"]["entrypoint"]


def test_heads_find_redis_where_its_service_is() -> None:
    documents = read_documents(K8S / "base/redis.yaml")
    (service,) = [each for each in documents if each["kind"] == "Service"]
    (port,) = service["spec"]["ports"]
    assert f"{service['metadata']['name']}:{port['port']}" == REDIS["redisAddress"]


def _references(node: Any, key: str) -> set[str]:
    if isinstance(node, list):
        return {name for each in node for name in _references(each, key)}
    if not isinstance(node, dict):
        return set()
    own = {node[key]["name"]} if key in node else set()
    return own | {name for each in node.values() for name in _references(each, key)}


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_each_service_monitor_budget_and_policy_selects_pods_that_exist(overlay: str) -> None:
    documents = build(K8S / "overlays" / overlay) + build(K8S / "overlays" / overlay / "jobs")
    pods = [pod["metadata"]["labels"] for each in documents for _, pod in list_pods(each)]
    known = {(key, value) for labels in pods for key, value in labels.items()}
    for each in documents:
        if each["kind"] in {"PodMonitor", "PodDisruptionBudget"}:
            wanted = each["spec"]["selector"]["matchLabels"]
        elif each["kind"] == "Service":
            wanted = each["spec"]["selector"]
        elif each["kind"] == "NetworkPolicy":
            wanted = each["spec"]["podSelector"].get("matchLabels", {})
        else:
            continue
        own = {(k, v) for k, v in wanted.items() if not k.startswith("ray.io/")}
        assert own <= known, each["metadata"]["name"]


RAY_LABELS = {
    ("ray.io/is-ray-node", "yes"), ("ray.io/node-type", "head"), ("ray.io/node-type", "worker"),
    ("ray.io/node-type", "redis-cleanup"),
}  # fmt: skip
"""What the operator itself puts on pods."""


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_policies_name_pods_and_namespaces_that_exist(overlay: str) -> None:
    documents = build(K8S / "overlays" / overlay) + build(K8S / "overlays" / overlay / "jobs")
    pods = [pod["metadata"]["labels"] for each in documents for _, pod in list_pods(each)]
    known = {pair for labels in pods for pair in labels.items()} | RAY_LABELS
    for each in documents:
        if each["kind"] != "NetworkPolicy":
            continue
        spec, rules = each["spec"], []
        assert set(spec["podSelector"].get("matchLabels", {}).items()) <= known
        for rule in spec.get("ingress", []):
            rules += rule["from"]
        for rule in spec.get("egress", []):
            rules += rule["to"]
        for peer in rules:
            names = peer.get("namespaceSelector", {}).get("matchLabels", {})
            assert set(names) <= {"kubernetes.io/metadata.name"}
            if not names:
                labels = peer.get("podSelector", {}).get("matchLabels", {})
                assert set(labels.items()) <= known, each["metadata"]["name"]


def test_policies_trust_the_namespaces_that_file_and_runbook_name() -> None:
    path = K8S / "base/network-policies.yaml"
    assert list(find_namespace_problems(path)) == []
    text = " ".join((K8S / "README.md").read_text("utf-8").split())
    (named,) = re.findall(r"namespaces that the policies trust: (.+?)\.", text)
    assert set(re.findall(r"`(.+?)`", named)) == set(read_namespaces(path).values())


FIXED_SETTINGS = {
    "AWS_DEFAULT_REGION", "RAY_USAGE_STATS_ENABLED", "NO_ALBUMENTATIONS_UPDATE", "HIPRAY_CACHE",
    "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE",
}  # fmt: skip


def test_the_settings_are_those_that_entries_and_libraries_read() -> None:
    (settings,) = read_documents(K8S / "base/settings.yaml")
    text = "".join(path.read_text("utf-8") for path in K8S.rglob("*.yaml"))
    used = set(re.findall(r"\$(HIPRAY_[A-Z]+)", text))
    assert set(settings["data"]) == used | FIXED_SETTINGS
    source = "".join(path.read_text("utf-8") for path in (ROOT / "hipray").rglob("*.py"))
    assert '"HIPRAY_CACHE"' in source
    assert settings["data"]["HIPRAY_CACHE"].startswith("/tmp/"), "a volume of the pod"


@pytest.mark.parametrize("folder", ["base", "overlays/dev", "overlays/prod"])
def test_pods_ask_a_region_that_exists(folder: str) -> None:
    assert list(find_region_problems(build(K8S / folder))) == []


@pytest.mark.parametrize("region", ["eu-centrl-1", "", "eu-central-1a"])
def test_a_region_that_does_not_exist_is_found(region: str) -> None:
    documents = build(K8S / "overlays/prod")
    _one(documents, "ConfigMap")["data"]["AWS_DEFAULT_REGION"] = region
    assert list(find_region_problems(documents)) == [f"asks S3 in the region '{region}'"]


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_only_head_and_workers_have_a_role_and_dev_has_none(overlay: str) -> None:
    documents = build(K8S / "overlays" / overlay)
    assert read_role(documents, "hipray-submit") is read_role(documents, "hipray-redis") is None
    if overlay == "dev":
        assert read_role(documents, "hipray-head") is read_role(documents, "hipray-worker") is None


def test_settings_of_kuberay_clusters_do_not_drift_apart() -> None:
    shared = ("rayVersion", "authOptions", "autoscalerOptions")
    clusters = [
        cluster_of(d) for path in FILES for d in read_documents(path) if "ray.io" in d["apiVersion"]
    ]
    assert len(clusters) == 6
    for cluster in clusters:
        for key in shared:
            left, right = dict_without_idle(cluster[key]), dict_without_idle(clusters[0][key])
            assert left == right


def dict_without_idle(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: each for key, each in value.items() if key != "idleTimeoutSeconds"}


@pytest.mark.parametrize("folder", ["base", "overlays/prod"])
def test_the_endpoint_has_two_workers_on_two_nodes_and_two_replicas_of_each_stage(
    folder: str,
) -> None:
    (service,) = [e for e in build(K8S / folder) if e["kind"] == "RayService"]
    (group,) = cluster_of(service)["workerGroupSpecs"]
    spread = group["template"]["spec"]["topologySpreadConstraints"]
    assert group["minReplicas"] >= 2
    assert {"kubernetes.io/hostname"} == {
        each["topologyKey"] for each in spread if each["whenUnsatisfiable"] == "DoNotSchedule"
    }
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    (ingress,) = application["deployments"]
    assert ingress["autoscaling_config"]["min_replicas"] == 2
    assert ingress["max_replicas_per_node"] == 1
    twice = {"min_replicas": 2, "max_replicas_per_node": 1}
    assert application["args"]["scaling"] == {
        stage: twice for stage in ("segmenter", "matting", "ensemble")
    }


def test_redis_keeps_what_the_heads_must_remember_on_a_volume() -> None:
    (redis,) = [e for e in build(K8S / "overlays/prod") if e["kind"] == "StatefulSet"]
    assert redis["spec"]["volumeClaimTemplates"]
    for kind in ("RayCluster", "RayService"):
        (each,) = [e for e in build(K8S / "overlays/prod") if e["kind"] == kind]
        assert cluster_of(each)["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]


ARGUMENTS = {
    "score": "--images $HIPRAY_ARCHIVE", "predict": "film.dcm", "bench": "grid", "plan": "score",
}  # fmt: skip


@pytest.mark.parametrize("script", sorted((ROOT / "jobs").glob("*.py")), ids=lambda p: p.stem)
def test_every_entry_runs_as_a_ray_job(script: Path) -> None:
    words = f"python /opt/hipray/jobs/{script.name} {ARGUMENTS.get(script.stem, '')} --dry-run"
    assert list(check_entrypoint(words)) == []


def test_every_opening_belongs_to_a_policy_that_stands() -> None:
    prod = _names(build(K8S / "overlays/prod"), "NetworkPolicy")
    assert prod == set(OPENINGS) - {"minio", "to-minio"}
    assert _names(build(K8S / "overlays/dev"), "NetworkPolicy") == set(OPENINGS)


STANDING = {
    "ConfigMap": {"hipray-settings"}, "CronJob": {"hipray-score"}, "Ingress": {"hipray"},
    "Namespace": {"hipray"}, "PodDisruptionBudget": {"hipray-serve", "hipray-redis"},
    "PodMonitor": {"hipray-head", "hipray-workers"}, "PrometheusRule": {"hipray"},
    "RayCluster": {"hipray"}, "RayService": {"hipray-endpoint"}, "Service": {"hipray-redis"},
    "ServiceAccount": {"hipray-head", "hipray-worker", "hipray-submit", "hipray-redis"},
    "StatefulSet": {"hipray-redis"}, "NetworkPolicy": set(OPENINGS) - {"minio", "to-minio"},
}  # fmt: skip
"""All of production by its names, by which alerts, runbooks and other documents ask for it."""


def test_nothing_that_stands_is_lost() -> None:
    documents = build(K8S / "overlays/prod")
    assert {kind: _names(documents, kind) for kind in STANDING} == STANDING
    assert len(documents) == sum(len(names) for names in STANDING.values())


def test_cluster_and_endpoint_have_names_of_their_own_and_jobs_reach_the_cluster() -> None:
    documents = build(K8S / "overlays/prod")
    (cluster,), (endpoint,) = _names(documents, "RayCluster"), _names(documents, "RayService")
    assert cluster != endpoint
    assert ENDPOINT["name"] == f"{endpoint}-serve-svc"
    assert f"http://{cluster}-head-svc:8265" in {each.get("value") for each in SUBMITTER_ENV}


def test_each_job_has_a_label_of_its_own_to_be_applied_by() -> None:
    jobs = build(K8S / "overlays/prod/jobs")
    labels = [job["metadata"]["labels"]["app.kubernetes.io/component"] for job in jobs]
    assert [f"hipray-{label}" for label in labels] == [job["metadata"]["name"] for job in jobs]


def test_production_scores_every_night() -> None:
    (night,) = [each for each in build(K8S / "overlays/prod") if each["kind"] == "CronJob"]
    assert not night["spec"].get("suspend")


def test_phantoms_answer_in_dev_only() -> None:
    assert "allow_phantom_release" not in yaml.safe_dump_all(build(K8S / "overlays/prod"))


def test_minio_is_for_dev_only() -> None:
    assert "minio" not in yaml.safe_dump_all(build(K8S / "overlays/prod"))
    assert "minio" in yaml.safe_dump_all(build(K8S / "overlays/dev"))


def test_kubernetes_and_virtual_machines_have_the_same_alerts() -> None:
    (rule,) = read_documents(K8S / "base/prometheus-rule.yaml")
    (alerts,) = read_documents(ROOT / "cluster/alerts.yaml")
    *shared, own = rule["spec"]["groups"]
    assert shared == alerts["groups"]
    assert own["name"] == "hipray-clusters"


def test_a_cluster_that_stands_and_is_not_seen_is_told(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    (rule,) = read_documents(K8S / "base/prometheus-rule.yaml")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]), "utf-8")
    shutil.copy(Path(__file__).with_name("alerts_test.yaml"), tmp_path)
    ended = subprocess.run(
        ["promtool", "test", "rules", "alerts_test.yaml"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_no_secret_is_written_into_a_manifest() -> None:
    for path in K8S.rglob("*"):
        if path.is_file():
            text = path.read_text("utf-8")
            assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY", text), path
            assert not re.search(r"(?im)^\s*(stringData|redis-password):\s*\S", text), path


def _one(documents: list[Document], kind: str) -> Document:
    (found,) = [each for each in documents if each["kind"] == kind]
    return found


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_what_pods_are_told_belongs_to_one_store(overlay: str) -> None:
    documents = build(K8S / "overlays" / overlay)
    told = read_settings(documents)
    assert told["RAY_USAGE_STATS_ENABLED"] == "0"
    assert told["NO_ALBUMENTATIONS_UPDATE"] == "1"
    assert told["RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE"] == "1", "else a disk of one byte"
    if overlay == "prod":
        for name in ("HIPRAY_WORKSPACE", "HIPRAY_ARCHIVE", "HIPRAY_INCOMING"):
            assert read_place(ROOT / "cluster").covers(told[name]), "the role reaches no further"
        return
    service = next(e for e in documents if e["kind"] == "Service" and "minio" in str(e["metadata"]))
    url = f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert told["AWS_ENDPOINT_URL"] == url
    (container,) = _one(documents, "Job")["spec"]["template"]["spec"]["containers"]
    bucket = told["HIPRAY_WORKSPACE"].split("/")[2]
    assert set(re.findall(r'"(hipray[\w-]*)"', container["args"][0])) == {bucket}


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_a_service_leads_to_one_workload_and_its_port(overlay: str) -> None:
    documents = build(K8S / "overlays" / overlay)
    claims = _names(documents, "PersistentVolumeClaim")
    for each in documents:
        for volume in each.get("spec", {}).get("template", {}).get("spec", {}).get("volumes", []):
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in {None, *claims}
        if each["kind"] != "Service":
            continue
        wanted, (port,) = each["spec"]["selector"].items(), each["spec"]["ports"]
        ((owner, pod),) = [
            (d["metadata"]["name"], pod)
            for d in documents
            for _, pod in list_pods(d)
            if wanted <= pod["metadata"]["labels"].items()
        ]
        assert owner == each["metadata"]["name"]
        (container,) = pod["spec"]["containers"]
        assert container["ports"] == [{"name": port["targetPort"], "containerPort": port["port"]}]


def test_no_account_mounts_a_token_unasked() -> None:
    accounts = [e for e in build(K8S / "overlays/prod") if e["kind"] == "ServiceAccount"]
    assert {each.get("automountServiceAccountToken") for each in accounts} == {False}


def test_production_knows_no_phantoms() -> None:
    documents = [document for half in _build_both("prod") for document in half]
    assert not re.search("allow.phantom", yaml.safe_dump_all(documents, width=10**6))


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_all_scoring_takes_the_release_of_the_settings(overlay: str) -> None:
    documents = [document for half in _build_both(overlay) for document in half]
    text = yaml.safe_dump_all(documents, width=10**6).replace('\\"', '"')
    assert set(re.findall(r"--release (\S+)", text)) == {'"$HIPRAY_RELEASE"'}


def _make_secrets(folder: Path, *words: str, exists: bool = False) -> tuple[str, list[str]]:
    """Run secrets.sh with a kubectl that notes its arguments; return those and the Secrets."""
    (folder / "kubectl").write_text(
        f'#!/bin/bash\necho "$*" >> {folder}/calls\n'
        f'case "$*" in *"get secret"*) exit {0 if exists else 1};; *"get namespace"*) exit 1;;\n'
        f"*create\\ -f*) (cat; echo ---) >> {folder}/seen;; esac\n"
    )
    (folder / "kubectl").chmod(0o700)
    (folder / "seen").touch()
    subprocess.run(
        ["bash", str(K8S / "secrets.sh"), "hipray", *words], check=True, capture_output=True,
        env={"PATH": f"{folder}:/usr/bin:/bin"}, timeout=60,
    )  # fmt: skip
    made = [
        each["metadata"]["name"]
        for each in yaml.safe_load_all((folder / "seen").read_text())
        if each
    ]
    return (folder / "calls").read_text(), made


def test_secrets_go_into_their_namespace_and_store_keys_only_where_asked(tmp_path: Path) -> None:
    calls, made = _make_secrets(tmp_path)
    assert made == ["hipray-ray-token", "hipray-redis"], "keys would hide the role on AWS"
    assert "create namespace hipray\n" in calls
    assert all(c.startswith("-n hipray ") for c in calls.splitlines() if "namespace" not in c)


def test_another_run_draws_other_secrets(tmp_path: Path) -> None:
    values: list[str] = []
    for number in range(2):
        (folder := tmp_path / str(number)).mkdir()
        _make_secrets(folder, "--store")
        values += re.findall(r'"([0-9a-f]{64})"', (folder / "seen").read_text())
        assert {path.name for path in folder.iterdir()} == {"kubectl", "calls", "seen"}
    assert len(set(values)) == len(values) == 8


SECRETS = (K8S / "secrets.sh").read_text("utf-8")


def test_the_secrets_are_written_to_no_file() -> None:
    assert find_secrets_problems(SECRETS) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("head -c 32 /dev/urandom", "head -c 32 /etc/passwd"),
        ("head -c 32", "head -c 2"),
        ("/dev/urandom | od", "/dev/urandom | tee /tmp/values | od"),
        ("  } | kubectl", "  } | tee /tmp/secrets.yaml | kubectl"),
        ("  } | kubectl", "  } > /tmp/secrets.yaml; cat /tmp/secrets.yaml | kubectl"),
        ("create -f -\n", "create -f - >> /tmp/log\n"),
        ("create -f -\n", "create -f - -o yaml\n"),
        ('"$(random)"; done', '"$NAMESPACE"; done'),
        ("  shift\n", "  shift\n  value=$(random)\n"),
        ("  shift\n", "  shift\n  openssl rand -hex 32\n"),
        ("  shift\n", "  shift\n  kubectl get secret -o yaml >| /tmp/x\n"),
        ("  shift\n", "  shift\n  kubectl get secret -o yaml &>/tmp/x\n"),
        ("  shift\n", "  shift\n  exec 3<>/tmp/x\n"),
        ('get secret "$name" > /dev/null 2>&1', 'get secret "$name" -o yaml'),
    ],
)
def test_a_slip_in_the_script_of_the_secrets_is_found(before: str, after: str) -> None:
    assert before in SECRETS
    assert find_secrets_problems(SECRETS.replace(before, after))


def test_secrets_that_exist_stay(tmp_path: Path) -> None:
    assert _make_secrets(tmp_path, "--store", exists=True)[1] == []


def _count_requests(document: Document) -> tuple[float, float]:
    """Return the CPUs and GiB that a document's pods ask for, autoscalers and all."""
    asked = [
        container["resources"]["requests"]
        for _, pod in list_pods(document)
        for container in pod["spec"]["containers"]
    ]
    if document["kind"] in LONGEST_NAME:
        asked.append(cluster_of(document)["autoscalerOptions"]["resources"]["requests"])
    return sum(count_cpus(each["cpu"]) for each in asked), sum(
        gib(each["memory"]) for each in asked
    )


def test_the_machine_that_the_runbook_asks_for_holds_dev_and_a_job() -> None:
    standing, jobs = _build_both("dev")
    (cluster,) = [each for each in standing if each["kind"] == "RayCluster"]
    working = [_count_requests(each) for each in standing]
    for group in cluster["spec"]["workerGroupSpecs"]:  # which is idle while a job has its own
        group["template"]["spec"]["containers"][0]["resources"]["requests"] = {
            "cpu": 0,
            "memory": "0Gi",
        }
    beside_a_job = [_count_requests(each) for each in standing]
    beside_a_job.append(max(_count_requests(each) for each in jobs))
    text = (K8S / "README.md").read_text("utf-8")
    ((cpus, memory),) = re.findall(r"k3s\) with (\d+) CPUs and (\d+) GiB", text)
    for asked in (working, beside_a_job):
        assert sum(each for each, _ in asked) + SYSTEM_CPUS <= float(cpus)
        assert sum(each for _, each in asked) + SYSTEM_GIB <= float(memory)


SYSTEM_CPUS, SYSTEM_GIB = 2, 2
"""For Kubernetes' own pods and the operators'."""
