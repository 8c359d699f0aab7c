"""One manifest row: what a hip's pixels, its header and its DXA record say together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hipray.config.labels import LabelRules
from hipray.data.dxa import DxaRecord
from hipray.data.film import FilmInfo
from hipray.data.framing import Mask
from hipray.data.images import PREPROCESSING_VERSION, ReadResult
from hipray.data.labels import label_record
from hipray.data.manifest import (
    basis_column,
    label_column,
    mask_column,
    missing_column,
    score_column,
)
from hipray.data.matching import RecordIndex, pick_record
from hipray.data.pseudonyms import Pseudonyms
from hipray.digests import digest_bytes
from hipray.vocab import REGIONS, DataSource, DxaQuantity, LabelType, Region, Sex, Side

HIPS_FOLDER = "hips"
"""Folder of the workspace with the films and masks of all hips."""

NO_RECORD = "no DXA record for this hip"
UNSIDED = "the DXA record does not say of which of the film's hips it is"
AMBIGUOUS = "the film's DXA records do not tell which one is of this hip and day"

_LABEL_COLUMNS = [label_column(kind, region) for kind in LabelType for region in REGIONS]
_RECORD_COLUMNS = [
    *_LABEL_COLUMNS,
    *(missing_column(kind, region) for kind in LabelType for region in REGIONS),
    *(basis_column(kind, region) for kind in LabelType for region in REGIONS),
    *(score_column(quantity, region) for quantity in DxaQuantity for region in REGIONS),
    "device",
]  # fmt: skip
"""What a row has of a DXA record alone."""
_PERSON_COLUMNS = ("sex", "age", "weight_kg", "height_cm")


@dataclass(frozen=True)
class FilmFacts:
    """The file a hip came from."""

    key: str
    sha256: str
    source: DataSource


def build_row(
    film: FilmFacts,
    result: ReadResult,
    index: int,
    *,
    records: RecordIndex,
    rules: LabelRules,
    pseudonyms: Pseudonyms,
) -> dict[str, Any]:
    """Return the manifest row of hip `index` of a film, without its masks."""
    hip, info = result.hips[index], result.film_info
    assert info is not None, "a film with hips has a header"
    candidates = records.of_film(film.key, info.patient_key)
    record = pick_record(
        candidates,
        hip.side,
        only_hip=len(result.hips) == 1,
        taken=info.taken,
    )
    unsided = _lone_unsided(candidates)
    absence = (UNSIDED if unsided else AMBIGUOUS) if candidates else NO_RECORD
    raw_patient = _raw_patient(film, info, record or next(iter(candidates), None))
    hip_id = "h" + digest_bytes(f"{film.key}\0{film.sha256}\0{index}".encode())[:15]
    return {
        "hip_id": hip_id,
        "patient_id": pseudonyms.patient(raw_patient),
        "source": film.source.value,
        "source_key": pseudonyms.file(film.key),
        "source_sha256": film.sha256,
        "pixel_sha256": hip.pixel_sha256,
        "image_key": f"{HIPS_FOLDER}/{hip_id}-{hip.pixel_sha256[:8]}.png",
        "height": hip.pixels.shape[0],
        "width": hip.pixels.shape[1],
        "spacing_mm": hip.spacing_mm,
        "side": hip.side.value,
        "flipped": hip.flipped,
        "findings": [finding.value for finding in hip.findings],
        "preprocessing_version": PREPROCESSING_VERSION,
        **_person(info, record or unsided),
        **_scores(record, rules, absence=absence),
    }


def _lone_unsided(candidates: list[DxaRecord]) -> DxaRecord | None:
    """The only record of a film where it states no side: of the person it tells all the same."""
    lone = candidates[0] if len(candidates) == 1 else None
    return lone if lone is not None and lone.side is Side.UNKNOWN else None


def mask_keys(hip_id: str, masks: Mapping[Region, Mask]) -> dict[str, str]:
    """Return the manifest's mask columns for masks (h, w); a corrected mask has another key."""
    digests = {region: digest_bytes(mask.tobytes())[:8] for region, mask in masks.items()}
    return {
        mask_column(region): f"{HIPS_FOLDER}/{hip_id}.{region}-{digest}.png"
        for region, digest in digests.items()
    }


def _raw_patient(film: FilmFacts, info: FilmInfo, record: DxaRecord | None) -> str:
    """The id that groups films of a person; a film that names none stands for itself."""
    if record is not None and record.patient_id:
        return record.patient_id
    return info.patient_key or stand_in(film.key)


def stand_in(key: str) -> str:
    """Return the patient id of a film that names none: the film's own, and no other film's.

    Ids of patients are alike in either case, names of files are not.
    """
    return f"film without a patient id: {digest_bytes(key.encode())}"


def labels_differ(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two rows give one label two values."""
    pairs = ((first.get(name), second.get(name)) for name in _LABEL_COLUMNS)
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def take_labels(row: dict[str, Any], copy: Mapping[str, Any]) -> None:
    """Give a row without labels those of a copy, what they rest on and whom they are of."""
    if _is_labelled(row) or not _is_labelled(copy):
        return
    person = {name: copy[name] for name in _PERSON_COLUMNS if copy[name] not in (None, Sex.UNKNOWN)}
    row.update({name: copy.get(name) for name in _RECORD_COLUMNS} | person)


def _is_labelled(row: Mapping[str, Any]) -> bool:
    return any(row.get(name) is not None for name in _LABEL_COLUMNS)


def _person(info: FilmInfo, record: DxaRecord | None) -> dict[str, Any]:
    sex, age = info.sex, info.age
    if record is not None:
        sex = record.sex if record.sex is not Sex.UNKNOWN else sex
        age = record.age if record.age is not None else age
    return {
        "sex": sex.value,
        "age": age,
        "weight_kg": record.weight_kg if record else None,
        "height_cm": record.height_cm if record else None,
        "device": record.device if record else None,
    }


def _scores(record: DxaRecord | None, rules: LabelRules, *, absence: str) -> dict[str, Any]:
    if record is None:
        kinds = [missing_column(kind, region) for kind in LabelType for region in REGIONS]
        return dict.fromkeys(kinds, absence)
    values: dict[str, Any] = {}
    for region, labels in label_record(record, rules=rules).items():
        reported = record.values.get(region)
        if reported is not None:
            for quantity in DxaQuantity:
                values[score_column(quantity, region)] = getattr(reported, quantity)
        for kind, label in labels.items():
            values[label_column(kind, region)] = label.abnormal
            values[missing_column(kind, region)] = label.missing_reason
            if label.abnormal is not None:
                values[basis_column(kind, region)] = label.source.value
    return values
