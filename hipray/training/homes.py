"""Where a fit's films lie while it trains.

A copy out of pageable memory makes the host wait for all that its GPU has to do; films that lie on
the GPU are gathered there.
"""

import torch

HELD_BYTES = 2**28
"""Most bytes of films and masks that a fit holds on its GPU, 5 000 films of 224 px. Small against
any GPU, and counted in every fit's need of memory; a trial, which is not checked, holds as much for
each inner fold."""


def find_home(size_bytes: int, device: torch.device) -> torch.device:
    """Return `device` for films of this size that it can hold throughout a fit, else the CPU."""
    return device if size_bytes <= HELD_BYTES else torch.device("cpu")
