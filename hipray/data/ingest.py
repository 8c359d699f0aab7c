"""Ingest: an archive of films, annotations and DXA reports becomes one manifest.

images/**               films; labelme JSON of the same name beside them
-> manifest.parquet     one row per accepted hip
-> hips/<hip>.png       canonical hips, and their masks beside them
-> ingest/files.parquet what became of every file: found = accepted + refused
-> ingest/flow.json     the counts; ingest/contact-sheet.png for the eye
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from hipray.config.base import build_config
from hipray.config.images import Preprocessing
from hipray.config.jobs import IngestRun
from hipray.data.annotations import Annotation, check_masks, read_labelme
from hipray.data.contact_sheet import Tile, build_contact_sheet, encode_png
from hipray.data.dxa import DxaTable, read_dxa
from hipray.data.images import PREPROCESSING_VERSION, ReadResult
from hipray.data.isolation import IsolatedReader
from hipray.data.listing import (
    ANNOTATION_SUFFIX,
    ARCHIVE_NOTE,
    TABLE_SUFFIXES,
    is_film,
    is_json,
    stem,
)
from hipray.data.manifest import MANIFEST_KEY, build_manifest, missing_column, write_table
from hipray.data.matching import RecordIndex
from hipray.data.pseudonyms import Pseudonyms, load_pseudonyms
from hipray.data.refusals import Refusal
from hipray.data.rows import FilmFacts, build_row, mask_keys
from hipray.digests import digest_bytes, digest_of, source_digest
from hipray.errors import DataError
from hipray.progress import track
from hipray.storage import ObjectInfo, Store, open_store
from hipray.vocab import REGIONS, DataSource, LabelType, RefusalCode, Region

FLOW_KEY = "ingest/flow.json"
FILES_KEY = "ingest/files.parquet"
SHEET_KEY = "ingest/contact-sheet.png"
SHEET_TILES = 64

logger = logging.getLogger(__name__)

FILES_SCHEMA = pa.schema(
    {
        "file": pa.string(),
        "outcome": pa.string(),
        "code": pa.string(),
        "detector": pa.string(),
        "evidence": pa.string(),
        "hip_ids": pa.list_(pa.string()),
    }
)


@dataclass
class Flow:
    """The counts of one ingest: found = accepted + refused, in files."""

    found: int = 0
    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    hips: int = 0
    patients: int = 0
    annotations: int = 0
    dropped: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    """region -> label -> reason -> hips."""
    problems: list[str] = field(default_factory=list)
    source: str = DataSource.REAL
    preprocessing: dict[str, Any] = field(default_factory=dict)
    """The settings that made the hips; a release pins them."""
    reused: bool = False


@dataclass(frozen=True)
class _Listing:
    films: list[str]
    annotations: frozenset[str]
    tables: list[str]
    digest: str


@dataclass(frozen=True)
class _ReadFilm:
    key: str
    sha256: str
    result: ReadResult
    annotation: Annotation | None


def run_ingest(config: IngestRun) -> Flow:
    """Read the archive of `config` into the workspace; return the counts.

    No file stops it: each ends as accepted or refused with a reason. Raises DataError where there
    is no file at all or the DXA table cannot be understood.
    """
    workspace = open_store(config.workspace, config.storage)
    archive = open_store(config.images, config.storage)
    listing = _list_archive(archive, config)
    identity = _identity(config, listing, archive)
    known = _read_finished(workspace, identity)
    if known is not None:
        return known
    table = _read_labels(archive, config, listing)
    source = config.source or _stated_source(archive)
    flow = Flow(
        found=len(listing.films),
        source=source,
        problems=list(table.problems),
        preprocessing=config.preprocessing.model_dump(mode="json"),
    )
    rows = _Rows(workspace, RecordIndex(table.records), config, source, flow)
    with track("ingest", len(listing.films)) as update:
        for done, film in enumerate(_read_films(archive, listing, rows, config), start=1):
            rows.add(film)
            update(done)
    rows.finish()
    workspace.write(FLOW_KEY, json.dumps(asdict(flow) | {"identity": identity}, indent=1).encode())
    return flow


class _Rows:
    """Collects manifest rows and the outcome of every file."""

    def __init__(
        self,
        workspace: Store,
        records: RecordIndex,
        config: IngestRun,
        source: DataSource,
        flow: Flow,
    ) -> None:
        self.records = records
        self._workspace = workspace
        self._config = config
        self._source = source
        self._flow = flow
        self._pseudonyms: Pseudonyms = load_pseudonyms(workspace)
        self._rows: list[dict[str, Any]] = []
        self._files: list[dict[str, Any]] = []
        self._tiles: list[Tile] = []
        self._seen: set[tuple[str, str]] = set()

    def add(self, film: _ReadFilm) -> None:
        """Take one file as accepted hips or as a refusal."""
        if film.result.refusal is not None:
            self._refuse(film, film.result.refusal)
            return
        rows = [self._build(film, index) for index in range(len(film.result.hips))]
        known = [(row["patient_id"], row["pixel_sha256"]) in self._seen for row in rows]
        if all(known):
            evidence = "the same pixels of the same patient came before"
            self._refuse(film, Refusal(RefusalCode.DUPLICATE, "pixel_hash", evidence))
            return
        for index, row in enumerate(rows):
            self._accept(film, index, row)
        self._note(film, outcome="accepted", hip_ids=[row["hip_id"] for row in rows])
        self._flow.accepted += 1

    def finish(self) -> None:
        """Write the manifest, the files table and the contact sheet; complete the counts."""
        write_table(
            self._workspace, FILES_KEY, pa.Table.from_pylist(self._files, schema=FILES_SCHEMA)
        )
        write_table(self._workspace, MANIFEST_KEY, build_manifest(self._rows))
        self._workspace.write(SHEET_KEY, build_contact_sheet(self._tiles))
        self._flow.hips = len(self._rows)
        self._flow.patients = len({row["patient_id"] for row in self._rows})
        self._flow.dropped = _count_dropped(self._rows)

    def _build(self, film: _ReadFilm, index: int) -> dict[str, Any]:
        facts = FilmFacts(film.key, film.sha256, self._source)
        return build_row(
            facts, film.result, index,
            records=self.records, rules=self._config.rules, pseudonyms=self._pseudonyms,
        )  # fmt: skip

    def _accept(self, film: _ReadFilm, index: int, row: dict[str, Any]) -> None:
        hip = film.result.hips[index]
        masks = _warped_masks(film, index)
        row.update(mask_keys(row["hip_id"], masks))
        self._workspace.write(row["image_key"], encode_png(hip.pixels))
        for region, mask in masks.items():
            self._workspace.write(row[f"mask_key_{region}"], encode_png(mask.astype("uint8") * 255))
        self._flow.annotations += bool(masks)
        self._seen.add((row["patient_id"], row["pixel_sha256"]))
        self._rows.append(row)
        if len(self._tiles) < SHEET_TILES:
            caption = f"{row['hip_id'][:8]} {hip.side}"
            self._tiles.append(Tile(hip.pixels, masks, caption))
        for problem in [
            *(film.annotation.problems if film.annotation else ()),
            *check_masks(masks),
        ]:
            self._flow.problems.append(f"{row['hip_id']}: {problem}")

    def _refuse(self, film: _ReadFilm, refusal: Refusal) -> None:
        self._flow.refused[refusal.code] = self._flow.refused.get(refusal.code, 0) + 1
        self._note(
            film, outcome="refused",
            code=refusal.code, detector=refusal.detector, evidence=refusal.evidence,
        )  # fmt: skip

    def _note(self, film: _ReadFilm, **outcome: Any) -> None:
        self._files.append({"file": film.key, **outcome})


def _warped_masks(film: _ReadFilm, index: int) -> dict[Region, Any]:
    """The annotated masks of one hip on its canonical pixels."""
    if film.annotation is None:
        return {}
    hip = film.result.hips[index]
    both = len(film.result.hips) > 1
    masks = film.annotation.side_masks.get(hip.side, {}) if both else film.annotation.masks
    warped = {region: hip.geometry.warp_mask(mask) for region, mask in masks.items()}
    return {region: mask for region, mask in warped.items() if mask.any()}


def _list_archive(archive: Store, config: IngestRun) -> _Listing:
    infos: list[ObjectInfo] = list(archive.list())
    stems = Counter(stem(info.key) for info in infos if not is_json(info.key))
    annotations = {i.key for i in infos if is_json(i.key) and stems[stem(i.key)]}
    tables = [
        i.key for i in infos
        if i.key.lower().endswith(TABLE_SUFFIXES) and i.key not in annotations
        and PurePosixPath(i.key).name != ARCHIVE_NOTE
    ]  # fmt: skip
    films = sorted(i.key for i in infos if is_film(i.key))
    if not films:
        raise DataError(
            f"films in {config.images}", f"{len(infos)} files, none a film", "check the path"
        )
    digest = digest_of([(i.key, i.etag, i.size) for i in infos])
    return _Listing(films, frozenset(annotations), tables, digest)


def _identity(config: IngestRun, listing: _Listing, archive: Store) -> str:
    """What makes two ingests the same: settings, files, table and the code that reads them."""
    settings = config.model_dump(mode="json", exclude={"workspace", "storage", "readers"})
    labels = "" if config.labels is None else digest_bytes(_read_uri(config, config.labels))
    return digest_of(
        [settings, labels, listing.digest, PREPROCESSING_VERSION, source_digest("data")]
    )


def _read_finished(workspace: Store, identity: str) -> Flow | None:
    if not workspace.exists(FLOW_KEY):
        return None
    known = json.loads(workspace.read(FLOW_KEY))
    if known.pop("identity", None) != identity:
        return None
    return Flow(**(known | {"reused": True}))


def read_preprocessing(workspace: Store) -> Preprocessing:
    """Return the settings that the workspace's films were ingested with."""
    return build_config(Preprocessing, json.loads(workspace.read(FLOW_KEY))["preprocessing"])


