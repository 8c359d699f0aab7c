"""What an archive holds: films, annotations beside them and one DXA table; read in order."""

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

from hipray.config.jobs import IngestRun
from hipray.data.annotations import (
    MAX_FILE_BYTES,
    Annotation,
    read_image_path,
    read_labelme,
)
from hipray.data.dxa import DxaTable, read_dxa
from hipray.data.fetching import fetch_object, in_order
from hipray.data.film import FilmInfo
from hipray.data.images import ReadResult
from hipray.data.isolation import IsolatedReader
from hipray.data.listing import (
    ARCHIVE_NOTE,
    TABLE_SUFFIXES,
    is_aside,
    is_film,
    is_json,
    stem,
)
from hipray.data.matching import RecordIndex
from hipray.data.refusals import Refusal
from hipray.digests import digest_bytes, digest_of
from hipray.errors import DataError
from hipray.storage import ObjectInfo, Store, open_file
from hipray.vocab import DataSource, Side


@dataclass(frozen=True)
class Listing:
    """The files of an archive by what they are; `digest` changes with any of them."""

    films: list[str]
    annotations: Mapping[str, str]
    """Film -> its labelme file."""
    strays: int
    """Labelme files of no film, or of one that has another."""
    tables: list[str]
    digest: str


@dataclass(frozen=True)
class FilmFile:
    """One film as it was read; `sha256` is empty where the file was too large to fetch."""

    key: str
    sha256: str
    result: ReadResult
    annotation: Annotation | None


def list_archive(archive: Store, config: IngestRun) -> Listing:
    """Return what lies in the archive; raises DataError where no file is a film."""
    infos: list[ObjectInfo] = list(archive.list())
    films = sorted(i.key for i in infos if is_film(i.key))
    if not films:
        raise DataError(
            f"films in {config.images}", f"{len(infos)} files, none a film", "check the path"
        )
    tables = [i.key for i in infos if i.key.lower().endswith(TABLE_SUFFIXES)]
    tables = [key for key in tables if not is_aside(key)]
    files = {stem(key): key for key in tables if is_json(key)}
    beside = {film: files[stem(film)] for film in films if stem(film) in files}
    alone = [key for key in tables if is_json(key) and key not in set(beside.values())]
    paths = _read_image_paths(archive, alone, threads=config.readers)
    apart = _match_paths(paths, set(films) - set(beside))
    digest = digest_of([(i.key, i.etag, i.size) for i in infos])
    return Listing(
        films,
        annotations=apart | beside,
        strays=len(paths) - len(apart),
        tables=[key for key in tables if key not in {*beside.values(), *paths}],
        digest=digest,
    )


def _read_image_paths(archive: Store, keys: Sequence[str], *, threads: int) -> dict[str, str]:
    """Return those JSON files that are labelme's, and the path to a film that each names."""
    with ThreadPoolExecutor(threads) as pool:
        contents = pool.map(lambda key: _read_image_path(archive, key), keys)
        return {k: path for k, path in zip(keys, contents, strict=True) if path is not None}


def _read_image_path(archive: Store, key: str) -> str | None:
    data = fetch_object(archive, key, max_bytes=MAX_FILE_BYTES)
    return None if isinstance(data, Refusal) else read_image_path(data)


def _match_paths(paths: Mapping[str, str], films: set[str]) -> dict[str, str]:
    """Return film -> labelme file where the file's path leads to it and no other file's does."""
    named: dict[str, list[str]] = {}
    for key, path in paths.items():
        film = posixpath.normpath(posixpath.join(posixpath.dirname(key), path))
        named.setdefault(film, []).append(key)
    return {film: keys[0] for film, keys in named.items() if film in films and len(keys) == 1}


def read_labels(archive: Store, config: IngestRun, listing: Listing) -> DxaTable:
    """Return the DXA table of `config.labels`, or the one beside the films.

    Raises DataError where several lie there, or where it cannot be understood.
    """
    if config.labels is not None:
        data = read_uri(config, config.labels)
        return read_dxa(data, name=PurePosixPath(config.labels).name, region=config.region)
    if len(listing.tables) > 1:
        raise DataError(
            "one DXA table beside the films",
            ", ".join(listing.tables[:5]),
            "say which one with --labels",
        )
    if not listing.tables:
        return DxaTable((), ("no DXA table was found: every label is missing",))
    name = listing.tables[0]
    return read_dxa(archive.read(name), name=name, region=config.region)


def stated_source(archive: Store) -> DataSource:
    """Return phantom where the archive's own note says so, else real."""
    if not archive.exists(ARCHIVE_NOTE):
        return DataSource.REAL
    try:
        return DataSource(json.loads(archive.read(ARCHIVE_NOTE))["source"])
    except (ValueError, KeyError, TypeError):
        return DataSource.REAL


def read_uri(config: IngestRun, uri: str) -> bytes:
    """Return the file at a path or address outside the archive."""
    store, name = open_file(uri, config.storage)
    return store.read(name)


def read_films(
    archive: Store, listing: Listing, records: RecordIndex, config: IngestRun
) -> Iterator[FilmFile]:
    """Yield films in listing order, decoded a few ahead by isolated readers."""
    readers = [IsolatedReader(config.limits, config.preprocessing) for _ in range(config.readers)]
    try:
        with ThreadPoolExecutor(config.readers) as pool:
            jobs = (
                pool.submit(_read_film, archive, key, listing, readers[n % len(readers)], records)
                for n, key in enumerate(listing.films)
            )
            yield from in_order(jobs, ahead=4 * config.readers)
    finally:
        for reader in readers:
            reader.close()


def _read_film(
    archive: Store, key: str, listing: Listing, reader: IsolatedReader, records: RecordIndex
) -> FilmFile:
    data = fetch_object(archive, key, max_bytes=reader.limits.max_file_bytes)
    if isinstance(data, Refusal):
        return FilmFile(key, "", ReadResult(key, refusal=data), None)
    result = _read_hips(data, key, reader, records)
    annotation = None
    sidecar = listing.annotations.get(key)
    if sidecar is not None and result.film_info is not None:
        annotation = _read_annotation(archive, sidecar, result.film_info)
    return FilmFile(key, digest_bytes(data), result, annotation)


def _read_annotation(archive: Store, key: str, film: FilmInfo) -> Annotation:
    data = fetch_object(archive, key, max_bytes=MAX_FILE_BYTES)
    if isinstance(data, Refusal):
        return Annotation(problems=(f"annotation: {data.evidence}",))
    return read_labelme(data, width=film.width, height=film.height, name="annotation")


def _read_hips(data: bytes, key: str, reader: IsolatedReader, records: RecordIndex) -> ReadResult:
    """Read a film, again where only its header's patient leads to the side of its hip."""
    side = records.side_of(key)
    result = reader.read_hips(data, name=key, side=side)
    info = result.film_info
    if info is None or not info.patient_key or info.both_sides or info.side is not Side.UNKNOWN:
        return result
    known = records.side_of(key, info.patient_key)
    if known in (None, Side.UNKNOWN, side):
        return result
    return reader.read_hips(data, name=key, side=known)
