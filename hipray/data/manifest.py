"""The manifest: one Parquet row per accepted hip, everything later stages need to know.

Read it with any Parquet reader; `MANIFEST_SCHEMA` documents each column in its metadata.
"""

import io

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hipray.data.labels import LabelSource
from hipray.digests import digest_bytes
from hipray.errors import DataError
from hipray.storage import Store
from hipray.vocab import REGIONS, DxaQuantity, LabelType, Region

MANIFEST_KEY = "manifest.parquet"
MANIFEST_VERSION = "2"


def label_column(label_type: LabelType, region: Region) -> str:
    """Return the column of one label (nullable: null where it is unknown)."""
    return f"label_{label_type}_{region}"


def missing_column(label_type: LabelType, region: Region) -> str:
    """Return the column that says why a label is null."""
    return f"missing_{label_type}_{region}"


def mask_column(region: Region) -> str:
    """Return the column with the key of the annotated mask (null where there is none)."""
    return f"mask_key_{region}"


def basis_column(label_type: LabelType, region: Region) -> str:
    """Return the column that says what a label rests on (null where it is unknown)."""
    return f"basis_{label_type}_{region}"


def score_column(quantity: DxaQuantity, region: Region) -> str:
    """Return the column of a DXA quantity of a region."""
    return f"{quantity}_{region}"


def _field(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": meaning})


QUANTITIES = {
    DxaQuantity.BMD: "BMD in g/cm²",
    DxaQuantity.T: "T-score",
    DxaQuantity.Z: "Z-score",
}
LABEL_SOURCES = [source for source in LabelSource if source is not LabelSource.NONE]

_HIP_FIELDS = [
    _field("hip_id", pa.string(), "stable id of the hip, from the digest of its file"),
    _field("patient_id", pa.string(), "keyed hash of the patient's id"),
    _field("parent_hip_id", pa.string(), "the hip this one is a copy of; null as ingest writes it"),
    _field("source", pa.string(), "phantom or real"),
    _field("source_key", pa.string(), "keyed hash of the file's name"),
    _field("source_sha256", pa.string(), "sha256 of the file"),
    _field("pixel_sha256", pa.string(), "sha256 of the canonical pixels"),
    _field("image_key", pa.string(), "workspace key of the canonical hip, 8-bit PNG"),
    _field("height", pa.int32(), "rows of the canonical hip"),
    _field("width", pa.int32(), "columns of the canonical hip"),
    _field("spacing_mm", pa.float32(), "mm per pixel of the canonical hip, or null"),
    _field("side", pa.string(), "left, right or unknown, as stated"),
    _field("flipped", pa.bool_(), "mirrored to the canonical left hip"),
    _field("sex", pa.string(), "female, male or unknown"),
    _field("age", pa.float32(), "years at the film, or null"),
    _field("weight_kg", pa.float32(), "kg, or null"),
    _field("height_cm", pa.float32(), "cm, or null"),
    _field("device", pa.string(), "DXA device or model, or null"),
    _field("findings", pa.list_(pa.string()), "quality remarks"),
    _field("preprocessing_version", pa.string(), "version of the decoding and framing code"),
]


def _region_fields(region: Region) -> list[pa.Field]:
    name = region.display_name
    fields = [
        _field(mask_column(region), pa.string(), f"workspace key of the mask of {name}, or null"),
        *(
            _field(score_column(quantity, region), pa.float32(), f"{meaning} of {name}")
            for quantity, meaning in QUANTITIES.items()
        ),
    ]
    for label_type in LabelType:
        fields.append(
            _field(label_column(label_type, region), pa.bool_(), f"abnormal {label_type} of {name}")
        )
        fields.append(
            _field(missing_column(label_type, region), pa.string(), "why that label is null")
        )
        fields.append(
            _field(
                basis_column(label_type, region), pa.string(),
                f"what that label rests on: {', '.join(LABEL_SOURCES)}",
            )
        )  # fmt: skip
    return fields


MANIFEST_SCHEMA = pa.schema(
    [*_HIP_FIELDS, *(field for region in REGIONS for field in _region_fields(region))],
    metadata={"manifest_version": MANIFEST_VERSION},
)


def build_manifest(rows: list[dict[str, object]]) -> pa.Table:
    """Return `rows` as a table of MANIFEST_SCHEMA; absent keys become null."""
    return pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA)


def write_table(store: Store, key: str, table: pa.Table) -> str:
    """Write `table` as one Parquet object and return its sha256."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    data = buffer.getvalue()
    store.write(key, data)
    return digest_bytes(data)


def read_table(store: Store, key: str) -> pa.Table:
    """Return the Parquet object `key`; raises DataError where it is not Parquet."""
    data = store.read(key)
    try:
        return pq.read_table(io.BytesIO(data))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            "a Parquet file", f"{store.uri_of(key)}: {error}", "make it again or restore it"
        ) from None


def read_manifest(store: Store, key: str = MANIFEST_KEY) -> pd.DataFrame:
    """Return the manifest in row order, labels as nullable booleans.

    Raises DataError naming unknown or missing columns, or an empty manifest.
    """
    if not store.exists(key):
        raise DataError(f"a manifest at {store.uri_of(key)}", "none", "run `hipray ingest` first")
    table = read_table(store, key)
    found, known = set(table.column_names), set(MANIFEST_SCHEMA.names)
    where = store.uri_of(key)
    if found - known:
        raise DataError(
            f"the columns of manifest version {MANIFEST_VERSION} in {where}",
            f"unknown columns {', '.join(sorted(found - known))}",
            "remove them or run `hipray ingest` again",
        )
    if known - found:
        raise DataError(
            f"the columns of manifest version {MANIFEST_VERSION} in {where}",
            f"no columns {', '.join(sorted(known - found))}",
            "run `hipray ingest` again",
        )
    if table.num_rows == 0:
        raise DataError(f"at least one hip in {where}", "none", "see the refusals of ingest")
    frame: pd.DataFrame = table.select(MANIFEST_SCHEMA.names).cast(MANIFEST_SCHEMA).to_pandas()
    _check_ids(frame, where)
    labels = [label_column(kind, region) for kind in LabelType for region in REGIONS]
    typed: pd.DataFrame = frame.astype(dict.fromkeys(labels, "boolean"))
    return typed


def _check_ids(frame: pd.DataFrame, where: str) -> None:
    for column in ("hip_id", "patient_id"):
        missing = int(frame[column].isna().sum())
        if missing:
            raise DataError(
                f"a {column} in every row of {where}", f"{missing} rows without", "ingest again"
            )
    repeated = frame["hip_id"][frame["hip_id"].duplicated()]
    if len(repeated):
        raise DataError(
            f"each hip once in {where}", f"{repeated.iloc[0]} twice", "run `hipray ingest` again"
        )
