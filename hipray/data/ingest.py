"""Ingest: an archive of films, annotations and DXA reports becomes one manifest.

images/**               films; labelme JSON of the same name beside them, or with their path
-> manifest.parquet     one row per accepted hip
-> hips/<hip>.png       canonical hips, and their masks beside them
-> ingest/files.parquet what became of every file: found = accepted + refused
-> ingest/flow.json     the counts; ingest/contact-sheet.png for the eye
"""

import logging
from dataclasses import replace
from enum import StrEnum
from typing import Any

import pyarrow as pa

from hipray.config.base import build_config
from hipray.config.images import Preprocessing
from hipray.config.jobs import IngestRun
from hipray.data.annotations import check_masks
from hipray.data.archive import (
    FilmFile,
    Listing,
    list_archive,
    read_films,
    read_labels,
    read_uri,
    stated_source,
)
from hipray.data.caveats import (
    tell_absent,
    tell_numbered,
    tell_strays,
    tell_unmatched,
    tell_unsided,
    tell_unsided_contours,
    tell_young,
)
from hipray.data.contact_sheet import Tile, build_contact_sheet
from hipray.data.dxa.records import DxaTable
from hipray.data.fetching import ACCESS_DENIED, STORE_DETECTOR
from hipray.data.flow import (
    FLOW_KEY,
    Flow,
    count_bases,
    count_dropped,
    count_given,
    read_flow,
    write_flow,
)
from hipray.data.images import PREPROCESSING_VERSION
from hipray.data.manifest import (
    MANIFEST_KEY,
    build_manifest,
    mask_column,
    read_manifest,
    read_table,
    write_table,
)
from hipray.data.matching import RecordIndex
from hipray.data.patients import MOST_NAMES, Link, join_patients
from hipray.data.png import encode_mask, encode_png
from hipray.data.pseudonyms import Pseudonyms, load_pseudonyms
from hipray.data.refusals import Refusal
from hipray.data.rows import (
    HIPS_FOLDER,
    FilmFacts,
    build_row,
    labels_differ,
    mask_keys,
    stand_in,
    take_labels,
)
from hipray.digests import digest_bytes, digest_of, source_digest
from hipray.errors import AccessDeniedError, ConfigError, DataError
from hipray.progress import track
from hipray.storage import Store, hold, lies_within
from hipray.storage.retrying import open_retrying_store
from hipray.vocab import REGIONS, DataSource, RefusalCode, Region

FILES_KEY = "ingest/files.parquet"
SHEET_KEY = "ingest/contact-sheet.png"
LEASE_KEY = "ingest/driver"
LEASE_S = 60.0
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


class FileOutcome(StrEnum):
    """What became of a file."""

    ACCEPTED = "accepted"
    REFUSED = "refused"


def run_ingest(config: IngestRun) -> Flow:
    """Read the archive of `config` into the workspace; return the counts.

    No file stops it: each ends as accepted or refused with a reason. Raises DataError where there
    is no file at all or the DXA table cannot be understood, RunBusyError where another ingest
    works on the workspace, StorageError where a store is out of reach or gives no film at all.
    """
    workspace, archive = (
        open_retrying_store(uri, config.storage, patience_s=config.store_wait_s)
        for uri in (config.workspace, config.images)
    )
    if lies_within(workspace, archive):
        raise ConfigError(
            f"a workspace outside of the archive {archive.uri}",
            workspace.uri,
            "choose another workspace: its hips would be read as films",
        )
    listing = list_archive(archive, config)
    identity = _identity(config, listing)
    known = _read_finished(workspace, identity)
    if known is not None:
        return known
    thing = f"the workspace {workspace.uri}"
    with hold(workspace, LEASE_KEY, ttl_s=LEASE_S, owner_note="hipray ingest", thing=thing):
        workspace.delete(FLOW_KEY)  # written last: no other ingest's counts over a half-made one
        return _read_archive(config, workspace, archive, listing, identity)


def _read_archive(
    config: IngestRun, workspace: Store, archive: Store, listing: Listing, identity: str
) -> Flow:
    table = read_labels(archive, config, listing)
    _require_names(table)
    source = config.source or stated_source(archive)
    flow = Flow(
        found=len(listing.films),
        source=source,
        given=count_given(table.records, config.rules),
        problems=list(table.problems),
        preprocessing=config.preprocessing.model_dump(mode="json"),
        rules=config.rules.model_dump(mode="json"),
        identity=identity,
    )
    records = RecordIndex(table.records, listing.films)
    rows = _Outcomes(workspace, records, config, source, flow)
    with track("ingest", len(listing.films)) as update:
        for done, film in enumerate(read_films(archive, listing, records, config), start=1):
            rows.add(film)
            update(done)
    rows.finish()
    flow.problems[:0] = [
        *(
            tell_unmatched(table.records, flow)
            or [*tell_numbered(records.numbered), *tell_absent(records.absent)]
        ),
        *tell_strays(listing.strays),
        *tell_unsided(rows.hips), *tell_young(rows.hips),
    ]  # fmt: skip
    write_flow(workspace, flow)
    return flow


