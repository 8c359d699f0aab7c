"""Films of an archive that speaks DICOMweb."""

import hashlib
import io
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pydicom
import pytest

from hipray.config.base import build_config
from hipray.config.jobs import ServeRun
from hipray.config.serving import Pacs
from hipray.errors import (
    AccessDeniedError,
    ConfigError,
    NotFoundError,
    StorageError,
    StoreUnavailableError,
)
from hipray.serving import pacs
from hipray.serving.pacs import PacsSource, open_envelope
from hipray.serving.problems import ProblemError
from hipray.serving.service import ARCHIVE_FETCHES
from hipray.storage import ObjectTooLargeError
from tests.serving.answers import assert_same, without_request
from tests.serving.conftest import LocalApi

URI = "dicomweb://ward/1.2.3/1.2.4/1.2.5"
ROOT = Path(__file__).resolve().parent.parent.parent
BOUNDARY = "b7"


def envelope(*films: bytes) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + film + b"\r\n" for film in films) + f"--{BOUNDARY}--\r\n".encode()


RELATED = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


@dataclass
class Archive:
    """What a fake archive answers, one after the other, and what it was asked."""

    answers: list[tuple[int, bytes]]
    url: str = ""
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def serve_archive() -> Iterator[Callable[..., Archive]]:
    servers = []

    def start(*answers: tuple[int, bytes]) -> Archive:
        archive = Archive([*answers])

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                archive.paths.append(self.path)
                archive.headers.append({k.lower(): v for k, v in self.headers.items()})
                status, body = (
                    archive.answers.pop(0) if len(archive.answers) > 1 else archive.answers[0]
                )
                self.send_response(status)
                self.send_header("content-type", RELATED)
                self.send_header("location", "http://127.0.0.1:9/elsewhere")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        archive.url = f"http://127.0.0.1:{server.server_port}/dicom-web"
        return archive

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def source(archive: Archive, **changes: str) -> PacsSource:
    return PacsSource([Pacs(name="ward", url=archive.url, **changes)], max_bytes=1000)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacs, "FIRST_WAIT_S", 0.001)


def test_a_film_is_fetched_by_its_uids(
    serve_archive: Callable[..., Archive], tmp_path: Path
) -> None:
    archive = serve_archive((200, envelope(b"film\r\n--x")))
    secret = tmp_path / "authorization"
    secret.write_text("Bearer t\n")
    assert source(archive, authorization_file=str(secret)).read(URI) == b"film\r\n--x"
    assert archive.paths == ["/dicom-web/studies/1.2.3/series/1.2.4/instances/1.2.5"]
    assert archive.headers[0]["authorization"] == "Bearer t"


@pytest.mark.parametrize(
    ("answers", "error", "asked"),
    [
        ([(404, b"")], NotFoundError, 1),
        ([(401, b"")], AccessDeniedError, 1),
        ([(403, b"")], AccessDeniedError, 1),
        ([(400, b"")], StorageError, 1),
        ([(302, b"")], StorageError, 1),
        ([(503, b"")], StoreUnavailableError, 3),
        ([(429, b"")], StoreUnavailableError, 3),
        ([(200, envelope(b"x" * 1001))], ObjectTooLargeError, 1),
        ([(200, envelope(b"x" * 200_000))], ObjectTooLargeError, 1),
        ([(200, envelope(b"a", b"b"))], StorageError, 1),
        ([(200, b"no envelope")], StorageError, 1),
    ],
)
def test_what_goes_wrong_is_told_apart_and_only_busy_archives_are_asked_again(
    serve_archive: Callable[..., Archive],
    answers: list[tuple[int, bytes]],
    error: type[Exception],
    asked: int,
) -> None:
    archive = serve_archive(*answers)
    with pytest.raises(error):
        source(archive).read(URI)
    assert len(archive.paths) == asked


def test_an_archive_that_was_busy_gives_the_film(serve_archive: Callable[..., Archive]) -> None:
    archive = serve_archive((503, b""), (200, envelope(b"film")))
    assert source(archive).read(URI) == b"film"


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        ("dicomweb://other/1.2/1.3/1.4", 403),
        ("dicomweb://ward@evil/1.2/1.3/1.4", 403),
        ("dicomweb://ward/1.2/1.3", 400),
        ("dicomweb://ward/1.2/1.3/1.4/frames", 400),
        ("dicomweb://ward/1.2/1.3/../../4", 400),
        ("dicomweb://ward/1.2/1.3/1.4?x", 400),
        ("dicomweb://ward/1.2/1.3/%2e", 400),
        ("dicomweb://ward/1.2/1.3/01.4", 400),
        ("dicomweb://ward/1.2/1.3/" + "1" * 65, 400),
        ("dicomweb://ward/1.2/1.3/1.4\n", 400),
        ("dicomweb://", 400),
    ],
)
def test_no_part_of_an_address_is_the_callers(uri: str, status: int) -> None:
    known = PacsSource([Pacs(name="ward", url="http://127.0.0.1:9")], max_bytes=1000)
    with pytest.raises(ProblemError) as caught:
        known.read(uri)
    assert caught.value.problem.status == status


@pytest.mark.parametrize("url", ["ftp://pacs", "http://u:p@pacs", "http://pacs?x=1", "pacs"])
def test_an_address_that_is_none_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match="url"):
        build_config(ServeRun, {"pacs": [{"name": "ward", "url": url}]})


def test_a_name_means_one_archive() -> None:
    twice = [Pacs(name="ward", url="http://a"), Pacs(name="ward", url="http://b")]
    with pytest.raises(ConfigError, match="name twice"):
        PacsSource(twice, max_bytes=1)


def test_a_film_without_an_envelope_is_taken_as_it_is() -> None:
    assert open_envelope(b"film", "application/dicom; transfer-syntax=*", "ward") == b"film"


def test_a_film_of_an_archive_gets_the_answer_of_the_same_film_uploaded(
    make_api: Callable[..., LocalApi],
    serve_archive: Callable[..., Archive],
    films: list[bytes],
) -> None:
    archive = serve_archive((200, envelope(films[0])))
    api = make_api(pacs=(Pacs(name="ward", url=archive.url),))
    by_uids = api.post(json={"uri": URI})
    assert_same(without_request(by_uids), without_request(api.upload(films[0])))


def test_films_of_archives_that_are_busy_keep_nobody_from_the_door(
    make_api: Callable[..., LocalApi], films: list[bytes]
) -> None:
    api = make_api(pacs=(Pacs(name="ward", url="http://127.0.0.1:9"),))

    async def hold_all_places() -> None:
        async with AsyncExitStack() as places:
            for _ in range(ARCHIVE_FETCHES):
                await places.enter_async_context(api.service._archive_fetchers.fetch(bytes))
            turned_away = await api.send("POST", "/v1/score", json={"uri": URI})
            assert (turned_away.status_code, turned_away.json()["code"]) == (503, "overloaded")
            assert turned_away.headers["retry-after"]
            assert (await api.send("POST", "/v1/score", files={"file": ("f", films[0])})).is_success

    api.run(hold_all_places())


def test_a_film_that_trickles_in_is_given_up(
    serve_archive: Callable[..., Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacs, "TRANSFER_S", -1.0)
    archive = serve_archive((200, envelope(b"film")))
    with pytest.raises(StoreUnavailableError, match="a trickle"):
        source(archive).read(URI)


def test_an_archive_is_given_up_when_the_time_of_the_request_is_over(
    serve_archive: Callable[..., Archive],
) -> None:
    busy = serve_archive((503, b""))
    with pytest.raises(StoreUnavailableError):
        source(busy).read(URI, timeout_s=0)
    assert len(busy.paths) <= 1
    with socket.create_server(("127.0.0.1", 0)) as silent:
        archive = Archive([], f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            source(archive).read(URI, timeout_s=0.1)
        assert time.monotonic() - begun < 5  # and not its own time limit, thrice


ORTHANC_PORT = 18042


@pytest.mark.cluster
def test_orthanc_gives_the_very_film_that_it_was_given(films: list[bytes], tmp_path: Path) -> None:
    plugins = sorted(Path("/usr/share/orthanc/plugins").glob("libOrthancDicomWeb.so*"))
    if not shutil.which("Orthanc") or not plugins or not shutil.which("unshare"):
        pytest.skip("Orthanc with DICOMweb is not installed")
    film = tmp_path / "film.dcm"
    film.write_bytes(films[0])
    header = pydicom.dcmread(io.BytesIO(films[0]), stop_before_pixels=True)
    uids = header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID
    settings = {
        "StorageDirectory": str(tmp_path / "db"), "IndexDirectory": str(tmp_path / "db"),
        "HttpPort": ORTHANC_PORT, "RemoteAccessAllowed": False, "DicomServerEnabled": False,
        "AuthenticationEnabled": True, "RegisteredUsers": {"u": "p"},
        "Plugins": [str(plugins[0])], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    config = tmp_path / "orthanc.json"
    config.write_text(json.dumps(settings))
    probe = f"{sys.executable} -m tests.serving.orthanc_probe http://127.0.0.1:{ORTHANC_PORT}"
    # a network of its own: Orthanc listens on all addresses
    script = (
        f"ip link set lo up; Orthanc {config} >{tmp_path}/log 2>&1 & P=$!; "
        f"{probe} {film} dicomweb://orthanc/{'/'.join(map(str, uids))}; R=$?; "
        "kill $P; wait $P; exit $R"
    )
    ended = subprocess.run(
        ["unshare", "-rn", "bash", "-c", script],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if "unshare" in ended.stderr:
        pytest.skip("no network of its own may be made here")
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["sha256"] == hashlib.sha256(films[0]).hexdigest()
    assert "none of these UIDs" in told["missing"]
    assert "status 401" in told["denied"]
