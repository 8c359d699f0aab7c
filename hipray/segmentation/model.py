"""The segmentation networks: U-Net and U-Net++ with one sigmoid output per region.

The outputs are independent because the total hip contains the others (multi-label, no softmax).
Legend of shapes: B films, R regions of this network, S side in pixels.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from hipray.config.experiment import IMAGENET_WEIGHTS, SegmenterSettings
from hipray.errors import ConfigError
from hipray.vocab import SegmenterArch

Tensors = Mapping[str, torch.Tensor]
_ENCODER = "encoder."
_COUNTER = "num_batches_tracked"
_SMALLEST_SHARE = 1e-4
"""Of a frame; a region that is nowhere annotated has no logit."""

ARCHITECTURES = {SegmenterArch.UNET: "Unet", SegmenterArch.UNETPP: "UnetPlusPlus"}
"""Their classes in segmentation-models-pytorch; each takes `decoder_channels` as a tuple, so that
one which does not (DeepLabV3Plus takes a number) needs a call of its own."""


def build_network(
    arch: SegmenterArch,
    settings: SegmenterSettings,
    *,
    outputs: int,
    pretrained: bool = True,
    start: Tensors | None = None,
    shares: Sequence[float] | None = None,
) -> nn.Module:
    """Return a network from films (B, 1, S, S) to logits (B, `outputs`, S, S).

    An untrained last layer first answers with the `shares` (R,) of the frame that the regions
    take, where they are known (Lin et al. 2017, section 3.3): from one half of the frame, training
    spends its first epochs on the background, and may lose a region as small as Ward's triangle.
    `start` are the tensors of a weights file: of a whole network as bundles hold it, or of the
    encoder as it is published, of which the first layer is summed over colours. Without them
    `pretrained=False` leaves out start weights that a bundle's own will replace. Raises
    ConfigError for an unknown encoder, where its weights are out of reach, and for a file of
    another network.
    """
    imagenet = pretrained and settings.weights == IMAGENET_WEIGHTS
    published = IMAGENET_WEIGHTS if imagenet else None
    network = _build(arch, settings, outputs=outputs, encoder_weights=published)
    if shares is not None:
        _expect(network, torch.tensor(shares))
    if start is not None:
        _load(network, start, settings)
    return network


def _build(
    arch: SegmenterArch, settings: SegmenterSettings, *, outputs: int, encoder_weights: str | None
) -> nn.Module:
    import segmentation_models_pytorch as smp  # brings timm: seconds of CPU

    if settings.encoder not in smp.encoders.get_encoder_names():
        names = ", ".join(sorted(smp.encoders.get_encoder_names())[:12])
        raise ConfigError(
            "an encoder of segmentation-models-pytorch",
            f"segmenter.encoder = '{settings.encoder}'",
            f"take one of its names, such as {names}",
        )
    try:
        network: nn.Module = getattr(smp, ARCHITECTURES[arch])(
            encoder_name=settings.encoder,
            encoder_weights=encoder_weights,
            in_channels=1,
            classes=outputs,
            decoder_channels=settings.decoder_channels,
        )
        return network
    except (OSError, ConnectionError) as error:
        raise ConfigError(
            f"{encoder_weights} weights of {settings.encoder} within reach",
            f"{type(error).__name__}",
            "set segmenter.weights to a safetensors file in the workspace or to 'none', or run "
            "where the model hub can be reached",
        ) from error


def _expect(network: nn.Module, shares: torch.Tensor) -> None:
    """Shift the last layer to the logits of `shares` (R,)."""
    last = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)][-1]
    assert last.bias is not None
    with torch.no_grad():
        last.bias.copy_(torch.logit(shares, eps=_SMALLEST_SHARE))


def _load(network: nn.Module, start: Tensors, settings: SegmenterSettings) -> None:
    """Fill the whole network, or its encoder, from a file."""
    whole = any(name.startswith(_ENCODER) for name in start)
    own = network.state_dict()
    if not whole:
        start = {f"{_ENCODER}{name}": tensor for name, tensor in start.items()}
        own = {name: tensor for name, tensor in own.items() if name.startswith(_ENCODER)}
    taken = {name: _to_grey(start[name], own[name]) for name in own if name in start}
    strange = [
        name for name in own
        if not name.endswith(_COUNTER)
        and (name not in taken or taken[name].shape != own[name].shape)
    ]  # fmt: skip
    if strange:
        raise ConfigError(
            f"tensors of {settings.encoder}, or of a whole segmenter, in {settings.weights}",
            f"others (no {strange[0]} of its shape)",
            "name a file of that network",
        )
    network.load_state_dict(taken, strict=False)


def _to_grey(tensor: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Sum a first layer for colours over them: a film has one, three times the same."""
    is_first = tensor.shape[1:2] == (3,) and wanted.shape[1:2] == (1,)
    return tensor.sum(dim=1, keepdim=True) if is_first else tensor
