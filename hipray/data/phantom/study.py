"""One film of the phantom archive, as planned: pure data, cheap to ship to a worker."""

from dataclasses import dataclass
from enum import StrEnum

from hipray.data.phantom.patient import NO_SHIFT, PerRegion
from hipray.data.phantom.scanner import Densitometer
from hipray.vocab import RefusalCode, Side


class StudyKind(StrEnum):
    """What a phantom film shows."""

    HIP = "hip"
    PELVIS = "pelvis"
    IMPLANT = "implant"
    BLURRED = "blurred"
    DECOY = "decoy"


class DecoyKind(StrEnum):
    """A way in which a file is not the hip film that it is listed as."""

    HAND = "hand"
    LATERAL_VIEW = "lateral_view"
    CHEST = "chest"
    CT_SLICE = "ct_slice"
    PHOTO = "photo"
    TEXT_PAGE = "text_page"
    FLAT_FIELD = "flat_field"
    TRUNCATED = "truncated"
    NOISE_BYTES = "noise_bytes"
    REPORT = "report"
    CINE = "cine"
    THUMBNAIL = "thumbnail"
    GIANT = "giant"
    COPY = "copy"
    UNNAMED_HAND = "unnamed_hand"

    @property
    def refusal(self) -> RefusalCode:
        """The code with which this file must be refused."""
        return _REFUSALS[self]


_REFUSALS = {
    DecoyKind.HAND: RefusalCode.WRONG_BODY_PART,
    DecoyKind.LATERAL_VIEW: RefusalCode.WRONG_VIEW,
    DecoyKind.CHEST: RefusalCode.WRONG_BODY_PART,
    DecoyKind.CT_SLICE: RefusalCode.WRONG_MODALITY,
    DecoyKind.PHOTO: RefusalCode.NOT_A_RADIOGRAPH,
    DecoyKind.TEXT_PAGE: RefusalCode.NOT_A_RADIOGRAPH,
    DecoyKind.FLAT_FIELD: RefusalCode.NOT_A_RADIOGRAPH,
    DecoyKind.TRUNCATED: RefusalCode.UNREADABLE,
    DecoyKind.NOISE_BYTES: RefusalCode.UNREADABLE,
    DecoyKind.REPORT: RefusalCode.NOT_AN_IMAGE,
    DecoyKind.CINE: RefusalCode.MULTI_FRAME,
    DecoyKind.THUMBNAIL: RefusalCode.TOO_SMALL,
    DecoyKind.GIANT: RefusalCode.TOO_LARGE,
    DecoyKind.COPY: RefusalCode.DUPLICATE,
    DecoyKind.UNNAMED_HAND: RefusalCode.REGION_MISSING,
}


@dataclass(frozen=True)
class PhantomStudy:
    """One film to be drawn; `seed` is the hash of dataset seed, patient and side."""

    name: str
    patient_id: str
    sides: tuple[Side, ...]  # two for a pelvis film
    kind: StudyKind
    seed: int
    device: Densitometer | None = None  # None: no DXA report
    t_shift: PerRegion = NO_SHIFT
    decoy: DecoyKind | None = None

    @property
    def laterality(self) -> Side:
        """The film's side; a pelvis film has none."""
        return self.sides[0] if len(self.sides) == 1 else Side.UNKNOWN

    @property
    def annotated(self) -> bool:
        """Whether an annotator drew the regions."""
        return self.kind in (StudyKind.HIP, StudyKind.PELVIS, StudyKind.BLURRED)

    @property
    def refusal(self) -> RefusalCode | None:
        """The code with which the film must be refused, or None."""
        if self.decoy is not None:
            return self.decoy.refusal
        return RefusalCode.IMPLANT if self.kind is StudyKind.IMPLANT else None


@dataclass(frozen=True)
class PhantomClone:
    """A cheap copy of a planned hip film: the `index`-th clone, of the film of `original`."""

    name: str
    original: str
    index: int
