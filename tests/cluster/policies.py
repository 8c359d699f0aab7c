"""What the two roles may do, statement by statement: anything else in their policies is a slip."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Statement = tuple[frozenset[str], str, tuple[tuple[str, str, tuple[str, ...]], ...]]
"""Actions, resource, and conditions as operator, key and values."""

OBJECTS = frozenset({"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"})
BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
PREFIX = r"[\w.-]+(?:/[\w.-]+)*"
WORKER_ROLE = re.compile(r"arn:aws[\w-]*:iam::\d{12}:role/hipray-worker")
LOOK = frozenset(
    {
        "ec2:DescribeInstances", "ec2:DescribeInstanceTypes", "ec2:DescribeSubnets",
        "ec2:DescribeSecurityGroups", "ec2:DescribeKeyPairs", "ec2:DescribeVpcs",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """What is a hospital's own: whatever it is, all files say the same."""

    bucket: str
    prefix: str
    region: str
    cluster: str
    worker_role: str

    @property
    def workspace(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def covers(self, uri: str) -> bool:
        """Whether the roles reach what lies at and below a URI."""
        return f"{uri.rstrip('/')}/".startswith(f"{self.workspace}/")


def read_place(cluster: Path) -> Place:
    """Return the place that the files of a folder like cluster/ are for.

    Raises:
        ValueError: the roles name no single prefix or role.
    """
    objects, *_ = _statements(cluster / "iam/worker.json")
    found = re.fullmatch(rf"arn:aws:s3:::({BUCKET})/({PREFIX})/\*", str(objects["Resource"]))
    roles = [
        str(each["Resource"])
        for each in _statements(cluster / "iam/head.json")
        if each["Action"] == "iam:PassRole"
    ]
    if found is None or len(roles) != 1 or not WORKER_ROLE.fullmatch(roles[0]):
        raise ValueError(f"expected one prefix and one role, found {objects['Resource']}, {roles}")
    launcher = yaml.safe_load((cluster / "aws.yaml").read_text("utf-8"))
    return Place(
        found[1], found[2], launcher["provider"]["region"], launcher["cluster_name"], roles[0]
    )


def _statements(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text("utf-8"))["Statement"])


def list_allowed(place: Place) -> dict[str, dict[str, Statement]]:
    """Return the statements of each role by their names."""
    read_and_write: Statement = (OBJECTS, f"arn:aws:s3:::{place.bucket}/{place.prefix}/*", ())
    below = (("StringLike", "s3:prefix", (place.prefix, f"{place.prefix}/*")),)
    listing: Statement = (frozenset({"s3:ListBucket"}), f"arn:aws:s3:::{place.bucket}", below)
    own_nodes = (("StringEquals", "ec2:ResourceTag/ray-cluster-name", (place.cluster,)),)
    head: dict[str, Statement] = {
        "LookAtInstances": (LOOK, "*", ()),
        "StartWorkers": (
            frozenset({"ec2:RunInstances"}), "*",
            (("StringEquals", "aws:RequestedRegion", (place.region,)),),
        ),
        "TagWhatIsBeingStarted": (
            frozenset({"ec2:CreateTags"}), "*",
            (("StringEquals", "ec2:CreateAction", ("RunInstances",)),),
        ),
        "TagOwnWorkers": (frozenset({"ec2:CreateTags"}), "*", own_nodes),
        "EndOwnWorkers": (frozenset({"ec2:TerminateInstances"}), "*", own_nodes),
        "GiveWorkersTheirRoleOnly": (
            frozenset({"iam:PassRole"}), place.worker_role,
            (("StringEquals", "iam:PassedToService", ("ec2.amazonaws.com",)),),
        ),
        "DriversReadAndWriteTheWorkspace": read_and_write,
        "DriversListTheWorkspace": listing,
    }  # fmt: skip
    return {
        "head": head,
        "worker": {"WorkspaceObjects": read_and_write, "WorkspaceListing": listing},
    }


KEYS = {"Sid", "Effect", "Action", "Resource", "Condition"}


def find_policy_problems(role: str, policy: dict[str, Any], place: Place) -> list[str]:
    """Return where a role's policy says more, less or other than it may."""
    if set(policy) != {"Version", "Statement"} or policy["Version"] != "2012-10-17":
        return ["is no policy of 2012-10-17"]
    try:
        found = {each["Sid"]: _read(each) for each in policy["Statement"]}
    except (KeyError, TypeError, AttributeError) as error:
        return [f"has a statement that cannot be read: {error!r}"]
    if len(found) < len(policy["Statement"]):
        return ["has two statements of one name"]
    wanted = list_allowed(place)[role]
    return [
        f"{name}: {found.get(name)} instead of {wanted.get(name)}"
        for name in sorted({*found, *wanted}, key=str)
        if found.get(name) != wanted.get(name)
    ]


def _read(statement: dict[str, Any]) -> Statement:
    if set(statement) - KEYS or statement["Effect"] != "Allow":
        raise KeyError(statement["Sid"])
    conditions = [
        (operator, key, _list(values))
        for operator, keys in statement.get("Condition", {}).items()
        for key, values in keys.items()
    ]
    return frozenset(_list(statement["Action"])), statement["Resource"], tuple(conditions)


def _list(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
