"""The data of an experiment as one lane sees it."""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from hipray.config.experiment import Experiment
from hipray.data.dataset import HipArrays, load_arrays
from hipray.data.splits import FoldIndices, fold_indices
from hipray.storage import Store
from hipray.vocab import Fit, SegmenterFit


@dataclass(frozen=True)
class FitInputs:
    """The data of an experiment as one lane sees it; arrays are decoded once and shared."""

    store: Store
    manifest: pd.DataFrame
    split: pd.DataFrame
    experiment: Experiment

    @cached_property
    def arrays(self) -> HipArrays:
        """The framed hips and masks in manifest order."""
        return load_arrays(self.store, self.manifest, side=self.experiment.data.working_px)

    def fold(self, fit: Fit | SegmenterFit) -> FoldIndices:
        """Return the manifest rows that train and test `fit`."""
        return fold_indices(self.manifest, self.split, repeat=fit.repeat, fold=fit.fold)
