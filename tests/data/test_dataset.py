"""The decoded data set: framed once, shared by all, never written to."""

import os
import subprocess
import sys

import numpy as np
import pytest

from hipray.config.experiment import SplitSettings
from hipray.data.dataset import identify_data, load_arrays
from hipray.data.framing import frame_hip
from hipray.data.png import encode_png
from hipray.data.splits import deal_split
from hipray.errors import DataError, StorageError
from hipray.storage import open_store
from hipray.vocab import REGIONS, Region
from tests.data.film_files import draw_hip
from tests.data.manifests import LABEL, make_manifest, make_row, make_study


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "workspace"))


def write_hips(store, *, masked=()):
    rows = []
    for number in range(3):
        height, width = 100 + 10 * number, 90
        film = draw_hip(height, width, seed=number)
        row = make_row(number, f"p{number}", image_key=f"hips/h{number}.png")
        row |= {"height": height, "width": width}
        store.write(row["image_key"], encode_png(film))
        if number in masked:
            key = f"hips/h{number}.total_hip.png"
            store.write(key, encode_png(np.where(film > 120, 255, 0).astype(np.uint8)))
            row[f"mask_key_{Region.TOTAL_HIP}"] = key
        rows.append(row)
    return make_manifest(rows)


def test_rows_follow_the_manifest_and_are_framed(store, tmp_path) -> None:
    manifest = write_hips(store, masked=(1,))
    arrays = load_arrays(store, manifest, side=64, cache_dir=tmp_path)
    for number in range(3):
        assert np.array_equal(
            arrays.films[number], frame_hip(draw_hip(100 + 10 * number, 90, seed=number), 64)
        )
    channel = REGIONS.index(Region.TOTAL_HIP)
    assert arrays.has_mask.sum() == 1
    assert arrays.has_mask[1, channel]
    assert arrays.masks.shape == (3, 4, 64, 64)
    assert arrays.masks[1, channel].any()
    assert arrays.masks.sum() == arrays.masks[1, channel].sum()


def test_a_second_lane_on_the_node_decodes_nothing(store, tmp_path) -> None:
    manifest = write_hips(store)
    first = load_arrays(store, manifest, side=64, cache_dir=tmp_path)
    for key in manifest["image_key"]:
        store.delete(key)
    again = load_arrays(store, manifest, side=64, cache_dir=tmp_path)
    assert np.array_equal(first.films, again.films)


def test_another_frame_size_is_another_file(store, tmp_path) -> None:
    manifest = write_hips(store)
    sides = [load_arrays(store, manifest, side=s, cache_dir=tmp_path).films.shape for s in (64, 96)]
    assert sides == [(3, 64, 64), (3, 96, 96)]


def test_shared_films_cannot_be_written_to(store, tmp_path) -> None:
    arrays = load_arrays(store, write_hips(store), side=64, cache_dir=tmp_path)
    with pytest.raises(ValueError, match=r"read-only"):
        arrays.films[0, 0, 0] = 1


def test_the_cache_is_closed_to_other_users(store, tmp_path) -> None:
    load_arrays(store, write_hips(store), side=64, cache_dir=tmp_path / "cache")
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


def test_a_cache_of_another_user_is_refused(store, tmp_path, monkeypatch) -> None:
    another = os.getuid() + 1
    monkeypatch.setattr("hipray.data.dataset.os.getuid", lambda: another)
    with pytest.raises(StorageError, match=r"one of another user.*set HIPRAY_CACHE"):
        load_arrays(store, write_hips(store), side=64, cache_dir=tmp_path / "cache")


def test_a_damaged_hip_is_named(store, tmp_path) -> None:
    manifest = write_hips(store)
    store.write("hips/h1.png", b"no png")
    with pytest.raises(DataError, match=r"8-bit PNG at .*hips/h1.png"):
        load_arrays(store, manifest, side=64, cache_dir=tmp_path)


def test_a_hip_of_another_size_than_its_row_is_refused(store, tmp_path) -> None:
    manifest = write_hips(store)
    store.write("hips/h2.png", encode_png(draw_hip(50, 60)))
    with pytest.raises(DataError, match=r"expected 120 x 90 pixels .*, found 50 x 60"):
        load_arrays(store, manifest, side=64, cache_dir=tmp_path)


FULL_DISK = """
import pandas, resource
from pathlib import Path
from hipray.data.dataset import load_films
from hipray.errors import StoreFullError
from hipray.storage import open_store
manifest = pandas.read_parquet("hips.parquet")
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    load_films(open_store("workspace"), manifest, side=64, cache_dir=Path("cache"))
except StoreFullError as error:
    print(error, list(Path("cache").iterdir()))
"""


def test_a_full_disk_is_said_and_leaves_no_half_of_the_decoded_films(store, tmp_path) -> None:
    write_hips(store).to_parquet(tmp_path / "hips.parquet")
    shown = subprocess.run(
        [sys.executable, "-c", FULL_DISK], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert "expected room on the disk" in shown
    assert shown.endswith("[]\n")


def identity(manifest, **settings):
    return identify_data(manifest, deal_split(manifest, SplitSettings(folds=2, **settings)))


def test_another_label_changes_the_labels_digest_and_not_that_of_the_films() -> None:
    manifest = make_study(20)
    turned = manifest.assign(**{LABEL: ~manifest[LABEL]})
    split = deal_split(manifest, SplitSettings(folds=2))
    before, after = identify_data(manifest, split), identify_data(turned, split)
    assert before.films == after.films
    assert before.labels != after.labels


@pytest.mark.parametrize(
    "column", ["patient_id", "parent_hip_id", "pixel_sha256", "mask_key_total_hip"]
)
def test_another_patient_film_or_mask_changes_the_films_digest(column) -> None:
    manifest = make_study(20)
    changed = manifest.copy()
    changed.loc[3, column] = "another"
    assert identity(manifest).films != identity(changed).films


def test_another_deal_changes_the_splits_digest_only() -> None:
    manifest = make_study(20)
    first, second = (identity(manifest, seed=seed) for seed in (1, 2))
    assert first.split != second.split
    assert (first.films, first.labels) == (second.films, second.labels)
