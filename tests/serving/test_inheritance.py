"""What a swap keeps of the endpoint whose place it takes."""

from typing import Any

import pytest

from hipray.config.base import build_config
from hipray.config.jobs import ServeRun
from hipray.errors import ConfigError
from hipray.serving.inheritance import inherit_settings, tell_inherited

TOKEN = "0" * 64
RUNNING: dict[str, Any] = {
    "workspace": "s3://bucket/work",
    "release": "old",
    "allow_phantom_release": True,
    "port": 8001,
    "token_sha256": [TOKEN],
    "allowed_prefixes": ["s3://bucket/films"],
    "pacs": [{"name": "ward", "url": "https://pacs/dicom-web"}],
    "limits": {"max_file_bytes": 2_000_000},
    "storage": {"endpoint_url": "http://store:9000"},
    "scaling": {"ensemble": {"max_replicas": 3}},
}


def config_of(**fields: Any) -> ServeRun:
    return build_config(ServeRun, fields)


def test_a_swap_that_names_a_release_alone_keeps_all_else() -> None:
    running = config_of(**RUNNING)
    swapped = inherit_settings(config_of(workspace="s3://bucket/work", release="new"), running)
    own = {"release": "new", "allow_phantom_release": False}
    assert swapped == config_of(**{**RUNNING, **own})
    assert swapped.guarded


def test_what_a_swap_says_itself_goes_before_also_inside_of_a_section() -> None:
    new = config_of(release="new", limits={"decode_memory_mb": 900}, scaling={"look_back_s": 4})
    swapped = inherit_settings(new, config_of(**RUNNING))
    assert (swapped.limits.max_file_bytes, swapped.limits.decode_memory_mb) == (2_000_000, 900)
    assert (swapped.scaling.ensemble.max_replicas, swapped.scaling.look_back_s) == (3, 4)


def test_a_swap_tells_what_it_keeps_and_changes_by_the_keys_alone() -> None:
    new = config_of(release="new", port=8001, batch=4, limits={"max_file_bytes": 2_000_000})
    assert tell_inherited(new, config_of(**RUNNING)) == (
        "keeps allowed_prefixes, pacs, scaling.ensemble.max_replicas, storage.endpoint_url, "
        "token_sha256 and changes batch"
    )
    assert tell_inherited(config_of(**RUNNING), config_of(**RUNNING)) == ""


def test_a_swap_that_takes_the_tokens_away_says_so() -> None:
    told = tell_inherited(config_of(token_sha256=[]), config_of(token_sha256=[TOKEN]))
    assert told == "changes token_sha256 and asks for no token any more"


def test_settings_that_do_not_go_together_are_refused() -> None:
    least = config_of(scaling={"ensemble": {"min_replicas": 4}})
    with pytest.raises(ConfigError, match="max_replicas must not be below"):
        inherit_settings(least, config_of(**RUNNING))
