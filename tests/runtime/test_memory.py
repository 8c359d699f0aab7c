"""The gauge counts what networks take, and refuses in one sentence what does not fit."""

import gc
import mmap
import time
from pathlib import Path

import numpy as np
import pytest

from hipray.runtime.memory import (
    BATCH,
    EXPLANATION,
    GIB,
    MemoryGauge,
    MemoryLimitError,
    read_memory_left,
    read_resident,
)

MIB = 2**20
SETTLE_S = 30.0


@pytest.fixture(autouse=True)
def quiet_memory() -> None:
    """What other tests left would be given back while memory is measured, by threads as well."""
    gc.collect()
    until, last = time.monotonic() + SETTLE_S, 0
    while abs(last - (last := read_resident())) > MIB and time.monotonic() < until:
        time.sleep(0.5)


def take(mebibytes: int) -> np.ndarray:
    """Take pages from the system: those that other tests have freed lie in the heap for a reuse."""
    taken = np.frombuffer(mmap.mmap(-1, mebibytes * MIB), np.uint8)
    taken[:] = 1
    return taken


def test_what_a_member_takes_is_counted() -> None:
    gauge = MemoryGauge()
    kept = gauge.load("resnet50", MIB, lambda: take(100))
    assert gauge.parts["resnet50"] == pytest.approx(100 * MIB, rel=0.2)
    assert len(kept) == 100 * MIB


def test_the_peak_of_a_batch_is_counted_although_it_is_given_back() -> None:
    gauge = MemoryGauge()
    gauge.try_batch(lambda: take(100).sum())
    assert gauge.parts[BATCH] == pytest.approx(100 * MIB, rel=0.2)
    assert gauge.total_bytes == gauge.parts[BATCH]


def test_what_does_not_fit_is_refused_with_the_sum_and_its_parts() -> None:
    gauge = MemoryGauge(limit_gib=0.25)
    kept = gauge.load("segmenter", MIB, lambda: take(100))
    with pytest.raises(MemoryLimitError) as caught:
        kept = [kept, gauge.load("vgg16", MIB, lambda: take(200))]
    sentence = str(caught.value)
    assert "fit into 0.25 GiB, set by memory_gib" in sentence
    assert "a need of 0.29 GiB or more (segmenter 0.10, vgg16 0.20)" in sentence
    assert kept is not None


def test_a_member_whose_files_do_not_fit_is_not_even_loaded() -> None:
    loaded = []
    with pytest.raises(MemoryLimitError, match=r"a need of 0\.50 GiB or more \(vgg16 0\.50\)"):
        MemoryGauge(limit_gib=0.25).load("vgg16", GIB // 2, lambda: loaded.append(1))
    assert not loaded


def test_a_batch_that_does_not_fit_is_refused() -> None:
    with pytest.raises(MemoryLimitError, match=f"{BATCH} 0."):
        MemoryGauge(limit_gib=0.05).try_batch(lambda: take(100).sum())


class FakeGpu:
    """Counts as torch does: what is given back stays reserved until the cache is emptied."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, mebibytes: int) -> None:
        self._total = mebibytes * MIB
        self._used = self._reserved = self._peak = 0
        for name, fake in {
            "memory_reserved": lambda: self._reserved,
            "max_memory_reserved": lambda: self._peak,
            "reset_peak_memory_stats": self._forget_peak,
            "mem_get_info": lambda: (self._total - self._reserved, self._total),
            "empty_cache": self._empty_cache,
        }.items():
            monkeypatch.setattr(f"torch.cuda.{name}", fake)

    def use(self, *, kept: int = 0, for_a_moment: int = 0) -> None:
        """Take mebibytes and give the momentary ones back."""
        self._used += kept * MIB
        self._reserved = max(self._reserved, self._used + for_a_moment * MIB)
        self._peak = max(self._peak, self._reserved)

    def _forget_peak(self) -> None:
        self._peak = self._reserved

    def _empty_cache(self) -> None:
        self._reserved = self._used


def test_on_a_gpu_what_torch_caches_is_no_part_of_a_member(monkeypatch) -> None:
    gpu = FakeGpu(monkeypatch, 100)
    gauge = MemoryGauge(on_gpu=True)
    gauge.load("vgg16", 20 * MIB, lambda: gpu.use(kept=20, for_a_moment=30))
    assert gauge.parts == {"vgg16": 20 * MIB}


def test_on_a_gpu_a_batch_needs_its_room_once_though_it_stays_in_the_cache(monkeypatch) -> None:
    gpu = FakeGpu(monkeypatch, 100)
    gauge = MemoryGauge(on_gpu=True)
    gauge.load("vgg16", 20 * MIB, lambda: gpu.use(kept=20))
    gauge.try_batch(lambda: gpu.use(for_a_moment=60))
    assert gauge.parts == {"vgg16": 20 * MIB, BATCH: 60 * MIB}
    assert gauge.coming_bytes == 0


def test_on_a_gpu_an_explanation_is_counted_beside_the_batch_that_is_cached(monkeypatch) -> None:
    gpu = FakeGpu(monkeypatch, 100)
    gauge = MemoryGauge(on_gpu=True)
    gauge.load("vgg16", 20 * MIB, lambda: gpu.use(kept=20))
    gauge.try_batch(lambda: gpu.use(for_a_moment=50))
    gauge.try_batch(lambda: gpu.use(for_a_moment=30), name=EXPLANATION)
    assert gauge.parts[EXPLANATION] == 30 * MIB
    assert gauge.coming_bytes == 50 * MIB
    with pytest.raises(MemoryLimitError, match=f"{EXPLANATION} 0.03"):
        gauge.try_batch(lambda: gpu.use(for_a_moment=31), name=EXPLANATION)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MACHINE = {"proc/meminfo": "MemTotal: 8000 kB\nMemAvailable:    4000 kB\n"}


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, 4000 * 1024),
        (  # version 2; what only caches files is not counted, and the group above may be tighter
            {
                "proc/self/cgroup": "0::/pod/app\n",
                "sys/fs/cgroup/pod/app/memory.max": "max\n",
                "sys/fs/cgroup/pod/app/memory.current": "100\n",
                "sys/fs/cgroup/pod/memory.max": "1000\n",
                "sys/fs/cgroup/pod/memory.current": "700\n",
                "sys/fs/cgroup/pod/memory.stat": "anon 1\ninactive_file 200\n",
            },
            500,
        ),
        (  # a container sees its own group at the top
            {
                "proc/self/cgroup": "0::/../outside\n",
                "sys/fs/cgroup/memory.max": "1000\n",
                "sys/fs/cgroup/memory.current": "400\n",
            },
            600,
        ),
        (  # version 1
            {
                "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/pod\n",
                "sys/fs/cgroup/memory/pod/memory.limit_in_bytes": "1000\n",
                "sys/fs/cgroup/memory/pod/memory.usage_in_bytes": "900\n",
                "sys/fs/cgroup/memory/pod/memory.stat": "total_inactive_file 50\n",
            },
            150,
        ),
    ],
)
def test_the_tightest_of_machine_and_control_groups_counts(tmp_path, files, left) -> None:
    assert read_memory_left(write(tmp_path, MACHINE | files)) == left


def test_a_system_that_does_not_tell_sets_no_limit(tmp_path) -> None:
    assert read_memory_left(tmp_path) is None
    assert read_resident() > MIB
