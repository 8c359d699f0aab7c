"""The manifest says what it holds, and refuses what it does not know."""

import pyarrow as pa
import pytest

from hipray.data.manifest import (
    MANIFEST_KEY,
    MANIFEST_SCHEMA,
    MANIFEST_VERSION,
    build_manifest,
    read_manifest,
    read_table,
    write_table,
)
from hipray.digests import digest_bytes, digest_of
from hipray.errors import DataError
from hipray.storage import open_store
from tests.data.manifests import LABEL, make_row


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path))


def write(store, table):
    return write_table(store, MANIFEST_KEY, table)


def test_rows_come_back_as_written_with_unknown_labels_as_null(store) -> None:
    rows = [make_row(0, "p0"), make_row(1, "p1", **{LABEL: None, "findings": ["low_contrast"]})]
    digest = write(store, build_manifest(rows))
    manifest = read_manifest(store)
    assert list(manifest["hip_id"]) == ["h0", "h1"]
    assert manifest[LABEL].dtype == "boolean"
    assert manifest[LABEL].isna().tolist() == [False, True]
    assert list(manifest["findings"][1]) == ["low_contrast"]
    assert digest == digest_bytes(store.read(MANIFEST_KEY))


def test_every_column_explains_itself() -> None:
    for field in MANIFEST_SCHEMA:
        assert field.metadata[b"description"].strip(), field.name


def test_other_columns_are_another_version_so_that_no_workspace_mixes_the_two() -> None:
    columns = [[field.name, str(field.type)] for field in MANIFEST_SCHEMA]
    known = {"1": "d85ac61839d5", "2": "77ed9cf0dcca"}
    found = digest_of(columns)[:12]
    assert found == known.get(MANIFEST_VERSION), "raise MANIFEST_VERSION, add it here"


def test_an_unknown_column_is_named_in_one_sentence(store) -> None:
    table = build_manifest([make_row(0, "p0")])
    write(store, table.append_column("colour", pa.array(["blue"])))
    with pytest.raises(DataError, match=r"manifest.parquet, found unknown columns colour; remove"):
        read_manifest(store)


def test_a_missing_column_is_named_in_one_sentence(store) -> None:
    write(store, build_manifest([make_row(0, "p0")]).drop_columns([LABEL, "side"]))
    with pytest.raises(DataError, match=f"no columns {LABEL}, side; run `hipray ingest` again"):
        read_manifest(store)


def test_a_manifest_without_a_hip_points_to_the_refusals(store) -> None:
    write(store, build_manifest([]))
    with pytest.raises(DataError, match=r"at least one hip .* found none; see the refusals"):
        read_manifest(store)


def test_bytes_that_are_no_parquet_are_a_data_error(store) -> None:
    store.write(MANIFEST_KEY, b"PAR1 but nothing more")
    with pytest.raises(DataError, match=r"expected a Parquet file"):
        read_table(store, MANIFEST_KEY)


def test_a_hip_that_is_listed_twice_or_without_a_patient_is_named(store) -> None:
    write(store, build_manifest([make_row(0, "p0"), make_row(0, "p1")]))
    with pytest.raises(DataError, match=r"each hip once .* found h0 twice"):
        read_manifest(store)
    write(store, build_manifest([make_row(0, "p0"), make_row(1, None)]))
    with pytest.raises(DataError, match=r"a patient_id in every row .* found 1 rows without"):
        read_manifest(store)
