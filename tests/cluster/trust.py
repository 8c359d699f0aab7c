"""Who may take the roles: machines that EC2 starts, or the pods of two service accounts."""

import json
import re
from typing import Any

PROVIDER = re.compile(r"arn:aws:iam::(\d{12}):oidc-provider/(oidc\.eks\.[\w.-]+/id/[0-9A-F]{32})")
"""What an EKS cluster's tokens are trusted by, with its account."""
OF_INSTANCES: dict[str, Any] = {
    "Sid": "InstancesTakeTheRole", "Effect": "Allow", "Action": "sts:AssumeRole",
    "Principal": {"Service": "ec2.amazonaws.com"},
}  # fmt: skip


def find_instance_trust_problems(policy: dict[str, Any]) -> list[str]:
    """Return where the trust of `ray up`'s roles is another than in EC2."""
    return _compare(policy, OF_INSTANCES)


def find_pod_trust_problems(policy: dict[str, Any], role: str, accounts: set[str]) -> list[str]:
    """Return where a role of pods trusts others than service accounts (`namespace:name`)."""
    providers = {match.groups() for match in PROVIDER.finditer(json.dumps(policy))}
    if len(providers) != 1:
        return [f"trusts {sorted(providers)} instead of one EKS cluster"]
    ((account, issuer),) = providers
    if f"::{account}:" not in role:
        return [f"trusts a cluster of the account {account} with {role}"]
    told = {
        f"{issuer}:aud": "sts.amazonaws.com",
        f"{issuer}:sub": [f"system:serviceaccount:{each}" for each in sorted(accounts)],
    }
    wanted = {
        "Sid": "PodsTakeTheRole", "Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
        "Principal": {"Federated": f"arn:aws:iam::{account}:oidc-provider/{issuer}"},
        "Condition": {"StringEquals": told},
    }  # fmt: skip
    return _compare(policy, wanted)


def _compare(policy: dict[str, Any], statement: dict[str, Any]) -> list[str]:
    wanted = {"Version": "2012-10-17", "Statement": [statement]}
    return [] if policy == wanted else [f"trusts {policy} instead of {wanted}"]
