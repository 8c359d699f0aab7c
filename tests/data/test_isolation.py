import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from hipray.config.images import ImageLimits, Preprocessing
from hipray.data import isolation
from hipray.data.images import ReadResult, read_hips
from hipray.data.isolation import IsolatedReader
from hipray.vocab import RefusalCode, Side
from tests.data.film_files import draw_hip, draw_pelvis, encode_dicom, encode_image

FILM = encode_image(draw_hip())


def child_of(reader: IsolatedReader) -> int:
    assert reader._child is not None
    return reader._child.pid


def crash_code(result: ReadResult) -> RefusalCode | None:
    return None if result.refusal is None else result.refusal.code


@pytest.fixture(scope="module")
def reader():  # type: ignore[no-untyped-def]
    with IsolatedReader() as shared:
        yield shared


@pytest.mark.parametrize(
    "data",
    [
        FILM,
        encode_dicom(ImageLaterality="R"),
        encode_dicom(draw_pelvis().astype(np.uint16) * 12, ImageLaterality="B"),
        encode_dicom(ViewPosition="LL"),
        b"no film",
    ],
)
def test_the_child_answers_exactly_as_the_reader_itself(
    reader: IsolatedReader, data: bytes
) -> None:
    isolated = reader.read_hips(data, name="f", side=Side.LEFT)
    direct = read_hips(data, name="f", side=Side.LEFT)
    assert isolated.film_info == direct.film_info
    assert isolated.refusal == direct.refusal
    assert len(isolated.hips) == len(direct.hips)
    for ours, theirs in zip(isolated.hips, direct.hips, strict=True):
        assert np.array_equal(ours.pixels, theirs.pixels)
        for name in ("side", "flipped", "geometry", "spacing_mm", "findings"):
            assert getattr(ours, name) == getattr(theirs, name)
        assert ours.pixel_sha256 == theirs.pixel_sha256


def test_settings_reach_the_child() -> None:
    limits, preprocessing = ImageLimits(min_side_px=100), Preprocessing(canonical_px=128)
    with IsolatedReader(limits, preprocessing) as reader:
        assert max(reader.read_hips(FILM, name="f").hips[0].pixels.shape) == 128
        small = encode_image(draw_hip(90, 90))
        assert crash_code(reader.read_hips(small, name="f")) is RefusalCode.TOO_SMALL


def stop_and_kill(child: int) -> None:
    """Let the child take a file, not answer, and die."""
    os.kill(child, signal.SIGSTOP)
    threading.Timer(0.3, os.kill, (child, signal.SIGKILL)).start()


def test_a_dead_child_costs_one_try_and_is_replaced() -> None:
    with IsolatedReader() as reader:
        reader.read_hips(FILM, name="f")
        first = child_of(reader)
        stop_and_kill(first)
        assert crash_code(reader.read_once(FILM, name="f")) is RefusalCode.DECODER_CRASH
        assert crash_code(reader.read_once(FILM, name="f")) is None
        assert child_of(reader) != first


def test_a_film_whose_child_the_machine_ends_is_read_again() -> None:
    with IsolatedReader() as reader:
        reader.read_hips(FILM, name="f")
        first = child_of(reader)
        stop_and_kill(first)
        assert crash_code(reader.read_hips(FILM, name="f")) is None
        assert child_of(reader) != first


def test_a_child_that_is_slow_to_die_costs_its_file_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isolation, "_STOP_SECONDS", 0.0)
    with IsolatedReader(ImageLimits(decode_seconds=0.5)) as reader:
        reader.read_hips(FILM, name="f")
        os.kill(child_of(reader), signal.SIGSTOP)
        assert crash_code(reader.read_once(FILM, name="f")) is RefusalCode.DECODER_CRASH
        assert crash_code(reader.read_hips(FILM, name="f")) is None


def test_a_child_that_died_between_files_is_replaced_unnoticed() -> None:
    with IsolatedReader() as reader:
        reader.read_hips(FILM, name="f")
        os.kill(child_of(reader), signal.SIGKILL)
        time.sleep(0.1)
        assert crash_code(reader.read_hips(FILM, name="f")) is None


