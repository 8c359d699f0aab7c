"""A small release within seconds: a briefly trained segmenter and tiny random classifiers."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch

from hipray.benchmarks.untrained import publish_network
from hipray.classification.model import build_network as build_classifier_network
from hipray.classification.odds import OddsScale
from hipray.classification.spec import ClassifierSpec
from hipray.config.experiment import (
    ClassifierSettings,
    MattingSettings,
    SegmentationLoss,
    SegmenterSettings,
)
from hipray.config.phantom import PhantomConfig
from hipray.data.framing import Frame, frame_hip
from hipray.data.images import PREPROCESSING_VERSION, read_hips
from hipray.data.intensity import centre
from hipray.data.phantom import film_path, plan_archive, render_study, write_study
from hipray.metrics import PlattScaling
from hipray.releases.release import Member, Release, write_release
from hipray.segmentation.losses import segmentation_loss
from hipray.segmentation.model import build_network as build_segmenter_network
from hipray.segmentation.spec import SegmenterSpec
from hipray.storage import Store, open_store
from hipray.training.fits import dump_weights
from hipray.vocab import REGIONS, Cell, DataSource, LabelType, Region, SegmenterArch, Variant, View

Files = dict[str, bytes]
"""What is written, by its key."""
ResultT = TypeVar("ResultT")

WORKING_PX = 128
SEGMENTER_PX = 32
CLASSIFIER_PX = 64
BACKBONE = "resnet10t"
SEGMENTER = SegmenterSettings(
    size_px=SEGMENTER_PX, encoder="resnet18", decoder_channels=(32, 16, 16, 8, 8)
)
CLASSIFIER = ClassifierSettings(size_px=CLASSIFIER_PX)
QUESTIONS = (
    (Region.FEMORAL_NECK, LabelType.T_SCORE),
    (Region.TOTAL_HIP, LabelType.T_SCORE),
    (Region.TOTAL_HIP, LabelType.BMD),
)
TRAINING_FILMS = 24
TRAINING_BATCH = 12
TRAINING_STEPS = 60
LEARNING_RATE = 0.1
FIRST_LOGIT = -2.0
"""Start of the output bias: most pixels lie outside every region."""
DENSE_GAIN = 30.0
"""Makes random classifiers tell films apart: a mixed-up answer then differs visibly."""


def draw_phantoms(count: int, *, seed: int = 7, **changes: Any) -> dict[str, bytes]:
    """Return `count` phantom films by their archive path."""
    config = phantom_config(count, seed=seed, **changes)
    studies = plan_archive(config)[:count]
    return {film_path(config, s): write_study(config, s)[film_path(config, s)] for s in studies}


def phantom_config(count: int, *, seed: int, **changes: Any) -> PhantomConfig:
    fields = {
        "seed": seed,
        "n_patients": count,
        "n_second_hips": 0,
        "n_device_a": 0,
        "image_px": WORKING_PX,
        "exact_prevalence": False,
    }
    return PhantomConfig(**{**fields, **changes})


def publish_small_release(
    store: Store, *, view: View = View.MATTED, segmenters: bool = True, name: str = "small"
) -> Release:
    """Publish a release of phantoms with two random members per question and return it."""
    networks, members = _publish_members()
    segmenter, digest = _publish_segmenter() if segmenters else ({}, "")
    for key, data in (networks | segmenter).items():
        store.write(key, data)
    release = Release(
        name=name,
        run="small",
        data_source=DataSource.PHANTOM,
        leaks_allowed=False,
        preprocessing_version=PREPROCESSING_VERSION,
        working_px=WORKING_PX,
        segmenters=(digest,) if segmenters else (),
        view=view,
        matting=MattingSettings(),
        members=members,
        headline_threshold=0.5,
        evaluation=None,
    )
    write_release(store, release)
    return release


@cache
def train_small_segmenter() -> bytes:
    """Return the weights of a segmenter that finds the regions of phantoms; some seconds."""
    films, masks = _training_set()
    with torch.random.fork_rng(), _one_thread():
        torch.manual_seed(0)
        module = build_segmenter_network(SegmenterArch.UNET, SEGMENTER, outputs=len(REGIONS))
        torch.nn.init.constant_(module.segmentation_head[0].bias, FIRST_LOGIT)
        optimizer = torch.optim.SGD(module.parameters(), LEARNING_RATE, momentum=0.9)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, LEARNING_RATE, total_steps=TRAINING_STEPS, pct_start=0.1
        )
        for _ in range(TRAINING_STEPS):
            rows = torch.randperm(len(films))[:TRAINING_BATCH]
            optimizer.zero_grad()
            loss = segmentation_loss(
                module(centre(films[rows])),
                masks[rows],
                torch.ones(len(rows), len(REGIONS)),
                kind=SegmentationLoss.BCE_DICE,
            )
            loss.backward()
            optimizer.step()
            schedule.step()
    return dump_weights(module)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small tensors gain nothing from more threads and wait for them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _training_set() -> tuple[torch.Tensor, torch.Tensor]:
    config = phantom_config(TRAINING_FILMS, seed=3)
    films, masks = [], []
    for study in plan_archive(config):
        hip = read_hips(write_study(config, study)[film_path(config, study)], name="").hips[0]
        truth = render_study(config, study).masks
        frame = Frame(*hip.pixels.shape, SEGMENTER_PX)
        films.append(frame_hip(hip.pixels, SEGMENTER_PX))
        masks.append([frame.place_mask(hip.geometry.warp_mask(mask)) for mask in truth])
    return torch.from_numpy(np.stack(films))[:, None].float() / 255, torch.tensor(
        np.array(masks), dtype=torch.float32
    )


@cache
def _publish_segmenter() -> tuple[Files, str]:
    spec = SegmenterSpec(
        arch=SegmenterArch.UNET, regions=REGIONS, settings=SEGMENTER, working_px=WORKING_PX
    )
    return _collect(
        lambda store: publish_network(store, "unet-all-r0f0", spec, train_small_segmenter())
    )


@cache
def _publish_members() -> tuple[Files, tuple[Member, ...]]:
    return _collect(
        lambda store: tuple(
            _publish_member(store, region, label, seed=seed)
            for region, label in QUESTIONS
            for seed in (1, 2)
        )
    )


def _collect(publish: Callable[[Store], ResultT]) -> tuple[Files, ResultT]:
    """Return the files that `publish` writes, and what it returns: seconds, once per process."""
    with TemporaryDirectory() as folder:
        store = open_store(folder)
        result = publish(store)
        return {info.key: store.read(info.key) for info in store.list()}, result


def _publish_member(store: Store, region: Region, label: LabelType, *, seed: int) -> Member:
    with torch.random.fork_rng():
        torch.manual_seed(zlib.crc32(f"{region}-{label}-{seed}".encode()))
        module = build_classifier_network(BACKBONE, CLASSIFIER)
    with torch.no_grad():
        module.dense.weight *= DENSE_GAIN
    spec = ClassifierSpec(
        cell=Cell(region, label, BACKBONE, Variant.ORIGINAL),
        settings=CLASSIFIER,
        matting=MattingSettings(),
        odds=OddsScale((1.0, 2.0)),
        calibrator=PlattScaling(1.5, -0.1 * seed),
        threshold=0.5,
        working_px=WORKING_PX,
    )
    name = f"{region}-{label}-{BACKBONE}-{seed}"
    bundle = publish_network(store, name, spec, dump_weights(module))
    return Member.of(bundle, spec, repeat=0, fold=seed)
