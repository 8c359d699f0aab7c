import ast
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from hipray.config.storage import Encryption, StorageSettings
from hipray.errors import (
    AccessDeniedError,
    ArchivedError,
    BucketMissingError,
    DamagedAnswerError,
    NotFoundError,
    StorageError,
    StoreFullError,
    StoreThrottledError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from hipray.storage import InvalidKeyError, ObjectTooLargeError, check_store, open_store
from tests.conftest import S3Server
from tests.storage.scripted import Answer, ScriptedS3


def test_a_missing_bucket_is_named_by_every_operation(s3_server: Any, tmp_path: Path) -> None:
    store = open_store("s3://no-such-bucket/x", s3_server.settings)
    operations = [
        lambda: store.read("a"),
        lambda: store.write("a", b""),
        lambda: store.create("a", b""),
        lambda: store.exists("a"),
        lambda: list(store.list()),
        lambda: store.delete("a"),
        lambda: store.read_file("a", tmp_path / "a"),
    ]
    for operation in operations:
        with pytest.raises(NotFoundError, match="no bucket 'no-such-bucket'"):
            operation()


def test_a_listing_of_several_pages_is_complete_and_in_order(s3_server: Any) -> None:
    store = s3_server.new_store()
    keys = [f"{number:05d}" for number in range(1100)]
    s3_server.put(store.bucket, [f"archive/{key}" for key in keys])
    assert [found.key for found in store.list()] == keys
    assert next(store.list(start_after="01050")).key == "01051"


def test_markers_of_empty_folders_are_not_objects(s3_server: Any) -> None:
    store = s3_server.new_store()
    s3_server.put(store.bucket, ("archive/", "archive/folder/", "archive/folder/a"), b"")
    assert [found.key for found in store.list()] == ["folder/a"]


def test_an_object_whose_key_ends_with_a_slash_is_listed_and_read(s3_server: Any) -> None:
    store = s3_server.new_store()
    s3_server.put(store.bucket, ("archive/folder/", "archive/folder/a"), b"film")
    assert [found.key for found in store.list()] == ["folder/", "folder/a"]
    assert store.read("folder/") == b"film"


def test_a_store_may_be_a_whole_bucket(s3_server: Any) -> None:
    store = open_store(f"s3://{s3_server.new_bucket()}/", s3_server.settings)
    store.write("a/b", b"x")
    assert [found.key for found in store.list()] == ["a/b"]
    assert store.child("a").read("b") == b"x"
    assert not store.uri.endswith("/")


def test_the_endpoint_of_the_environment_is_used(
    s3_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)
    store = open_store(f"s3://{s3_server.new_bucket()}/x", StorageSettings(max_attempts=7))
    assert store.create("a", b"x")


def test_a_forked_child_does_not_use_the_connections_of_its_parent(s3_server: Any) -> None:
    store = s3_server.new_store()
    store.write("a", b"x")
    client_of_parent = store._client
    child = os.fork()
    if child == 0:
        os._exit(int(store._client is client_of_parent))
    assert os.waitpid(child, 0)[1] == 0
    assert store._client is client_of_parent


def test_a_large_file_goes_in_parts(
    s3_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hipray.storage.s3.SINGLE_PUT_BYTES", 6 << 20)
    source = tmp_path / "large"
    source.write_bytes(bytes(range(256)) * (9 << 12))
    store = s3_server.new_store()
    store.write_file(source, "large")
    assert "-" in store.info("large").etag  # S3 marks an object sent in parts so
    store.read_file("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("status", "code", "expected", "words"),
    [
        (403, "AccessDenied", AccessDeniedError, "do not allow this"),
        (403, "InvalidAccessKeyId", AccessDeniedError, "does not know this access key"),
        (403, "InvalidObjectState", ArchivedError, "an archived one; restore it first"),
        (400, "XMinioInvalidObjectName", InvalidKeyError, "a key that this store can hold"),
        (400, "InvalidObjectName", InvalidKeyError, "s3://bucket/root/a"),
        (400, "KeyTooLongError", InvalidKeyError, "KeyTooLongError"),
        (403, "SignatureDoesNotMatch", AccessDeniedError, "secret key does not belong"),
        (400, "ExpiredToken", AccessDeniedError, "have expired"),
        (403, "RequestTimeTooSkewed", AccessDeniedError, "clock"),
        (403, "SlowDown", StoreThrottledError, "SlowDown"),
        (429, "TooManyRequests", StoreThrottledError, "429"),
        (500, "InternalError", StoreUnavailableError, "500"),
        (507, "XMinioStorageFull", StoreFullError, "XMinioStorageFull"),
        (403, "QuotaExceeded", StoreFullError, "QuotaExceeded"),
        (404, "NoSuchBucket", BucketMissingError, "no bucket 'bucket'"),
        (411, "MissingContentLength", StorageError, "411"),
    ],
)
def test_each_answer_of_a_store_is_told_in_its_own_words(
    scripted_s3: ScriptedS3, status: int, code: str, expected: type[StorageError], words: str
) -> None:
    scripted_s3.answers = [Answer(status, code)]
    store = scripted_s3.store(max_attempts=1)
    for operation in (store.write, store.create):
        with pytest.raises(expected, match=words) as raised:
            operation("a", b"x")
        assert type(raised.value) is expected
        assert "test" not in str(raised.value)  # the access key id and the secret


@pytest.mark.parametrize(
    "headers",
    [
        {"Location": "https://elsewhere.example/bucket/root/a"},
        {"Location": "https://elsewhere.example/", "x-amz-bucket-region": "eu-west-1"},
    ],
)
def test_a_redirect_of_what_stands_before_a_store_names_the_endpoint(
    scripted_s3: ScriptedS3, headers: dict[str, str]
) -> None:
    scripted_s3.answers = [Answer(301, headers=headers)]
    with pytest.raises(StorageError, match=r"http://127\.0\.0\.1|301"):
        scripted_s3.store(max_attempts=1).read("a")


def test_an_answer_with_a_date_that_is_none_names_the_endpoint(scripted_s3: ScriptedS3) -> None:
    scripted_s3.answers = [Answer(200, body=b"x", headers={"Last-Modified": "last week"})]
    with pytest.raises(StorageError, match="check the endpoint"):
        scripted_s3.store(max_attempts=1).info("a")


def test_a_denied_head_is_not_taken_for_a_missing_object(scripted_s3: ScriptedS3) -> None:
    scripted_s3.answers = [Answer(403)]
    with pytest.raises(AccessDeniedError):
        scripted_s3.store().exists("a")


def test_no_credentials_are_said_at_once(
    scripted_s3: ScriptedS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(AccessDeniedError, match="NoCredentialsError"):
        scripted_s3.store(max_attempts=2).read("a")
    assert scripted_s3.requests == []


def test_a_missing_profile_is_said(
    scripted_s3: ScriptedS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(AccessDeniedError, match="ProfileNotFound"):
        scripted_s3.store(max_attempts=2).read("a")


def test_a_public_bucket_is_read_without_a_signature(
    scripted_s3: ScriptedS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    scripted_s3.answers = [Answer(200, body=b"x")]
    assert scripted_s3.store(anonymous=True).read("a") == b"x"
    assert "Authorization" not in scripted_s3.requests[0][2]


def test_a_store_that_throttles_for_a_while_is_tried_again(scripted_s3: ScriptedS3) -> None:
    scripted_s3.answers = [Answer(503, "SlowDown"), Answer(503, "SlowDown"), Answer(200)]
    scripted_s3.store().write("a", b"x")
    assert [request[0] for request in scripted_s3.requests] == ["PUT"] * 3


def test_a_store_that_throttles_for_ever_is_given_up_in_bounded_time(
    scripted_s3: ScriptedS3,
) -> None:
    scripted_s3.answers = [Answer(503, "SlowDown")]
    start = time.monotonic()
    with pytest.raises(StoreThrottledError, match="SlowDown") as raised:
        scripted_s3.store(max_attempts=2).read("a")
    assert time.monotonic() - start < 5
    assert len(scripted_s3.requests) == 2
    assert raised.value.exit_code == 75


def test_a_closed_port_is_out_of_reach(s3_server: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    settings = StorageSettings(endpoint_url=f"http://127.0.0.1:{port}", max_attempts=2)
    with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{port}"):
        open_store("s3://bucket/x", settings).read("a")


def test_a_store_that_never_answers_times_out(scripted_s3: ScriptedS3) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = StorageSettings(endpoint_url=url, max_attempts=1, read_timeout_s=0.2)
        start = time.monotonic()
        with pytest.raises(StoreTimeoutError, match="ReadTimeoutError"):
            open_store("s3://bucket/x", settings).write("a", b"x")
        assert time.monotonic() - start < 5


def test_a_download_that_breaks_off_is_tried_again(scripted_s3: ScriptedS3, tmp_path: Path) -> None:
    cut = Answer(200, body=b"whole"[:2], missing_bytes=3)
    scripted_s3.answers = [cut, cut, Answer(200, body=b"whole")]
    store = scripted_s3.store()
    assert store.read("a") == b"whole"
    scripted_s3.answers = [cut, Answer(200, body=b"whole")]
    store.read_file("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"whole"
    scripted_s3.answers = [cut]
    with pytest.raises(DamagedAnswerError, match="broke off"):
        scripted_s3.store(max_attempts=2).read_file("a", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_download_that_trickles_ends_with_its_time(scripted_s3: ScriptedS3) -> None:
    scripted_s3.answers = [Answer(200, body=b"x", missing_bytes=1000, trickle_s=0.05)]
    store = scripted_s3.store(read_timeout_s=5)
    begun = time.monotonic()
    with pytest.raises(StoreTimeoutError, match=r"a within 0\.5 s, found an answer that still"):
        store.read_object("a", timeout_s=0.5)
    assert 0.4 < time.monotonic() - begun < 4
    assert len(scripted_s3.requests) == 1
    assert scripted_s3.hung_up.wait(10)  # nobody takes its bytes any more
    scripted_s3.answers = [Answer(200, body=b"whole")]
    assert store.read_object("a", timeout_s=5)[0] == b"whole"


def test_a_large_object_is_refused_before_its_body_comes(scripted_s3: ScriptedS3) -> None:
    scripted_s3.answers = [Answer(200, missing_bytes=10**12)]
    with pytest.raises(ObjectTooLargeError):
        scripted_s3.store().read_object("a", max_bytes=10**6)
    assert len(scripted_s3.requests) == 1


NO_ETAG = {"ETag": ""}
UNDATED = {"ETag": "", "Last-Modified": ""}


def test_a_store_without_etags_is_known_by_size_and_time(scripted_s3: ScriptedS3) -> None:
    entry = "<Contents><Key>root/a</Key><Size>4</Size>{}</Contents>".format
    dated = entry("<LastModified>2025-01-01T00:00:00.123Z</LastModified>")
    listing = f"<ListBucketResult>{dated}</ListBucketResult>".encode()
    read = Answer(200, body=b"film", headers=NO_ETAG)
    scripted_s3.answers = [Answer(200, body=listing), read, Answer(200, headers=NO_ETAG)]
    store = scripted_s3.store()
    (listed,) = store.list()
    assert store.read_object("a") == (b"film", listed)
    assert store.write("a", b"film").size == 4


@pytest.mark.parametrize(
    ("headers", "lacking"),
    [(UNDATED, "ETag and LastModified"), ({"Content-Length": ""}, "ContentLength")],
)
def test_an_answer_that_does_not_describe_its_object_is_the_stores_fault(
    scripted_s3: ScriptedS3, headers: dict[str, str], lacking: str
) -> None:
    scripted_s3.answers = [Answer(200, headers=headers)]
    store = scripted_s3.store(max_attempts=2)
    for operation in (store.read, store.info):
        with pytest.raises(StorageError, match=f"root/a, found one without {lacking}"):
            operation("a")


def test_create_is_one_plain_put_that_asks_for_absence(scripted_s3: ScriptedS3) -> None:
    assert scripted_s3.store(server_side_encryption=Encryption.AES256).create("a", b"x")
    [(method, path, headers)] = scripted_s3.requests
    assert method == "PUT"
    assert "uploads" not in path
    assert headers["If-None-Match"] == "*"
    assert headers["x-amz-server-side-encryption"] == "AES256"


def test_no_encryption_header_is_sent_unless_asked_for(scripted_s3: ScriptedS3) -> None:
    scripted_s3.store().write("a", b"x")
    assert not any("encryption" in name.lower() for name in scripted_s3.requests[0][2])


def test_checksums_can_be_left_out_for_older_stores(scripted_s3: ScriptedS3) -> None:
    scripted_s3.store().write("a", b"x")
    scripted_s3.store(checksums="when_required").write("a", b"x")
    sent = ["x-amz-sdk-checksum-algorithm" in request[2] for request in scripted_s3.requests]
    assert sent == [True, False]


def test_a_failed_precondition_is_lost_without_a_second_look(scripted_s3: ScriptedS3) -> None:
    scripted_s3.answers = [Answer(412, "PreconditionFailed")]
    assert not scripted_s3.store().create("a", b"x")
    assert len(scripted_s3.requests) == 1


def test_a_create_whose_answer_got_lost_knows_its_own_object(scripted_s3: ScriptedS3) -> None:
    store = scripted_s3.store()

    def tag_of_first_put() -> dict[str, str]:
        tag = scripted_s3.requests[0][2]["x-amz-meta-hipray-writer"]
        return {"x-amz-meta-hipray-writer": tag}

    class TaggedAnswer(Answer):
        headers = property(lambda _: tag_of_first_put(), lambda *_: None)  # type: ignore[assignment]

    lost = [Answer(500, "InternalError"), Answer(412, "PreconditionFailed")]
    scripted_s3.answers = [*lost, TaggedAnswer(200)]
    assert store.create("a", b"x")
    assert [request[0] for request in scripted_s3.requests] == ["PUT", "PUT", "HEAD"]
    scripted_s3.answers = [*lost, Answer(200, headers={"x-amz-meta-hipray-writer": "other"})]
    assert not store.create("a", b"x")


def test_a_conflict_of_creators_is_tried_again_and_then_decided(scripted_s3: ScriptedS3) -> None:
    conflict = Answer(409, "ConditionalRequestConflict")
    scripted_s3.answers = [conflict, Answer(200)]
    assert scripted_s3.store().create("a", b"x")
    scripted_s3.answers = [conflict, conflict, Answer(200)]
    assert not scripted_s3.store(max_attempts=2).create("a", b"x")
    scripted_s3.answers = [conflict, conflict, Answer(404)]
    with pytest.raises(NotFoundError, match="no bucket"):
        scripted_s3.store(max_attempts=2).create("a", b"x")
    scripted_s3.answers = [conflict, conflict, Answer(404), Answer(200)]
    with pytest.raises(StoreUnavailableError, match="409"):
        scripted_s3.store(max_attempts=2).create("a", b"x")


def test_a_store_that_ignores_the_condition_fails_the_check(scripted_s3: ScriptedS3) -> None:
    with pytest.raises(StorageError, match="does not honour If-None-Match"):
        check_store(scripted_s3.store())
    assert scripted_s3.requests[-1][0] == "DELETE"


def test_a_store_that_does_not_know_the_condition_fails_the_check(
    scripted_s3: ScriptedS3,
) -> None:
    scripted_s3.answers = [Answer(501, "NotImplemented"), Answer(204)]
    with pytest.raises(StorageError, match="501"):
        check_store(scripted_s3.store())


def test_a_listing_out_of_order_is_refused(scripted_s3: ScriptedS3) -> None:
    entry = (
        "<Contents><Key>root/{}</Key><Size>1</Size><ETag>e</ETag>"
        "<LastModified>2025-01-01T00:00:00Z</LastModified></Contents>"
    )
    body = f"<ListBucketResult>{entry.format('b')}{entry.format('a')}</ListBucketResult>"
    scripted_s3.answers = [Answer(200, body=body.encode())]
    with pytest.raises(StorageError, match="in order"):
        list(scripted_s3.store().list())


def test_one_file_of_the_package_imports_boto() -> None:
    package = Path(__file__).parents[2] / "hipray"
    peers = package / "benchmarks" / "peers"  # what one writes without hipray
    own = (path for path in package.rglob("*.py") if peers not in path.parents)
    assert {path.name for path in own if "boto" in _imported_roots(path)} == {"s3.py"}


def _imported_roots(path: Path) -> str:
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return " ".join(names)


def test_a_key_that_pages_repeat_is_listed_once_and_its_etag_is_that_of_reading(
    scripted_s3: ScriptedS3,
) -> None:
    entry = (
        "<Contents><Key>root/{}</Key><Size>1</Size><ETag>W/&quot;e&quot;</ETag>"
        "<LastModified>2025-01-01T00:00:00Z</LastModified></Contents>"
    )
    keys = "".join(entry.format(key) for key in ("a", "b", "b", "c"))
    scripted_s3.answers = [
        Answer(200, body=f"<ListBucketResult>{keys}</ListBucketResult>".encode())
    ]
    found = [(info.key, info.etag) for info in scripted_s3.store().list()]
    assert found == [("a", "e"), ("b", "e"), ("c", "e")]


def test_the_marker_of_a_folder_does_not_hide_its_first_key(s3_server: S3Server) -> None:
    store = s3_server.new_store()
    bucket = store.uri.removeprefix("s3://").partition("/")[0]
    s3_server.put(bucket, ["archive/", "archive/b.dcm"])
    assert store.next_key("") == "b.dcm"
