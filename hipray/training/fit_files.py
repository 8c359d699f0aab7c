"""The files of a finished fit: their names, and how each is written and read.

weights.safetensors    the network's tensors
model.json             its specification
predictions.parquet    a classifier's scores of inner-validation and test hips
masks.npz              a segmenter's masks of its test hips, as bits
mask_scores.parquet    their IoU and Dice, one row per hip and region
history.json           the epochs
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hipray.data.framing import Mask

WEIGHTS_FILE = "weights.safetensors"
MODEL_FILE = "model.json"
PREDICTIONS_FILE = "predictions.parquet"
MASK_SCORES_FILE = "mask_scores.parquet"
MASKS_FILE = "masks.npz"
HISTORY_FILE = "history.json"


@dataclass(frozen=True)
class FitFiles:
    """A finished fit, ready to be committed."""

    files: dict[str, bytes]
    summary: dict[str, Any]


def dump_frame(frame: pd.DataFrame) -> bytes:
    """Return a frame as Parquet."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), buffer, compression="zstd")
    return buffer.getvalue()


def load_frame(data: bytes) -> pd.DataFrame:
    """Return the frame that `dump_frame` wrote."""
    frame: pd.DataFrame = pq.read_table(io.BytesIO(data)).to_pandas()
    return frame


def load_masks(data: bytes) -> tuple[list[str], Mask]:
    """Return hip ids and masks (n, R, S, S) of a segmenter fit's mask file."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        shape = tuple(archive["shape"])
        count = int(np.prod(shape))
        masks = np.unpackbits(archive["bits"], count=count).reshape(shape).astype(np.bool_)
        return [str(hip_id) for hip_id in archive["hip_ids"]], masks


def dump_masks(hip_ids: Sequence[str], masks: Mask, confidence: npt.NDArray[np.float32]) -> bytes:
    """Return masks (n, R, S, S) and their confidence (n, R) as a mask file."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        bits=np.packbits(masks),
        shape=np.array(masks.shape),
        confidence=confidence,
        hip_ids=np.array(hip_ids, str),
    )
    return buffer.getvalue()


def dump_json(values: dict[str, Any]) -> bytes:
    """Return a specification or a history as JSON."""
    return json.dumps(values, indent=1, sort_keys=True).encode()
