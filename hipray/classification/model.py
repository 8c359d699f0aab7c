"""The classifiers: a timm network, dropout and one dense softmax layer (section 3.4.3).

VGG16, ResNet50 and DenseNet121 are the paper's; any other timm name works the same way.
Legend of shapes: B films, P side in pixels, F features.
"""

import difflib

import timm
import torch
from torch import nn

from hipray.config.experiment import ClassifierSettings, VggHead
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
    imagenet = pretrained and settings.weights == "imagenet"
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
    if hasattr(features, "pre_logits") and settings.head is VggHead.POOLED:
        features.pre_logits = nn.Identity()
        return ClassifierNetwork(features, width=features.num_features, dropout=settings.dropout)
    width = getattr(features, "head_hidden_size", None) or features.num_features
    return ClassifierNetwork(features, width=width, dropout=settings.dropout)


def check_backbone(backbone: str) -> None:
    """Raise ConfigError unless timm knows `backbone`."""
    if not timm.is_model(backbone):
        close = difflib.get_close_matches(backbone, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "see timm.list_models()"
        raise ConfigError("the name of a timm network", f"backbone '{backbone}'", hint)
