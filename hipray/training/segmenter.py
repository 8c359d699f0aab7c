"""Training one segmenter and letting it draw the masks of the hips it did not see.

Legend of shapes: N hips, S side of the frame in pixels, R regions of this network.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from hipray.config.experiment import Schedule, SegmenterSettings
from hipray.data.augment import jitter_batch
from hipray.data.dataset import HipArrays
from hipray.data.framing import resize_square
from hipray.data.intensity import centre
from hipray.data.splits import FoldIndices, Indices, hold_back
from hipray.errors import DataError
from hipray.metrics import dice, iou
from hipray.runtime.network import TorchNetwork, arrange
from hipray.segmentation.losses import segmentation_loss
from hipray.segmentation.model import Tensors, build_network
from hipray.segmentation.segmenter import MaskNetwork, Segmentation, Segmenter, SegmenterNetwork
from hipray.training.context import FitContext
from hipray.training.homes import find_home
from hipray.training.loop import History, mean_loss, run_epochs
from hipray.training.schedules import build_optimizer, set_learning_rate
from hipray.training.seeds import seed_fit
from hipray.vocab import REGIONS, SegmenterFit


@dataclass(frozen=True)
class SegmenterOutcome:
    """A trained segmenter with its out-of-fold masks and scores."""

    module: nn.Module
    history: History
    test_rows: Indices
    segmentation: Segmentation
    """Masks of `test_rows`, all regions; regions this network lacks are empty."""
    scores: pd.DataFrame
    """One row per annotated test hip and region: hip_id, region, iou, dice, background_iou."""


class _SegmenterTask:
    """Epochs over annotated films with jitter; validation without."""

    def __init__(
        self,
        fit: SegmenterFit,
        arrays: HipArrays,
        *,
        rows: tuple[Indices, Indices],
        settings: SegmenterSettings,
        context: FitContext,
        start: Tensors | None,
    ) -> None:
        self._settings = settings
        self._context = context
        channels = [REGIONS.index(region) for region in fit.regions]
        train = _gather(arrays, rows[0], channels, settings.size_px)
        inner = _gather(arrays, rows[1], channels, settings.size_px)
        self._home = find_home(sum(t.nbytes for t in (*train, *inner)), context.device)
        self._train, self._inner = (
            tuple(t.to(self._home) for t in part) for part in (train, inner)
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed_fit(settings.seed, fit))
            network = build_network(
                fit.arch, settings, outputs=len(channels), start=start,
                shares=_mean_shares(*train[1:]),
            )  # fmt: skip
        self.module: nn.Module = arrange(network.to(context.device))
        self._shared = context.crew.wrap(self.module, context.device)
        self.optimizer = build_optimizer(
            self.module, lr=settings.lr, weight_decay=settings.weight_decay
        )

    def train_epoch(self, epoch: int, generator: torch.Generator) -> float:
        set_learning_rate(
            self.optimizer, self._settings.lr, Schedule.COSINE,
            epoch=epoch, epochs=self._settings.epochs,
        )  # fmt: skip
        films, masks, annotated = self._train
        losses = []
        crew = self._context.crew
        order = torch.randperm(len(films), generator=generator).to(self._home)
        for rows in _batches(order, self._settings.batch, least=2 * crew.size):
            self._context.check_deadline()
            batch, truth = jitter_batch(*self._show(films[rows], masks[rows]), generator=generator)
            known = annotated[rows]
            own = crew.share(known)
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._loss(self._shared, crew.share(batch), crew.share(truth), own)
            if crew.size > 1:
                loss = crew.weigh(loss, own=_count(own), total=_count(known))
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            losses.append(loss.detach())
        return crew.mean(mean_loss(losses))

    def validate(self) -> float:
        films, masks, annotated = self._inner
        losses = []
        for start in range(0, len(films), self._settings.batch):
            rows = slice(start, start + self._settings.batch)
            shown, truth = self._show(films[rows], masks[rows])
            loss = self._loss(self.module, shown, truth, annotated[rows])
            losses.append(loss.double() * len(shown))
        return float(np.sum(torch.stack(losses).cpu().numpy()) / len(films))

    def _show(self, films: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return films (B, S, S) as grey values (B, 1, S, S) and masks (B, R, S, S), as float.

        Those that are not on the device travel as bytes; what moves them then is its work.
        """
        device = self._context.device
        return films.to(device)[:, None].float() / 255, masks.to(device).float()

    def _loss(
        self,
        network: nn.Module,
        films: torch.Tensor,
        masks: torch.Tensor,
        annotated: torch.Tensor,
    ) -> torch.Tensor:
        device = self._context.device
        with self._context.autocast():
            logits = network(centre(films))
        return segmentation_loss(
            logits.float(), masks, annotated.to(device), kind=self._settings.loss
        )


