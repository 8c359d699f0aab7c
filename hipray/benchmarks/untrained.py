"""A release of untrained networks: what a bench of speed needs of a release.

Its answers mean nothing, and it says phantom. Without a segmenter every region is the whole film.
"""

import torch

from hipray.bundles.assembly import publish_model
from hipray.bundles.bundle import BundleDescription
from hipray.classification.model import build_network as build_classifier
from hipray.classification.odds import OddsScale
from hipray.classification.spec import ClassifierSpec
from hipray.config.experiment import ClassifierSettings, MattingSettings, SegmenterSettings
from hipray.data.images import PREPROCESSING_VERSION
from hipray.metrics import PlattScaling
from hipray.releases.release import Member, Release, write_release
from hipray.segmentation.model import build_network as build_segmenter
from hipray.segmentation.spec import SegmenterSpec
from hipray.storage import Store
from hipray.training.fits import dump_weights
from hipray.vocab import (
    HEADLINE_REGIONS,
    REGIONS,
    Cell,
    DataSource,
    LabelType,
    Region,
    SegmenterArch,
    Variant,
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
        evaluation=None,
    )
    write_release(store, release)
    return release


def _publish_segmenter(store: Store, settings: SegmenterSettings, working_px: int) -> str:
    torch.manual_seed(0)
    module = build_segmenter(SegmenterArch.UNET, settings, outputs=len(REGIONS))
    spec = SegmenterSpec(
        arch=SegmenterArch.UNET, regions=REGIONS, settings=settings, working_px=working_px
    )
    return publish_network(store, "unet", spec, dump_weights(module))


def _publish_member(
    store: Store, region: Region, backbone: str, settings: ClassifierSettings, working_px: int
) -> Member:
    torch.manual_seed(0)
    module = build_classifier(backbone, settings)
    spec = ClassifierSpec(
        cell=Cell(region, LabelType.T_SCORE, backbone, Variant.ORIGINAL),
        settings=settings,
        matting=MattingSettings(),
        odds=OddsScale(),
        calibrator=PlattScaling(1.0, 0.0),
        threshold=0.5,
        working_px=working_px,
    )
    bundle = publish_network(store, f"{region}-{backbone}", spec, dump_weights(module))
    return Member.of(bundle, spec, repeat=0, fold=0)


def publish_network(
    store: Store, name: str, spec: ClassifierSpec | SegmenterSpec, weights: bytes
) -> str:
    """Publish a network that no fit trained, said to be of phantoms; return its bundle's digest."""
    description = BundleDescription(
        name=name,
        model=spec,
        summary={},
        preprocessing_version=PREPROCESSING_VERSION,
        data_source=DataSource.PHANTOM,
        software={},
    )
    return publish_model(store, description, weights)
