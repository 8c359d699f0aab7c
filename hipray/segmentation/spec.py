"""What rebuilds a trained segmenter beside its weights, as written in fits and bundles."""

from typing import Literal

from hipray.config.base import Config
from hipray.config.experiment import SegmenterSettings
from hipray.vocab import ModelKind, Region, SegmenterArch


class SegmenterSpec(Config):
    """A segmenter without its weights."""

    kind: Literal[ModelKind.SEGMENTER] = ModelKind.SEGMENTER
    """What it does."""
    arch: SegmenterArch
    """Its network."""
    regions: tuple[Region, ...]
    """Regions of its outputs, in order."""
    settings: SegmenterSettings
    """How it was built and trained."""
    working_px: int
    """Side of the square frame that it was trained on."""
