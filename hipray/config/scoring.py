"""What of an archive is scored, what is done again, and what machines cost."""

from enum import StrEnum

from pydantic import Field

from hipray.config.base import Config


class RetryScope(StrEnum):
    """What a submission does again although it was tried before."""

    NONE = "none"
    FAILED = "failed"  # films that the store would not give, or not as they were listed


class PlannedJob(StrEnum):
    """A job that `hipray plan` knows."""

    SCORE = "score"


class Selection(Config):
    """Which objects of an archive are films to score; an output keeps to one selection."""

    keys: str | None = None
    """Path or s3:// address of a CSV or Parquet file whose column `key` names the objects, relative
    to the archive or by full address; nothing else is listed then. The only column of a Parquet
    file needs no such name, that of a CSV file no header. It is sorted in memory: count on 200
    bytes a key."""
    suffixes: tuple[str, ...] = ()
    """Endings of keys that are taken, such as ".dcm", in any case; default: all that ingest takes
    as films, which leaves out tables, annotations and hidden files."""
    include: tuple[str, ...] = ()
    """Shell patterns of whole keys, one of which must match (`*` crosses folders); none: all."""
    exclude: tuple[str, ...] = ()
    """Shell patterns of whole keys that are left out. A folder of a local archive is not looked
    into where a pattern such as `lost+found/*` takes all of it, nor is a hidden one."""


class Machine(Config):
    """Some equal machines, for an estimate of time and cost."""

    name: str
    """How the estimate calls them."""
    count: int = Field(1, ge=1)
    """How many there are."""
    cpus: float = Field(gt=0)
    """CPU cores of one."""
    gpus: int = Field(0, ge=0)
    """GPUs of one; with any, the networks run there and all cores decode."""
    price_per_hour: float | None = Field(None, ge=0)
    """Price of one for an hour, in any currency."""
    gpu_films_per_second: float | None = Field(None, gt=0)
    """Films that the networks score per second on one of its GPUs; default: as measured where
    this output was scored on a GPU."""
    cpu_speed: float = Field(1.0, gt=0)
    """Speed of its cores against those that were measured."""
