"""Processes and what they listen on, read from /proc as `ss -ltnp` does."""

import os
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""127.0.0.1, the same in IPv6, and ::1, as /proc/net/tcp and tcp6 write them."""
LISTENS = "0A"


def listening_addresses(processes: Iterable[int]) -> set[str]:
    """Return the addresses, as /proc writes them, on which the processes accept connections."""
    inodes = {inode for process in processes for inode in _sockets(process)}
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text("utf-8").splitlines()[1:]
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == LISTENS and row[9] in inodes}


def _sockets(process: int) -> set[str]:
    try:
        targets = [str(link.readlink()) for link in Path(f"/proc/{process}/fd").iterdir()]
    except OSError:  # it has ended, or one of its files was closed
        return set()
    return {target[8:-1] for target in targets if target.startswith("socket:[")}


def descendants(process: int) -> dict[int, str]:
    """Return a process and all that it started, directly or not, with their times of start."""
    known = _read_processes()
    own = {process}
    while more := {p for p, (parent, _) in known.items() if parent in own and p not in own}:
        own |= more
    return {p: known[p][1] for p in own if p in known}


def find_descendants(words: str, *, of: int) -> list[int]:
    """Return what a process started, directly or not, that has `words` in its command line.

    One that has ended and was not waited for yet has no command line.
    """
    found = []
    for process in descendants(of):
        with suppress(OSError):
            line = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ")
            if process != of and words in line.decode("utf-8", "replace"):
                found.append(process)
    return found


def kill_all(processes: Mapping[int, str]) -> None:
    """End what is left of processes; a number that is another's by now is left alone."""
    known = _read_processes()
    for process, born in processes.items():
        if process in known and known[process][1] == born:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def _read_processes() -> dict[int, tuple[int, str]]:
    """Return each process's parent and time of start."""
    known = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text("utf-8").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        known[int(folder.name)] = (int(fields[1]), fields[19])
    return known
