"""The peer of batch scoring: a loop over a DataLoader, as one writes it for a few thousand films.

boto3 and pydicom in two loader workers, the networks eager on batches of 16 in this process, one
CSV at the end. No isolation, no retries, no resume. The networks are hipray's own, built from the
same settings, and a film costs the same number of forward passes on both sides.

    python -m hipray.benchmarks.peers.score_loop JOB.json

It prints a JSON line with the films and the seconds from the first batch to the last.
"""

import csv
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import torch
from torch.utils.data import DataLoader, Dataset

from hipray.classification.model import build_network
from hipray.config.experiment import ClassifierSettings

BATCH = 16
WORKERS = 2


class Films(Dataset[torch.Tensor]):
    """Films of a bucket, decoded and scaled to the networks' size."""

    def __init__(self, job: dict[str, Any], keys: list[str]) -> None:
        self._job = job
        self._keys = keys
        self._client: Any = None

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, place: int) -> torch.Tensor:
        """Return one film (1, P, P) in 0..1."""
        if self._client is None:
            self._client = open_client(self._job)
        body = self._client.get_object(Bucket=self._job["bucket"], Key=self._keys[place])["Body"]
        film = pydicom.dcmread(io.BytesIO(body.read())).pixel_array.astype(np.float32)
        low, high = np.percentile(film, (0.5, 99.5))
        film = np.clip((film - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
        side = self._job["size_px"]
        return torch.from_numpy(cv2.resize(film, (side, side), interpolation=cv2.INTER_AREA))[None]


def open_client(job: dict[str, Any]) -> Any:
    """Return a client of the job's store."""
    import botocore.session

    return botocore.session.get_session().create_client("s3", endpoint_url=job["endpoint_url"])


def list_keys(job: dict[str, Any]) -> list[str]:
    """Return all keys of the archive, listed before anything is scored."""
    pages = (
        open_client(job)
        .get_paginator("list_objects_v2")
        .paginate(Bucket=job["bucket"], Prefix=job["prefix"] + "/")
    )
    return [entry["Key"] for page in pages for entry in page.get("Contents", ())]


def main(job_path: str) -> None:
    """Score every film of a job and say how long it took from the first batch on."""
    job = json.loads(Path(job_path).read_text())
    torch.set_num_threads(job["threads"])
    keys = list_keys(job)
    networks = [
        build_network(backbone, ClassifierSettings(**job["settings"])).eval()
        for backbone in job["backbones"]
    ]
    loader = DataLoader(Films(job, keys), batch_size=BATCH, num_workers=WORKERS)
    rows: list[list[float]] = []
    first = 0.0
    with torch.no_grad():
        for batch in loader:
            scores = [network(batch).softmax(1)[:, 1] for network in networks]
            rows.extend(torch.stack(scores, dim=1).tolist())
            first = first or time.perf_counter()
    seconds = time.perf_counter() - first
    with Path(job["out"]).open("w", newline="") as file:
        csv.writer(file).writerows([key, *row] for key, row in zip(keys, rows, strict=True))
    print(json.dumps({"films": len(rows) - BATCH, "seconds": seconds}))  # noqa: T201 - the result


if __name__ == "__main__":
    main(sys.argv[1])
