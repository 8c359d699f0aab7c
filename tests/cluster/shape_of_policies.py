"""The closed shape of the two roles' policies: which calls there are, and on what."""

from tests.cluster.shapes import const, exact, words
from tests.k8s.schemas import Schema, array, closed, one_of

CALLS = one_of(
    "ec2:DescribeInstances", "ec2:DescribeInstanceTypes", "ec2:DescribeSubnets",
    "ec2:DescribeSecurityGroups", "ec2:DescribeKeyPairs", "ec2:DescribeVpcs",
    "ec2:RunInstances", "ec2:CreateTags", "ec2:TerminateInstances", "iam:PassRole",
    "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListBucket",
)  # fmt: skip
EQUALS = closed(
    (),
    **{
        "aws:RequestedRegion": words(r"^[a-z]{2}-[a-z]+-\d$"),
        "ec2:ResourceTag/ray-cluster-name": const("hipray"),
        "iam:PassedToService": const("ec2.amazonaws.com"),
    },
)
EQUALS["minProperties"] = 1
CONDITION: Schema = closed(
    (),
    StringEquals=EQUALS,
    StringLike=exact(**{"s3:prefix": const(["osteoporosis", "osteoporosis/*"])}),
)
CONDITION["minProperties"] = 1
STATEMENT = closed(
    ("Sid", "Effect", "Action", "Resource"),
    Sid=words("^[A-Z][A-Za-z]+$"),
    Effect=const("Allow"),
    Action={"anyOf": [CALLS, array(CALLS)]},
    Resource=words(r"^(\*|arn:aws:iam::\d{12}:role/hipray-worker|arn:aws:s3:::hospital-hipray.*)$"),
    Condition=CONDITION,
)
FREE_OF_CONDITIONS = {"LookAtInstances", "DriversReadAndWriteTheWorkspace", "WorkspaceObjects"}
"""Statements that only look, or whose resource is the limit."""
POLICY = exact(Version=const("2012-10-17"), Statement=array(STATEMENT))
