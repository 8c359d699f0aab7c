import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hipray.config.images import ImageLimits
from hipray.data.isolation import IsolatedReader
from hipray.data.pseudonyms import Pseudonyms
from hipray.data.refusals import Refusal
from hipray.errors import (
    AccessDeniedError,
    ArchivedError,
    BucketMissingError,
    DamagedAnswerError,
    StorageError,
    StoreThrottledError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from hipray.scoring import films as films_module
from hipray.scoring.faults import FailedFilm, Fault, classify_fault, dump_letters, parse_letters
from hipray.scoring.films import (
    FETCHED_AHEAD,
    MOST_FAULTS,
    OUTAGE_PAUSE_S,
    FetchedFilm,
    FilmReader,
    ReadFilms,
    fetch_film,
)
from hipray.scoring.packing import pack_films, unpack_films
from hipray.scoring.shards import Entry
from hipray.storage import Store, open_store
from hipray.vocab import RefusalCode
from tests.conftest import S3Server
from tests.small_release import draw_phantoms
from tests.storage.scripted import Answer, ScriptedS3

LIMIT = 1000


@pytest.fixture(params=["local", "s3"])
def archive(request: pytest.FixtureRequest, tmp_path: Path, s3_server: S3Server) -> Store:
    return s3_server.new_store() if request.param == "s3" else open_store(str(tmp_path / "a"))


@pytest.fixture
def scripted() -> Iterator[ScriptedS3]:
    server = ScriptedS3()
    yield server
    server.close()


def listed(archive: Store, key: str, data: bytes) -> Entry:
    archive.write(key, data)
    info = next(archive.list())
    return Entry(info.key, info.size, info.etag)


def fetched_code(archive: Store, entry: Entry) -> RefusalCode | None:
    got = fetch_film(archive, entry, max_file_bytes=LIMIT).data
    return got.code if isinstance(got, Refusal) else None


def test_an_object_as_it_was_listed_is_read(archive: Store) -> None:
    entry = listed(archive, "a.dcm", b"film")
    film = fetch_film(archive, entry, max_file_bytes=LIMIT)
    assert (film.data, film.etag) == (b"film", entry.etag)


def test_an_object_that_nobody_could_describe_is_read_as_it_is(archive: Store) -> None:
    listed(archive, "a.dcm", b"film")
    film = fetch_film(archive, Entry("a.dcm", 0, ""), max_file_bytes=LIMIT)
    assert film.data == b"film"
    assert film.etag


@pytest.mark.parametrize("size", [5, LIMIT + 1])
def test_an_object_that_changed_after_the_listing_is_refused(archive: Store, size: int) -> None:
    entry = listed(archive, "a.dcm", b"film")
    archive.write("a.dcm", b"x" * size)
    assert fetched_code(archive, entry) is RefusalCode.CHANGED_OBJECT
    read = fetch_film(archive, entry, max_file_bytes=LIMIT).etag
    assert read is None, "its bytes are not even asked for"


def test_a_store_that_compares_no_etags_gives_a_changed_object_which_is_refused_then(
    scripted: ScriptedS3,
) -> None:
    scripted.answers = [Answer(200, body=b"film"), Answer(200, body=b"<ListBucketResult/>")]
    film = fetch_film(scripted.store(), Entry("a", 4, "other"), max_file_bytes=LIMIT)
    assert isinstance(film.data, Refusal)
    assert (film.data.code, film.etag) == (RefusalCode.CHANGED_OBJECT, "scripted")
    assert scripted.requests[0][2]["If-Match"] == '"other"'


def test_an_object_that_vanished_after_the_listing_is_refused(archive: Store) -> None:
    entry = listed(archive, "a.dcm", b"film")
    archive.write("b.dcm", b"another film")
    archive.delete("a.dcm")
    assert fetched_code(archive, entry) is RefusalCode.MISSING_OBJECT


@pytest.mark.parametrize("is_left", ["empty", "nothing"])
def test_films_of_a_folder_that_is_no_longer_mounted_are_not_missing(
    is_left: str, tmp_path: Path
) -> None:
    archive = open_store(str(tmp_path / "mount"))
    entry = listed(archive, "a.dcm", b"film")
    (tmp_path / "mount").rename(tmp_path / "elsewhere")
    if is_left == "empty":
        (tmp_path / "mount").mkdir()
    with pytest.raises(BucketMissingError, match="check that its disk is mounted"):
        fetch_film(archive, entry, max_file_bytes=LIMIT)


def test_films_of_a_bucket_that_was_there_and_is_gone_are_not_missing(
    scripted: ScriptedS3,
) -> None:
    archive = scripted.store(max_attempts=2)
    assert archive.exists("a")
    scripted.answers = [Answer(404, "NoSuchBucket")]
    with pytest.raises(BucketMissingError, match="no bucket 'bucket'"):
        fetch_film(archive, Entry("a", 4, "e"), max_file_bytes=LIMIT)


def test_who_may_not_list_is_told_of_a_changed_film_all_the_same(scripted: ScriptedS3) -> None:
    scripted.answers = [Answer(200, body=b"film"), Answer(403, "AccessDenied")]
    assert fetched_code(scripted.store(), Entry("a", 4, "other")) is RefusalCode.CHANGED_OBJECT


@pytest.mark.parametrize(("etag", "code"), [("e", None), ("f", RefusalCode.CHANGED_OBJECT)])
def test_who_may_not_list_gets_what_a_store_compares_otherwise_than_hipray(
    scripted: ScriptedS3, etag: str, code: RefusalCode | None
) -> None:
    film = Answer(200, body=b"film", headers={"ETag": f'W/"{etag}"'})
    denied = Answer(403, "AccessDenied")
    scripted.answers = [Answer(412, "PreconditionFailed"), denied, film, denied]
    assert fetched_code(scripted.store(), Entry("a", 4, "e")) is code


def test_a_key_that_a_listing_does_not_encode_ends_as_missing(scripted: ScriptedS3) -> None:
    raw = (
        "<ListBucketResult><EncodingType>url</EncodingType>"
        "<Contents><Key>root/a+b</Key><Size>4</Size><ETag>e</ETag></Contents></ListBucketResult>"
    )
    scripted.answers = [Answer(200, body=raw.encode())]
    archive = scripted.store()
    (info,) = archive.list()
    assert info.key == "a b"  # S3 writes a space so, and a plus as %2B
    scripted.answers = [Answer(404, "NoSuchKey"), Answer(404), Answer(200)]
    assert fetched_code(archive, Entry("a b", 4, "e")) is RefusalCode.MISSING_OBJECT
    assert {path for _, path, _ in scripted.requests[1:]} == {"/bucket/root/a%20b", "/bucket"}


@pytest.mark.parametrize(("shown", "size"), [("listed", 4), ("other", 4), ("listed", 9)])
def test_a_film_is_as_it_was_listed_where_the_listing_still_says_so(
    scripted: ScriptedS3, shown: str, size: int
) -> None:
    listing = (
        f"<ListBucketResult><Contents><Key>root/a</Key><Size>{size}</Size><ETag>{shown}</ETag>"
        "<LastModified>2025-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>"
    )
    scripted.answers = [Answer(200, body=b"film"), Answer(200, body=listing.encode())]
    film = fetch_film(scripted.store(), Entry("a", 4, "listed"), max_file_bytes=LIMIT)
    if (shown, size) == ("listed", 4):
        assert (film.data, film.etag) == (b"film", "scripted")
    else:
        assert isinstance(film.data, Refusal)
        assert film.data.code is RefusalCode.CHANGED_OBJECT
    assert "prefix=root%2Fa&" in scripted.requests[-1][1]


def test_a_film_that_a_store_knows_by_two_etags_is_read_though_it_says_that_it_changed(
    scripted: ScriptedS3,
) -> None:
    listing = (
        b"<ListBucketResult><Contents><Key>root/a</Key><Size>4</Size><ETag>listed</ETag>"
        b"<LastModified>2025-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>"
    )
    scripted.answers = [
        Answer(412, "PreconditionFailed"), Answer(200, body=listing), Answer(200, body=b"film"),
        Answer(200, body=listing),
    ]  # fmt: skip
    film = fetch_film(scripted.store(), Entry("a", 4, "listed"), max_file_bytes=LIMIT)
    assert (film.data, film.etag) == (b"film", "scripted")


def test_an_object_beyond_the_limit_is_refused_before_it_is_read(archive: Store) -> None:
    entry = listed(archive, "a.dcm", b"x" * (LIMIT + 1))
    archive.delete("a.dcm")  # reading it would say missing
    assert fetched_code(archive, entry) is RefusalCode.TOO_LARGE


def test_a_film_that_trickles_ends_as_timed_out(
    scripted: ScriptedS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(films_module, "FETCH_S", 0.1)
    scripted.answers = [Answer(200, body=b"x", missing_bytes=9999, trickle_s=0.01)]
    with pytest.raises(StoreTimeoutError, match=r"within 0\.2 s") as caught:
        fetch_film(scripted.store(), Entry("a", 10_000, "e"), max_file_bytes=10**9)
    assert classify_fault(caught.value) is Fault.TIMED_OUT


def test_a_key_that_is_no_relative_path_is_refused(archive: Store) -> None:
    assert fetched_code(archive, Entry("a/../b.dcm", 4, "e")) is RefusalCode.UNREADABLE


@pytest.mark.parametrize(
    ("answer", "error", "fault"),
    [
        (Answer(503, "SlowDown"), StoreThrottledError, Fault.THROTTLED),
        (Answer(504, "GatewayTimeout"), StoreTimeoutError, Fault.TIMED_OUT),
        (Answer(500, "InternalError"), StoreUnavailableError, Fault.UNREACHABLE),
        (Answer(200, body=b"fi", missing_bytes=2), DamagedAnswerError, Fault.CORRUPT),
        (Answer(403, "AccessDenied"), AccessDeniedError, Fault.DENIED),
        (Answer(403, "InvalidObjectState"), ArchivedError, Fault.ARCHIVED),
        (Answer(404, "NoSuchBucket"), BucketMissingError, Fault.MISSING),
    ],
)
def test_what_may_pass_is_an_error_of_its_class_and_no_row(
    scripted: ScriptedS3, answer: Answer, error: type[Exception], fault: Fault
) -> None:
    scripted.answers = [answer]
    entry = Entry("a", 4, "e")
    with pytest.raises(error) as caught:
        fetch_film(scripted.store(max_attempts=2), entry, max_file_bytes=LIMIT)
    assert classify_fault(caught.value) is fault
    letter = FailedFilm.of(entry, caught.value, tries=1)
    (again,) = parse_letters(dump_letters([letter]))
    assert again == letter
    assert (type(again.error), str(again.error)) == (error, str(caught.value))


def test_a_film_the_store_gives_at_the_second_round_is_read(
    scripted: ScriptedS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(films_module, "FIRST_PAUSE_S", 0.01)
    scripted.answers = [Answer(503, "SlowDown"), Answer(200, body=b"junk")]
    entries = [Entry("a", 4, "scripted")]
    with IsolatedReader() as reader:
        archive = scripted.store(max_attempts=1)
        once = FilmReader(archive, reader, Pseudonyms(b"key")).read(entries)
        scripted.answers.insert(0, Answer(503, "SlowDown"))
        twice = FilmReader(archive, reader, Pseudonyms(b"key"), rounds=2).read(entries)
    assert [letter.fault for letter in once.letters] == [Fault.THROTTLED]
    assert (len(twice.films), twice.letters) == (1, [])


def give(
    monkeypatch: pytest.MonkeyPatch, tell: Callable[[Entry], StorageError | None]
) -> list[Entry]:
    """Let a store give junk, or the error that is told of an entry; return what it is asked for."""
    asked: list[Entry] = []

    def fetch(archive: Store, entry: Entry, *, max_file_bytes: int) -> FetchedFilm:
        asked.append(entry)
        error = tell(entry)
        if error is not None:
            raise error
        return FetchedFilm(b"junk", "e")

    monkeypatch.setattr(films_module, "fetch_film", fetch)
    return asked


def read_shard(tmp_path: Path, *, rounds: int) -> ReadFilms:
    with IsolatedReader() as reader:
        archive = open_store(str(tmp_path))
        return FilmReader(archive, reader, Pseudonyms(b"key"), rounds=rounds).read(SHARD)


SHARD = [Entry(f"{number:02d}", 4, "e") for number in range(64)]
SILENCE = StoreTimeoutError("an answer", "none in 30 s", "try again later")
DENIAL = AccessDeniedError("access", "403", "ask")


def test_a_store_that_gives_nothing_is_asked_for_a_few_films_of_a_shard_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("hipray.scoring.films.time.sleep", pauses.append)
    asked = give(monkeypatch, lambda entry: SILENCE)
    read = read_shard(tmp_path, rounds=2)
    assert [letter.entry for letter in read.letters] == SHARD
    assert {(letter.fault, letter.tries) for letter in read.letters} == {(Fault.TIMED_OUT, 2)}
    assert 2 * MOST_FAULTS <= len(asked) <= 2 * (MOST_FAULTS + FETCHED_AHEAD)
    assert pauses == [OUTAGE_PAUSE_S]


def test_which_films_are_denied_is_known_film_by_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = give(monkeypatch, lambda entry: DENIAL if entry != SHARD[-1] else None)
    read = read_shard(tmp_path, rounds=2)
    assert sorted(asked, key=lambda entry: entry.key) == SHARD
    assert [film.entry for film in read.films] == SHARD[-1:]


def test_faults_between_films_that_the_store_gives_end_no_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = SHARD[MOST_FAULTS - 1 :: MOST_FAULTS]
    give(monkeypatch, lambda entry: None if entry in given else SILENCE)
    read = read_shard(tmp_path, rounds=1)
    assert [film.entry for film in read.films] == given
    assert len(read.letters) == len(SHARD) - len(given)


def test_a_machine_that_starts_no_decoder_fails_the_films_of_its_shard_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    asked = give(monkeypatch, lambda entry: SILENCE if entry == SHARD[0] else None)
    monkeypatch.setattr("hipray.data.isolation.subprocess.Popen", refuse)
    read = read_shard(tmp_path, rounds=1)
    assert [letter.entry for letter in read.letters] == SHARD
    faults = [letter.fault for letter in read.letters]
    assert faults == [Fault.TIMED_OUT] + [Fault.PROCESS_LOST] * (len(SHARD) - 1)
    assert "none that starts (Resource temporarily" in read.letters[-1].found
    assert len(asked) <= 2 + FETCHED_AHEAD, "the store is not asked for what none will decode"


def test_films_travel_without_the_header_and_unchanged_otherwise(tmp_path: Path) -> None:
    archive = open_store(str(tmp_path / "archive"))
    for number, data in enumerate(draw_phantoms(3).values()):
        archive.write(f"films/{number}.dcm", data)
    archive.write("films/zz.dcm", b"junk")
    entries = [Entry(info.key, info.size, info.etag) for info in archive.list()]
    with IsolatedReader() as reader:
        films = FilmReader(archive, reader, Pseudonyms(b"key")).read(entries).films
    notes, pixels = pack_films(films)
    again = unpack_films(notes, memoryview(pixels))
    assert [film.entry for film in again] == entries
    assert [film.etag for film in again] == [entry.etag for entry in entries]
    assert again[3].result.refusal is not None
    for before, after in zip(films, again, strict=True):
        assert (after.file_id, after.patient_id) == (before.file_id, before.patient_id)
        assert after.person == before.person
        for hip, copy in zip(before.result.hips, after.result.hips, strict=True):
            np.testing.assert_array_equal(hip.pixels, copy.pixels)
            assert (hip.geometry, hip.side, hip.findings) == (
                copy.geometry,
                copy.side,
                copy.findings,
            )
    info = films[0].result.film_info
    assert info is not None
    assert again[0].person.age == info.age is not None
    assert info.patient_key
    assert info.patient_key not in notes


def test_a_film_of_an_unnamed_patient_has_no_patient_id(tmp_path: Path) -> None:
    archive = open_store(str(tmp_path))
    entry = listed(archive, "a.dcm", b"junk")
    with IsolatedReader(ImageLimits()) as reader:
        (film,) = FilmReader(archive, reader, Pseudonyms(b"key")).read([entry]).films
    assert film.patient_id is None
    assert film.file_id == Pseudonyms(b"key").file("a.dcm")
    assert json.loads(pack_films([film])[0])[0]["refusal"]["code"] == RefusalCode.UNREADABLE
