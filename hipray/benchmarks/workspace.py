"""Where a bench works: an archive that is ingested once, and a fresh copy of it for each run."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from hipray.config.benchmarks import BenchRun
from hipray.config.jobs import IngestRun, PhantomRun
from hipray.data.ingest import run_ingest
from hipray.data.manifest import (
    MANIFEST_KEY,
    MANIFEST_SCHEMA,
    mask_column,
    read_manifest,
    write_table,
)
from hipray.digests import digest_of
from hipray.distributed.phantom import run_phantom
from hipray.storage import Store, open_store
from hipray.vocab import REGIONS

NAME_DIGITS = 8
"""Hexadecimal digits of a phantom configuration in its folder's name."""


@contextmanager
def open_bench_store(config: BenchRun) -> Iterator[Store]:
    """Yield a new local workspace with the films and labels of the bench; it is deleted after.

    It has no annotated masks, so that a grid in it trains classifiers and no segmenter. A new one
    for each run: in a used one the fits would be done already.
    """
    source = open_store(config.workspace or _ingest_phantoms(config))
    Path(config.out).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=config.out) as folder:
        store = open_store(str(Path(folder).resolve()))
        _copy_films(source, store)
        yield store


def _ingest_phantoms(config: BenchRun) -> str:
    folder = f"{config.out}/phantoms-{digest_of(config.phantom)[:NAME_DIGITS]}"
    if not open_store(folder).exists(MANIFEST_KEY):
        archive = f"{folder}/archive"
        run_phantom(PhantomRun(archive=archive, phantom=config.phantom))
        run_ingest(IngestRun(workspace=folder, images=archive))
    return folder


def _copy_films(source: Store, target: Store) -> None:
    manifest = read_manifest(source)
    for key in manifest["image_key"]:
        target.write(key, source.read(key))
    unmasked = manifest.assign(**{mask_column(region): None for region in REGIONS})
    table = pa.Table.from_pandas(unmasked, schema=MANIFEST_SCHEMA, preserve_index=False)
    write_table(target, MANIFEST_KEY, table)