def _read_uri(config: IngestRun, uri: str) -> bytes:
    folder, _, name = uri.rpartition("/")
    return open_store(folder or ".", config.storage).read(name)


def _read_labels(archive: Store, config: IngestRun, listing: _Listing) -> DxaTable:
    if config.labels is not None:
        data = _read_uri(config, config.labels)
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


def _stated_source(archive: Store) -> DataSource:
    if not archive.exists(ARCHIVE_NOTE):
        return DataSource.REAL
    try:
        return DataSource(json.loads(archive.read(ARCHIVE_NOTE))["source"])
    except (ValueError, KeyError, TypeError):
        return DataSource.REAL


def _read_films(
    archive: Store, listing: _Listing, rows: _Rows, config: IngestRun
) -> Iterator[_ReadFilm]:
    """Films in listing order, decoded a few ahead by isolated readers."""
    readers = [IsolatedReader(config.limits, config.preprocessing) for _ in range(config.readers)]
    try:
        with ThreadPoolExecutor(config.readers) as pool:
            jobs = (
                pool.submit(
                    _read_film, archive, key, listing, readers[n % len(readers)], rows.records
                )
                for n, key in enumerate(listing.films)
            )
            yield from _in_order(jobs, ahead=4 * config.readers)
    finally:
        for reader in readers:
            reader.close()


