"""Random streams that depend on names alone, never on the order in which films are drawn."""

import hashlib

import numpy as np


def derive_seed(*names: object) -> int:
    """Hash `names` (dataset seed, patient, side, purpose) into a 64-bit seed."""
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def open_stream(*names: object) -> np.random.Generator:
    """Open the random stream called `names`; equal names give equal numbers anywhere."""
    return np.random.default_rng(derive_seed(*names))