def train_segmenter(
    fit: SegmenterFit,
    manifest: pd.DataFrame,
    arrays: HipArrays,
    *,
    fold: FoldIndices,
    settings: SegmenterSettings,
    context: FitContext,
    start: Tensors | None = None,
) -> SegmenterOutcome:
    """Train `fit` on the annotated hips of its training side and segment its test hips.

    `start` are the tensors of a weights file. Raises DataError where the training side has too few
    annotated hips.
    """
    channels = [REGIONS.index(region) for region in fit.regions]
    annotated = fold.train[arrays.has_mask[fold.train][:, channels].any(1)]
    patients = manifest["patient_id"].iloc[annotated].nunique()
    if patients < 3:
        wanted = ", ".join(region.display_name for region in fit.regions)
        raise DataError(
            f"annotated masks of {wanted} for 3 patients or more",
            f"{patients}",
            "add annotations, or train the original and augmented variants only",
        )
    seed = seed_fit(settings.seed, fit)
    kept, held = hold_back(
        manifest,
        annotated,
        stratify=None,  # labels do not shape masks
        fraction=settings.inner_fraction,
        seed=seed,
    )
    task = _SegmenterTask(
        fit, arrays, rows=(kept, held), settings=settings, context=context, start=start
    )
    history = run_epochs(
        task,
        epochs=settings.epochs,
        patience=settings.patience,
        seed=seed,
        context=context,
    )
    trained = TorchNetwork(MaskNetwork(task.module), device=context.device)
    network = SegmenterNetwork(trained, fit.regions, settings.size_px)
    segmentation = Segmenter([network])(arrays.films[fold.test])
    scores = score_masks(manifest, arrays, segmentation, fit=fit, rows=fold.test)
    return SegmenterOutcome(task.module, history, fold.test, segmentation, scores)


def score_masks(
    manifest: pd.DataFrame,
    arrays: HipArrays,
    segmentation: Segmentation,
    *,
    fit: SegmenterFit,
    rows: Indices,
) -> pd.DataFrame:
    """Return IoU and Dice of each annotated hip in `rows` and region of `fit`, per film."""
    scores = []
    for position, row in enumerate(rows):
        for region in fit.regions:
            channel = REGIONS.index(region)
            if arrays.has_mask[row, channel]:
                drawn, truth = segmentation.masks[position, channel], arrays.masks[row, channel]
                scores.append(
                    {
                        "hip_id": manifest["hip_id"].iloc[row],
                        "patient_id": manifest["patient_id"].iloc[row],
                        "arch": fit.arch.value,
                        "region": region.value,
                        "repeat": fit.repeat,
                        "fold": fit.fold,
                        "iou": iou(drawn, truth),
                        "dice": dice(drawn, truth),
                        "background_iou": iou(~drawn, ~truth),
                    }
                )
    return pd.DataFrame(scores)


def _gather(
    arrays: HipArrays, rows: Indices, channels: list[int], size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Films (N, S, S) uint8, masks (N, R, S, S) bool and annotated (N, R), copied from the map."""
    films = torch.from_numpy(np.array(resize_square(arrays.films[rows], size)))
    masks = [
        resize_square(arrays.masks[rows, channel].astype(np.uint8) * 255, size) >= 128
        for channel in channels
    ]
    annotated = torch.from_numpy(np.array(arrays.has_mask[rows][:, channels]))
    return films, torch.from_numpy(np.stack(masks, 1)), annotated


def _mean_shares(masks: torch.Tensor, annotated: torch.Tensor) -> list[float]:
    """Return the share of the frame (R,) that each region takes in the films that show it."""
    shares = masks.flatten(2).count_nonzero(2) / masks[0, 0].numel() * annotated
    return (shares.sum(0) / annotated.sum(0).clamp(min=1)).tolist()


def _count(annotated: torch.Tensor) -> torch.Tensor:
    """Return the annotated channels (B, R) that the loss is the mean over, in float64."""
    return annotated.sum().clamp(min=1).double()


def _batches(order: torch.Tensor, size: int, *, least: int) -> list[torch.Tensor]:
    """Batches of at least `least` films: batch norm cannot learn from one in a process."""
    parts = list(torch.split(order, size))
    if len(parts) > 1 and len(parts[-1]) < least:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts
