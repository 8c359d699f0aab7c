"""The rows of a scored archive: one per hip, scored or refused; one per refused file.

`SCORE_SCHEMA` documents each column in its metadata, and any Parquet reader reads the parts.
Only what is true for ever is a row: a film that the store would not give has none.

A column of the film's header is read where films are decoded (`FilmInfo` of `data.film`,
`data.dicom_header`, `data.dicom`, `data.transport`) and comes here through `ReadFilm` of `films`
and through `packing`; what an answer depends on beside the pixels is in `fingerprint` of
`duplicates`, too. No names, ids or days: rows are published.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa

from hipray import RESEARCH_NOTICE
from hipray.answers import HipAnswer, StudyAnswer
from hipray.data.refusals import Refusal
from hipray.releases.release import Question, Release
from hipray.scoring.films import ReadFilm
from hipray.vocab import REGIONS, LabelType, Region

CPU_DEVICE = "cpu"
"""Device of rows that no GPU computed."""
SCHEMA_VERSION = "3"
"""Raised with every change of a column's name, type or meaning."""

SECONDS = ("fetch_seconds", "decode_seconds", "model_seconds")
"""Columns in which two rows of the same film and release differ."""

Row = dict[str, Any]


class Outcome(StrEnum):
    """What became of a file, and of a hip of it."""

    SCORED = "scored"
    REFUSED = "refused"
    FAILED = "failed"  # the store would not give it: counted, never a row


@dataclass(frozen=True)
class Origin:
    """What computed a row, beside the film itself."""

    release: Release
    runtime: str
    device: str
    """cpu, or the name of the GPU."""
    precision: str
    units: float
    """Cores, or GPUs and fractions of one, that compute at the same time."""

    def as_row(self) -> Row:
        """Return the columns that are the same in all rows."""
        release = self.release
        return {
            "release": release.name,
            "release_digest": release.digest,
            "bundle_digests": [*release.segmenters, *(member.bundle for member in release.members)],
            "runtime": self.runtime,
            "device": self.device,
            "precision": self.precision,
            "preprocessing_version": release.preprocessing_version,
            "data_source": release.data_source.value,
            "headline_threshold": release.headline_threshold,
            "schema_version": SCHEMA_VERSION,
        }


def probability_column(label_type: LabelType, region: Region) -> str:
    """Return the column with the probability of a region and label."""
    return f"probability_{label_type}_{region}"


