"""What the files ask a hospital to change passes all checks; half of such a change is found."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.launcher_files import count_cpu_nodes, find_launcher_problems
from tests.cluster.lifecycle import find_lifecycle_problems
from tests.cluster.policies import find_policy_problems, read_place
from tests.cluster.serve_files import find_serve_problems
from tests.cluster.trust import find_instance_trust_problems, find_pod_trust_problems
from tests.k8s.kustomize import build, read_documents
from tests.k8s.openings import find_namespace_problems
from tests.k8s.overlays import find_overlay_problems, list_roles, read_settings
from tests.k8s.rules import find_problems
from tests.k8s.schemas import find_kustomization_errors, find_schema_errors

ROOT = Path(__file__).resolve().parent.parent.parent
Edit = tuple[str, str, str]
"""A glob of files, a pattern and what each match becomes; without a match the edit is an error."""

AWS, ONPREM, SERVE = "cluster/aws.yaml", "cluster/onprem.yaml", "cluster/serve.yaml"
IAM, HEAD_ROLE = "cluster/iam/*.json", "cluster/iam/head.json"
TRUST = "cluster/iam/service-accounts.trust.json"
PROD, PROD_JOBS = (
    "k8s/overlays/prod/kustomization.yaml",
    "k8s/overlays/prod/jobs/kustomization.yaml",
)
BOTH_OF_PROD = "k8s/overlays/prod/**/kustomization.yaml"
POLICIES = "k8s/base/network-policies.yaml"
SETTINGS = "k8s/overlays/prod/settings.patch.yaml"
NOBODY, SOMEBODY = "0" * 64, "5e" * 32
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/radiology/"
SPOT = r"\n *InstanceMarketOptions: .*"

EDITS: dict[str, list[Edit]] = {
    "another registry for ray up": [
        (AWS, "hipray:0", f"{ECR}hipray:0"), (ONPREM, "hipray:0", "inner:5000/hipray:0"),
    ],
    "another registry for kubernetes": [(BOTH_OF_PROD, "registry.example.org/", ECR)],
    "a key pair of one's own": [
        (AWS, "KeyName: hipray", "KeyName: radiology-2026"),
        (AWS, "~/.ssh/hipray.pem", "~/keys/radiology.pem"),
    ],
    "another name of the cluster": [
        (AWS, "cluster_name: hipray", "cluster_name: bones"),
        (HEAD_ROLE, '"ec2:ResourceTag/ray-cluster-name": "hipray"',
         '"ec2:ResourceTag/ray-cluster-name": "bones"'),
    ],
    "another name on-prem": [(ONPREM, "cluster_name: hipray", "cluster_name: bones")],
    "another container": [(f, "container_name: hipray", "container_name: bones_1.a")
                          for f in (AWS, ONPREM)],
    "another tag of the machines": [
        (AWS, "Key: project, Value: hipray", "Key: cost-centre, Value: X 1"),
    ],
    "more room for redis": [("k8s/base/redis.yaml", "storage: 4Gi", "storage: 20Gi")],
    "a longer grid": [("k8s/jobs/ray-job.grid.yaml", "Seconds: 604800", "Seconds: 1209600")],
    "fewer films may fail": [
        ("k8s/jobs/ray-job.score.yaml", "actors=4 ", "actors=4 --set max_failed_fraction=0.02 "),
    ],
    "workers on demand": [(AWS, SPOT, "")],
    "CPU workers on demand": [(AWS, rf"([cm]6i\.4xlarge){SPOT}", r"\1")],
    "two replicas of each stage on two nodes": [
        (SERVE, r"(?m)^( +)cpus_per_stage: 1$", r"\g<0>\n\1scaling: {segmenter: &two "
         r"{min_replicas: 2, max_replicas_per_node: 1}, matting: *two, ensemble: *two}"),
    ],
    "larger GPU machines": [
        (AWS, r"g5\.2xlarge", "g5.4xlarge"),
        (AWS, r"(gpu-g5:\n.*)CPU: 8", r"\1CPU: 16"),
    ],
    "another kind of CPU machine": [
        (AWS, r"c6i\.4xlarge", "c7i.8xlarge"), (AWS, r"(cpu-c6i:\n.*)CPU: 16", r"\1CPU: 32"),
    ],
    "on-prem machines without GPUs": [
        (ONPREM, "0.1.0-gpu", "0.1.0-cpu"), (ONPREM, r'\["--gpus all"\]', "[]"),
    ],
    "one worker on-prem": [
        (ONPREM, r"192.0.2.11, 192.0.2.12\]", "192.0.2.11]"),
        (ONPREM, "_workers: 2", "_workers: 1"),
    ],
    "a third machine on-prem": [
        (ONPREM, r"192.0.2.12\]", "192.0.2.12, 192.0.2.13]"),
        (ONPREM, "_workers: 2", "_workers: 3"),
    ],
    "another bucket and prefix": [
        (pattern, *edit)
        for pattern in (IAM, SERVE, PROD, SETTINGS)
        for edit in (("hospital-hipray", "clinic-films"), ("osteoporosis", "hips/2026"))
    ],
    "old versions for a quarter": [
        ("cluster/bucket.lifecycle.json", '"NoncurrentDays": 30', '"NoncurrentDays": 90'),
    ],
    "another region": [(AWS, "eu-central-1", "us-east-2"), (IAM, "eu-central-1", "us-east-2")],
    "another region of kubernetes": [(SETTINGS, "eu-central-1", "us-east-2")],
    "another account": [(HEAD_ROLE, "111122223333", "444455556666")],
    "another role of kubernetes": [
        (PROD, "111122223333:role/hipray-worker", "444455556666:role/films"),
        (TRUST, "111122223333", "444455556666"),
    ],
    "a registry that asks who pulls": [
        (PROD, r"\Z", "  - target: {kind: ServiceAccount, name: hipray-.*}\n    patch: |\n"
         "      - {op: add, path: /imagePullSecrets, value: [{name: registry}]}\n"),
    ],
    "a store without roles": [
        (PROD, r"- op: replace\n *path: /metadata/annotations/.*\n *value: .*",
         "- {op: remove, path: /metadata/annotations}"),
        (SETTINGS, r"\Z", "  AWS_ENDPOINT_URL: https://store.example.org\n"),
    ],
    "new tags": [(pattern, "0.1.0-", "0.2.0-b1-") for pattern in (AWS, ONPREM, BOTH_OF_PROD)],
    "the endpoint's tokens": [(pattern, NOBODY, SOMEBODY) for pattern in (SERVE, PROD)],
    "the endpoint's films": [
        (pattern, "osteoporosis/films", "osteoporosis/pacs") for pattern in (SERVE, PROD)
    ],
    "an endpoint on the head's address": [(SERVE, "host: 127.0.0.1", "host: 0.0.0.0")],
    "an endpoint behind a load balancer": [
        (SERVE, "HeadOnly", "EveryNode"), (SERVE, "host: 127.0.0.1", "host: 0.0.0.0"),
    ],
    "a new release": [
        (SERVE, "release: default", "release: spring"),
        (PROD, "release: default", "release: spring"),
        (SETTINGS, "HIPRAY_RELEASE: default", "HIPRAY_RELEASE: spring"),
    ],
    "a mirror of redis": [
        (PROD, "images:\n", "images:\n  - {name: redis, newName: inner:5000/redis}\n"),
    ],
    "namespaces of one's own": [
        (POLICIES, "kuberay-operator", "operators"),
        (POLICIES, "ingress-nginx", "ingress"),
        (POLICIES, "monitoring", "prometheus"),
    ],
    "a store with an address": [
        (POLICIES, r"(?s)0\.0\.0\.0/0\n.*?192\.168\.0\.0/16\](.*?)443", r"10.1.2.3/32\g<1>9000"),
    ],
    "an API server with an address": [
        (POLICIES, r"\{cidr: 0\.0\.0\.0/0, except: \[169\.254\.0\.0/16\]\}", "{cidr: 10.0.0.1/32}"),
    ],
    "another host": [("k8s/overlays/prod/ingress.yaml", "hipray.example.org", "hips.example.org")],
    "sixteen GPUs on kubernetes": [
        (PROD_JOBS, r"(?m)^# (patches:|  - path:|    target:)", r"\1"),
    ],
}  # fmt: skip


def _edit(root: Path, edits: list[Edit]) -> None:
    for pattern, before, after in edits:
        changed = 0
        for path in root.glob(pattern):
            text, count = re.subn(before, after, path.read_text("utf-8"))
            path.write_text(text, "utf-8")
            changed += count
        assert changed, f"{pattern} has no {before}"


def _read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text("utf-8")))


def _find_all(root: Path) -> Iterator[str]:
    """Yield what any check says of the files of a checkout."""
    cluster, place = root / "cluster", read_place(root / "cluster")
    for name in ("aws", "onprem"):
        yield from find_launcher_problems(_read(cluster / f"{name}.yaml"), place)
    for role in ("head", "worker"):
        policy = json.loads((cluster / f"iam/{role}.json").read_text("utf-8"))
        yield from find_policy_problems(role, policy, place)
    yield from find_instance_trust_problems(_read(cluster / "iam/ec2.trust.json"))
    yield from find_lifecycle_problems(_read(cluster / "bucket.lifecycle.json"))
    serve = _read(cluster / "serve.yaml")
    yield from find_serve_problems(serve, nodes=count_cpu_nodes(_read(cluster / "aws.yaml")))
    workspace = serve["applications"][0]["args"]["workspace"]
    built = {}
    for name in ("dev", "dev/jobs", "prod", "prod/jobs"):
        folder = root / "k8s/overlays" / name
        (kustomization,) = read_documents(folder / "kustomization.yaml")
        yield from find_kustomization_errors(kustomization, overlay=True)
        built[name] = build(folder)
        for document in built[name]:
            yield from find_schema_errors(document) + find_problems(document)
    yield from find_namespace_problems(root / "k8s/base/network-policies.yaml")
    for name in ("dev", "prod"):
        yield from find_overlay_problems(built[name], built[f"{name}/jobs"])
    trust, accounts = _read(cluster / "iam/service-accounts.trust.json"), list_roles(built["prod"])
    for role in set(accounts.values()):
        yield from find_pod_trust_problems(trust, role, set(accounts))
    told = read_settings(built["prod"])["HIPRAY_WORKSPACE"]
    yield from (
        f"the role does not reach {uri}" for uri in (workspace, told) if not place.covers(uri)
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("cluster", "k8s"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("name", EDITS)
def test_what_the_files_tell_a_hospital_to_change_passes_all_checks(
    name: str, checkout: Path
) -> None:
    _edit(checkout, EDITS[name])
    assert list(_find_all(checkout)) == []


HALVES: dict[str, list[Edit]] = {
    "one image from another registry": [(AWS, "head_image: hipray", "head_image: inner/hipray")],
    "one tag of two": [(PROD, "0.1.0-gpu", "0.2.0-gpu")],
    "jobs of another tag": [(PROD_JOBS, "0.1.0-", "0.2.0-")],
    "gpu pods with the cpu tag": [(PROD, "0.1.0-gpu", "0.1.0-cpu")],
    "a key pair for some nodes": [(AWS, "(?s)KeyName: hipray(.*?KeyName)", r"KeyName: other\1")],
    "a cluster that its role cannot end": [(AWS, "cluster_name: hipray", "cluster_name: bones")],
    "CPUs of another machine": [(AWS, r"g5\.2xlarge", "g5.4xlarge")],
    "a machine with several GPUs": [
        (AWS, r"g5\.2xlarge", "g5.12xlarge"), (AWS, r"(gpu-g5:\n.*)CPU: 8", r"\1CPU: 48"),
    ],
    "a head on spot": [
        (AWS, "InstanceType: m6i.xlarge",
         "InstanceType: m6i.xlarge\n      InstanceMarketOptions: {MarketType: spot}"),
    ],
    "the CPU image and GPUs": [(ONPREM, "0.1.0-gpu", "0.1.0-cpu")],
    "a workspace that its role does not reach": [(SERVE, "hospital-hipray", "clinic-films")],
    "a policy of another bucket": [("cluster/iam/worker.json", "hospital-hipray", "clinic-films")],
    "a role for workers only": [
        (PROD, r"hipray-\(head\|worker\)", "hipray-worker"),
        (PROD, "111122223333:role/hipray-worker", "444455556666:role/films"),
    ],
    "an endpoint elsewhere than its jobs": [(SETTINGS, "osteoporosis", "hips")],
    "films beside the workspace": [(PROD, "osteoporosis/films", "films")],
    "a region that its role may not use": [(AWS, "eu-central-1", "us-east-2")],
    "a release that scoring does not take": [(PROD, "release: default", "release: spring")],
    "an open endpoint": [
        (SERVE, "host: 127.0.0.1", "host: 0.0.0.0"), (SERVE, rf'\n *- "{NOBODY}".*', " []"),
    ],
    "a store with a network instead of an address": [
        (POLICIES, r"(?s)0\.0\.0\.0/0\n.*?192\.168\.0\.0/16\]", "10.0.0.0/8"),
    ],
    "a policy of another namespace than its file says": [
        (POLICIES, "name: kuberay-operator", "name: default"),
    ],
    "a misspelt namespace": [(POLICIES, "name: monitoring", "name: monitorin")],
    "an endpoint open to every namespace": [
        (POLICIES, r"\{matchLabels: \{kubernetes.io/metadata.name: ingress-nginx\}\}", "{}"),
    ],
    "a report of another grid": [("k8s/jobs/ray-job.grid.yaml", "--preset grid", "--preset paper")],
    "a spare image for some nodes": [
        (AWS, "(?s)ami-0123456789abcdef0(.*?ami-)", r"ami-00000000000000000\1"),
    ],
    "16 GPUs with the head of four": [
        (PROD_JOBS, r"(?m)^# (patches:|  - path:|    target:)", r"\1"),
        ("k8s/overlays/prod/jobs/grid.16-gpus.patch.yaml", "50Gi", "16Gi"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", HALVES)
def test_a_change_in_one_place_of_several_is_found(name: str, checkout: Path) -> None:
    _edit(checkout, HALVES[name])
    assert list(_find_all(checkout))
