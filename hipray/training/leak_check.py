"""The leakage guard on a workspace: what it compares is compared once, what it finds is kept."""

import json
from dataclasses import asdict

import pandas as pd

from hipray.data.dataset import DataIdentity, load_films
from hipray.data.leakage import GUARD_PX, LeakReport, find_leaks
from hipray.data.near_duplicates import find_near_duplicates
from hipray.digests import digest_of, source_digest
from hipray.storage import Store
from hipray.training.inputs import FitInputs

NAME_DIGITS = 20
"""Hexadecimal digits of what was checked in a file's name."""


def check_leaks(
    inputs: FitInputs, data: DataIdentity, *, test_folds: tuple[int, ...]
) -> tuple[LeakReport, str]:
    """Return the leaks between the tested folds and all others, and the key of their list."""
    settings = inputs.experiment.leakage
    duplicates = find_duplicates(
        inputs.store, inputs.manifest, least_grain=settings.near_duplicate_correlation
    )
    report = find_leaks(
        inputs.manifest, inputs.split, duplicates, allow=settings.allow, test_folds=test_folds
    )
    name = digest_of([data.films, data.split, test_folds, settings, source_digest("data/leakage")])
    key = f"splits/checks/{name[:NAME_DIGITS]}.json"
    inputs.store.write(key, json.dumps(asdict(report), indent=1).encode())
    return report, key


def find_duplicates(
    store: Store, manifest: pd.DataFrame, *, least_grain: float
) -> list[tuple[int, int]]:
    """Return the pairs of rows of `manifest` that show one exposure.

    Comparing thousands of films takes hours: the pairs of an archive are kept beside its splits,
    for every later split, until a film or the comparison changes.
    """
    films = manifest[["hip_id", "pixel_sha256"]].to_numpy().tolist()
    compared = source_digest("data/dataset", "data/framing", "data/near_duplicates")
    name = digest_of([films, least_grain, GUARD_PX, compared])
    key = f"splits/near_duplicates/{name[:NAME_DIGITS]}.json"
    if store.exists(key):
        return [(a, b) for a, b in json.loads(store.read(key))]
    pairs = find_near_duplicates(
        load_films(store, manifest, side=GUARD_PX), least_grain=least_grain
    )
    store.write(key, json.dumps(pairs).encode())
    return pairs
