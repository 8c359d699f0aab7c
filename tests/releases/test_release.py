"""A release pins everything that answers a request."""

import json

import pytest

from hipray.config.experiment import MattingSettings
from hipray.data.images import PREPROCESSING_VERSION
from hipray.errors import BundleError, ConfigError
from hipray.releases.release import (
    Member,
    Release,
    check_servable,
    parse_release,
    read_release,
    write_release,
)
from hipray.storage import open_store
from hipray.vocab import DataSource, LabelType, Region, View

MEMBER = Member(
    bundle="0" * 64, region=Region.TOTAL_HIP, label_type=LabelType.T_SCORE, backbone="resnet50",
    repeat=0, fold=0, platt_slope=1.0, platt_intercept=0.0, threshold=0.5, size_px=224,
)  # fmt: skip
RELEASE = Release(
    name="small", run="grid", data_source=DataSource.PHANTOM, leaks_allowed=False,
    preprocessing_version=PREPROCESSING_VERSION, working_px=256, segmenters=("1" * 64,),
    view=View.MATTED,
    matting=MattingSettings(), members=(MEMBER,), headline_threshold=0.4,
    evaluation=None,
)  # fmt: skip


@pytest.fixture
def store(tmp_path):
    store = open_store(str(tmp_path))
    write_release(store, RELEASE)
    return store


def test_a_release_comes_back_by_name_and_by_path(store, tmp_path) -> None:
    assert read_release(store, "small") == RELEASE
    assert read_release(store, str(tmp_path / "releases" / "small.json")) == RELEASE


def test_an_unknown_name_lists_the_known_ones(store) -> None:
    with pytest.raises(BundleError, match=r"release 'smal' in .*, found releases small"):
        read_release(store, "smal")


def test_a_path_without_a_file_is_a_bundle_error(store) -> None:
    with pytest.raises(BundleError, match=r"a release file, found nowhere/a.json"):
        read_release(store, "nowhere/a.json")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"name": "a"}'])
def test_what_is_no_release_is_refused_in_a_sentence(data) -> None:
    with pytest.raises(BundleError, match=r"a release of format 2 in 'x'"):
        parse_release(data, "x")


def test_an_unknown_key_is_not_read_over() -> None:
    text = json.dumps(RELEASE.model_dump(mode="json") | {"combine_rule": "max"})
    with pytest.raises(BundleError, match=r"unknown key 'combine_rule'"):
        parse_release(text.encode(), "x")


@pytest.mark.parametrize(
    "changes",
    [
        {"headline_threshold": 0.5},
        {"segmenters": ()},
        {"matting": MattingSettings(margin_fraction=0.1)},
        {"members": (MEMBER.model_copy(update={"platt_slope": 2.0}),)},
        {"working_px": 128},
    ],
)
def test_whatever_shapes_an_answer_shapes_the_digest(changes) -> None:
    assert RELEASE.model_copy(update=changes).digest != RELEASE.digest


def test_a_digest_survives_the_file(store) -> None:
    assert read_release(store, "small").digest == RELEASE.digest


def test_a_release_of_phantoms_is_served_only_where_that_is_allowed() -> None:
    with pytest.raises(ConfigError, match=r"trained on phantoms; set allow_phantom_release"):
        check_servable(RELEASE, allow_phantom=False)
    check_servable(RELEASE, allow_phantom=True)


def test_a_release_of_films_of_people_needs_no_permission() -> None:
    real = RELEASE.model_copy(update={"data_source": DataSource.REAL})
    check_servable(real, allow_phantom=False)


def test_members_that_learned_nothing_are_named() -> None:
    turned = MEMBER.model_copy(update={"platt_slope": 0.0})
    assert RELEASE.uninformed == ()
    assert RELEASE.model_copy(update={"members": (MEMBER, turned)}).uninformed == (turned,)


def test_a_field_that_is_added_with_a_default_renames_no_release() -> None:
    class LaterRelease(Release):
        added: int = 0

    later = LaterRelease.model_validate(RELEASE.model_dump())
    assert later.digest == RELEASE.digest
    assert later.model_copy(update={"added": 1}).digest != RELEASE.digest
