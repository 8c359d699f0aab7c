"""The segmentation networks: U-Net and U-Net++ with one sigmoid output per region.

The outputs are independent because the total hip contains the others (multi-label, no softmax).
Legend of shapes: B films, R regions of this network, S side in pixels.
"""

from collections.abc import Callable

import segmentation_models_pytorch as smp
from torch import nn

from hipray.config.experiment import NO_WEIGHTS, SegmenterSettings
from hipray.errors import ConfigError
from hipray.vocab import SegmenterArch

ARCHITECTURES: dict[SegmenterArch, Callable[..., nn.Module]] = {
    SegmenterArch.UNET: smp.Unet,
    SegmenterArch.UNETPP: smp.UnetPlusPlus,
}


def build_network(
    arch: SegmenterArch, settings: SegmenterSettings, *, outputs: int, pretrained: bool = True
) -> nn.Module:
    """Return a network from films (B, 1, S, S) to logits (B, `outputs`, S, S).

    `pretrained=False` leaves out start weights that a bundle's own will replace. Raises
    ConfigError for an unknown encoder, or where its weights are out of reach.
    """
    weights = settings.weights if pretrained and settings.weights != NO_WEIGHTS else None
    if settings.encoder not in smp.encoders.get_encoder_names():
        names = ", ".join(sorted(smp.encoders.get_encoder_names())[:12])
        raise ConfigError(
            "an encoder of segmentation-models-pytorch",
            f"segmenter.encoder = '{settings.encoder}'",
            f"take one of its names, such as {names}",
        )
    try:
        return ARCHITECTURES[arch](
            encoder_name=settings.encoder,
            encoder_weights=weights,
            in_channels=1,
            classes=outputs,
            decoder_channels=settings.decoder_channels,
        )
    except (OSError, ConnectionError) as error:
        raise ConfigError(
            f"{weights} weights of {settings.encoder} within reach",
            f"{type(error).__name__}",
            "set segmenter.weights = 'none', or run where the model hub can be reached",
        ) from error
