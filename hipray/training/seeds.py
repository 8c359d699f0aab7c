"""The randomness of a fit: its start, its order of films, its dropout and its inner validation."""

from hipray.vocab import Fit, SegmenterFit


def seed_fit(seed: int, fit: Fit | SegmenterFit) -> int:
    """Return the seed of a fit; others of its cell draw otherwise, so that their spread is honest.

    Distinct for each (seed, repeat, fold) below 9 repeats and 101 folds. Cells of one repeat and
    fold share it: what differs between them is not the draw.
    """
    return seed * 1009 + fit.repeat * 101 + fit.fold