def _in_order(jobs: Iterable[Future[_ReadFilm]], *, ahead: int) -> Iterator[_ReadFilm]:
    """Results in order while at most `ahead` are under way: memory stays flat."""
    source = iter(jobs)
    waiting = list(islice(source, ahead))
    while waiting:
        yield waiting.pop(0).result()
        waiting.extend(islice(source, 1))


def _read_film(
    archive: Store, key: str, listing: _Listing, reader: IsolatedReader, records: RecordIndex
) -> _ReadFilm:
    info = archive.info(key)
    if info is not None and info.size > reader.limits.max_file_bytes:
        evidence = f"{info.size} bytes, at most {reader.limits.max_file_bytes}"
        refusal = Refusal(RefusalCode.TOO_LARGE, "file_size", evidence)
        return _ReadFilm(key, "", ReadResult(key, refusal=refusal), None)
    data = archive.read(key)
    result = reader.read_hips(data, name=key, side=records.side_of(key))
    sidecar = stem(key) + ANNOTATION_SUFFIX
    annotation = None
    if sidecar in listing.annotations and result.film_info is not None:
        shape = result.film_info
        annotation = read_labelme(
            archive.read(sidecar), width=shape.width, height=shape.height, name=sidecar
        )
    return _ReadFilm(key, digest_bytes(data), result, annotation)


def _count_dropped(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    return {
        region.value: {
            label.value: dict(
                Counter(
                    row[missing_column(label, region)]
                    for row in rows
                    if row.get(missing_column(label, region))
                )
            )
            for label in LabelType
        }
        for region in REGIONS
    }
