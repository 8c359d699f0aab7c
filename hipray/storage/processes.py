"""Telling one process from another, on one machine and across machines (proc(5))."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
PID_NAMESPACE_LINK = Path("/proc/self/ns/pid")

STATE_FIELD = 0
START_TIME_FIELD = 19
"""Positions of fields 3 (state) and 22 (start, in clock ticks since boot) after the command."""

ENDED_STATES = ("Z", "X")
"""A killed process that nobody has waited for yet, and a dead one."""


@dataclass(frozen=True)
class ProcessId:
    """One process for ever: a number alone is used again after the process ends."""

    host: str
    boot_id: str
    """Random for each start of the kernel; empty where the system does not tell."""
    pid_namespace: str
    """Inside which `pid` counts: containers on one machine each have their own."""
    pid: int
    started: int
    """Clock ticks from boot to the start of the process; 0 where the system does not tell."""


def current_process() -> ProcessId:
    """Return the identity of this process."""
    pid = os.getpid()
    stat = _read_stat(pid)
    return ProcessId(
        host=socket.gethostname(),
        boot_id=_read_boot_id(),
        pid_namespace=_read_pid_namespace(),
        pid=pid,
        started=int(stat[START_TIME_FIELD]) if stat else 0,
    )


def has_ended(process: ProcessId) -> bool:
    """Tell whether `process` is known to have ended; False whenever this cannot be seen.

    It can be seen only from the same start of the same machine and the same pid namespace.
    """
    return is_visible(process) and not _runs(process.pid, process.started)


def is_visible(process: ProcessId) -> bool:
    """Tell whether this process could see the end of `process`."""
    if not process.boot_id or not process.started:
        return False
    if process.boot_id != _read_boot_id() or process.host != socket.gethostname():
        return False
    return process.pid_namespace == _read_pid_namespace()


def _runs(pid: int, started: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only asks: kill(2)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it belongs to another user; /proc may hide it, so only its stat can show an end
    stat = _read_stat(pid)
    if not stat:
        return True
    return stat[STATE_FIELD] not in ENDED_STATES and int(stat[START_TIME_FIELD]) == started


def _read_stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat after the command, which may itself hold blanks."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _read_boot_id() -> str:
    try:
        return BOOT_ID_FILE.read_text("ascii").strip()
    except OSError:
        return ""


def _read_pid_namespace() -> str:
    try:
        return str(PID_NAMESPACE_LINK.readlink())
    except OSError:
        return ""
