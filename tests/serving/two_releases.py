"""A release, another of the same networks with other numbers, and some that do not start."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from hipray.bundles.bundle import ONNX_FILE, WEIGHTS_FILE, load_bundle, publish_bundle
from hipray.classification.spec import ClassifierSpec
from hipray.pipeline import Pipeline, load_stages
from hipray.releases.release import Release, read_release, write_release
from hipray.storage import Store
from tests.serving.answers import TOLERANCE
from tests.serving.steady_load import SteadyLoad, is_answered
from tests.small_release import publish_small_release


def publish_releases(store: Store) -> None:
    """Publish `first`, `second`, `broken` of an altered bundle, and `astray` of another network."""
    first = publish_small_release(store, name="first")
    bundle, other = (member.bundle for member in first.members[:2])
    write_release(store, with_other_numbers(store, first))
    write_release(store, with_member(first, "broken", bundle=publish_altered(store, bundle)))
    write_release(store, with_member(first, "astray", bundle=publish_astray(store, bundle, other)))


def with_other_numbers(store: Store, release: Release) -> Release:
    """Return a release whose first member is calibrated otherwise."""
    member = release.members[0]
    bundle = load_bundle(store, member.bundle)
    spec = bundle.description.model
    assert isinstance(spec, ClassifierSpec)
    moved = replace(spec.calibrator, intercept=spec.calibrator.intercept + 1.0)
    other = spec.model_copy(update={"calibrator": moved})
    description = bundle.description.model_copy(update={"model": other})
    digest = publish_bundle(store, description, bundle.files)
    return with_member(release, "second", bundle=digest, platt_intercept=moved.intercept)


def with_member(release: Release, name: str, **changes: Any) -> Release:
    """Return a release whose first member is another one."""
    changed = release.members[0].model_copy(update=changes)
    return release.model_copy(update={"name": name, "members": (changed, *release.members[1:])})


def publish_altered(store: Store, digest: str) -> str:
    """Publish a copy of a bundle whose network's bytes are not those it was published with."""
    bundle = load_bundle(store, digest)
    description = bundle.description.model_copy(update={"name": "altered"})
    copy = publish_bundle(store, description, bundle.files)
    store.write(f"bundles/{copy}/{ONNX_FILE}", bundle.files[ONNX_FILE] + b"more")
    return copy


def publish_astray(store: Store, digest: str, other: str) -> str:
    """Publish a bundle that loads and answers by another network than its golden answers are of."""
    bundle = load_bundle(store, digest)
    network = {name: load_bundle(store, other).files[name] for name in (ONNX_FILE, WEIGHTS_FILE)}
    description = bundle.description.model_copy(update={"name": "astray"})
    return publish_bundle(store, description, bundle.files | network)


def assert_answers_of_one_release_each(
    load: SteadyLoad, store: Store, films: Sequence[bytes], *names: str
) -> None:
    """Every answer has the very numbers of the release that it names."""
    releases = [read_release(store, name) for name in names]
    wanted = {release.digest: _probabilities(store, films, release) for release in releases}
    for told in filter(is_answered, load.told):
        expected = wanted[told.body["release_digest"]][told.number]
        assert _list_probabilities(told.body["hips"]) == pytest.approx(expected, abs=TOLERANCE)


def _probabilities(store: Store, films: Sequence[bytes], release: Release) -> list[list[float]]:
    pipeline = Pipeline(load_stages(store, release))
    return [
        [region.probability for hip in pipeline(film).hips for region in hip.regions]
        for film in films
    ]


def _list_probabilities(hips: list[dict[str, Any]]) -> list[float]:
    return [region["probability"] for hip in hips for region in hip["regions"]]
