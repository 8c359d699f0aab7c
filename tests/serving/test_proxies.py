"""Proxies that run already, with limits of their own."""

import logging
from collections.abc import Sequence

import pytest
from ray.serve.config import HTTPOptions
from starlette.middleware import Middleware

from hipray.config.images import ImageLimits
from hipray.config.jobs import ServeRun
from hipray.serving import proxies
from hipray.serving.deploying import ServingError
from hipray.serving.intake import IntakeLimits
from hipray.serving.proxies import check_proxies
from hipray.serving.proxy import ProxyGuard


def proxy_of(config: ServeRun | None, *, timeout_s: float | None) -> HTTPOptions:
    """Return how a proxy was started; None: by somebody who does not know hipray."""
    options = HTTPOptions(request_timeout_s=timeout_s)
    if config is not None:
        options.middlewares.append(Middleware(ProxyGuard, limits=IntakeLimits.of(config)))
    return options


def check(
    monkeypatch: pytest.MonkeyPatch, config: ServeRun, running: Sequence[HTTPOptions]
) -> None:
    monkeypatch.setattr(proxies, "_ask_proxies", lambda: [*running])
    check_proxies(config)


def test_a_longer_time_limit_than_that_of_the_running_proxies_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = [proxy_of(ServeRun(), timeout_s=limit_s) for limit_s in (100, 65)]
    check(monkeypatch, ServeRun(request_timeout_s=60), running)
    with pytest.raises(ServingError, match=r"of 60 or less.* after 65 s, found 90; lower it, or"):
        check(monkeypatch, ServeRun(request_timeout_s=90), running)


def test_larger_films_than_the_running_proxies_take_in_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small, large = (
        ServeRun(limits=ImageLimits(max_file_bytes=size)) for size in (2_000_000, 3_000_000)
    )
    check(monkeypatch, small, [proxy_of(large, timeout_s=None)])
    with pytest.raises(ServingError, match="max_file_bytes"):
        check(monkeypatch, large, [proxy_of(small, timeout_s=None)])


def test_proxies_without_the_guard_are_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        check(monkeypatch, ServeRun(), [proxy_of(ServeRun(), timeout_s=None)])
        assert caplog.text == ""
        check(monkeypatch, ServeRun(), [proxy_of(None, timeout_s=None)])
    assert "hipray.serving.proxy:list_middlewares" in caplog.text
