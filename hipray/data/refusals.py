"""A refusal: the answer for a file that is not scored, with the detector and its evidence."""

from dataclasses import dataclass

from hipray.vocab import RefusalCode


@dataclass(frozen=True)
class Refusal:
    """Why a file is not scored.

    `evidence` holds sizes, decoder names and words of hipray's own lists, never a free text of
    the file, so that it can be logged and published.
    """

    code: RefusalCode
    detector: str
    evidence: str


class FilmRefused(Exception):  # noqa: N818 - an answer on its way up, not an error
    """Carries a refusal from a reading step to the entry that answers with it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.code}: {refusal.evidence}")
        self.refusal = refusal


def refuse(code: RefusalCode, *, detector: str, evidence: str) -> FilmRefused:
    """Build the exception that carries this refusal; the caller raises it."""
    return FilmRefused(Refusal(code, detector, evidence))
