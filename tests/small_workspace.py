"""A small experiment within seconds: phantom films, their manifest and a finished grid.

The films are tiny and the networks trained for an epoch or two: enough to show that every part
meets the next, not to measure skill.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hipray.config.experiment import (
    ClassifierSettings,
    DataSettings,
    Experiment,
    SegmenterSettings,
    SplitSettings,
)
from hipray.config.jobs import GridRun, IngestRun
from hipray.config.phantom import PhantomConfig
from hipray.data.flow import Flow
from hipray.data.ingest import run_ingest
from hipray.data.listing import ARCHIVE_NOTE
from hipray.data.phantom import PhantomStudy, dxa_csv, plan_archive, write_study
from hipray.storage import Store, open_store
from hipray.training.context import FitContext
from hipray.training.lane import LaneReport, LaneSettings, drain
from hipray.training.ledger import Ledger
from hipray.training.preparation import Preparation, describe_run, prepare
from hipray.training.run_plan import write_run_plan
from hipray.vocab import DataSource, LabelType, Region, Variant

BACKBONE = "resnet10t"
TABLE = "dxa.csv"
PHANTOMS = PhantomConfig(seed=11, n_patients=30, n_second_hips=4, n_device_a=18, image_px=192)
EXPERIMENT = Experiment(
    data=DataSettings(working_px=192),
    split=SplitSettings(folds=3),
    segmenter=SegmenterSettings(
        size_px=64,
        encoder="mobilenet_v2",
        decoder_channels=(32, 32, 16, 16, 16),
        epochs=8,
        patience=8,
        batch=6,
        lr=1e-2,
    ),
    classifier=ClassifierSettings(size_px=64, epochs=2, batch=4, lr=1e-3),
)


@dataclass(frozen=True)
class SmallArchive:
    """Phantom films with annotations and a DXA table in a folder."""

    folder: Path
    studies: tuple[PhantomStudy, ...]


@dataclass(frozen=True)
class SmallWorkspace:
    """An ingested archive."""

    store: Store
    archive: SmallArchive
    flow: Flow


@dataclass(frozen=True)
class SmallGrid:
    """A finished grid."""

    store: Store
    config: GridRun
    preparation: Preparation
    ledger: Ledger
    report: LaneReport


def write_archive(folder: Path, config: PhantomConfig = PHANTOMS) -> SmallArchive:
    """Write a phantom archive of local files and return it."""
    studies = tuple(plan_archive(config))
    for study in studies:
        write_files(folder, write_study(config, study))
    note = json.dumps({"source": DataSource.PHANTOM}).encode()
    write_files(folder, {TABLE: dxa_csv(config, studies), ARCHIVE_NOTE: note})
    return SmallArchive(folder, studies)


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write `files` below `folder`."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def ingest(folder: Path, archive: SmallArchive) -> SmallWorkspace:
    """Read `archive` into a workspace at `folder`."""
    flow = run_ingest(IngestRun(workspace=str(folder), images=str(archive.folder), readers=1))
    return SmallWorkspace(open_store(str(folder)), archive, flow)


def grid_config(
    store: Store,
    *,
    run: str = "small",
    regions: Sequence[Region] = (Region.TOTAL_HIP,),
    variants: Sequence[Variant] = (Variant.ORIGINAL, Variant.SEGMENTED),
    experiment: Experiment = EXPERIMENT,
) -> GridRun:
    """Return a grid of one small network."""
    return GridRun(
        workspace=store.uri,
        run=run,
        regions=tuple(regions),
        label_types=(LabelType.T_SCORE,),
        backbones=(BACKBONE,),
        variants=tuple(variants),
        experiment=experiment,
    )


def train_grid(store: Store, config: GridRun) -> SmallGrid:
    """Prepare and drain a grid with one lane in this process."""
    preparation = prepare(store, config)
    write_run_plan(store, describe_run(config, preparation))
    ledger = Ledger(store, submission="small")
    settings = LaneSettings("lane-0", poll_s=0.01)
    with one_thread():
        report = drain(
            preparation.plan, ledger, preparation.inputs, settings=settings, context=FitContext()
        )
    return SmallGrid(store, config, preparation, ledger, report)


class one_thread:  # noqa: N801  reads as a statement
    """Compute with one torch thread inside the block: small networks gain nothing from more."""

    def __enter__(self) -> None:
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._threads)
