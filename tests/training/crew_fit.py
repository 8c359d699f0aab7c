"""One small fit as each process of a crew runs it, without dropout and batch norm."""

import numpy as np
import torch

from hipray.classification.odds import OddsScale
from hipray.config.experiment import ClassifierSettings
from hipray.data.person import NOBODY, encode_people
from hipray.training.classifier import ClassifierTask
from hipray.training.context import FitContext
from hipray.training.crew import Crew
from hipray.training.loop import run_epochs
from hipray.training.views import LabelledViews
from hipray.vocab import Cell, Fit, LabelType, Region, Variant

FIT = Fit(Cell(Region.TOTAL_HIP, LabelType.T_SCORE, "vgg11", Variant.AUGMENTED), 0, 0)
SETTINGS = ClassifierSettings(size_px=32, dropout=0.0, batch=6, epochs=3, lr=1e-4)


def train(rank: int, size: int) -> list[float]:
    """Train and return the training losses, then the inner losses."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    labels = np.arange(10) % 2
    films = rng.integers(0, 256, (10, 32, 32)).astype(np.uint8)
    views = LabelledViews(np.arange(10), films, labels, encode_people([NOBODY] * 10), np.zeros(10))
    context = FitContext(crew=Crew(rank, size))
    task = ClassifierTask(
        FIT, views, views,
        settings=SETTINGS, odds=OddsScale((0.6, 1.5)), start=None, context=context,
    )  # fmt: skip
    history = run_epochs(task, epochs=3, patience=3, seed=1, context=context)
    return history.train_loss + history.inner_loss
