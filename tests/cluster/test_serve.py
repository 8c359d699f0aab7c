"""The Serve config file."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hipray.config.jobs import ServeRun
from tests.cluster.launcher_files import count_cpu_nodes
from tests.cluster.serve_files import find_serve_problems
from tests.cluster.shapes_of_serving import BOUNDS, OF_NOTHING
from tests.k8s.mutation import spoil, spoil_everywhere

PATH = Path(__file__).resolve().parent.parent.parent / "cluster/serve.yaml"


def _read() -> dict[str, Any]:
    return dict(yaml.safe_load(PATH.read_text("utf-8")))


def _find_problems(config: dict[str, Any]) -> list[str]:
    """Return what is wrong with a Serve file on the machines of aws.yaml."""
    launcher = yaml.safe_load((PATH.parent / "aws.yaml").read_text("utf-8"))
    return list(find_serve_problems(config, nodes=count_cpu_nodes(launcher)))


def test_the_serve_file_has_known_keys_and_arguments() -> None:
    assert _find_problems(_read()) == []


def test_the_endpoint_is_on_loopback_as_written() -> None:
    assert _read()["http_options"]["host"] == "127.0.0.1"


APPLICATION = "applications/0"
ARGUMENTS = f"{APPLICATION}/args"
STAGE = f"{APPLICATION}/deployments/0"
SLIPS: list[tuple[str, Any]] = [
    ("proxy_locations", "HeadOnly"),
    ("http_options/prot", 1),
    ("http_options/port", "eight thousand"),
    ("http_options/host", "0.0.0.0"),
    (f"{ARGUMENTS}/host", "0.0.0.0"),
    (f"{ARGUMENTS}/batchs", 1),
    (f"{ARGUMENTS}/batch", 0),
    (f"{ARGUMENTS}/batch", 256),
    (f"{ARGUMENTS}/allow_phantom_release", True),
    (f"{ARGUMENTS}/gpus_per_stage", 8),
    (f"{ARGUMENTS}/cpus_per_stage", 500),
    (f"{ARGUMENTS}/cpus_per_ingress", 0),
    (f"{ARGUMENTS}/rollout_timeout_s", 1),
    (f"{ARGUMENTS}/rollout_timeout_s", 10**6),
    (f"{ARGUMENTS}/request_timeout_s", 1),
    (f"{ARGUMENTS}/allowed_prefixes/+", "s3://hospital-hipray/osteoporosis/secrets"),
    (f"{ARGUMENTS}/allowed_prefixes", ["s3://hospital-hipray/osteoporosis/"]),
    (f"{ARGUMENTS}/allowed_prefixes", ["s3://hospital-hipray/osteoporosis"]),
    (f"{ARGUMENTS}/allowed_prefixes", ["s3://hospital-hipray/osteoporosis/bundles"]),
    (f"{ARGUMENTS}/allowed_prefixes", ["s3://hospital-hipray/osteoporosis/films/../runs"]),
    (f"{ARGUMENTS}/allowed_prefixes", []),
    (f"{ARGUMENTS}/storage", {"anonymous": True}),
    (f"{ARGUMENTS}/storage", {"endpoint_url": "http://store.example.org"}),
    (f"{ARGUMENTS}/token_sha256", ["not a digest"]),
    (f"{ARGUMENTS}/token_sha256", None),
    (f"{ARGUMENTS}/token_sha256", []),
    (f"{APPLICATION}/import_path", "hipray.serving.ap:build_app"),
    (f"{APPLICATION}/import_path", "hipray.serving.app:build_ap"),
    (f"{STAGE}/max_replica", 1),
    (f"{STAGE}/name", "inres"),
    (f"{STAGE}/name", "segmenter"),
    (f"{ARGUMENTS}/scaling", {"segmenter": {"min_replicas": 8}}),
    ("target_capacity", 0),
    ("target_capacity", 10),
    ("grpc_options", {"port": 9000, "grpc_servicer_functions": ["os.system"]}),
    ("controller_options", {"runtime_env": {"env_vars": {"RAY_AUTH_MODE": "disabled"}}}),
    ("http_options/root_path", "/x"),
    ("http_options/ssl_keyfile", "/etc/key"),
    ("http_options/port", 8001),
    ("http_options/request_timeout_s", 10**6),
    ("http_options/keep_alive_timeout_s", 10**6),
    ("logging_config/logs_dir", "/tmp"),
    ("applications/+", {"name": "more", "import_path": "hipray.serving.app:build_app"}),
    (f"{APPLICATION}/logging_config", {"enable_access_log": True}),
    (f"{APPLICATION}/runtime_env/env_vars", {"RAY_AUTH_MODE": "disabled"}),
    (f"{APPLICATION}/external_scaler_enabled", True),
    (f"{STAGE}/ray_actor_options", {"num_cpus": 64}),
    (f"{STAGE}/ray_actor_options", {"runtime_env": {"env_vars": {"RAY_AUTH_MODE": "disabled"}}}),
    (f"{STAGE}/graceful_shutdown_timeout_s", 0),
    (f"{STAGE}/max_ongoing_requests", 1),
    (f"{STAGE}/num_replicas", 1),
    (f"{STAGE}/autoscaling_config", {"max_replicas": 4, "upscale_delay_s": 100000}),
    (f"{ARGUMENTS}/scaling", {"upscale_delay_s": 100000}),
    (f"{ARGUMENTS}/scaling", {"downscale_delay_s": 10**6}),
    (f"{ARGUMENTS}/scaling", {"look_back_s": 10**6}),
    (f"{ARGUMENTS}/pacs", [{"name": "ward", "url": "http://pacs.example.org/dicom-web"}]),
    (f"{ARGUMENTS}/dicom_of_named_films", True),
    (f"{ARGUMENTS}/limits", {"max_file_bytes": 10**12}),
    (f"{ARGUMENTS}/token_sha256", OF_NOTHING[:1]),
    (f"{ARGUMENTS}/token_sha256/+", OF_NOTHING[1]),
    (f"{ARGUMENTS}/storage", {"max_pool_connections": 10**6}),
]


@pytest.mark.parametrize(("path", "value"), SLIPS)
def test_a_slip_in_the_serve_file_is_found(path: str, value: Any) -> None:
    config = _read()
    spoil(config, path, value)
    assert _find_problems(config)


@pytest.mark.parametrize(
    ("path", "places"),
    [(f"{ARGUMENTS}/scaling", {"segmenter": {"max_replicas_per_node": 1}}),
     (f"{STAGE}/max_replicas_per_node", 1), (f"{STAGE}/max_replicas_per_node", 4)],
)  # fmt: skip
def test_more_replicas_than_one_machine_has_places_for_are_found(path: str, places: Any) -> None:
    config = _read()
    spoil(config, path, places)
    assert list(find_serve_problems(config, nodes=1))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pacs", [{"name": "ward", "url": "https://pacs.example.org/dicom-web"}]),
        ("storage", {"checksums": "when_required", "endpoint_url": "https://store.example.org"}),
        ("scaling", {"ensemble": {"min_replicas": 2}}),
        ("fused", True),
        ("runtime", "onnx"),
        ("gpus_per_stage", 0.2),
        ("memory_gib", 4),
    ],
)
def test_what_an_endpoint_may_also_be_told_is_taken(name: str, value: Any) -> None:
    config = _read()
    spoil(config, f"{ARGUMENTS}/{name}", value)
    assert _find_problems(config) == []


def test_every_number_of_the_endpoint_has_bounds() -> None:
    kinds = {name: str(field.annotation) for name, field in ServeRun.model_fields.items()}
    numbers = {
        name
        for name, kind in kinds.items()
        if re.search(r"\b(int|float)\b", kind) and "tuple" not in kind
    }
    assert numbers == set(BOUNDS)


def test_each_misspelt_key_missing_key_and_other_type_is_found() -> None:
    missed = {s for s, spoilt in spoil_everywhere(_read()) if not _find_problems(spoilt)}
    assert missed <= {
        "applications/0/runtime_env left out",
        "applications/0/deployments left out",
        "applications/0/args/cpus_per_ingress left out",
        "applications/0/args/rollout_timeout_s left out",
    }


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_an_endpoint_without_tokens_is_found(host: str) -> None:
    config = _read()
    for path in ("http_options/host", f"{ARGUMENTS}/host"):
        spoil(config, path, host)
    assert _find_problems(config) == []
    spoil(config, f"{ARGUMENTS}/token_sha256", [])
    assert _find_problems(config) == ["answers everyone"]
    spoil(config, f"{ARGUMENTS}/token_file", "/etc/hipray/tokens")
    assert _find_problems(config) == []
