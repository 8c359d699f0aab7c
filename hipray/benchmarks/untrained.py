"""A release of untrained networks: what a bench of speed needs of a release, in seconds.

Its answers mean nothing, and it says phantom. It has no segmenter: every region is the whole film.
"""

import safetensors.torch
import torch

from hipray.bundles.bundle import WEIGHTS_FILE, Bundle, BundleDescription, publish_bundle
from hipray.bundles.golden import (
    GOLDEN_ANSWERS,
    GOLDEN_FILM,
    answer_golden,
    draw_golden_film,
    dump_answers,
)
from hipray.classification.model import build_network
from hipray.config.experiment import ClassifierSettings, MattingSettings
from hipray.data.images import PREPROCESSING_VERSION
from hipray.releases.release import Member, Release, write_release
from hipray.storage import Store
from hipray.vocab import HEADLINE_REGIONS, DataSource, LabelType, Region, View

NAME = "untrained"


def publish_untrained(
    store: Store, backbones: tuple[str, ...], settings: ClassifierSettings, *, working_px: int
) -> Release:
    """Publish one member per backbone and headline region, and return the release."""
    members = tuple(
        _publish_member(store, region, backbone, settings, working_px)
        for region in HEADLINE_REGIONS
        for backbone in backbones
    )
    release = Release(
        name=NAME,
        run=NAME,
        data_source=DataSource.PHANTOM,
        leaks_allowed=False,
        preprocessing_version=PREPROCESSING_VERSION,
        working_px=working_px,
        segmenters=(),
        view=View.WHOLE,
        matting=MattingSettings(),
        members=members,
        headline_threshold=0.5,
        evaluation={},
    )
    write_release(store, release)
    return release


def _publish_member(
    store: Store, region: Region, backbone: str, settings: ClassifierSettings, working_px: int
) -> Member:
    torch.manual_seed(0)
    module = build_network(backbone, settings)
    description = BundleDescription(
        kind="classifier",
        name=f"{region}-{backbone}",
        model={
            "cell": {"region": region, "label_type": LabelType.T_SCORE, "backbone": backbone,
                     "variant": NAME},
            "settings": settings.model_dump(mode="json"),
            "odds": {"class_weights": (1.0, 1.0), "score": None},
            "working_px": working_px,
        },
        summary={},
        preprocessing_version=PREPROCESSING_VERSION,
        data_source=DataSource.PHANTOM,
        software={},
    )  # fmt: skip
    weights = {name: value.contiguous() for name, value in module.state_dict().items()}
    film = draw_golden_film()
    files = {WEIGHTS_FILE: safetensors.torch.save(weights), GOLDEN_FILM: film}
    files[GOLDEN_ANSWERS] = dump_answers(answer_golden(Bundle("", description, files), film))
    return Member(
        bundle=publish_bundle(store, description, files),
        region=region,
        label_type=LabelType.T_SCORE,
        backbone=backbone,
        repeat=0,
        fold=0,
        platt_slope=1.0,
        platt_intercept=0.0,
        threshold=0.5,
        size_px=settings.size_px,
    )