def _require_names(table: DxaTable) -> None:
    """Raise DataError where no record of a table says of which film or patient it is."""
    if table.records and not any(r.image or r.patient_id for r in table.records):
        raise DataError(
            "a column of the table that names film or patient ('image', 'file', 'patient_id', ...)",
            f"none ({'; '.join(table.problems[:3]) or 'no problem was seen'})",
            "rename or add one",
        )


class _Outcomes:
    """Writes hips as they come, and keeps their rows and what became of every file."""

    def __init__(
        self,
        workspace: Store,
        records: RecordIndex,
        config: IngestRun,
        source: DataSource,
        flow: Flow,
    ) -> None:
        self._records = records
        self._workspace = workspace
        self._config = config
        self._source = source
        self._flow = flow
        self._pseudonyms: Pseudonyms = load_pseudonyms(workspace)
        self.hips: list[dict[str, Any]] = []
        self._files: list[dict[str, Any]] = []
        self._tiles: list[Tile] = []
        self._seen: dict[str, list[dict[str, Any]]] = {}
        """Accepted hips by the digest of their pixels."""
        self._nameless: set[str] = set()
        """Patients of films that name none."""
        self._links: set[Link] = set()

    def add(self, film: FilmFile) -> None:
        """Take one file as accepted hips or as a refusal."""
        if film.result.refusal is not None:
            self._refuse(film, film.result.refusal)
            return
        rows = [self._build(film, index) for index in range(len(film.result.hips))]
        if rows[0]["patient_id"] == (alone := self._pseudonyms.patient(stand_in(film.key))):
            self._nameless.add(alone)
        originals = [found for row in rows if (found := self._find_original(row)) is not None]
        if len(originals) == len(rows):
            for original, row in zip(originals, rows, strict=True):
                self._unite(film, original, row)
            evidence = "the same pixels of the same patient came before"
            self._refuse(film, Refusal(RefusalCode.DUPLICATE, "pixel_hash", evidence))
            return
        for index, row in enumerate(rows):
            self._accept(film, index, row)
        self._note(film, outcome=FileOutcome.ACCEPTED, hip_ids=[row["hip_id"] for row in rows])
        self._flow.accepted += 1

    def _find_original(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Return the hip of which `row` is an exact copy, of its patient or of nobody's name."""
        for original in self._seen.get(row["pixel_sha256"], []):
            patients = {original["patient_id"], row["patient_id"]}
            if len(patients) == 1:
                return original
            if not self._nameless & patients:
                continue
            if not labels_differ(original, row):
                return original
            self._flow.problems.append(
                f"{row['hip_id']}: the same pixels as {original['hip_id']} with another label; "
                "one of their records must be of another film"
            )
        return None

    def _unite(self, film: FilmFile, original: dict[str, Any], copy: dict[str, Any]) -> None:
        """Keep of a copy that is left out what its original does not know: name and labels."""
        take_labels(original, copy)
        if original["patient_id"] in self._nameless:
            original["patient_id"] = copy["patient_id"]
            self._link(film, copy["patient_id"])

    def _link(self, film: FilmFile, patient: str) -> None:
        info = film.result.film_info
        if info is not None and info.patient_key:
            self._links.add((patient, self._pseudonyms.patient(info.patient_key)))

    def _join(self) -> None:
        """Let hips of one person have one patient, whichever of table and header named them."""
        joined, placeholders = join_patients(self._links)
        before = {row["patient_id"] for row in self.hips}
        for row in self.hips:
            row["patient_id"] = joined.get(row["patient_id"], row["patient_id"])
        merged = len(before) - len({row["patient_id"] for row in self.hips})
        if merged:
            self._flow.problems.append(
                f"{merged} patients share a DICOM PatientID with another and count as the same"
            )
        if placeholders:
            self._flow.problems.append(
                f"{placeholders} DICOM PatientIDs stand on films of more than {MOST_NAMES} "
                "patients of the table: the table's names are used for these"
            )

    def finish(self) -> None:
        """Write the manifest, the files table and the contact sheet; complete the counts.

        Raises AccessDeniedError where no file could be had for want of rights.
        """
        if all(file.get("evidence") == ACCESS_DENIED for file in self._files):
            raise AccessDeniedError(
                f"films that may be read in {self._config.images}",
                f"access denied to all {len(self._files)}", "check the rights to read them",
            )  # fmt: skip
        self._join()
        write_table(
            self._workspace, FILES_KEY, pa.Table.from_pylist(self._files, schema=FILES_SCHEMA)
        )
        write_table(self._workspace, MANIFEST_KEY, build_manifest(self.hips))
        self._workspace.write(SHEET_KEY, build_contact_sheet(self._tiles))
        self._flow.hips = len(self.hips)
        self._flow.patients = len({row["patient_id"] for row in self.hips})
        self._flow.dropped = count_dropped(self.hips)
        self._flow.bases = count_bases(self.hips)

    def _build(self, film: FilmFile, index: int) -> dict[str, Any]:
        facts = FilmFacts(film.key, film.sha256, self._source)
        return build_row(
            facts, film.result, index,
            records=self._records, rules=self._config.rules, pseudonyms=self._pseudonyms,
        )  # fmt: skip

    def _accept(self, film: FilmFile, index: int, row: dict[str, Any]) -> None:
        hip = film.result.hips[index]
        masks = _warped_masks(film, index)
        row.update(mask_keys(row["hip_id"], masks))
        self._workspace.write(row["image_key"], encode_png(hip.pixels))
        for region, mask in masks.items():
            self._workspace.write(row[f"mask_key_{region}"], encode_mask(mask))
        self._flow.annotations += bool(masks)
        self._seen.setdefault(row["pixel_sha256"], []).append(row)
        self.hips.append(row)
        self._link(film, row["patient_id"])
        if len(self._tiles) < SHEET_TILES:
            caption = f"{row['hip_id'][:8]} {hip.side}"
            self._tiles.append(Tile(hip.pixels, masks, caption))
        for problem in [
            *(film.annotation.problems if film.annotation else ()),
            *tell_unsided_contours(film, masks),
            *check_masks(masks),
        ]:
            self._flow.problems.append(f"{row['hip_id']}: {problem}")

    def _refuse(self, film: FilmFile, refusal: Refusal) -> None:
        self._flow.refused[refusal.code] = self._flow.refused.get(refusal.code, 0) + 1
        self._note(
            film, outcome=FileOutcome.REFUSED,
            code=refusal.code, detector=refusal.detector, evidence=refusal.evidence,
        )  # fmt: skip

    def _note(self, film: FilmFile, **outcome: Any) -> None:
        # a name that is no text is shown by its bytes
        name = film.key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        self._files.append({"file": name, **outcome})


def _warped_masks(film: FilmFile, index: int) -> dict[Region, Any]:
    """The annotated masks of one hip on its canonical pixels."""
    if film.annotation is None:
        return {}
    hip = film.result.hips[index]
    both = len(film.result.hips) > 1
    masks = film.annotation.side_masks.get(hip.side, {}) if both else film.annotation.masks
    warped = {region: hip.geometry.warp_mask(mask) for region, mask in masks.items()}
    return {region: mask for region, mask in warped.items() if mask.any()}


def _identity(config: IngestRun, listing: Listing) -> str:
    """What makes two ingests the same: settings, files, table and the code that reads them."""
    settings = config.model_dump(
        mode="json", exclude={"workspace", "storage", "readers", "store_wait_s"}
    )
    labels = "" if config.labels is None else digest_bytes(read_uri(config, config.labels))
    return digest_of(
        [settings, labels, listing.digest, PREPROCESSING_VERSION, source_digest("data", "vocab")]
    )


def _read_finished(workspace: Store, identity: str) -> Flow | None:
    try:
        known = read_flow(workspace)
    except DataError:
        return None
    if known.identity != identity or not _is_whole(workspace):
        return None
    return replace(known, reused=True)


def _is_whole(workspace: Store) -> bool:
    """Whether the store gave every file, and everything that the manifest names is still there."""
    if not all(workspace.exists(key) for key in (MANIFEST_KEY, FILES_KEY)):
        return False
    try:
        if STORE_DETECTOR in read_table(workspace, FILES_KEY)["detector"].to_pylist():
            return False
        manifest = read_manifest(workspace, MANIFEST_KEY)
    except DataError:
        return False
    columns = ["image_key", *(mask_column(region) for region in REGIONS)]
    named = {key for column in columns for key in manifest[column].dropna()}
    return named <= {info.key for info in workspace.list(HIPS_FOLDER)}


def read_preprocessing(workspace: Store) -> Preprocessing:
    """Return the settings that the workspace's films were ingested with."""
    return build_config(Preprocessing, read_flow(workspace).preprocessing)
