"""The memory of a driver and of its Ray actors while something runs."""

import os
import threading
from collections import defaultdict
from typing import Any, Self

SAMPLE_S = 0.5
ACTOR_TITLE = "ray::MapWorker(MapBatches("
"""How Ray names the processes of its actor pools: the class follows."""
FEED_TITLE = "ray::_Feed"
"""How it names the one that hands out what is open."""


class MemoryWatch:
    """Samples the resident memory of this process and of its largest actor of each class."""

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        """Bytes: `driver`, `feed`, and each class of actors."""
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
            for name, size in read_sizes().items():
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


def _private_bytes(process: Any) -> int:
    memory = process.memory_info()
    return int(memory.rss - memory.shared)
