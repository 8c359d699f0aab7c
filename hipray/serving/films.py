"""What callers ask about: a film by its address or in memory, and what they state of it."""

from dataclasses import dataclass

from pydantic import Field

from hipray.config.base import Config
from hipray.data.person import Person
from hipray.serving.pacs import DICOMWEB_SCHEME
from hipray.storage import Scheme
from hipray.vocab import Sex, Side

URI_PATTERN = (
    rf"^({Scheme.S3}"
    r"(?!\.{1,2}/)[^/\x00-\x1f\x7f-\x9f]+/(?=[^\x00])(?!\.{1,2}(/|$))[^/\x00]*"
    r"(/(?!\.{1,2}(/|$))[^/\x00]*)*"
    rf"|{DICOMWEB_SCHEME}"
    r"[a-z0-9-]+(/(?=[0-9.]{1,64}(/|$))(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*){3})$(?!\n)"
)
"""What a client may check before it asks; the service finds more."""


class Stated(Config):
    """What the caller's own records say of a film; its header fills in the rest."""

    side: Side | None = None
    """left, right or unknown."""
    sex: Sex = Sex.UNKNOWN
    """female, male or unknown; for releases whose networks are told of it."""
    age: float | None = Field(default=None, ge=0, le=130)
    """Years at the film."""
    weight_kg: float | None = Field(default=None, ge=1, le=700)
    """Body weight."""
    height_cm: float | None = Field(default=None, ge=20, le=280)
    """Body height."""

    @property
    def person(self) -> Person:
        """The person as the pipeline takes it."""
        return Person(**self.model_dump(exclude={"side", "uri"}))


class ScoreRequest(Stated):
    """The JSON body of a score request."""

    uri: str = Field(min_length=1, max_length=2048, json_schema_extra={"pattern": URI_PATTERN})
    """s3://bucket/key below an allowed prefix, or dicomweb://NAME/STUDY/SERIES/INSTANCE of an
    allowed archive."""


@dataclass(frozen=True)
class UploadedFilm:
    """A film in memory, and what its request states of it."""

    data: bytes
    stated: Stated


FilmRequest = ScoreRequest | UploadedFilm
"""A film by address or in the body."""
