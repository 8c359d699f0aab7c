"""A warning where nothing is heard for long: a cluster that waits says so to nobody else."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SILENCE_S = 600.0
"""Seconds without an outcome after which it is told, and told again."""

logger = logging.getLogger(__name__)


@contextmanager
def warn_of_silence() -> Iterator[Callable[[], None]]:
    """Warn while the block waits and what it yields is not called for SILENCE_S."""
    ended = threading.Event()
    last = time.monotonic()

    def hear() -> None:
        nonlocal last
        last = time.monotonic()

    def watch() -> None:
        while not ended.wait(SILENCE_S):
            silent_s = time.monotonic() - last
            if silent_s >= SILENCE_S:
                logger.warning(
                    "score: no shard has ended for %.0f min: `ray status` tells what waits for a "
                    "node, and the actors' logs which of them die or wait for the store",
                    silent_s / 60,
                )

    thread = threading.Thread(target=watch, name="silence", daemon=True)
    thread.start()
    try:
        yield hear
    finally:
        ended.set()
        thread.join()
