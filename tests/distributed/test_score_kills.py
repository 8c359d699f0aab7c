"""Batch scoring killed at any moment: each key once, and parts as those of an undisturbed run."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Self

import numpy as np
import pandas as pd
import pytest

from hipray.config.jobs import ScoreRun
from hipray.config.storage import StorageSettings
from hipray.data.images import read_hips
from hipray.data.pseudonyms import KEY_BYTES, KEY_FILE
from hipray.distributed.score import run_score  # noqa: F401 - it loads Ray, which brings psutil
from hipray.releases.release import read_release
from hipray.scoring.parts import PartSet, read_part
from hipray.storage import Store, open_store
from hipray.vocab import RefusalCode, RuntimeChoice, View
from tests.cluster.machines import running_machines
from tests.data.film_files import encode_dicom, encode_image
from tests.distributed.throttling import ThrottlingS3
from tests.processes import find_descendants
from tests.small_release import draw_phantoms, publish_small_release

pytestmark = [pytest.mark.full, pytest.mark.timeout(1800)]

FILES = int(os.environ.get("HIPRAY_KILL_FILES", "2000"))
SHARD_FILES = max(4, FILES // 80)
DIFFERENT_FILMS = 40
HOSTILE_EVERY = 20
"""5 % of the files."""
FAULTY_EVERY = 100
"""1 % of the requests for films are throttled and 1 % time out."""
POISON_PLACE = FILES // 3
"""Which file takes its decoder along."""
POISON_ITEMS = 600_000
"""Items of a sequence that take a decoder more seconds, and about the memory, that it may use."""
MOST_IN_FLIGHT = 16
"""Shards that decoders and model actors hold at a time on these machines."""
VARIES = ["fetch_seconds", "decode_seconds", "model_seconds"]
WORKER_TITLE = "ray::MapWorker(MapBatches(Shard"
DRIVER = """
import sys
from hipray.config.jobs import ScoreRun
from hipray.distributed.score import run_score
run_score(ScoreRun.model_validate_json(open(sys.argv[1]).read()))
"""


@dataclass
class Drive:
    """One archive on a server of its own, driven by processes of their own."""

    server: ThrottlingS3
    config: ScoreRun
    folder: Path
    environment: dict[str, str]
    expected: dict[str, RefusalCode] = field(default_factory=dict)

    @property
    def output(self) -> Store:
        return open_store(str(self.config.output), self.config.storage)

    def start(self) -> "subprocess.Popen[bytes]":
        path = self.folder / "run.json"
        path.write_text(self.config.model_dump_json())
        log = (self.folder / "driver.log").open("ab")
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(path)],
            env=self.environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def finish(self, driver: "subprocess.Popen[bytes]") -> None:
        assert driver.wait(900) == 0, (self.folder / "driver.log").read_text()[-3000:]

    def count_parts(self) -> int:
        return sum(1 for _ in self.output.list("parts"))

    def wait_for_parts(self, fraction: float, driver: "subprocess.Popen[bytes]") -> None:
        until = time.monotonic() + 600
        while self.count_parts() < fraction * FILES / SHARD_FILES:
            assert driver.poll() is None, (self.folder / "driver.log").read_text()[-3000:]
            assert time.monotonic() < until
            time.sleep(0.1)

    def parts(self) -> dict[str, pd.DataFrame]:
        store = open_store(self.config.workspace, self.config.storage)
        parts = PartSet.of(read_release(store, "small"), self.config)
        return {
            name: read_part(self.output, parts, name).table.to_pandas().drop(columns=VARIES)
            for name in parts.list_all(self.output)
        }


@dataclass(frozen=True)
class Finished:
    """The parts that there were at a moment, and how often each film had been read by then."""

    parts: dict[str, str]
    reads: Counter[str]

    @classmethod
    def now(cls, drive: Drive) -> Self:
        parts = {info.key: info.etag for info in drive.output.list("parts")}
        return cls(parts, drive.server.count_reads())  # asked second: parts come after their reads

    def assert_left_alone(self, drive: Drive, undisturbed: dict[str, pd.DataFrame]) -> None:
        now = {info.key: info.etag for info in drive.output.list("parts")}
        assert self.parts.items() <= now.items(), "a finished part was written again"
        names = [PurePosixPath(key).stem for key in self.parts]
        keys = set(pd.concat([undisturbed[name] for name in names])["key"])
        read = drive.server.count_reads() - self.reads
        again = [path for path in read if path.partition("/archive/")[2] in keys]
        assert not again, "a film of a finished part was read again"


@pytest.fixture(scope="module")
def server() -> Iterator[ThrottlingS3]:
    running = ThrottlingS3()
    yield running
    running.close()


@pytest.fixture(scope="module")
def archive(server: ThrottlingS3) -> Store:
    """2,000 keys of 40 different films, every twentieth a file that no decoder likes."""
    store = server.s3.new_store()
    films = list(draw_phantoms(DIFFERENT_FILMS).values())
    hostile = hostile_files(films[0])
    for number in range(FILES):
        place, is_hostile = divmod(number, HOSTILE_EVERY)
        data = films[number % len(films)] if is_hostile else hostile[place % len(hostile)]
        store.write(key_of(number), data)
    store.write(key_of(POISON_PLACE), build_poison())
    return store


def key_of(number: int) -> str:
    return f"site{number % 7}/p{number:05d}.dcm"


def hostile_files(film: bytes) -> list[bytes]:
    """Return junk, an empty file, half a film, and one whose pixels end the decoder's memory."""
    huge = encode_image(np.zeros((7000, 7000), np.uint8))
    return [b"junk" * 50, b"", film[: len(film) // 2], huge]


def build_poison() -> bytes:
    """Return a good film whose header no decoder reads to its end."""
    film, patient = encode_dicom(), b"\x10\x00\x10\x00PN"
    item, end = b"\xfe\xff\x00\xe0" + bytes(4), b"\xfe\xff\xdd\xe0" + bytes(4)
    sequence = b"\x08\x00\x15\x11SQ\x00\x00\xff\xff\xff\xff" + item * POISON_ITEMS + end
    return film.replace(patient, sequence + patient, 1)


def expected_refusals(archive: Store) -> Counter[str]:
    by_content: dict[bytes, str] = {}
    counts: Counter[str] = Counter()
    for info in archive.list():
        data = archive.read(info.key)
        if info.key == key_of(POISON_PLACE):
            by_content[data] = RefusalCode.DECODER_CRASH.value
        if data not in by_content:
            by_content[data] = _expect(data)
        counts[by_content[data]] += 1
    return counts


def _expect(data: bytes) -> str:
    if data == hostile_files(b"")[3]:
        return RefusalCode.DECODER_CRASH.value
    refusal = read_hips(data, name="").refusal
    return "scored" if refusal is None else refusal.code.value


@pytest.fixture
def drive(server: ThrottlingS3, archive: Store, tmp_path: Path) -> Drive:
    bucket = server.s3.new_store()
    publish_small_release(bucket, view=View.WHOLE, segmenters=False)
    bucket.write(KEY_FILE, b"k" * KEY_BYTES)  # the same pseudonyms in every workspace
    config = ScoreRun(
        workspace=bucket.uri,
        storage=StorageSettings(endpoint_url=server.s3.endpoint_url, read_timeout_s=5),
        images=archive.uri,
        release="small",
        runtime=RuntimeChoice.ONNX,
        output=bucket.uri_of("scores"),
        shard_files=SHARD_FILES,
        max_decoders=2,
        allow_phantom_release=True,
        limits={"decode_memory_mb": 256, "decode_seconds": 3},
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment["RAY_agent_register_timeout_ms"] = "120000"  # a busy machine starts slowly
    return Drive(server, config, tmp_path, environment)


@pytest.fixture(scope="module")
def undisturbed(
    server: ThrottlingS3, archive: Store, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, pd.DataFrame]:
    build = drive.__wrapped__  # type: ignore[attr-defined]
    calm: Drive = build(server, archive, tmp_path_factory.mktemp("calm"))
    calm.finish(calm.start())
    return calm.parts()


def kill_actors(drive: Drive, driver: "subprocess.Popen[bytes]") -> "subprocess.Popen[bytes]":
    victims = find_descendants(WORKER_TITLE, of=driver.pid)
    assert victims
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    return driver


def kill_driver(drive: Drive, driver: "subprocess.Popen[bytes]") -> "subprocess.Popen[bytes]":
    import psutil  # Ray brings it

    children = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    psutil.wait_procs(children, timeout=120)
    return drive.start()


Kill = Callable[[Drive, "subprocess.Popen[bytes]"], "subprocess.Popen[bytes]"]


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kill", [kill_actors, kill_driver])
def test_killed_anywhere_each_key_is_scored_once_as_in_an_undisturbed_run(
    drive: Drive, undisturbed: dict[str, pd.DataFrame], kill: Kill, fraction: float
) -> None:
    before = drive.server.count_reads()
    driver = drive.start()
    drive.wait_for_parts(fraction, driver)
    finished = Finished.now(drive)
    drive.finish(kill(drive, driver))
    assert_same_parts(drive.parts(), undisturbed)
    finished.assert_left_alone(drive, undisturbed)
    again = (drive.server.count_reads() - before).total() - FILES
    assert again <= MOST_IN_FLIGHT * SHARD_FILES


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_a_node_lost_anywhere_changes_nothing(
    drive: Drive, undisturbed: dict[str, pd.DataFrame], fraction: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    before = drive.server.count_reads()
    with running_machines(tmp_path_factory.mktemp("m"), workers=2) as machines:
        drive.environment |= {**machines.environment, "RAY_ADDRESS": machines.gcs}
        driver = drive.start()
        drive.wait_for_parts(fraction, driver)
        finished = Finished.now(drive)
        machines.lose_worker()
        drive.finish(driver)
    assert_same_parts(drive.parts(), undisturbed)
    finished.assert_left_alone(drive, undisturbed)
    again = (drive.server.count_reads() - before).total() - FILES
    assert again <= MOST_IN_FLIGHT * SHARD_FILES


def test_a_film_that_its_decoder_does_not_outlive_is_a_row_that_says_so(
    undisturbed: dict[str, pd.DataFrame],
) -> None:
    rows = pd.concat(undisturbed.values()).set_index("key").loc[key_of(POISON_PLACE)]
    assert rows["refusal_code"] == RefusalCode.DECODER_CRASH
    assert rows["refusal_evidence"] == "no end within 3 s and 256 MiB"


def test_a_store_that_throttles_and_stalls_changes_no_count(
    drive: Drive, archive: Store, undisturbed: dict[str, pd.DataFrame]
) -> None:
    drive.server.fail_every = FAULTY_EVERY
    try:
        drive.finish(drive.start())
    finally:
        drive.server.fail_every = 0
    assert_same_parts(drive.parts(), undisturbed)
    summary = json.loads(drive.output.read("summary.json"))
    expected = expected_refusals(archive)
    scored = expected.pop("scored")
    assert summary["files"] == {
        "listed": FILES, "scored": scored, "refused": FILES - scored, "failed": 0,
    }  # fmt: skip
    assert summary["refusals"] == dict(expected)
    assert len(pd.read_parquet(io.BytesIO(drive.output.read("dead-letters/letters.parquet")))) == 0


def test_of_two_jobs_on_one_output_one_works_and_the_other_says_who(
    drive: Drive, undisturbed: dict[str, pd.DataFrame]
) -> None:
    first, second = drive.start(), drive.start()
    codes = sorted([first.wait(900), second.wait(900)])
    log = (drive.folder / "driver.log").read_text()
    assert codes[0] == 0 != codes[1], log[-3000:]
    assert "a live driver: host" in log
    assert_same_parts(drive.parts(), undisturbed)


def assert_same_parts(found: dict[str, pd.DataFrame], expected: dict[str, pd.DataFrame]) -> None:
    assert list(found) == list(expected)
    for name, rows in expected.items():
        pd.testing.assert_frame_equal(found[name], rows)
    rows = pd.concat(found.values())
    assert not rows.duplicated(["key", "hip_index"]).any()
    assert rows["key"].nunique() == FILES
