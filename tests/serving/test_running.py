"""How a later `hipray serve` finds the endpoint that runs on its port."""

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from hipray.config.base import build_config
from hipray.config.jobs import ServeRun
from hipray.serving.running import (
    RunningEndpoint,
    find_endpoint,
    forget_endpoint,
    join_endpoint,
    note_endpoint,
)
from hipray.storage import Store, open_store

ADDRESS = "127.0.0.1:6379"


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Healthy)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def test_an_endpoint_that_answers_is_found_until_it_is_forgotten(store: Store, url: str) -> None:
    note = RunningEndpoint(url=url, ray_address=ADDRESS)
    assert find_endpoint(store, 8000) is None
    note_endpoint(store, note, 8000)
    assert find_endpoint(store, 8000) == note
    assert find_endpoint(store, 8001) is None
    forget_endpoint(store, 8000)
    assert find_endpoint(store, 8000) is None


def test_a_note_of_an_endpoint_that_ended_is_nothing(store: Store) -> None:
    note_endpoint(store, RunningEndpoint(url="http://127.0.0.1:9", ray_address=ADDRESS), 8000)
    assert find_endpoint(store, 8000) is None


def test_ray_is_pointed_at_the_endpoint_and_at_no_other_where_one_is_named(
    store: Store, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "before")  # so that it is put back
        monkeypatch.delenv(name)
    note_endpoint(store, RunningEndpoint(url=url, ray_address=ADDRESS), 8000)
    config = build_config(ServeRun, {"workspace": store.uri})
    join_endpoint(config)
    assert (os.environ["RAY_ADDRESS"], os.environ["RAY_AUTH_MODE"]) == (ADDRESS, "token")
    os.environ["RAY_ADDRESS"] = "elsewhere:1"
    join_endpoint(config)
    assert os.environ["RAY_ADDRESS"] == "elsewhere:1"


def test_a_note_that_leads_to_another_machine_is_not_followed(store: Store, url: str) -> None:
    note_endpoint(store, RunningEndpoint(url=url, ray_address="203.0.113.5:6379"), 8000)
    assert find_endpoint(store, 8000) is None
