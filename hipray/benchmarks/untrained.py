"""A release of untrained networks: what a bench of speed needs of a release.

Its answers mean nothing, and it says phantom. Without a segmenter every region is the whole film.
"""

from typing import Any

import torch

from hipray.bundles.assembly import publish_model
from hipray.bundles.bundle import BundleDescription, BundleKind
from hipray.classification.model import build_network as build_classifier
from hipray.config.experiment import ClassifierSettings, MattingSettings, SegmenterSettings
from hipray.data.images import PREPROCESSING_VERSION
from hipray.releases.release import Member, Release, write_release
from hipray.segmentation.model import build_network as build_segmenter
from hipray.storage import Store
from hipray.training.fits import dump_weights
from hipray.vocab import (
    HEADLINE_REGIONS,
    REGIONS,
    DataSource,
    LabelType,
    Region,
    SegmenterArch,
    View,
)

NAME = "untrained"


def publish_untrained(
    store: Store,
    backbones: tuple[str, ...],
    settings: ClassifierSettings,
    *,
    working_px: int,
    regions: tuple[Region, ...] = HEADLINE_REGIONS,
    segmenter: SegmenterSettings | None = None,
) -> Release:
    """Publish one member per backbone and region, with a U-Net before them where one is asked for.

    Returns the release.
    """
    members = tuple(
        _publish_member(store, region, backbone, settings, working_px)
        for region in regions
        for backbone in backbones
    )
    release = Release(
        name=NAME,
        run=NAME,
        data_source=DataSource.PHANTOM,
        leaks_allowed=False,
        preprocessing_version=PREPROCESSING_VERSION,
        working_px=working_px,
        segmenters=(_publish_segmenter(store, segmenter, working_px),) if segmenter else (),
        view=View.MATTED if segmenter else View.WHOLE,
        matting=MattingSettings(),
        members=members,
        headline_threshold=0.5,
        evaluation={},
    )
    write_release(store, release)
    return release


def _publish_segmenter(store: Store, settings: SegmenterSettings, working_px: int) -> str:
    torch.manual_seed(0)
    module = build_segmenter(SegmenterArch.UNET, settings, outputs=len(REGIONS))
    model = {
        "arch": SegmenterArch.UNET,
        "regions": REGIONS,
        "settings": settings.model_dump(mode="json"),
        "working_px": working_px,
    }
    return publish_network(store, BundleKind.SEGMENTER, "unet", model, dump_weights(module))


def _publish_member(
    store: Store, region: Region, backbone: str, settings: ClassifierSettings, working_px: int
) -> Member:
    torch.manual_seed(0)
    module = build_classifier(backbone, settings)
    model = {
        "cell": {"region": region, "label_type": LabelType.T_SCORE, "backbone": backbone,
                 "variant": NAME},
        "settings": settings.model_dump(mode="json"),
        "odds": {"class_weights": (1.0, 1.0), "score": None},
        "working_px": working_px,
    }  # fmt: skip
    return Member(
        bundle=publish_network(
            store, BundleKind.CLASSIFIER, f"{region}-{backbone}", model, dump_weights(module)
        ),
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


def publish_network(
    store: Store, kind: BundleKind, name: str, model: dict[str, Any], weights: bytes
) -> str:
    """Publish a network that no fit trained, said to be of phantoms; return its bundle's digest."""
    description = BundleDescription(
        kind=kind,
        name=name,
        model=model,
        summary={},
        preprocessing_version=PREPROCESSING_VERSION,
        data_source=DataSource.PHANTOM,
        software={},
    )
    return publish_model(store, description, weights)
