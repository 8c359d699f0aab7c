"""Digests: the same content has the same name, other content another."""

import pytest

from hipray.config.experiment import SplitSettings
from hipray.digests import digest_bytes, digest_of, source_digest


def test_the_order_of_keys_plays_no_part_and_every_value_does() -> None:
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
    assert digest_of([1, 2]) != digest_of([2, 1])


def test_a_config_counts_by_its_fields() -> None:
    assert digest_of(SplitSettings()) == digest_of(SplitSettings(folds=5))
    assert digest_of(SplitSettings()) != digest_of(SplitSettings(folds=4))
    assert digest_of(SplitSettings()) == digest_of(SplitSettings().model_dump(mode="json"))


def test_what_has_no_canonical_form_is_refused() -> None:
    with pytest.raises(TypeError, match=r"no canonical JSON for object"):
        digest_of(object())


def test_bytes_have_their_sha256() -> None:
    assert digest_bytes(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_source_digests_tell_modules_and_packages_apart() -> None:
    names = ("segmentation", "matting", "data/framing", "metrics")
    assert len({source_digest(name) for name in names}) == 4
    assert source_digest("matting", "metrics") == source_digest("metrics", "matting")
    assert source_digest("matting", "metrics") != source_digest("matting")


def test_source_that_does_not_exist_is_a_defect_and_not_an_empty_digest() -> None:
    with pytest.raises(FileNotFoundError):
        source_digest("data/no_such_module")
