"""How the endpoint grows and shrinks: the bounds of each of its deployments."""

from typing import Self

from pydantic import Field, model_validator

from hipray.config.base import Config

LEAST_CPUS_PER_STAGE = 0.5
"""CPUs that a replica of a stage reserves where nothing else is said and cores are few."""


class ReplicaBounds(Config):
    """How many replicas of one deployment there may be."""

    min_replicas: int = Field(1, ge=1)
    """Replicas that are kept without load."""
    max_replicas: int | None = Field(None, ge=1)
    """Replicas under load; default: `max_replicas` of the service."""
    max_replicas_per_node: int | None = Field(None, ge=1)
    """Replicas on one node, so that a node's end is not the stage's; default: any number."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas must not be below min_replicas")
        return self

    def limit(self, default_most: int) -> tuple[int, int]:
        """Return the least and the most replicas where the service's own most is given."""
        return self.min_replicas, max(self.min_replicas, self.max_replicas or default_most)


class EndpointScaling(Config):
    """The bounds of each deployment, and how fast load and idleness change their number."""

    ingress: ReplicaBounds = ReplicaBounds()
    """Fetching, decoding and answering: the CPU's work."""
    segmenter: ReplicaBounds = ReplicaBounds()
    """The segmentation networks."""
    matting: ReplicaBounds = ReplicaBounds()
    """Cutting out the regions."""
    ensemble: ReplicaBounds = ReplicaBounds()
    """The classifiers."""
    pipeline: ReplicaBounds = ReplicaBounds()
    """All model stages in one, where `fused` is set."""
    look_back_s: float = Field(12, gt=0)
    """Seconds over which load is averaged."""
    upscale_delay_s: float = Field(5, ge=0)
    """Seconds of overload that start a replica."""
    downscale_delay_s: float = Field(120, ge=0)
    """Seconds of idleness that end a replica; loading models again is dear."""


class Pacs(Config):
    """An archive that speaks DICOMweb and that callers may name films of."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")
    """What callers call it: dicomweb://NAME/STUDY/SERIES/INSTANCE, by the DICOM UIDs."""
    url: str = Field(pattern=r"^https?://[^\s/@?#]+(/[^\s?#]*)?$")
    """Address of its DICOMweb service, for example https://pacs/dicom-web."""
    authorization_file: str | None = None
    """File on the ingress' node with the value of the Authorization header, read for each film."""
    connect_timeout_s: float = Field(5, gt=0)
    """Seconds to wait for a connection."""
    read_timeout_s: float = Field(20, gt=0)
    """Seconds to wait for the next bytes of an answer."""
