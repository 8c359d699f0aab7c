"""The classifiers: a timm network, dropout and one dense softmax layer (section 3.4.3).

VGG16, ResNet50 and DenseNet121 are the paper's; any other timm name works the same way.
Legend of shapes: B films, P side in pixels, F features.
"""

import difflib
from typing import Self

import timm
import torch
from torch import nn

from hipray.config.experiment import IMAGENET_WEIGHTS, ClassifierSettings, Freeze, VggHead
from hipray.errors import ConfigError

CLASSES = 2
"""Normal and abnormal."""


class ClassifierNetwork(nn.Module):
    """Pooled features, dropout, dense layer."""

    def __init__(self, features: nn.Module, *, width: int, dropout: float) -> None:
        super().__init__()
        self.features = features
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(width, CLASSES)
        self._frozen: list[nn.Module] = []

    def freeze(self, what: Freeze) -> None:
        """Keep the start weights and batch statistics of a part of the features for good."""
        layers = [
            m
            for m in self.features.modules()
            if next(m.parameters(recurse=False), None) is not None
        ]
        share = {Freeze.NOTHING: 0, Freeze.HALF: len(layers) // 2, Freeze.FEATURES: len(layers)}
        self._frozen = layers[: share[what]]
        for layer in self._frozen:
            layer.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; frozen layers stay in evaluation, or batch norm would forget."""
        super().train(mode)
        for layer in self._frozen:
            layer.eval()
        return self

    def forward(self, films: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 2) of centred films (B, 1, P, P)."""
        logits: torch.Tensor = self.dense(self.dropout(self.features(films)))
        return logits


def build_network(
    backbone: str, settings: ClassifierSettings, *, pretrained: bool = True
) -> ClassifierNetwork:
    """Return a network from films (B, 1, P, P) to logits (B, 2).

    `pretrained=False` leaves out start weights that a bundle's own will replace. Raises
    ConfigError for a name timm does not know, or where its weights are out of reach.
    """
    check_backbone(backbone)
    imagenet = pretrained and settings.weights == IMAGENET_WEIGHTS
    try:
        features = timm.create_model(backbone, pretrained=imagenet, in_chans=1, num_classes=0)
    except Exception as error:
        if not imagenet:
            raise
        raise ConfigError(
            f"ImageNet weights of {backbone} within reach",
            f"{type(error).__name__} from the model hub",
            "set classifier.weights to a safetensors file in the workspace or to 'none' (with "
            "lr >= 1e-5), or run where the hub can be reached",
        ) from error
    width = getattr(features, "head_hidden_size", None) or features.num_features
    if hasattr(features, "pre_logits") and settings.head is VggHead.POOLED:
        features.pre_logits = nn.Identity()
        width = features.num_features
    network = ClassifierNetwork(features, width=width, dropout=settings.dropout)
    network.freeze(settings.freeze)
    return network


def check_backbone(backbone: str) -> None:
    """Raise ConfigError unless timm knows `backbone`."""
    if not timm.is_model(backbone):
        close = difflib.get_close_matches(backbone, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "see timm.list_models()"
        raise ConfigError("the name of a timm network", f"backbone '{backbone}'", hint)
