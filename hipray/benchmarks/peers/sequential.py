"""The peer of the lanes: one process that trains the cells of a paper's table one after another.

What someone who knows PyTorch writes for a handful of experiments on one machine: all films in
memory, all cores on one network, no data loader, no checkpoints, no ledger. It shares with hipray
the decoded films, the choice of hips and the network's definition, and nothing of its training.

    python -m hipray.benchmarks.peers.sequential JOB.json

The job names an array of films (N, S, S) uint8, the recipe and the cells; results are written
where it says.
"""

import json
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
import torch.nn.functional as F  # noqa: N812  the name every torch user knows
from torch import nn

from hipray.classification.model import build_network
from hipray.config.experiment import ClassifierSettings

Films = npt.NDArray[np.uint8]

MOVES = ((0, 0, 0), (-3, 0, 0), (3, 0, 0), (0, -5, 0), (0, 5, 0), (0, 0, -5), (0, 0, 5))
"""Degrees, and pixels of a 224 px film along x and y: the seven copies of Feng et al., Table 1."""


def main(job_path: str) -> None:
    """Train every cell of a job and write what it took."""
    job = json.loads(Path(job_path).read_text())
    torch.set_num_threads(job["threads"])
    films = np.load(job["films"], mmap_mode="r", allow_pickle=False)
    recipe = ClassifierSettings(**job["recipe"])
    started = time.time()
    cells = [train_cell(cell, films, recipe, Path(job["out"])) for cell in job["cells"]]
    result = {"started_s": started, "ended_s": time.time(), "cells": cells}
    (Path(job["out"]) / "result.json").write_text(json.dumps(result))


def train_cell(
    cell: dict[str, Any], films: Films, recipe: ClassifierSettings, out: Path
) -> dict[str, Any]:
    """Train one cell, keep the weights of its best epoch and score the hips held back."""
    began = time.time()
    torch.manual_seed(cell["seed"])
    x, y = prepare(films, cell["train"], cell["train_labels"], recipe, augmented=cell["augmented"])
    x_inner, y_inner = prepare(films, cell["inner"], cell["inner_labels"], recipe, augmented=False)
    x_test, _ = prepare(films, cell["test"], cell["test_labels"], recipe, augmented=False)
    model = build_network(cell["backbone"], recipe)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    positive = float(np.mean(cell["train_labels"]))
    loss_of = nn.CrossEntropyLoss(weight=torch.tensor([0.5 / (1 - positive), 0.5 / positive]))

    steps = -(-len(cell["train"]) // recipe.batch)
    batches = draw_batches(len(x), min(recipe.batch, len(x)))
    zoom_by = recipe.batch_scale if cell["augmented"] else 0.0
    losses: list[float] = []
    best_loss, best = float("inf"), {}
    for _ in range(recipe.epochs):
        model.train()
        for rows in islice(batches, steps):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(model(zoom(x[rows][:, None].float() / 255, zoom_by)), y[rows])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        inner_loss = loss_of(score(model, x_inner), y_inner).item()
        if inner_loss < best_loss:
            best_loss = inner_loss
            best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(best)
    held = torch.cat([score(model, x_inner), score(model, x_test)]).softmax(1)[:, 1]
    np.savetxt(out / f"{cell['name']}.csv", held.numpy())
    safetensors.torch.save_file(best, out / f"{cell['name']}.safetensors")
    return {
        "name": cell["name"],
        "backbone": cell["backbone"],
        "steps": len(losses),
        "first_loss": losses[0],
        "seconds": time.time() - began,
    }


def prepare(
    films: Films, rows: list[int], labels: list[int], recipe: ClassifierSettings, *, augmented: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return films (n, P, P) uint8 at the network's size and labels, seven of each if augmented."""
    side = recipe.size_px
    small = [
        cv2.resize(films[row], (side, side), interpolation=cv2.INTER_AREA)
        if films[row].shape[0] > side
        else cv2.resize(films[row], (side, side))
        for row in rows
    ]
    moves = MOVES if augmented else MOVES[:1]
    copies = np.stack([move(film, *by) for film in small for by in moves])
    return torch.from_numpy(copies), torch.tensor(labels).repeat_interleave(len(moves))


def move(film: npt.NDArray[Any], degrees: float, dx: float, dy: float) -> npt.NDArray[Any]:
    """Return a film (P, P) turned about its centre and shifted."""
    if not (degrees or dx or dy):
        return film
    side = film.shape[0]
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), degrees, 1.0)
    matrix[:, 2] += np.round(np.array([dx, dy]) * side / 224)
    return np.asarray(cv2.warpAffine(film, matrix, (side, side)))


def draw_batches(count: int, batch: int) -> Iterator[torch.Tensor]:
    """Yield rows of full batches, pass after pass over all films, each in a new order."""
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < batch:
            left = torch.cat([left, torch.randperm(count)])
        yield left[:batch]
        left = left[batch:]


def zoom(batch: torch.Tensor, amount: float) -> torch.Tensor:
    """Return films (B, 1, P, P) scaled about their centre by one random factor."""
    if not amount:
        return batch
    factor = 1 + amount * (2 * torch.rand(()).item() - 1)
    theta = torch.tensor([[1 / factor, 0, 0], [0, 1 / factor, 0]]).expand(len(batch), 2, 3)
    grid = F.affine_grid(theta, list(batch.shape), align_corners=False)
    return F.grid_sample(batch, grid, align_corners=False)


@torch.inference_mode()
def score(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the logits (n, 2) of films (n, P, P) uint8."""
    model.eval()
    return torch.cat([model(part[:, None].float() / 255) for part in torch.split(x, 32)])


if __name__ == "__main__":
    main(sys.argv[1])
