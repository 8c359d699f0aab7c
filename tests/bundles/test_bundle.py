"""A bundle cannot change under its name."""

import json

import pytest

from hipray.bundles.bundle import (
    BUNDLE_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    load_bundle,
    publish_bundle,
)
from hipray.bundles.golden import GOLDEN_ANSWERS, GOLDEN_FILM
from hipray.digests import digest_bytes
from hipray.errors import BundleError


def test_a_bundle_comes_back_as_published(published) -> None:
    bundle = load_bundle(published.store, published.digest)
    assert bundle.files == published.files
    assert bundle.description.name == published.description.name
    assert bundle.weights()["dense.weight"].shape[0] == 2


def test_the_digest_is_that_of_its_description_which_sums_every_other_file(published) -> None:
    folder = published.store.child(f"bundles/{published.digest}")
    text = folder.read(BUNDLE_FILE)
    assert digest_bytes(text) == published.digest
    assert json.loads(text)["files"] == {n: digest_bytes(d) for n, d in published.files.items()}


def test_the_same_content_is_one_bundle_and_other_weights_are_another(published) -> None:
    again = publish_bundle(published.store, published.description, published.files)
    other = published.files | {WEIGHTS_FILE: b"other"}
    assert again == published.digest
    assert publish_bundle(published.store, published.description, other) != published.digest


@pytest.mark.parametrize(
    "name", [WEIGHTS_FILE, ONNX_FILE, GOLDEN_FILM, GOLDEN_ANSWERS, "card.md", BUNDLE_FILE]
)
def test_one_changed_byte_in_any_file_is_refused_and_the_file_named(published, name) -> None:
    folder = published.store.child(f"bundles/{published.digest}")
    data = bytearray(folder.read(name))
    data[len(data) // 2] ^= 1
    folder.write(name, bytes(data))
    with pytest.raises(BundleError, match=rf"expected {name} of .* as it was published"):
        load_bundle(published.store, published.digest)


def test_a_missing_file_is_an_incomplete_bundle(published) -> None:
    published.store.delete(f"bundles/{published.digest}/{WEIGHTS_FILE}")
    with pytest.raises(BundleError, match=rf"{WEIGHTS_FILE} of .* as it was published, found none"):
        load_bundle(published.store, published.digest)


def test_an_unknown_bundle_is_refused(published) -> None:
    with pytest.raises(BundleError, match=r"expected bundle 000000000000, found nothing at"):
        load_bundle(published.store, "0" * 64)


def test_a_bundle_of_a_later_format_is_refused(published) -> None:
    folder = published.store.child(f"bundles/{published.digest}")
    text = json.dumps(json.loads(folder.read(BUNDLE_FILE)) | {"aura": 1}).encode()
    published.store.write(f"bundles/{digest_bytes(text)}/{BUNDLE_FILE}", text)
    with pytest.raises(BundleError, match=r"unknown key 'aura'"):
        load_bundle(published.store, digest_bytes(text))


def test_what_a_runtime_does_not_need_is_not_read(published) -> None:
    published.store.delete(f"bundles/{published.digest}/{WEIGHTS_FILE}")
    bundle = load_bundle(published.store, published.digest, leave_out={WEIGHTS_FILE})
    assert ONNX_FILE in bundle.files


def test_the_card_and_the_description_tell_how_runtimes_compare(published) -> None:
    assert published.description.onnx.difference < 1e-4
    assert published.description.onnx.reason == ""
    assert published.description.bfloat16_difference > 0
    assert b"ONNX Runtime, whose answers differ by" in published.files["card.md"]
    assert b"bfloat16 (off by default) changes an answer by up to" in published.files["card.md"]
