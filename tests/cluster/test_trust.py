"""The trust of the roles: nobody takes them but the project's machines and pods."""

import json
from pathlib import Path
from typing import Any

from tests.cluster.trust import find_instance_trust_problems, find_pod_trust_problems
from tests.k8s.kustomize import build
from tests.k8s.mutation import spoil_everywhere
from tests.k8s.overlays import list_roles

ROOT = Path(__file__).resolve().parent.parent.parent
ACCOUNTS = list_roles(build(ROOT / "k8s/overlays/prod"))
(ROLE,) = set(ACCOUNTS.values())


def _read(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / f"cluster/iam/{name}.trust.json").read_text("utf-8")))


def test_only_machines_take_the_roles_of_the_launcher() -> None:
    assert find_instance_trust_problems(_read("ec2")) == []


def test_only_pods_of_the_accounts_with_a_role_take_it() -> None:
    assert find_pod_trust_problems(_read("service-accounts"), ROLE, set(ACCOUNTS)) == []


def test_a_trust_of_another_account_namespace_or_name_is_found() -> None:
    policy = _read("service-accounts")
    assert find_pod_trust_problems(policy, ROLE.replace("1111", "4444"), set(ACCOUNTS))
    for other in ("bones:hipray-head", "hipray:hipray-submit"):
        assert find_pod_trust_problems(policy, ROLE, {other, "hipray:hipray-worker"})


def test_each_slip_in_a_trust_is_found() -> None:
    machines = spoil_everywhere(_read("ec2"))
    pods = spoil_everywhere(_read("service-accounts"))
    missed = [slip for slip, policy in machines if not find_instance_trust_problems(policy)]
    missed += [
        slip for slip, policy in pods if not find_pod_trust_problems(policy, ROLE, set(ACCOUNTS))
    ]
    assert missed == []
