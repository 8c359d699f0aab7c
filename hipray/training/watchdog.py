"""A watch over a fit that hangs: a thread acts when the fit's own thread no longer can.

The training loop looks at its deadline between steps. A fit that hangs inside a step, in a
decoder, a kernel or a lock, never gets there.
"""

import faulthandler
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BACKSTOP_S = 120.0
"""Seconds after which a process that holds the interpreter's lock, so that no thread of it can
run, is ended from outside Python."""


@contextmanager
def watch(limit_s: float | None, act: Callable[[str], None]) -> Iterator[None]:
    """Call `act` with the stack of this thread, from another one, when the block takes longer.

    `act` is expected to end the process; None as limit watches nothing.
    """
    if limit_s is None:
        yield
        return
    watched = threading.get_ident()
    timer = threading.Timer(limit_s, lambda: act(_stack_of(watched)))
    timer.name, timer.daemon = "hipray-watchdog", True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def backstop(limit_s: float | None) -> Iterator[None]:
    """End the process hard when the block takes longer, even where no thread can run."""
    if limit_s is None or sys.__stderr__ is None:
        yield
        return
    faulthandler.dump_traceback_later(limit_s + BACKSTOP_S, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _stack_of(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    return "".join(traceback.format_stack(frame)) if frame else ""
