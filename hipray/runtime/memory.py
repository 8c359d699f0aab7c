"""What networks take in memory, measured while they are loaded and asked for the first time.

A process that would be killed for its memory later refuses to start instead. Members are loaded
one by one; before each, the bytes of its files must still fit, and after each what it took is
counted. Then one real batch is answered, and its peak is counted too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

from hipray.errors import HiprayError

GIB = 2**30
BATCH = "one batch"
EXPLANATION = "one explanation"
PEAKS = frozenset({BATCH, EXPLANATION})
"""What is taken for a moment and given back."""

Built = TypeVar("Built")


class MemoryLimitError(HiprayError):
    """The networks do not fit into the memory that they may take."""

    exit_code = 11


@dataclass
class MemoryGauge:
    """Counts what the networks of this process take, and refuses what does not fit."""

    limit_gib: float | None = None
    """Memory that the networks may take; None: what the machine or container has left."""
    on_gpu: bool = False
    parts: dict[str, int] = field(default_factory=dict)
    """Bytes by member, and of what is taken for a moment."""

    def __post_init__(self) -> None:
        self._before = self._read_held()

    @property
    def total_bytes(self) -> int:
        """All members and what is taken for a moment."""
        return sum(self.parts.values())

    @property
    def coming_bytes(self) -> int:
        """What the networks may still take beside what they hold now."""
        return max(0, self.total_bytes - max(0, self._read_held() - self._before))

    def load(self, name: str, file_bytes: int, build: Callable[[], Built]) -> Built:
        """Build a member whose files have `file_bytes`; raises MemoryLimitError."""
        self._check(coming={name: file_bytes})
        before = self._read_held()
        built = build()
        self._give_cache_back()
        self.parts[name] = self.parts.get(name, 0) + max(0, self._read_held() - before)
        self._check(coming={})
        return built

    def try_batch(self, answer: Callable[[], object], *, name: str = BATCH) -> None:
        """Answer one real batch, or what else has a peak, and count it; raises MemoryLimitError."""
        self._give_cache_back()
        before = self._read_held()
        self._forget_peak()
        answer()
        self.parts[name] = max(0, self._read_peak() - before)
        self._check(coming={})

    def _check(self, *, coming: dict[str, int]) -> None:
        parts = self.parts | coming
        room, origin = self._find_room()
        require_memory(parts, room, origin)

    def _find_room(self) -> tuple[int, str]:
        """Bytes that all networks may take together, and who says so."""
        held = self._count_held()
        left = read_gpu_left() if self.on_gpu else read_memory_left()
        rooms = [] if left is None else [(held + left, "what is left here")]
        if self.limit_gib is not None:
            rooms.append((int(self.limit_gib * GIB), "set by memory_gib"))
        return min(rooms, default=(2**62, "without a limit"))

    def _count_held(self) -> int:
        """Bytes that the networks hold now, beside what is left.

        A GPU's free bytes leave out what torch caches, so that counts as held there.
        """
        if self.on_gpu:
            return self._read_held() - self._before
        return sum(size for name, size in self.parts.items() if name not in PEAKS)

    def _read_held(self) -> int:
        return torch.cuda.memory_reserved() if self.on_gpu else read_resident()

    def _give_cache_back(self) -> None:
        """Free what torch caches on the GPU: a peak above it would be too small."""
        if self.on_gpu:
            torch.cuda.empty_cache()

    def _forget_peak(self) -> None:
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            _reset_resident_peak()

    def _read_peak(self) -> int:
        return torch.cuda.max_memory_reserved() if self.on_gpu else _read_status("VmHWM")


def require_memory(parts: Mapping[str, int], room: int, origin: str) -> None:
    """Raise MemoryLimitError, naming the sum and each part, where parts exceed `room` bytes."""
    need = sum(parts.values())
    if need <= room:
        return
    listed = ", ".join(f"{name} {_gib(size)}" for name, size in parts.items())
    raise MemoryLimitError(
        f"the release's networks to fit into {_gib(room)} GiB, {origin}",
        f"a need of {_gib(need)} GiB or more ({listed})",
        "give it more memory, or serve a release with fewer or smaller members",
    )


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"


def read_resident() -> int:
    """Return the bytes of this process that lie in memory; 0 where the system does not tell."""
    return _read_status("VmRSS")


def read_gpu_left() -> int:
    """Return the free bytes of the current GPU."""
    free, _ = torch.cuda.mem_get_info()
    return int(free)


def read_memory_left(root: Path = Path("/")) -> int | None:
    """Return the bytes that processes here may still take; None where the system does not tell.

    The least of what the machine has and what each control group around this process has left;
    memory that only caches files counts as left.
    """
    rooms = [*_read_group_rooms(root), _read_kibibytes(root / "proc/meminfo", "MemAvailable")]
    return min((room for room in rooms if room is not None), default=None)


def _read_group_rooms(root: Path) -> list[int | None]:
    """What is left in the memory groups of this process and all around it, versions 1 and 2."""
    found: list[int | None] = []
    for line in _read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, own = line.split(":", 2)
        if controllers == "":
            top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # inside a container the path may name a group of the host: then only the top is seen
        group = top / own.lstrip("/")
        found += [_read_room(folder, *names) for folder in (group, *group.parents)
                  if folder.is_relative_to(top)]  # fmt: skip
    return found


def _read_room(group: Path, limit_name: str, usage_name: str, cached_name: str) -> int | None:
    limit, usage = _read_text(group / limit_name).strip(), _read_text(group / usage_name).strip()
    if not limit.isdecimal() or not usage.isdecimal():  # "max", or no such group
        return None
    cached = 0
    for line in _read_text(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == cached_name:
            cached = int(value)
    return int(limit) - (int(usage) - cached)


def _read_status(name: str) -> int:
    return _read_kibibytes(Path("/proc/self/status"), name) or 0


def _read_kibibytes(path: Path, name: str) -> int | None:
    for line in _read_text(path).splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return None


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _reset_resident_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not allowed here: the peak then counts what came before, which is too much
        return
