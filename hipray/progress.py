"""Progress a person can read: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

LOG_INTERVAL_S = 10.0
"""Seconds between two lines where there is no terminal."""


def describe_duration(seconds: float) -> str:
    """Return a duration as a person says it: seconds, minutes, hours or days."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


class Tracker(Protocol):
    """Takes how much is done, and a few words on what is going on."""

    def __call__(self, done: int, note: str = "") -> None:
        """Show that `done` of the total is finished."""
        ...


@contextmanager
def track(title: str, total: int) -> Iterator[Tracker]:
    """Show progress of `total` steps on standard error while the block runs."""
    console = Console(file=sys.stderr)
    tracker = _bar(console, title, total) if console.is_terminal else _lines(console, title, total)
    with tracker as update:
        yield update


@contextmanager
def _bar(console: Console, title: str, total: int) -> Iterator[Tracker]:
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, note="")

        def update(done: int, note: str = "") -> None:
            progress.update(task, completed=done, note=note)

        yield update


@contextmanager
def _lines(console: Console, title: str, total: int) -> Iterator[Tracker]:
    started = last = time.monotonic()
    shown = 0

    def update(done: int, note: str = "") -> None:
        nonlocal last, shown
        now = time.monotonic()
        if done != shown and now - last >= LOG_INTERVAL_S:
            last, shown = now, done
            left = (now - started) / done * (total - done) if done else 0.0
            line = f"{title}: {done}/{total}, about {left:.0f} s left"
            console.print(f"{line}, {note}" if note else line, highlight=False, soft_wrap=True)

    yield update
    seconds = time.monotonic() - started
    console.print(f"{title}: finished in {seconds:.1f} s", highlight=False, soft_wrap=True)
