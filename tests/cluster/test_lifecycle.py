"""The bucket's lifecycle: nothing that is still an object ends by itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.lifecycle import find_lifecycle_problems
from tests.k8s.mutation import spoil, spoil_everywhere

CLUSTER = Path(__file__).resolve().parent.parent.parent / "cluster"


def _read() -> Any:
    return json.loads((CLUSTER / "bucket.lifecycle.json").read_text("utf-8"))


def test_only_versions_parts_and_marks_end() -> None:
    assert find_lifecycle_problems(_read()) == []


def test_each_slip_in_the_lifecycle_is_found() -> None:
    missed = [
        slip for slip, spoilt in spoil_everywhere(_read()) if not find_lifecycle_problems(spoilt)
    ]
    assert missed == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("Rules/0/Expiration", {"Days": 30}),
        ("Rules/0/Expiration/Days", 30),
        ("Rules/0/Expiration/Date", "2030-01-01"),
        ("Rules/0/Expiration/ExpiredObjectDeleteMarker", False),
        ("Rules/0/Status", "Disabled"),
        ("Rules/0/Filter", {"Prefix": "osteoporosis/fits/"}),
        ("Rules/0/NoncurrentVersionExpiration", {"NoncurrentDay": 30}),
        ("Rules/0/NoncurrentVersionExpiration/NoncurrentDays", 0),
        ("Rules/0/NoncurrentVersionExpiration/NoncurrentDays", 36500),
        ("Rules/0/AbortIncompleteMultipartUpload/DaysAfterInitiation", 0),
        ("Rules/0/Transitions", [{"Days": 1, "StorageClass": "DEEP_ARCHIVE"}]),
        ("Rules/+", {"ID": "all", "Status": "Enabled", "Filter": {}, "Expiration": {"Days": 1}}),
        ("Rules", []),
    ],
)
def test_a_lifecycle_that_deletes_more_or_less_is_found(path: str, value: Any) -> None:
    configuration = _read()
    spoil(configuration, path, value)
    assert find_lifecycle_problems(configuration)


def test_the_runbook_says_when_old_versions_end() -> None:
    (rule,) = _read()["Rules"]
    days = rule["NoncurrentVersionExpiration"]["NoncurrentDays"]
    runbook = " ".join((CLUSTER / "README.md").read_text("utf-8").split())
    assert f"old versions in the bucket end after {days} days" in runbook
