"""What the two roles may do, statement by statement: anything else in their policies is a slip."""

from typing import Any

Statement = tuple[frozenset[str], str, tuple[tuple[str, str, tuple[str, ...]], ...]]
"""Actions, resource, and conditions as operator, key and values."""

OBJECTS = frozenset({"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"})
WORKSPACE = "arn:aws:s3:::hospital-hipray/osteoporosis/*"
BELOW_WORKSPACE = (("StringLike", "s3:prefix", ("osteoporosis", "osteoporosis/*")),)
READ_AND_WRITE: Statement = (OBJECTS, WORKSPACE, ())
LIST: Statement = (frozenset({"s3:ListBucket"}), "arn:aws:s3:::hospital-hipray", BELOW_WORKSPACE)
OWN_NODES = (("StringEquals", "ec2:ResourceTag/ray-cluster-name", ("hipray",)),)

ALLOWED: dict[str, dict[str, Statement]] = {
    "head": {
        "LookAtInstances": (
            frozenset(
                {
                    "ec2:DescribeInstances", "ec2:DescribeInstanceTypes", "ec2:DescribeSubnets",
                    "ec2:DescribeSecurityGroups", "ec2:DescribeKeyPairs", "ec2:DescribeVpcs",
                }
            ),
            "*",
            (),
        ),
        "StartWorkers": (
            frozenset({"ec2:RunInstances"}), "*",
            (("StringEquals", "aws:RequestedRegion", ("eu-central-1",)),),
        ),
        "TagWhatIsBeingStarted": (
            frozenset({"ec2:CreateTags"}), "*",
            (("StringEquals", "ec2:CreateAction", ("RunInstances",)),),
        ),
        "TagOwnWorkers": (frozenset({"ec2:CreateTags"}), "*", OWN_NODES),
        "EndOwnWorkers": (frozenset({"ec2:TerminateInstances"}), "*", OWN_NODES),
        "GiveWorkersTheirRoleOnly": (
            frozenset({"iam:PassRole"}), "arn:aws:iam::111122223333:role/hipray-worker",
            (("StringEquals", "iam:PassedToService", ("ec2.amazonaws.com",)),),
        ),
        "DriversReadAndWriteTheWorkspace": READ_AND_WRITE,
        "DriversListTheWorkspace": LIST,
    },
    "worker": {"WorkspaceObjects": READ_AND_WRITE, "WorkspaceListing": LIST},
}  # fmt: skip
KEYS = {"Sid", "Effect", "Action", "Resource", "Condition"}


def find_policy_problems(role: str, policy: dict[str, Any]) -> list[str]:
    """Return where a role's policy says more, less or other than it may."""
    if set(policy) != {"Version", "Statement"} or policy["Version"] != "2012-10-17":
        return ["is no policy of 2012-10-17"]
    try:
        found = {each["Sid"]: _read(each) for each in policy["Statement"]}
    except (KeyError, TypeError, AttributeError) as error:
        return [f"has a statement that cannot be read: {error!r}"]
    if len(found) < len(policy["Statement"]):
        return ["has two statements of one name"]
    wanted = ALLOWED[role]
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
