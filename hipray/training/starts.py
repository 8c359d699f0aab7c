"""Where training starts: the start weights of networks, read, named and tried out.

Weights that are out of reach, or of another network, are found in the driver: a lane that found
them would have trained segmenters for hours before.
"""

from collections.abc import Iterable, Sequence

import safetensors
import safetensors.torch
import torch

from hipray.classification.model import build_network as build_classifier
from hipray.config.experiment import IMAGENET_WEIGHTS, NO_WEIGHTS, Experiment
from hipray.digests import digest_bytes
from hipray.errors import ConfigError
from hipray.segmentation.model import build_network as build_segmenter
from hipray.storage import Store
from hipray.training.plan import PlannedFit
from hipray.vocab import Fit


def read_start_weights(store: Store, weights: str) -> dict[str, torch.Tensor] | None:
    """Return the tensors of a weights file in the store, or None for `none` and `imagenet`.

    Raises ConfigError for a file that is not of safetensors.
    """
    if weights in (NO_WEIGHTS, IMAGENET_WEIGHTS):
        return None
    try:
        tensors: dict[str, torch.Tensor] = safetensors.torch.load(store.read(weights))
    except safetensors.SafetensorError as error:
        raise ConfigError(
            f"a safetensors file as {weights}", str(error), "convert it or name another"
        ) from error
    return tensors


def digest_starts(store: Store, experiment: Experiment, backbones: Iterable[str]) -> dict[str, str]:
    """Return the content digest of each file of start weights: replaced weights are other fits.

    Raises ConfigError for a file that is not there.
    """
    wanted = {experiment.classifier_of(backbone).weights for backbone in backbones}
    wanted.add(experiment.segmenter.weights)
    files = sorted(wanted - {NO_WEIGHTS, IMAGENET_WEIGHTS})
    for key in files:
        if not store.exists(key):
            raise ConfigError(
                f"weights = '{NO_WEIGHTS}', '{IMAGENET_WEIGHTS}' or a file of the workspace",
                f"no file {store.uri_of(key)}",
                "correct the name or put the file there",
            )
    return {key: digest_bytes(store.read(key)) for key in files}


def try_starts(store: Store, experiment: Experiment, plan: Sequence[PlannedFit]) -> None:
    """Build each network of the plan that starts from weights, once.

    Raises ConfigError where they are out of reach or of another network.
    """
    segmenters = {p.fit.arch: len(p.fit.regions) for p in plan if not isinstance(p.fit, Fit)}
    settings = experiment.segmenter
    for arch, outputs in segmenters.items():
        if settings.weights != NO_WEIGHTS:
            start = read_start_weights(store, settings.weights)
            build_segmenter(arch, settings, outputs=outputs, start=start)
    try_classifiers(
        store, experiment, sorted({p.fit.cell.backbone for p in plan if isinstance(p.fit, Fit)})
    )


def try_classifiers(store: Store, experiment: Experiment, backbones: Iterable[str]) -> None:
    """Build each of these networks that starts from weights; raises as `try_starts` does."""
    for backbone in backbones:
        settings = experiment.classifier_of(backbone)
        if settings.weights != NO_WEIGHTS:
            start = read_start_weights(store, settings.weights)
            build_classifier(backbone, settings, start=start)
