"""The same reader behind a process boundary: a poison file ends as a row, not as a crash.

A persistent child decodes under limits of memory, CPU and wall time. It speaks a small protocol
over its pipes: a message is a length, a JSON header of that length, and the raw bytes that the
header announces. Nothing is unpickled, and the child sees no credentials of its parent.
"""

import json
import logging
import os
import select
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import cv2
import numpy as np

import hipray
from hipray.config.images import ImageLimits, Preprocessing
from hipray.data.images import ReadResult, read_hips
from hipray.data.refusals import Refusal
from hipray.data.transport import (
    describe_hip,
    describe_info,
    describe_refusal,
    restore_hip,
    restore_info,
    restore_refusal,
)
from hipray.errors import DataError
from hipray.vocab import RefusalCode, Side

CRASH_TRIES = 2
"""Times a film is decoded before it counts as one that ends its decoder: a machine that is short
of time or memory may end it too."""

_LENGTH = struct.Struct(">I")
_PIPE_BYTES = 1 << 20
"""Wanted capacity of each pipe: Linux's default of 64 KiB costs a switch per 16 pages."""
_START_SECONDS = 60.0
"""Allowed for the child's imports, on a cold and busy disk."""
_STOP_SECONDS = 2.0
_CPU_SLACK_SECONDS = 2
_KEPT_VARIABLES = (
    "PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "HOME", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV",
)  # fmt: skip
_SINGLE_THREAD = {
    name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
}
_MEBIBYTE = 1 << 20


def read_despite_crash(read: Callable[[], ReadResult]) -> ReadResult:
    """Return what `read` finds, asked again where the child died of the file, or with it."""
    for _ in range(CRASH_TRIES - 1):
        result = read()
        if not _is_crash(result):
            return result
    return read()


def _is_crash(result: ReadResult) -> bool:
    return result.refusal is not None and result.refusal.code is RefusalCode.DECODER_CRASH


class _ChildLostError(Exception):
    """The child died or did not answer in time."""


