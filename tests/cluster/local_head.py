"""A head of local.sh in a folder and on ports of its own, ended with all that it started."""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PORTS = 11
"""Ports of a head, one after the other."""


@dataclass(frozen=True)
class LocalHead:
    """A running head of local.sh."""

    folder: Path
    """Its token, process ids and Ray's files."""
    port: int
    """The first of its ports; the second is the dashboard's."""
    environment: dict[str, str]
    """For local.sh itself."""

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.port + 1}"

    @property
    def token(self) -> str:
        return (self.folder / "auth_token").read_text("utf-8").strip()

    @property
    def processes(self) -> list[int]:
        lines = (self.folder / "processes").read_text("utf-8").splitlines()
        return [int(line.split()[0]) for line in lines]

    @property
    def client_environment(self) -> dict[str, str]:
        """What a shell has after `eval "$(cluster/local.sh env)"`."""
        words = self.call("env").split()
        return self.environment | dict(word.split("=", 1) for word in words if "=" in word)

    def call(self, word: str) -> str:
        """Return what local.sh says to a word."""
        ended = subprocess.run(
            ["bash", str(ROOT / "cluster/local.sh"), word],
            env=self.environment, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        return ended.stdout + ended.stderr


@contextmanager
def running_local_head(folder: Path) -> Iterator[LocalHead]:
    """Run a head of two CPUs with its files in a folder."""
    port = _find_free_ports()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
        "HIPRAY_LOCAL": str(folder), "HIPRAY_LOCAL_PORT": str(port), "HIPRAY_LOCAL_CPUS": "2",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    head = LocalHead(folder, port, environment)
    try:
        said = head.call("start")
        assert "running at" in said, said
        yield head
    finally:
        head.call("stop")


def _find_free_ports() -> int:
    """Return the first of as many ports in a row as a head needs, free a moment ago."""
    while True:
        first = random.randrange(20_000, 30_000)  # below those that the system deals out
        try:
            with ExitStack() as taken:
                for port in range(first, first + PORTS):
                    taken.enter_context(socket.socket()).bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
