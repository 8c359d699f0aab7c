"""The classifiers: a timm network, dropout and one dense softmax layer (section 3.4.3).

VGG16, ResNet50 and DenseNet121 are the paper's; any other timm name works the same way.
Legend of shapes: B films, P side in pixels, F features.
"""

import difflib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from torch import nn

from hipray.config.experiment import IMAGENET_WEIGHTS, ClassifierSettings, Freeze, Target, VggHead
from hipray.data.intensity import centre, full_precision, remove_background
from hipray.data.person import columns_of
from hipray.errors import ConfigError

Tensors = Mapping[str, torch.Tensor]
"""Weights by their names."""

OUTPUTS = {Target.LABEL: 2, Target.SCORE: 1}
"""Logits of normal and abnormal, or one standardised score."""

_LAST_WEIGHTS = "dense.weight"
"""Tensor that a whole network has, and the backbone alone has not."""

_COUNTER = "num_batches_tracked"
"""Of batch norm; it decides nothing, and older files lack it."""


class ClassifierNetwork(nn.Module):
    """Pooled features, dropout, and a dense layer that also sees the covariates."""

    def __init__(self, features: nn.Module, *, width: int, settings: ClassifierSettings) -> None:
        super().__init__()
        self.features = features
        self.dropout = nn.Dropout(settings.dropout)
        self._columns = columns_of(settings.covariates)
        self.dense = nn.Linear(width + len(self._columns), OUTPUTS[settings.target])
        self._background = settings.background_fraction

    def forward(self, films: torch.Tensor, people: torch.Tensor | None = None) -> torch.Tensor:
        """Return (B, 2) logits or (B, 1) scores of films (B, 1, P, P) with values in 0..1.

        `people` (B, C) is what `data.person.encode_people` tells; None without covariates.
        Whatever is autocast, the dense layer computes in float32: two films whose answers differ
        by less than bfloat16 can tell would tie.
        """
        seen = self.dropout(self.features(self._show(films))).float()
        if self._columns:
            assert people is not None, "a network with covariates is told of the people"
            # column by column: a list of them is an index that is copied to a GPU, which waits
            told = torch.stack([people[:, column] for column in self._columns], 1)
            seen = torch.cat([seen, told.to(seen)], 1)
        with full_precision(films.device):
            answers: torch.Tensor = self.dense(seen)
        return answers

    def _show(self, films: torch.Tensor) -> torch.Tensor:
        if self._background:
            return remove_background(films, self._background)
        return centre(films)

    def freeze(self, what: Freeze) -> None:
        """Keep the start weights and batch statistics of a part of the features for good."""
        layers = list(self._list_layers())
        share = {Freeze.NOTHING: 0, Freeze.HALF: len(layers) // 2, Freeze.FEATURES: len(layers)}
        for layer in layers[: share[what]]:
            layer.requires_grad_(False)

    def _list_layers(self) -> Iterator[nn.Module]:
        """The features' modules with parameters of their own; others may take their place."""
        for module in self.features.modules():
            if next(module.parameters(recurse=False), None) is not None:
                yield module

    def train(self, mode: bool = True) -> Self:
        """Set the mode; frozen layers stay in evaluation, or batch norm would forget."""
        super().train(mode)
        for layer in self._list_layers():
            if not any(own.requires_grad for own in layer.parameters(recurse=False)):
                layer.eval()
        return self


def build_network(
    backbone: str,
    settings: ClassifierSettings,
    *,
    pretrained: bool = True,
    start: Tensors | None = None,
) -> ClassifierNetwork:
    """Return a network from films (B, 1, P, P) and people (B, C) to its answers.

    `start` are the tensors of a weights file: of a whole network as bundles hold it, or of the
    backbone as timm publishes it, of which the first layer is summed over colours. Without them
    `pretrained=False` leaves out start weights that a bundle's own will replace. Raises
    ConfigError for a name timm does not know, where its weights are out of reach, and for a file
    of another network.
    """
    check_backbone(backbone)
    whole = start is not None and _LAST_WEIGHTS in start
    if start is None:
        imagenet = pretrained and settings.weights == IMAGENET_WEIGHTS
        features = _build_published(backbone, settings) if imagenet else _build(backbone, settings)
    else:
        features = _build(backbone, settings) if whole else _build_from(start, backbone, settings)
    width: Any = getattr(features, "head_hidden_size", None) or features.num_features
    if hasattr(features, "pre_logits") and settings.head is VggHead.POOLED:
        features.pre_logits = nn.Identity()
        width = features.num_features
    network = ClassifierNetwork(features, width=width, settings=settings)
    if start is not None and whole:
        with _explain_misfit(backbone, settings):
            network.load_state_dict(start)
    network.freeze(settings.freeze)
    return network


def _build(backbone: str, settings: ClassifierSettings, **weights: Any) -> nn.Module:
    import timm  # three seconds of CPU, for all who only plan a network or read its files

    # networks with position embeddings are built for one size of film
    config = timm.get_pretrained_cfg(backbone)
    sized = {"img_size": settings.size_px} if config and config.fixed_input_size else {}
    features: nn.Module = timm.create_model(backbone, in_chans=1, num_classes=0, **sized, **weights)
    return features


def _build_published(backbone: str, settings: ClassifierSettings) -> nn.Module:
    try:
        return _build(backbone, settings, pretrained=True)
    except Exception as error:  # the hub's client raises dozens of types
        raise ConfigError(
            f"ImageNet weights of {backbone} within reach",
            f"{type(error).__name__} from the model hub",
            "set experiment.classifier.weights to a safetensors file in the workspace or to 'none' "
            "(with lr >= 1e-5), or run where the hub can be reached",
        ) from error


def _build_from(start: Tensors, backbone: str, settings: ClassifierSettings) -> nn.Module:
    """timm fits the file to grey films and to their size; what it would leave out is refused."""
    wanted = _build(backbone, settings).state_dict()
    known = {name: start[name] for name in wanted if name in start}
    with tempfile.TemporaryDirectory() as folder, _explain_misfit(backbone, settings):
        missing = [n for n in wanted if n not in known and not n.endswith(_COUNTER)]
        if missing:
            raise KeyError(f"no {missing[0]}")
        path = Path(folder) / "start.safetensors"
        safetensors.torch.save_file(known, path)
        return _build(
            backbone, settings, pretrained=True, pretrained_cfg_overlay={"file": str(path)}
        )


@contextmanager
def _explain_misfit(backbone: str, settings: ClassifierSettings) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, KeyError, ValueError) as error:
        raise ConfigError(
            f"tensors of {backbone} in {settings.weights}, as timm or a bundle names them",
            f"others ({str(error.args[0]).strip().splitlines()[-1].strip()[:160]})",
            f"give each network its own file: experiment.backbones.{backbone}.weights",
        ) from error


def check_backbone(backbone: str) -> None:
    """Raise ConfigError unless timm knows `backbone`."""
    import timm

    if not timm.is_model(backbone):
        close = difflib.get_close_matches(backbone, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "see timm.list_models()"
        raise ConfigError("the name of a timm network", f"backbone '{backbone}'", hint)


def join_batch_norms(module: nn.Module) -> nn.Module:
    """Return a network whose batch statistics are those of all processes that train it together.

    torch's own conversion drops the activations that timm fuses into batch norm (DenseNet).
    """
    from timm.layers import convert_sync_batchnorm

    joined: nn.Module = convert_sync_batchnorm(module)
    return joined
