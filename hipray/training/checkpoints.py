"""Checkpoints of a fit in training: safetensors with a hash, the last two kept.

A checkpoint whose hash does not fit is passed over for the one before it.
"""

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hipray.digests import digest_bytes
from hipray.errors import NotFoundError
from hipray.storage import Store

KEPT = 2
"""Checkpoints kept: the last and, should it be damaged, the one before."""

if TYPE_CHECKING:
    import torch  # seconds of CPU, for all who only count what is done

logger = logging.getLogger(__name__)

Tensors = dict[str, "torch.Tensor"]


@dataclass(frozen=True)
class Checkpoint:
    """The state of a fit after `epoch` finished epochs."""

    epoch: int
    tensors: Tensors
    history: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one fit, below one prefix of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then its index entry; then drop the ones no longer kept."""
        import safetensors.torch

        data = safetensors.torch.save(
            {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}
        )
        stem = f"{checkpoint.epoch:05d}"
        self._store.write(f"{stem}.safetensors", data)
        entry = {
            "epoch": checkpoint.epoch,
            "sha256": digest_bytes(data),
            "history": checkpoint.history,
        }
        self._store.write(f"{stem}.json", json.dumps(entry).encode())
        for old in self._epochs()[:-KEPT]:
            self._store.delete(f"{old}.json")
            self._store.delete(f"{old}.safetensors")

    def load_latest(self) -> Checkpoint | None:
        """Return the newest undamaged checkpoint, or None."""
        for stem in reversed(self._epochs()):
            checkpoint = self._load(stem)
            if checkpoint is not None:
                return checkpoint
        return None

    def clear(self) -> None:
        """Delete all checkpoints: the fit is committed."""
        for info in list(self._store.list()):
            self._store.delete(info.key)

    def _epochs(self) -> list[str]:
        keys = [info.key for info in self._store.list()]
        return sorted(key.removesuffix(".json") for key in keys if key.endswith(".json"))

    def _load(self, stem: str) -> Checkpoint | None:
        import safetensors.torch

        try:
            entry = json.loads(self._store.read(f"{stem}.json"))
            data = self._store.read(f"{stem}.safetensors")
            if digest_bytes(data) != entry["sha256"]:
                raise ValueError("its hash does not fit")
            return Checkpoint(entry["epoch"], safetensors.torch.load(data), entry["history"])
        except (ValueError, KeyError, safetensors.SafetensorError) as error:
            logger.warning("checkpoint %s is damaged (%s); taking the one before", stem, error)
            return None
        except NotFoundError:
            return None
