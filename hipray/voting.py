"""How members' votes become one probability, in a grid's evaluation and in what is served."""

from collections.abc import Sequence
from typing import assert_never

import numpy as np
import numpy.typing as npt

from hipray.config.evaluation import Combine


def combine_votes(
    votes: npt.NDArray[np.float64], weights: Sequence[float], combine: Combine
) -> npt.NDArray[np.float64]:
    """Return one probability (N,) from members' votes (M, N)."""
    match combine:
        case Combine.MEDIAN:
            return np.asarray(np.median(votes, axis=0), np.float64)
        case Combine.MEAN | Combine.WEIGHTED:
            return np.asarray(np.average(votes, axis=0, weights=weights), np.float64)
        case _:
            assert_never(combine)
