"""The memory of a driver and of its Ray actors, or of an endpoint, while something runs."""

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Self

SAMPLE_S = 0.5
ACTOR_TITLE = "ray::MapWorker(MapBatches("
"""How Ray names the processes of its actor pools: the class follows."""
FEED_TITLE = "ray::_Feed"
"""How it names the one that hands out what is open."""
ENDPOINT_TITLES = (
    "ray::ServeReplica",
    "ray::SERVE_REPLICA",
    "ray::ProxyActor",
    "ray::ServeController",
)
"""How it names the processes of Ray Serve, which start the decoders."""


class MemoryWatch:
    """Samples resident memory, by default of this process and its largest actor of each class."""

    def __init__(self, read: Callable[[], Mapping[str, int]] | None = None) -> None:
        """`read` returns the bytes of each thing that is watched, by its name."""
        self.peaks: dict[str, int] = {}
        """Most bytes: by default of `driver`, `feed`, and each class of actors."""
        self._read = read or read_sizes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            for name, size in self._read().items():
                self.peaks[name] = max(size, self.peaks.get(name, 0))


def read_sizes() -> dict[str, int]:
    """Return the private resident bytes of this process and of its largest actor of each class.

    Shared memory, Ray's object store, is left out: it is bounded by itself.
    """
    import psutil  # type: ignore[import-untyped]  # Ray, which is loaded by now, brings it

    own = psutil.Process(os.getpid())
    sizes: dict[str, int] = defaultdict(int)
    sizes["driver"] = _private_bytes(own)
    for child in own.children(recursive=True):
        try:
            title = " ".join(child.cmdline())
            if title.startswith(ACTOR_TITLE):
                name = title.removeprefix(ACTOR_TITLE).partition(")")[0].lower()
                sizes[name] = max(sizes[name], _private_bytes(child))
            elif title.startswith(FEED_TITLE):
                sizes["feed"] = _private_bytes(child)
        except psutil.NoSuchProcess:
            continue
    return dict(sizes)


def read_endpoint() -> dict[str, int]:
    """Return the private resident bytes of all processes of the endpoint that this one started.

    This process, its own pipeline and what else it started are no part of it.
    """
    import psutil

    endpoint: set[Any] = set()
    for child in psutil.Process(os.getpid()).children(recursive=True):
        try:
            if " ".join(child.cmdline()).startswith(ENDPOINT_TITLES):
                endpoint |= {child, *child.children(recursive=True)}
        except psutil.NoSuchProcess:
            continue
    total = 0
    for process in endpoint:
        try:
            total += _private_bytes(process)
        except psutil.NoSuchProcess:
            continue
    return {"endpoint": total}


def _private_bytes(process: Any) -> int:
    memory = process.memory_info()
    return int(memory.rss - memory.shared)
