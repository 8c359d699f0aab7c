"""The classifier: views of hips in, the log odds of being abnormal out.

Legend of shapes: N hips, P side of the view in pixels, C numbers that tell a person.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hipray.classification.odds import OddsScale
from hipray.config.experiment import ClassifierSettings
from hipray.data.augment import Move, move_film, paper_moves
from hipray.data.framing import Pixels, resize_square
from hipray.data.person import People
from hipray.runtime.network import Answers, Network


class Classifier:
    """One trained network with the scale that turns its answers into log odds."""

    def __init__(
        self,
        network: Network,
        *,
        settings: ClassifierSettings,
        odds: OddsScale | None = None,
        batch: int = 32,
    ) -> None:
        self._network = network
        self._size_px = settings.size_px
        self._moves = paper_moves(settings) if settings.test_time_augmentation else (Move(),)
        self.odds = odds or OddsScale()
        self._batch = batch

    def __call__(self, views: Pixels, people: People) -> npt.NDArray[np.float64]:
        """Return log odds (N,) of square views (N, P, P) uint8 of any side, of people (N, C)."""
        return self.log_odds(self.ask(views, people))

    def log_odds(self, answers: Sequence[Answers]) -> npt.NDArray[np.float64]:
        """Return the log odds (N,) that the network's answers to each move amount to."""
        odds = [self.odds.log_odds(answer) for answer in answers]
        return np.asarray(np.mean(odds, axis=0), np.float64)

    def scores(self, answers: Sequence[Answers]) -> npt.NDArray[np.float64]:
        """Return T- or Z-scores (N,) of the same; NaN from a network that learned labels."""
        scale = self.odds.score
        if scale is None:
            return np.full(len(answers[0]), np.nan)
        scored = [answer[:, 0].astype(np.float64) for answer in answers]
        return scale.scores(np.mean(scored, axis=0))

    def ask(self, views: Pixels, people: People) -> list[Answers]:
        """Return the network's answers (N, ...), once for each move of the films."""
        parts: list[list[Answers]] = [[] for _ in self._moves]
        for start in range(0, len(views), self._batch):
            rows = slice(start, start + self._batch)
            films = resize_square(views[rows], self._size_px)
            for part, move in zip(parts, self._moves, strict=True):
                moved = np.ascontiguousarray([move_film(film, move) for film in films])
                part.append(self._network(moved, people[rows]))
        empty = np.zeros((0, 2), np.float32)
        return [np.concatenate(part) if part else empty for part in parts]
