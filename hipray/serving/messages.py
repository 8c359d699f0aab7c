"""What travels between the stages: arrays under the digest of the release they belong to.

Legend of shapes: N hips of one film, S side of the frame, R regions in `vocab.REGIONS` order.
"""

import time
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from hipray.answers import HipNumbers
from hipray.data.framing import Mask
from hipray.pipeline import Explanations, FramedHips, Views
from hipray.segmentation.segmenter import Segmentation
from hipray.serving.stage_errors import (
    DeadlinePassedError,
    ForeignReleaseError,
    MalformedMessageError,
)

Body = TypeVar("Body")
NewBody = TypeVar("NewBody")


@dataclass(frozen=True)
class Message(Generic[Body]):
    """A payload on its way to a stage or back."""

    release_digest: str
    deadline_s: float
    """Unix time after which the caller is gone; clocks of one cluster are taken as equal."""
    body: Body
    request_id: str = ""
    """For the log; empty where nobody asked: a replica warms up."""

    def with_body(self, body: NewBody) -> "Message[NewBody]":
        """Return the same message with another payload."""
        return replace(self, body=body)  # type: ignore[arg-type, return-value]


def check_message(message: Message[Any], release_digest: str) -> None:
    """Raise ForeignReleaseError or DeadlinePassedError unless the message is worth working on."""
    if message.release_digest != release_digest:
        raise ForeignReleaseError(
            f"a message of release {release_digest[:12]}",
            f"one of {message.release_digest[:12]}",
            "try again: another release is being deployed",
        )
    late = time.time() - message.deadline_s
    if late > 0:
        raise DeadlinePassedError(
            "a message before its deadline", f"one {late:.1f} s after it", "try again later"
        )


def check_hips(hips: FramedHips, side: int) -> None:
    """Raise MalformedMessageError unless frames are (N, `side`, `side`) uint8 of N > 0 people."""
    frames, people = hips.frames, hips.people
    fits = frames.dtype == np.uint8 and frames.ndim == 3 and frames.shape[1:] == (side, side)
    if not fits or not len(frames) or len(people) != len(frames):
        raise MalformedMessageError(
            f"frames (N, {side}, {side}) uint8 of N people",
            f"{frames.shape} {frames.dtype} of {len(people)}",
            "report this",
        )


@dataclass(frozen=True)
class PackedSegmentation:
    """A `Segmentation` with eight mask pixels in a byte."""

    shape: tuple[int, ...]
    bits: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.float32]

    @classmethod
    def pack(cls, segmentation: Segmentation) -> "PackedSegmentation":
        """Pack masks (N, R, S, S)."""
        masks = segmentation.masks
        return cls(masks.shape, np.packbits(masks, axis=None), segmentation.confidence)

    def unpack(self) -> Segmentation:
        """Return the masks (N, R, S, S) that were packed, and their confidence."""
        count = int(np.prod(self.shape))
        masks: Mask = np.unpackbits(self.bits, count=count).reshape(self.shape).astype(np.bool_)
        return Segmentation(masks, self.confidence)


@dataclass(frozen=True)
class Extras:
    """What a caller asks for beside the numbers."""

    overlay: bool = False
    """The hips with the contours of their regions."""
    explain: bool = False
    """A heat map on each region's view."""
    dicom: bool = False
    """A structured report and a segmentation of the film's own study."""

    @property
    def needs_masks(self) -> bool:
        """Whether the masks must come along."""
        return self.overlay or self.dicom


NUMBERS_ONLY = Extras()


@dataclass(frozen=True)
class AskedFilm:
    """What the fused stage is asked: hips, and what of its intermediate results to send along."""

    hips: FramedHips
    extras: Extras = NUMBERS_ONLY


@dataclass(frozen=True)
class ScoredFilm:
    """The numbers of one film's hips, and what they were computed from where it is asked for."""

    rows: list[HipNumbers]
    segmentation: PackedSegmentation | None = None
    views: Views | None = None
    explanations: Explanations | None = None


@dataclass(frozen=True)
class SegmentedFrames:
    """What matting needs: hips and their masks."""

    hips: FramedHips
    segmentation: PackedSegmentation
