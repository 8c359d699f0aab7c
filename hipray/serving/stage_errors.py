"""What goes wrong between the stages; this module loads no networks, so that the proxy may."""

from hipray.errors import HiprayError


class ForeignReleaseError(HiprayError):
    """A message belongs to another release: two releases never mix in one answer."""


class DeadlinePassedError(HiprayError):
    """Nobody waits for this answer any more."""


class MalformedMessageError(HiprayError):
    """A message does not have the shape that its stage takes."""


class GpuLostError(HiprayError):
    """The GPU of a replica failed: nothing in its process can use it any more."""


class GpuFaultError(GpuLostError):
    """It failed while a batch with this message was computed, which may be the cause."""
