"""What `hipray bench` measures and how large."""

from enum import StrEnum

from pydantic import Field

from hipray.config.base import Config
from hipray.config.jobs import PAPER_BACKBONES
from hipray.config.phantom import PhantomConfig
from hipray.vocab import HEADLINE_REGIONS, Precision, Region, Variant


class GridMeasure(StrEnum):
    """A group of measures of the grid bench."""

    LANES = "lanes"  # against a sequential script, and their start-up
    STEPS = "steps"  # training steps on the real data path and on tensors in memory
    OVERHEAD = "overhead"  # what a fit costs beside its training
    GPU = "gpu"  # films per second of packed processes, and memory; skipped without a GPU


class ScoreMeasure(StrEnum):
    """A group of measures of the score bench."""

    RATES = "rates"  # against the pipeline in process and against a DataLoader loop
    START = "start"  # fixed start-up, and first rows of a long archive
    MEMORY = "memory"  # of driver and actors, and the resume of a finished run


class GpuBench(Config):
    """The part of the grid bench that needs a GPU."""

    size_px: int = Field(224, ge=32, le=1024)
    """Input side in pixels."""
    batch: int = Field(16, ge=2)
    """Films per optimiser step."""
    processes: tuple[int, ...] = (1, 2, 4)
    """Training processes packed on one GPU."""
    seconds: float = Field(5, gt=0)
    """Seconds that each rate is measured for."""
    preset: str = "paper"
    """Grid whose wall time is projected from the rates."""


class GridBench(Config):
    """The grid bench: its cells are those of regions x backbones x variants, on one fold."""

    regions: tuple[Region, ...] = (Region.TOTAL_HIP,)
    """Regions of the measured cells."""
    backbones: tuple[str, ...] = PAPER_BACKBONES
    """Networks of the measured cells."""
    variants: tuple[Variant, ...] = (Variant.ORIGINAL, Variant.AUGMENTED)
    """Variants of the measured cells; `segmented` would need segmenters, which are not measured."""
    size_px: int = Field(64, ge=32, le=1024)
    """Input side in pixels."""
    working_px: int = Field(256, ge=32, le=2048)
    """Side in pixels of the decoded films."""
    batch: int = Field(16, ge=2)
    """Films per optimiser step."""
    epochs: int = Field(4, ge=1)
    """Epochs of each cell; none stops early."""
    repeats: int = Field(3, ge=1)
    """How often both sides train all cells, in turn."""
    cores: int = Field(2, ge=1)
    """CPU cores that either side is given; the script uses as many torch threads."""
    lanes: int = Field(2, ge=1)
    """Lanes that share the cores."""
    local_lanes: bool = False
    """Run the training loop inside the lane's own process instead of a Ray Train worker."""
    step_rounds: int = Field(12, ge=1)
    """Pairs of optimiser steps per network in the comparison of data paths."""
    trivial_backbone: str = "lcnet_035"
    """Tiny network of the fits whose fixed cost is measured."""
    trivial_size_px: int = Field(32, ge=32, le=1024)
    """Input side in pixels of these fits."""
    trivial_fits: int = Field(9, ge=1, le=9)
    """Fits whose fixed cost is measured, one after another and after one more to warm up: with it
    they are the five folds of two variants."""
    gpu: GpuBench = GpuBench()
    """What is measured where there is a GPU."""
    measures: tuple[GridMeasure, ...] = tuple(GridMeasure)
    """What is measured."""


class ScoreBench(Config):
    """The score bench: batch scoring of phantom films on a local S3 server."""

    backbones: tuple[str, ...] = PAPER_BACKBONES
    """Networks of the untrained release, one member each for femoral neck and total hip."""
    size_px: int = Field(224, ge=32, le=1024)
    """Input side in pixels."""
    working_px: int = Field(256, ge=32, le=2048)
    """Side in pixels of the frames."""
    cores: int = Field(2, ge=1)
    """CPU cores that either side is given, the S3 server included."""
    film_px: int = Field(1024, ge=64, le=4096)
    """Side in pixels of the films."""
    different_films: int = Field(16, ge=1, le=1024)
    """Films that are drawn; archives hold copies of them."""
    films: int = Field(640, ge=64)
    """Films of the comparison of rates, in shards of 32; the first shard is not counted."""
    repeats: int = Field(3, ge=1)
    """How often the sides are compared, in turn."""
    long_keys: int = Field(200_000, ge=1)
    """Keys of the archive whose first rows are waited for; few of them are films."""
    small_files: int = Field(20_000, ge=20)
    """Files of the large archive of small files; the small one has a tenth."""
    small_film_share: float = Field(0.02, gt=0, le=1)
    """Share of these that are films; the others are refused after they are fetched."""
    measures: tuple[ScoreMeasure, ...] = tuple(ScoreMeasure)
    """What is measured."""


class ServeBench(Config):
    """The serve bench: an endpoint of a release with random weights, on this machine."""

    regions: tuple[Region, ...] = HEADLINE_REGIONS
    """Regions that the release answers for."""
    backbones: tuple[str, ...] = PAPER_BACKBONES
    """Members for each region."""
    size_px: int = Field(224, ge=32, le=1024)
    """Input side of the members in pixels."""
    segmenter_px: int = Field(256, ge=32, le=1024, multiple_of=32)
    """Input side of the U-Net in pixels."""
    working_px: int = Field(256, ge=32, le=2048)
    """Side in pixels of the frame that regions are cut from."""
    films: int = Field(8, ge=1, le=256)
    """Different films that are sent."""
    film_px: int = Field(512, ge=64, le=2048)
    """Side in pixels of these films."""
    cores: int = Field(2, ge=1)
    """CPU cores that all sides share, and threads of each side's networks."""
    fused: bool = True
    """Whether the endpoint that is compared runs its stages in one deployment, which is not its
    default; that one is measured beside it."""
    batch: int = Field(8, ge=1, le=256)
    """Most films in one forward pass of the endpoint and of the pipeline in process."""
    precision: Precision = Precision.FLOAT32
    """In what numbers both compute; the peer always computes in float32."""
    queue: int = Field(16, ge=1)
    """Requests that may wait at the endpoint's door."""
    rounds: int = Field(3, ge=1)
    """How often all sides are measured, in turn."""
    single_requests: int = Field(8, ge=1)
    """Films of one caller in each round, on every side."""
    requests_per_caller: int = Field(4, ge=1)
    """Films of each of several callers in each round: 32 of eight callers. Lines with a p99 say of
    how many answers it is."""
    overload_factor: float = Field(3.0, gt=1)
    """Requests sent under overload, as a multiple of the highest rate that was answered."""
    overload_s: float = Field(60, gt=0)
    """Seconds of overload."""


class BenchRun(Config):
    """Measure hipray against what a user would otherwise run, both sides on this machine."""

    name: str
    """Name of the bench: grid, score or serve."""
    out: str = "out/bench"
    """Local folder of the measured workspaces."""
    workspace: str | None = None
    """Local folder of an ingested workspace to measure on; it is copied and never written to.
    Default: a phantom archive, made below `out` once."""
    phantom: PhantomConfig = PhantomConfig()
    """The phantom archive."""
    grid: GridBench = GridBench()
    """Sizes of the grid bench."""
    score: ScoreBench = ScoreBench()
    """Sizes of the score bench; it draws its own films."""
    serve: ServeBench = ServeBench()
    """Sizes of the serve bench; it draws its own films."""
