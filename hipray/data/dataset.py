"""The decoded data set: every hip framed once, in one memory-mapped file per data set and node.

Lanes on one machine share the file's pages. Rows follow the manifest.
Legend of shapes: N hips, S side of the frame in pixels, R regions in `vocab.REGIONS` order.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from PIL import Image

from hipray.data.framing import Frame, Mask, Pixels
from hipray.data.manifest import mask_column
from hipray.digests import digest_of, source_digest
from hipray.errors import DataError, StorageError
from hipray.storage import Store
from hipray.storage.atomic import replace_file
from hipray.storage.local import explained
from hipray.vocab import REGIONS


@dataclass(frozen=True)
class HipArrays:
    """The framed hips of a manifest."""

    films: Pixels
    """(N, S, S) uint8, read-only memory map."""
    masks: Mask
    """(N, R, S, S) annotated masks, read-only memory map; all false where there is none."""
    has_mask: Mask
    """(N, R) whether the annotation exists."""


@dataclass(frozen=True)
class DataIdentity:
    """Digests of what a fit learns from."""

    films: str
    """Films, what they were copied from, annotated masks and patients: all that a segmenter and
    the leakage guard see."""
    labels: str
    """The whole manifest."""
    split: str
    """The split table."""


def identify_data(manifest: pd.DataFrame, split: pd.DataFrame) -> DataIdentity:
    """Return the digests of a manifest and its split."""
    masks = [mask_column(region) for region in REGIONS]
    seen = ["hip_id", "patient_id", "parent_hip_id", "pixel_sha256", *masks]
    return DataIdentity(
        films=_digest_frame(manifest[seen]),
        labels=_digest_frame(manifest.drop(columns=["image_key"])),
        split=_digest_frame(split[["hip_id", "repeat", "fold"]]),
    )


def _digest_frame(frame: pd.DataFrame) -> str:
    return digest_of(frame.to_json(orient="records", double_precision=6))


def default_cache_dir() -> Path:
    """Return the node's folder for decoded data: HIPRAY_CACHE or a folder in the temp dir."""
    fallback = Path(tempfile.gettempdir()) / f"hipray-cache-{os.getuid()}"
    return Path(os.environ.get("HIPRAY_CACHE", fallback))


def load_arrays(
    store: Store, manifest: pd.DataFrame, *, side: int, cache_dir: Path | None = None
) -> HipArrays:
    """Return the framed hips of `manifest`, decoding them unless this node did so before."""
    columns = [mask_column(region) for region in REGIONS]
    films = load_films(store, manifest, side=side, cache_dir=cache_dir)
    masks = _load_or_make(
        _cache_path(manifest[["hip_id", *columns]], side, "masks", cache_dir),
        lambda: _decode_masks(store, manifest, side),
    )
    return HipArrays(films, np.asarray(masks, np.bool_), manifest[columns].notna().to_numpy())


def load_films(
    store: Store, manifest: pd.DataFrame, *, side: int, cache_dir: Path | None = None
) -> Pixels:
    """Return the framed films (N, `side`, `side`) of `manifest`, without their masks."""
    return _load_or_make(
        _cache_path(manifest[["hip_id", "pixel_sha256"]], side, "films", cache_dir),
        lambda: _decode_films(store, manifest, side),
    )


def _cache_path(identity: pd.DataFrame, side: int, kind: str, cache_dir: Path | None) -> Path:
    source = source_digest("data/dataset", "data/framing")
    digest = digest_of([_digest_frame(identity), side, source])[:20]
    return (cache_dir or default_cache_dir()) / f"{digest}-{kind}.npy"


def _load_or_make(path: Path, make: Callable[[], Pixels | Mask]) -> Pixels:
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.parent.stat().st_uid != os.getuid():
        raise StorageError(
            f"a folder of this user for decoded films at {path.parent}",
            "one of another user, who could read or replace them",
            "set HIPRAY_CACHE to a folder of your own",
        )
    if not path.exists():
        made = make()
        with explained(path):  # two lanes may both decode; either result is the same
            replace_file(path, partial(_write_array, array=made))
    loaded: Pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    return loaded


def _write_array(stream: BinaryIO, array: Pixels | Mask) -> None:
    # numpy writes to a file by itself, and then does not say why it could not
    sink: Any = SimpleNamespace(write=stream.write)
    np.save(sink, array, allow_pickle=False)


def _decode_films(store: Store, manifest: pd.DataFrame, side: int) -> Pixels:
    films = np.zeros((len(manifest), side, side), np.uint8)
    for row, (key, height, width) in enumerate(
        zip(manifest["image_key"], manifest["height"], manifest["width"], strict=True)
    ):
        films[row] = Frame(height, width, side).place(_read_png(store, key, height, width))
    return films


def _decode_masks(store: Store, manifest: pd.DataFrame, side: int) -> Mask:
    masks = np.zeros((len(manifest), len(REGIONS), side, side), np.bool_)
    for channel, region in enumerate(REGIONS):
        for row, (key, height, width) in enumerate(
            zip(manifest[mask_column(region)], manifest["height"], manifest["width"], strict=True)
        ):
            if pd.notna(key):
                mask = _read_png(store, key, height, width) >= 128
                masks[row, channel] = Frame(height, width, side).place_mask(mask)
    return masks


def _read_png(store: Store, key: str, height: int, width: int) -> Pixels:
    try:
        pixels = np.asarray(Image.open(BytesIO(store.read(key))).convert("L"))
    except (OSError, SyntaxError) as error:
        raise DataError(
            f"an 8-bit PNG at {store.uri_of(key)}",
            f"{error}",
            "delete it and run `hipray ingest` again",
        ) from None
    if pixels.shape != (height, width):
        raise DataError(
            f"{height} x {width} pixels at {store.uri_of(key)}",
            f"{pixels.shape[0]} x {pixels.shape[1]}",
            "delete it and run `hipray ingest` again",
        )
    return pixels