class IsolatedReader:
    """Reads files in a child process; safe to share between threads, one file at a time.

    The child starts with the first file and starts anew after a file that killed it.
    """

    def __init__(
        self,
        limits: ImageLimits | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self.limits = limits or ImageLimits()
        self.preprocessing = preprocessing or Preprocessing()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def read_hips(self, data: bytes, *, name: str, side: Side | None = None) -> ReadResult:
        """Read one file as `images.read_hips` does; children that die of it, a `decoder_crash`.

        Raises DataError where no child can be started at all, which is no fault of the file.
        """
        return read_despite_crash(lambda: self.read_once(data, name=name, side=side))

    def read_once(self, data: bytes, *, name: str, side: Side | None = None) -> ReadResult:
        """Read one file as `read_hips` does, and leave it at the first child that dies.

        A file at the edge of two limits exceeds now the one, now the other, or aborts its child:
        each is the same refusal, so that the same file has the same row in every run.
        """
        if len(data) > self.limits.max_file_bytes:
            evidence = f"{len(data)} bytes, at most {self.limits.max_file_bytes}"
            refusal = Refusal(RefusalCode.TOO_LARGE, "file_size", evidence)
            return ReadResult(name, refusal=refusal)
        with self._lock:
            child = self._running_child()
            try:
                result = self._ask(child, data, name=name, side=side)
            except _ChildLostError:
                self._kill()
                return ReadResult(name, refusal=_crash(self.limits))
        return ReadResult(name, refusal=_crash(self.limits)) if _is_crash(result) else result

    def close(self) -> None:
        """End the child; the next file would start another."""
        with self._lock:
            self._kill()

    def _ask(
        self, child: subprocess.Popen[bytes], data: bytes, *, name: str, side: Side | None
    ) -> ReadResult:
        deadline = time.monotonic() + self.limits.decode_seconds
        header = {"side": side, "bytes": len(data)}
        _send(_pipe(child.stdin), header, [data], deadline)
        answer = _receive(_pipe(child.stdout), deadline)
        pixels = [_read_exactly(_pipe(child.stdout), n, deadline) for n in answer["hip_bytes"]]
        return _decode_result(name, answer, pixels)

    def _running_child(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._kill()
            self._child = _start_child(self.limits, self.preprocessing)
        return self._child

    def _kill(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()
        _reap(child)


def _reap(child: subprocess.Popen[bytes]) -> None:
    """Wait for a killed child; a large one that takes its time is waited for in a thread."""
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        threading.Thread(target=child.wait, daemon=True).start()


def _crash(limits: ImageLimits) -> Refusal:
    evidence = f"no end within {limits.decode_seconds:g} s and {limits.decode_memory_mb} MiB"
    return Refusal(RefusalCode.DECODER_CRASH, "isolated_reader", evidence)


def _start_child(limits: ImageLimits, preprocessing: Preprocessing) -> subprocess.Popen[bytes]:
    try:
        child = subprocess.Popen(
            # -P: a module beside the films, where the caller may stand, is not run
            [sys.executable, "-P", "-m", "hipray.data.isolation"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries quote a file's values there
            env=_child_environment(),
            bufsize=0,
        )
    except OSError as error:  # no memory, or too many processes
        raise _no_decoder(error.strerror or str(error)) from error
    setup = {"limits": limits.model_dump(), "preprocessing": preprocessing.model_dump()}
    deadline = time.monotonic() + _START_SECONDS
    try:
        for stream in (child.stdin, child.stdout):
            _widen(_pipe(stream))
        _send(_pipe(child.stdin), setup, [], deadline)
        _receive(_pipe(child.stdout), deadline)
    except _ChildLostError as loss:
        child.kill()
        _reap(child)
        raise _no_decoder(str(loss)) from None
    return child


def _no_decoder(reason: str) -> DataError:
    return DataError("a decoder process", f"none that starts ({reason})", "check memory and limits")


def _child_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    package_root = str(Path(hipray.__file__).resolve().parent.parent)
    search = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**kept, **_SINGLE_THREAD, "PYTHONPATH": os.pathsep.join(search)}


def _pipe(stream: IO[bytes] | None) -> int:
    assert stream is not None
    return stream.fileno()


def _widen(pipe: int) -> None:
    if sys.platform != "linux":
        return
    import fcntl

    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:  # beyond the user's quota of pipe pages: slower, not wrong
        return


def _send(pipe: int, header: dict[str, Any], blobs: list[bytes], deadline: float | None) -> None:
    text = json.dumps(header).encode()
    _write_all(pipe, _LENGTH.pack(len(text)) + text, deadline)
    for blob in blobs:
        _write_all(pipe, blob, deadline)


def _receive(pipe: int, deadline: float | None) -> dict[str, Any]:
    (length,) = _LENGTH.unpack(_read_exactly(pipe, _LENGTH.size, deadline))
    message: dict[str, Any] = json.loads(_read_exactly(pipe, length, deadline))
    return message


def _write_all(pipe: int, data: bytes, deadline: float | None) -> None:
    left = memoryview(data)
    if deadline is not None:
        os.set_blocking(pipe, False)
    while left:
        _wait(pipe, deadline, writing=True)
        try:
            left = left[os.write(pipe, left) :]
        except BlockingIOError:
            continue
        except OSError:
            raise _ChildLostError("the decoder process died") from None


def _read_exactly(pipe: int, count: int, deadline: float | None) -> bytearray:
    buffer = bytearray(count)
    left = memoryview(buffer)
    while left:
        _wait(pipe, deadline, writing=False)
        got = os.readv(pipe, [left])
        if not got:
            raise _ChildLostError("the decoder process died")
        left = left[got:]
    return buffer


def _wait(pipe: int, deadline: float | None, *, writing: bool) -> None:
    if deadline is None:
        return
    poller = select.poll()
    poller.register(pipe, select.POLLOUT if writing else select.POLLIN)
    if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise _ChildLostError("no answer within the time limit")


def _encode_result(result: ReadResult) -> tuple[dict[str, Any], list[bytes]]:
    pixels = [np.ascontiguousarray(hip.pixels).tobytes() for hip in result.hips]
    header = {
        "hips": [describe_hip(hip) for hip in result.hips],
        "hip_bytes": [len(blob) for blob in pixels],
        "film_info": describe_info(result.film_info),
        "refusal": describe_refusal(result.refusal),
    }
    return header, pixels


def _decode_result(name: str, header: dict[str, Any], pixels: list[bytearray]) -> ReadResult:
    hips = [
        restore_hip(note, np.frombuffer(values, np.uint8))
        for note, values in zip(header["hips"], pixels, strict=True)
    ]
    return ReadResult(
        name,
        tuple(hips),
        restore_info(header["film_info"]),
        restore_refusal(header["refusal"]),
    )


def _limit_memory(limits: ImageLimits) -> None:
    import resource

    statm = Path("/proc/self/statm")
    used = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0
    most = used + limits.decode_memory_mb * _MEBIBYTE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold a patient's film


def _limit_cpu(limits: ImageLimits) -> None:
    # RLIMIT_CPU counts the whole life of the process, so each file gets its own new bound. It
    # ends a child that still decodes after its parent is gone.
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = usage.ru_utime + usage.ru_stime + limits.decode_seconds + _CPU_SLACK_SECONDS
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, hard))


def _answer_files(source: int, target: int) -> None:
    setup = _receive(source, None)
    limits = ImageLimits.model_validate(setup["limits"])
    preprocessing = Preprocessing.model_validate(setup["preprocessing"])
    _limit_memory(limits)
    _send(target, {"ready": True}, [], None)
    while True:
        request = _receive(source, None)
        data = bytes(_read_exactly(source, request["bytes"], None))
        side = None if request["side"] is None else Side(request["side"])
        _limit_cpu(limits)
        result = read_hips(data, name="", side=side, limits=limits, preprocessing=preprocessing)
        _send(target, *_encode_result(result), None)


def main() -> None:
    """Serve files over stdin and stdout until the parent closes its end."""
    target = os.dup(1)
    os.dup2(2, 1)  # whatever a codec prints must not enter the protocol
    cv2.setNumThreads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    try:
        _answer_files(0, target)
    except _ChildLostError:
        return


if __name__ == "__main__":
    main()
