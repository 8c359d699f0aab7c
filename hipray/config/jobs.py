"""One frozen configuration per job; `jobs/<name>.py` and `hipray <name>` take the same keys.

Every job names a workspace, the folder or `s3://` prefix that holds its inputs and results.
"""

from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from hipray.config.base import Config
from hipray.config.evaluation import EvaluationConfig
from hipray.config.experiment import Experiment
from hipray.config.images import ImageLimits, Preprocessing
from hipray.config.labels import LabelRules
from hipray.config.phantom import PhantomConfig
from hipray.config.scoring import Machine, PlannedJob, RetryScope, Selection
from hipray.config.serving import LEAST_CPUS_PER_STAGE, EndpointScaling, Pacs
from hipray.config.storage import StorageSettings
from hipray.config.tracking import Tracking
from hipray.vocab import (
    Backbone,
    DataSource,
    LabelType,
    Precision,
    Region,
    RuntimeChoice,
    Sex,
    Side,
    Variant,
)

ChoiceT = TypeVar("ChoiceT")


def _once(given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(given))


Each = Annotated[tuple[ChoiceT, ...], Field(min_length=1), AfterValidator(_once)]
"""At least one choice, each counted once."""

PAPER_BACKBONES = tuple(backbone.value for backbone in Backbone)


class Job(Config):
    """What every job has."""

    workspace: str = "out/work"
    """Folder or s3:// prefix that holds the experiment."""
    storage: StorageSettings = StorageSettings()
    """How stores are reached."""


class PhantomRun(Job):
    """Make a phantom archive: DICOM films, labelme annotations and a DXA table."""

    archive: str = "out/work/archive"
    """Folder or s3:// prefix the archive is written to."""
    phantom: PhantomConfig = PhantomConfig()
    """What is generated."""


class IngestRun(Job):
    """Read an archive into a manifest of canonical hips."""

    images: str = "out/work/archive"
    """Folder or s3:// prefix with the films; labelme files lie beside them or name their path."""
    labels: str | None = None
    """CSV or JSON with DXA values; default: the one table found beside the films."""
    region: Region | None = None
    """Region that columns without a region name mean (a plain `t_score` column)."""
    source: DataSource | None = None
    """phantom or real; default: phantom only where the archive says so itself."""
    readers: int = Field(2, ge=1, le=64)
    """Isolated decoder processes."""
    store_wait_s: float = Field(600, ge=0)
    """Seconds to wait for a store out of reach before ingest ends."""
    limits: ImageLimits = ImageLimits()
    """Size and time limits of decoding."""
    preprocessing: Preprocessing = Preprocessing()
    """How films become canonical hips."""
    rules: LabelRules = LabelRules()
    """How DXA values become labels."""


class Scaling(Config):
    """How the work is spread; never part of a fit's identity."""

    lanes: int | None = Field(None, ge=1)
    """Lanes that run at the same time, each a Ray Train run of its own. None: as many as the
    cluster's CPUs, GPUs and memory hold, on a laptop as on a cluster, and more as nodes come. A
    number is asked for whole: lanes that do not fit yet wait and make an autoscaler add nodes."""
    local_lanes: bool = False
    """Run the training loop inside the lane's own process instead of a Ray Train worker."""
    workers_per_fit: int = Field(1, ge=1, le=64)
    """Workers of one lane that train each fit together (distributed data parallel)."""
    cpus_per_lane: float = Field(1, gt=0)
    """CPUs that each worker of a lane reserves; its torch threads are set to match."""
    gpus_per_lane: float = Field(0, ge=0)
    """GPUs that each worker of a lane reserves; a fraction packs lanes on one GPU."""
    gpu_memory_gib: float | None = Field(None, gt=0)
    """Memory of one GPU in GiB, for the check that the largest fit fits; default: ask the GPUs."""
    max_attempts: int = Field(2, ge=1)
    """Tries of a fit that raises, in one submission."""
    max_lane_restarts: int = Field(10, ge=0)
    """Restarts of a lane whose process dies."""
    lease_s: float = Field(60, gt=0)
    """Seconds without a heartbeat after which a lane's fit is handed out again."""
    checkpoint_s: float = Field(30, ge=0)
    """Seconds of training that a killed fit may lose beside the epoch it was in: an epoch is saved
    once this many have passed since the last one. 0 saves each epoch. A checkpoint of ResNet50 is
    400 MB: saved after each short epoch it would cost more than the training."""
    fit_timeout_s: float | None = Field(None, gt=0)
    """Time limit of one fit in seconds. A fit that hangs past it takes its lane's process along,
    which starts again and goes on with other fits."""
    idle_lane_s: float = Field(60, gt=0)
    """Seconds without a fit to claim after which a lane ends and gives its node back."""
    store_wait_s: float = Field(600, ge=0)
    """Seconds that lanes and driver wait for a store out of reach before they end."""

    @model_validator(mode="after")
    def _check_crews(self) -> Self:
        if self.workers_per_fit > 1 and self.local_lanes:
            raise ValueError("workers_per_fit > 1 needs Ray Train workers; set local_lanes = false")
        if self.workers_per_fit > 1 and 0 < self.gpus_per_lane < 1:
            raise ValueError(
                "workers_per_fit > 1 needs whole GPUs: two workers of a fit cannot share one; "
                "set gpus_per_lane = 1"
            )
        return self


