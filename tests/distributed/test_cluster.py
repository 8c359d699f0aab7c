"""Connecting to a cluster that is not there, or does not want us."""

import pytest

from hipray.distributed.cluster import connect
from hipray.errors import ClusterUnavailableError, ConfigError


@pytest.fixture(autouse=True)
def not_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hipray.distributed.cluster.ray.is_initialized", lambda: False)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "[::1]:9"])
def test_a_cluster_that_nobody_listens_for_is_out_of_reach_at_once(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterUnavailableError, match="correct RAY_ADDRESS") as caught:
        connect()
    assert caught.value.exit_code == 75


def test_a_cluster_that_refuses_us_is_a_sentence_about_the_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**_: object) -> None:
        raise ConnectionError("Authentication failed: invalid token.\nlong advice")

    monkeypatch.setattr("hipray.distributed.cluster.ray.init", refuse)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(ConfigError, match=r"invalid token.*RAY_AUTH_TOKEN_PATH") as caught:
        connect()
    assert "advice" not in str(caught.value)