def test_a_file_that_takes_too_long_is_a_decoder_crash() -> None:
    with IsolatedReader(ImageLimits(decode_seconds=0.5)) as reader:
        assert crash_code(reader.read_hips(FILM, name="f")) is None
        os.kill(child_of(reader), signal.SIGSTOP)
        started = time.monotonic()
        result = reader.read_once(FILM, name="f")
        assert crash_code(result) is RefusalCode.DECODER_CRASH
        assert 0.4 < time.monotonic() - started < 3


@pytest.mark.skipif(sys.platform != "linux", reason="address space limits are enforced on Linux")
def test_a_file_beyond_the_memory_limit_is_a_decoder_crash_and_the_next_is_read() -> None:
    huge = encode_image(np.zeros((7000, 7000), np.uint8))
    with IsolatedReader(ImageLimits(decode_memory_mb=256)) as reader:
        assert crash_code(reader.read_hips(huge, name="f")) is RefusalCode.DECODER_CRASH
        assert crash_code(reader.read_hips(FILM, name="f")) is None


@pytest.mark.skipif(sys.platform != "linux", reason="address space limits are enforced on Linux")
def test_a_file_without_time_or_memory_and_a_child_that_died_are_one_refusal() -> None:
    huge = encode_image(np.zeros((7000, 7000), np.uint8))
    with IsolatedReader(ImageLimits(decode_memory_mb=256, decode_seconds=3)) as reader:
        no_memory = reader.read_once(huge, name="f").refusal
        os.kill(child_of(reader), signal.SIGSTOP)
        no_time = reader.read_once(FILM, name="f").refusal
        reader.read_once(FILM, name="f")
        stop_and_kill(child_of(reader))
        no_child = reader.read_once(FILM, name="f").refusal
    assert no_memory == no_time == no_child
    assert no_memory is not None
    assert no_memory.evidence == "no end within 3 s and 256 MiB"


def test_a_file_above_the_byte_limit_never_reaches_the_child() -> None:
    with IsolatedReader(ImageLimits(max_file_bytes=100)) as reader:
        assert crash_code(reader.read_hips(FILM, name="f")) is RefusalCode.TOO_LARGE
        assert reader._child is None


def test_threads_share_one_child_and_each_gets_its_own_film(reader: IsolatedReader) -> None:
    films = [encode_image(draw_hip(seed=seed)) for seed in range(6)]
    answers: dict[int, str] = {}

    def read(number: int) -> None:
        answers[number] = reader.read_hips(films[number], name="f").hips[0].pixel_sha256

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {n: read_hips(film, name="f").hips[0].pixel_sha256 for n, film in enumerate(films)}
    assert answers == expected


def test_the_child_sees_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert not any(name.startswith("AWS") for name in isolation._child_environment())


def test_the_child_runs_no_module_that_lies_where_the_caller_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "csv.py").write_text("open('was-run', 'w')\nraise SystemExit")
    monkeypatch.chdir(tmp_path)
    with IsolatedReader() as reader:
        assert reader.read_hips(FILM, name="f").hips
    assert not (tmp_path / "was-run").exists()


def test_the_child_loads_neither_torch_nor_ray() -> None:
    import subprocess

    code = (
        "import sys, hipray.data.isolation; "
        "print([m for m in ('torch', 'ray', 'albumentations', 'boto3') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_a_closed_reader_leaves_no_process() -> None:
    reader = IsolatedReader()
    reader.read_hips(FILM, name="f")
    child = reader._child
    reader.close()
    assert child is not None
    assert child.returncode is not None


@pytest.mark.full
def test_the_boundary_costs_a_two_megapixel_film_less_than_fifteen_milliseconds(
    reader: IsolatedReader,
) -> None:
    data = encode_dicom(draw_hip(1414, 1414).astype(np.uint16) * 12)

    def fastest(read: object) -> float:
        times = []
        for _ in range(9):
            started = time.perf_counter()
            read(data, name="f")  # type: ignore[operator]
            times.append(time.perf_counter() - started)
        return min(times)

    assert fastest(reader.read_hips) - fastest(read_hips) < 0.015
