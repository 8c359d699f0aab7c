"""Errors of hipray that Ray wraps into its own on their way to a driver."""

from collections.abc import Iterator
from contextlib import contextmanager

import ray

from hipray.errors import HiprayError


@contextmanager
def raise_own() -> Iterator[None]:
    """Raise the error of hipray behind one of Ray's; any other error of Ray's passes."""
    try:
        yield
    except ray.exceptions.RayError as error:
        own = find_own(error)
        if own is None:
            raise  # a defect or a lost cluster: the trace says where
        raise own from error


def find_own(error: BaseException) -> HiprayError | None:
    """Return the error of hipray behind one of Ray's, or None."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, HiprayError) and not isinstance(seen, ray.exceptions.RayError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return None