class GridRun(Job):
    """Train every cell of a grid."""

    run: str = Field("grid", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$")
    """Name of the run below runs/."""
    manifest: str = "manifest.parquet"
    """Manifest in the workspace; another one trains on other labels of the same hips."""
    regions: Each[Region] = tuple(Region)
    """Regions of the grid."""
    label_types: Each[LabelType] = tuple(LabelType)
    """Labels of the grid."""
    backbones: Each[str] = PAPER_BACKBONES
    """Networks of the grid: any timm names."""
    variants: Each[Variant] = tuple(Variant)
    """Data variants of the grid."""
    cells: bool = True
    """Whether cells are trained; false trains only the segmenters of their masks."""
    test_folds: Each[int] | None = None
    """Folds that are tested; default all. `[0]` of five folds is the paper's 8:2 hold-out."""
    scaling: Scaling = Scaling()
    """How the work is spread."""
    tracking: Tracking = Tracking()
    """Where finished fits are shown beside the run's own files."""
    experiment: Experiment = Experiment()
    """The scientific settings."""


class SegmentRun(GridRun):
    """Train only the segmenters of a grid; the grid then takes them as they are."""


class ReportRun(Job):
    """Write the report of a run."""

    run: str = "grid"
    """Name of the run."""
    folder: str = Field("report", pattern=r"^report[A-Za-z0-9._-]{0,54}$")
    """Folder of the workspace that it is written to; another one keeps the report before."""
    statements: dict[str, str] = Field(default_factory=dict)
    """What the data cannot tell, for the model card: a sentence per topic, such as ethics,
    funding, dates, setting, acquisition or annotations."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Intervals and resampling."""


class ReleaseRun(Job):
    """Publish a run's chosen cells as one release."""

    run: str = "grid"
    """Name of the run."""
    name: str = Field("default", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$")
    """Name of the release."""
    regions: Each[Region] | None = None
    """Regions the release answers for; default: femoral neck and total hip where the run has them,
    else all of the run."""
    label_types: Each[LabelType] | None = None
    """Labels the release answers for; default: the T-score where the run has it."""
    backbones: Each[str] | None = None
    """Members of the ensemble; default: the networks of the run."""
    variant: Variant | None = None
    """Data variant of the members; it decides the view: whole or matted. Default: segmented where
    the run has it, else the run's first one."""
    folds: Each[int] = (0,)
    """Folds whose fits are members; more folds, more members."""
    repeats: Each[int] = (0,)
    """Repeats whose fits are members."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How members are combined, the headline's threshold, and intervals of the release's result."""


class InferenceJob(Job):
    """What jobs that answer films with a release have."""

    release: str = "default"
    """Name of a release of the workspace; for predict and score also the path of its JSON."""
    allow_phantom_release: bool = False
    """Answer with a release that was trained on phantoms."""
    runtime: RuntimeChoice = RuntimeChoice.AUTO
    """torch, onnx (ONNX Runtime, on CPUs), or auto: torch on GPUs, else onnx where all bundles
    of the release have an export."""
    precision: Precision = Precision.FLOAT32
    """float32, or bfloat16 for torch: faster on GPUs; each bundle's card says what it changes."""
    memory_gib: float | None = Field(None, gt=0)
    """GiB that the networks of one process may take with one batch, on the GPU where there is
    one; it does not start where they take more. Default: what the machine or container has left."""


class PredictRun(InferenceJob):
    """Score one file in this process."""

    file: str
    """Path or s3:// address of a film."""
    side: Side | None = None
    """left or right by your own records, for a film that does not state it."""
    sex: Sex = Sex.UNKNOWN
    """female or male by your own records; for releases whose networks are told of it."""
    age: float | None = Field(None, ge=0, le=130)
    """Years at the film, likewise."""
    weight_kg: float | None = Field(None, ge=1, le=700)
    """Body weight, likewise."""
    height_cm: float | None = Field(None, ge=20, le=280)
    """Body height, likewise."""
    overlay: str | None = None
    """PNG to write; default: beside the working directory, named after the file."""
    limits: ImageLimits = ImageLimits()
    """Size and time limits of decoding."""


class ServeRun(InferenceJob):
    """Serve a release over HTTP."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    fused: bool = False
    """Run all stages in one deployment instead of one each."""
    allowed_prefixes: tuple[str, ...] = ()
    """s3:// prefixes below which callers may name films; none by default."""
    pacs: tuple[Pacs, ...] = ()
    """DICOMweb archives whose films callers may name; none by default."""
    dicom_of_named_films: bool = False
    """Answer `dicom=true` for films that callers name, too: the objects carry the patient's name
    and identifiers, which such a caller has not sent."""
    token_sha256: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = ()
    """sha256 digests of accepted bearer tokens; without these and without `token_file`, every
    caller on this machine is accepted who calls it by its own name."""
    token_file: str | None = None
    """File on the ingress' node with one more such digest per line and comments after '#'; read
    again when it changes, so that tokens change without a restart."""
    batch: int = Field(8, ge=1, le=256)
    """Most films in one forward pass."""
    batch_wait_s: float = Field(0.002, ge=0)
    """Longest wait of a free model for a batch to fill; while it computes, films gather anyway."""
    max_replicas: int = Field(1, ge=1)
    """Replicas of each deployment that autoscaling may reach."""
    scaling: EndpointScaling = EndpointScaling()
    """Bounds of single deployments, and how fast they grow and shrink."""
    rollout_timeout_s: float = Field(600, gt=0)
    """Seconds that a release may take to load and answer before it is given up."""
    queue: int = Field(64, ge=1)
    """Requests that may wait before callers are told to come later; half of these places are for
    films that are sent, so that a store that hangs keeps none of them out."""
    max_held_bytes: int = Field(1_000_000_000, gt=0)
    """Bytes of the bodies of all requests without an answer that one of Serve's proxies holds, at
    least one body; beyond it callers are told to come later."""
    request_timeout_s: float = Field(60, gt=0)
    """Seconds a request may take from its first byte to its answer."""
    batch_at_once: int = Field(4, ge=1, le=64)
    """Films of one batch request that are worked on at a time."""
    max_batch_bytes: int = Field(1_000_000_000, gt=0)
    """Bytes that the films of one batch request may have together."""
    readers: int = Field(2, ge=1, le=64)
    """Isolated decoder processes of one ingress replica."""
    cpus_per_stage: float | None = Field(None, ge=0)
    """CPUs that one replica of a stage reserves, and threads of its networks: one at least.
    Default: the least replicas of two releases share the smallest node's cores, for a new release
    starts beside the old one; 0.5 where these are few."""
    cpus_per_ingress: float = Field(0.1, ge=0)
    """CPUs that one replica of the ingress reserves; its decoders run beside it."""
    gpus_per_stage: float | None = Field(None, ge=0)
    """GPUs that one replica of a stage with networks reserves; 0 computes on CPUs. Default: the
    least replicas of two releases share the GPUs that Ray has, if it has any."""
    limits: ImageLimits = ImageLimits()
    """Size and time limits of decoding."""
    block: bool = True
    """Keep the process until it is interrupted."""

    @property
    def guarded(self) -> bool:
        """Whether callers need a token."""
        return bool(self.token_sha256 or self.token_file)

    @property
    def stage_cpus(self) -> float:
        """CPUs that one replica of a stage reserves at least."""
        return LEAST_CPUS_PER_STAGE if self.cpus_per_stage is None else self.cpus_per_stage


class ScoreRun(InferenceJob):
    """Score an archive into Parquet."""

    images: str
    """Folder or s3:// prefix of the archive."""
    output: str | None = None
    """Folder or s3:// prefix of the index and the Parquet parts, one archive each; default:
    scores/ of the workspace."""
    select: Selection = Selection()
    """Which objects are scored."""
    listers: int = Field(8, ge=1, le=64)
    """Ranges of keys that are listed at the same time; small archives are listed as one. An output
    keeps the ranges of its first listing: begin another for an archive that has grown from a few
    thousand keys to many millions, or one thread lists it."""
    shard_files: int = Field(64, ge=1)
    """Films in one shard, the unit of resume, at most."""
    shard_bytes: int = Field(512_000_000, gt=0)
    """Bytes in one shard, at most: shards of large films hold fewer, so that all cost alike. A film
    of more bytes is a shard of its own."""
    actors: int = Field(1, ge=1)
    """Model actors."""
    max_actors: int | None = Field(None, ge=1)
    """Model actors up to which Ray Data adds where films wait for them; default: `actors`."""
    max_decoders: int = Field(64, ge=1)
    """Decoding actors that Ray Data may start; it starts as many as keep up."""
    cpus_per_decoder: float = Field(0.5, gt=0)
    """CPUs that one decoding actor reserves: beside large networks it waits most of the time."""
    cpus_per_actor: float = Field(1, ge=0)
    """CPUs that one model actor reserves; it computes with as many threads, rounded up."""
    gpus_per_actor: float = Field(0, ge=0)
    """GPUs that one model actor reserves; a fraction packs actors on one GPU."""
    deduplicate: bool = False
    """Score films of equal pixels, side and person once and report the answer for each key. Costs
    one read of the output per film, and one write per different film."""
    retry: RetryScope = RetryScope.NONE
    """`failed` takes up films again that the store would not give in an earlier submission, and
    those that were gone or changed when they were read: their rows are replaced."""
    fetch_rounds: int = Field(2, ge=1, le=10)
    """How often a shard goes through its films that the store would not give, with growing
    pauses, beside the attempts of each request in `storage`."""
    max_failed_fraction: float = Field(0.1, ge=0, le=1)
    """Share of the listed files that may fail for the store's sake, or be gone or changed since
    they were listed, before the run stops. Until the first listing has ended, the archive counts as
    100,000 files at least. Archived objects, which must be restored first, do not count here, nor
    do as many changed ones as a listing found and reads anew. Below 1, the run also stops where
    2,000 files fail one after the other and the store gives no file that it gave before, or gave
    none yet."""
    store_wait_s: float = Field(600, ge=0)
    """Seconds that driver, listing and model actors wait for a store out of reach before they give
    up; films that are read have rounds of their own."""
    price_per_hour: float | None = Field(None, ge=0)
    """What all machines of the run cost in an hour, in any currency, for `hipray status`."""
    limits: ImageLimits = ImageLimits()
    """Size and time limits of decoding."""

    @model_validator(mode="after")
    def _check_actors(self) -> Self:
        if self.max_actors is not None and self.max_actors < self.actors:
            raise ValueError("max_actors must not be below actors")
        return self


class PlanRun(Job):
    """Say how long a job would take and what it would cost."""

    job: PlannedJob
    """The job: score."""
    output: str | None = None
    """Output of a scoring run, perhaps of a few hundred films, whose index and measured rates are
    used; default: scores/ of the workspace."""
    films: int | None = Field(None, ge=1)
    """Films to plan for; default: those of the index that are not scored yet."""
    machines: tuple[Machine, ...] = ()
    """Machines to compare; default: one core of the kind that was measured."""


class StatusRun(Job):
    """Say where a run stands."""

    run: str = "grid"
    """Name of a grid's or search's run, or `score` for the scoring run of `output`."""
    output: str | None = None
    """Output of a scoring run; default: scores/ of the workspace."""


class DemoRun(Config):
    """Run the whole path on an embedded phantom archive, from films to a scored archive."""

    out: str = "out/demo"
    """Folder of the demonstration; a finished one is reused."""
    phantom: PhantomRun = PhantomRun()
    """The archive that is learned from."""
    unseen: PhantomRun = PhantomRun()
    """The archive that is scored."""
    ingest: IngestRun = IngestRun()
    """How films are read."""
    grid: GridRun = GridRun()
    """What is trained."""
    report: ReportRun = ReportRun()
    """What is reported."""
    release: ReleaseRun = ReleaseRun()
    """What is published."""
    serve: ServeRun = ServeRun()
    """How it is served."""
    score: ScoreRun = ScoreRun(images="s3://hipray-demo/unseen")
    """How the unseen archive is scored."""


class SkillRun(Config):
    """Measure on phantoms what segmenters and classifiers learn, with negative controls."""

    out: str = "out/skill"
    """Folder of the measurement."""
    phantom: PhantomRun = PhantomRun()
    """The archive."""
    grid: GridRun = GridRun()
    """The cells that are measured; the permuted control uses the same."""
    overfit_hips: int = Field(32, ge=8)
    """Hips that each network must be able to learn by heart."""
    overfit_epochs: int = Field(60, ge=1)
    """Most epochs of that."""