def _field(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": meaning})


def _probability_fields() -> list[pa.Field]:
    return [
        _field(
            probability_column(label, region),
            pa.float64(),
            f"calibrated probability that {region.display_name} is abnormal by {label}, no T-score"
            + ("; research only" if region.research_only else ""),
        )
        for label in LabelType
        for region in REGIONS
    ]


def _mask_fields() -> list[pa.Field]:
    return [
        part
        for region in REGIONS
        for part in (
            _field(f"mask_area_{region}", pa.float64(),
                   f"area of the mask of {region.display_name} / area of the frame"),
            _field(f"mask_confidence_{region}", pa.float64(),
                   f"mean probability of the segmenter in the mask of {region.display_name}"),
        )
    ]  # fmt: skip


SCORE_SCHEMA = pa.schema(
    [
        _field("key", pa.string(), "key of the object, relative to the archive"),
        _field("etag", pa.string(), "etag of the object that was read, null where none was"),
        _field("listed_etag", pa.string(), "its etag when it was listed"),
        _field("size", pa.int64(), "its bytes when it was listed"),
        _field("file_id", pa.string(), "keyed hash of the key; the manifest's source_key"),
        _field("patient_id", pa.string(), "keyed hash of the patient's id, null if none is stated"),
        _field("hip_index", pa.int32(), "number of the hip in its file, null for a refused file"),
        _field("hips", pa.int32(), "hips in the file, 0 for a refused file"),
        _field("pixel_sha256", pa.string(), "sha256 of the hip's canonical pixels"),
        _field("side", pa.string(), "left, right or unknown, as stated"),
        _field("flipped", pa.bool_(), "mirrored to the canonical left hip"),
        _field("outcome", pa.string(), "scored or refused"),
        _field("refusal_code", pa.string(), "why there is no probability"),
        _field("refusal_detector", pa.string(), "what refused"),
        _field("refusal_evidence", pa.string(), "what it saw; never a text of the file"),
        _field(
            "headline_probability", pa.float64(), "the hip's worse of femoral neck and total hip"
        ),
        _field("headline_region", pa.string(), "the region that is worse"),
        _field("headline_threshold", pa.float64(), "the release's threshold of that probability"),
        _field("headline_abnormal", pa.bool_(), "at or above that threshold"),
        *_probability_fields(),
        _field("regions_missing", pa.list_(pa.string()), "regions that could not be cut out"),
        *_mask_fields(),
        _field("findings", pa.list_(pa.string()), "quality remarks on the hip"),
        _field("release", pa.string(), "name of the release"),
        _field("release_digest", pa.string(), "sha256 of the release"),
        _field("bundle_digests", pa.list_(pa.string()), "sha256 of its segmenters and members"),
        _field("runtime", pa.string(), "what computed the networks: torch or onnx"),
        _field("device", pa.string(), "cpu, or the GPU that computed them"),
        _field("precision", pa.string(), "float32 or bfloat16: in what numbers they computed"),
        _field("preprocessing_version", pa.string(), "version of the decoding and framing"),
        _field("data_source", pa.string(), "phantom or real: what the release learned from"),
        _field("fetch_seconds", pa.float64(), "seconds until the store had given the file"),
        _field("decode_seconds", pa.float64(), "core-seconds of decoding the file"),
        _field(
            "model_seconds",
            pa.float64(),
            "the file's share of the networks' time: core-seconds on a CPU, else GPU-seconds",
        ),
        _field("schema_version", pa.string(), "version of these columns"),
    ],
    metadata={"schema_version": SCHEMA_VERSION, "research_notice": RESEARCH_NOTICE},
)


def build_file_columns(film: ReadFilm, *, model_seconds: float) -> Row:
    """Return the columns of a row that tell the file.

    A column in which films of equal pixels differ belongs here: `deduplicate` copies the others
    from one film to the next.
    """
    return {
        "key": film.entry.key,
        "etag": film.etag,
        "listed_etag": film.entry.etag,
        "size": film.entry.size,
        "file_id": film.file_id,
        "patient_id": film.patient_id,
        "fetch_seconds": film.fetch_seconds,
        "decode_seconds": film.decode_seconds,
        "model_seconds": model_seconds,
    }


def build_hip_columns(
    film: ReadFilm, answer: StudyAnswer, questions: Sequence[Question]
) -> list[Row]:
    """Return the other columns of a file's rows: at least one row, whatever became of it.

    They depend on what `duplicates.fingerprint` tells of a film alone, not on its key.
    """
    hips = film.result.hips
    if answer.refusal is not None:
        return [{"hips": 0, **_refused(answer.refusal)}]
    return [
        {
            "hips": len(hips),
            "hip_index": hip.index,
            "pixel_sha256": hips[hip.index].pixel_sha256,
            "side": hip.side.value,
            "flipped": hip.flipped,
            "findings": [finding.value for finding in hip.findings],
            **_scored_or_refused(hip, questions),
        }
        for hip in answer.hips
    ]


def _scored_or_refused(hip: HipAnswer, questions: Sequence[Question]) -> Row:
    if hip.refusal is not None:
        return _refused(hip.refusal)
    answered = {region.region for region in hip.regions}
    missing = [region for region, _ in questions if region not in answered]
    row: Row = {
        "outcome": Outcome.SCORED.value,
        "regions_missing": [region.value for region in dict.fromkeys(missing)],
    }
    for region in hip.regions:
        row[probability_column(region.label_type, region.region)] = region.probability
        row[f"mask_area_{region.region}"] = region.mask_area_fraction
        row[f"mask_confidence_{region.region}"] = region.mask_confidence
    return row | _headline(hip)


def _headline(hip: HipAnswer) -> Row:
    if hip.headline is None:
        return {}
    return {
        "headline_probability": hip.headline.probability,
        "headline_region": hip.headline.region.value,
        "headline_abnormal": hip.headline.abnormal,
    }


def _refused(refusal: Refusal) -> Row:
    return {
        "outcome": Outcome.REFUSED.value,
        "refusal_code": refusal.code.value,
        "refusal_detector": refusal.detector,
        "refusal_evidence": refusal.evidence,
    }


def build_table(rows: Sequence[Row]) -> pa.Table:
    """Return rows as a table of SCORE_SCHEMA; absent columns become null."""
    unknown = {name for row in rows for name in row} - set(SCORE_SCHEMA.names)
    assert not unknown, f"columns without a place in SCORE_SCHEMA: {unknown}"
    return pa.Table.from_pylist(list(rows), schema=SCORE_SCHEMA)
