"""The rows of a scored archive: one per hip, region and label; one per refused file or hip.

`SCORE_SCHEMA` documents each column in its metadata, and any Parquet reader reads the parts.
Only what is true for ever is a row: a film that the store would not give has none.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import pyarrow as pa

from hipray import RESEARCH_NOTICE
from hipray.answers import HipAnswer, RegionAnswer, StudyAnswer
from hipray.data.refusals import Refusal
from hipray.releases.release import Question
from hipray.scoring.films import ReadFilm
from hipray.vocab import RefusalCode

SCHEMA_VERSION = "1"
"""Raised with every change of a column's name, type or meaning."""

Row = dict[str, Any]


class Outcome(StrEnum):
    """What became of a file, and of a row of it."""

    SCORED = "scored"
    REFUSED = "refused"
    FAILED = "failed"  # by the store or a lost process: counted, never a row


def _field(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": meaning})


SCORE_SCHEMA = pa.schema(
    [
        _field("key", pa.string(), "key of the object, relative to the archive"),
        _field("etag", pa.string(), "etag of the object when it was listed"),
        _field("file_id", pa.string(), "keyed hash of the key; the manifest's source_key"),
        _field("patient_id", pa.string(), "keyed hash of the patient's id, null if none is stated"),
        _field("hip_index", pa.int32(), "number of the hip in its file, null for a refused file"),
        _field("side", pa.string(), "left, right or unknown, as stated"),
        _field("flipped", pa.bool_(), "mirrored to the canonical left hip"),
        _field("region", pa.string(), "region of interest, null for a refused file or hip"),
        _field("label_type", pa.string(), "t_score or bmd: what abnormal means"),
        _field("probability", pa.float64(), "calibrated probability of being abnormal, no T-score"),
        _field("calibration", pa.string(), "how the probability was calibrated"),
        _field("members", pa.int32(), "networks whose probabilities were averaged"),
        _field("research_only", pa.bool_(), "ISCD gives the region no part in a diagnosis"),
        _field("mask_area_fraction", pa.float64(), "area of the region's mask / area of the frame"),
        _field("mask_confidence", pa.float64(), "mean probability of the segmenter in the mask"),
        _field(
            "headline_probability", pa.float64(), "the hip's worse of femoral neck and total hip"
        ),
        _field("headline_region", pa.string(), "the region that is worse"),
        _field("headline_abnormal", pa.bool_(), "at or above the release's headline threshold"),
        _field("outcome", pa.string(), "scored or refused"),
        _field("refusal_code", pa.string(), "why there is no probability"),
        _field("refusal_detector", pa.string(), "what refused"),
        _field("refusal_evidence", pa.string(), "what it saw; never a text of the file"),
        _field("findings", pa.list_(pa.string()), "quality remarks on the hip"),
        _field("release", pa.string(), "name of the release"),
        _field("release_digest", pa.string(), "sha256 of the release"),
        _field("preprocessing_version", pa.string(), "version of the decoding and framing"),
        _field("data_source", pa.string(), "phantom or real: what the release learned from"),
        _field("seconds", pa.float64(), "seconds of fetching and decoding the file"),
        _field("schema_version", pa.string(), "version of these columns"),
    ],
    metadata={"schema_version": SCHEMA_VERSION, "research_notice": RESEARCH_NOTICE},
)


def build_rows(film: ReadFilm, answer: StudyAnswer, questions: Sequence[Question]) -> list[Row]:
    """Return the rows of one file: at least one, whatever became of it."""
    about = {
        "key": film.entry.key,
        "etag": film.entry.etag,
        "file_id": film.file_id,
        "patient_id": film.patient_id,
        "release": answer.release,
        "release_digest": answer.release_digest,
        "preprocessing_version": answer.preprocessing_version,
        "data_source": answer.data_source,
        "seconds": film.seconds,
        "schema_version": SCHEMA_VERSION,
    }
    if answer.refusal is not None:
        return [about | _refused(answer.refusal)]
    return [about | row for hip in answer.hips for row in _hip_rows(hip, questions)]


def _hip_rows(hip: HipAnswer, questions: Sequence[Question]) -> list[Row]:
    about = {
        "hip_index": hip.index,
        "side": hip.side,
        "flipped": hip.flipped,
        "findings": [finding.value for finding in hip.findings],
    }
    if hip.refusal is not None:
        return [about | _refused(hip.refusal)]
    answered = {(region.region, region.label_type): region for region in hip.regions}
    about |= _headline(hip)
    return [about | _region_row(question, answered.get(question)) for question in questions]


def _region_row(question: Question, answer: RegionAnswer | None) -> Row:
    region, label_type = question
    named: Row = {
        "region": region.value,
        "label_type": label_type.value,
        "research_only": region.research_only,
    }
    if answer is None:
        evidence = f"nothing of {region.display_name} to cut out"
        return named | _refused(Refusal(RefusalCode.REGION_MISSING, "matting", evidence))
    return named | {
        "outcome": Outcome.SCORED.value,
        "probability": answer.probability,
        "calibration": answer.calibration,
        "members": answer.members,
        "mask_area_fraction": answer.mask_area_fraction,
        "mask_confidence": answer.mask_confidence,
    }


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
    return pa.Table.from_pylist(list(rows), schema=SCORE_SCHEMA)
