"""The peer of the endpoint: one FastAPI application under uvicorn, eager torch, film by film.

What someone who knows FastAPI and torch writes in an afternoon: networks in memory, one function,
a lock around the networks because torch already uses all cores. It shares with hipray the
decoding, cutting and the networks' definition, so that both compute the same; it has no batches,
no isolated decoder, no queue with an end and no deadline.

    python -m hipray.benchmarks.peers.handwritten JOB.json

The job names the workspace, the release, the port and how many threads torch may use.
"""

import json
import sys
import threading
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, UploadFile

from hipray.answers import answer_as_dict
from hipray.pipeline import Pipeline, load_stages
from hipray.releases.release import read_release
from hipray.storage import open_store


def build_app(pipeline: Pipeline) -> FastAPI:
    """Return the application around loaded networks."""
    app, lock = FastAPI(), threading.Lock()

    @app.post("/score")
    def score(file: UploadFile) -> dict[str, Any]:
        data = file.file.read()
        with lock:
            return answer_as_dict(pipeline(data))

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "live"}

    return app


def main(job_path: str) -> None:
    """Serve until the process is ended."""
    job = json.loads(Path(job_path).read_text())
    torch.set_num_threads(job["threads"])
    store = open_store(job["workspace"])
    pipeline = Pipeline(load_stages(store, read_release(store, job["release"])))
    uvicorn.run(build_app(pipeline), host="127.0.0.1", port=job["port"], log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1])
