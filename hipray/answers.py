"""The answer for one file: probabilities become regions, a headline, marks and findings.

The same for endpoint, batch and `hipray predict`, but for what a film's header says: the endpoint
puts it in its answer, batch scoring in columns of `scoring.rows`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hipray import RESEARCH_NOTICE
from hipray.data.hips import Hip
from hipray.data.images import ReadResult
from hipray.data.refusals import Refusal
from hipray.releases.release import Member, Question, Release
from hipray.runtime.engine import Engine
from hipray.vocab import (
    HEADLINE_REGIONS,
    DataSource,
    Device,
    Finding,
    LabelType,
    Precision,
    Region,
    Runtime,
    Side,
)

LOW_CONFIDENCE = 0.7
"""Mean probability inside a mask below which its confidence is called low."""


@dataclass(frozen=True)
class MemberAnswer:
    """One network of the ensemble that answered."""

    bundle: str
    """Digest of its bundle."""
    backbone: str
    repeat: int
    fold: int
    weight: float


@dataclass(frozen=True)
class RegionAnswer:
    """What the release says of one region and label."""

    region: Region
    label_type: LabelType
    probability: float
    """Of being abnormal, calibrated, of all members as the release combines them; no T-score."""
    calibration: str
    """How its members were calibrated, in words."""
    members: int
    research_only: bool
    mask_area_fraction: float | None
    mask_confidence: float | None
    ensemble: tuple[MemberAnswer, ...] = ()
    """The networks that were asked."""


@dataclass(frozen=True)
class Headline:
    """The worse of femoral neck and total hip (ISCD 2023)."""

    probability: float
    region: Region
    threshold: float | None
    abnormal: bool | None


@dataclass(frozen=True)
class HipAnswer:
    """The answer for one hip; a refusal and no numbers where it cannot be scored."""

    index: int
    side: Side
    """As stated; where it is unknown, nothing was flipped."""
    flipped: bool
    regions: tuple[RegionAnswer, ...] = ()
    headline: Headline | None = None
    findings: tuple[Finding, ...] = ()
    refusal: Refusal | None = None


@dataclass(frozen=True)
class StudyAnswer:
    """The answer for one file."""

    release: str
    release_digest: str
    data_source: DataSource
    preprocessing_version: str
    runtime: Runtime
    """What computed the networks' answers, on what and in what numbers."""
    device: Device
    precision: Precision
    hips: tuple[HipAnswer, ...] = ()
    refusal: Refusal | None = None
    research_notice: str = RESEARCH_NOTICE
    segmenters: tuple[str, ...] = ()
    """Digests of the bundles that drew the masks."""


@dataclass(frozen=True)
class HipNumbers:
    """The numbers of one hip, before they become an answer."""

    probabilities: dict[Question, float]
    present: dict[Region, bool]
    areas: dict[Region, float] | None
    confidence: dict[Region, float] | None
    refusal: Refusal | None


def distribute(
    release: Release, engine: Engine, results: Sequence[ReadResult], rows: Sequence[HipNumbers]
) -> list[StudyAnswer]:
    """Hand a batch's rows back to the files their hips came from."""
    answers, start = [], 0
    for result in results:
        stop = start + len(result.hips)
        answers.append(build_answer(release, engine, result, rows[start:stop]))
        start = stop
    return answers


def build_answer(
    release: Release, engine: Engine, result: ReadResult, rows: Sequence[HipNumbers]
) -> StudyAnswer:
    """Return the answer for one file from the numbers of its hips."""
    hips = tuple(
        _answer_hip(release, index, hip, row)
        for index, (hip, row) in enumerate(zip(result.hips, rows, strict=True))
    )
    return StudyAnswer(
        release=release.name,
        release_digest=release.digest,
        data_source=release.data_source,
        preprocessing_version=release.preprocessing_version,
        segmenters=release.segmenters,
        runtime=engine.runtime,
        device=engine.device,
        precision=engine.precision,
        hips=hips,
        refusal=result.refusal,
    )


def _answer_hip(release: Release, index: int, hip: Hip, row: HipNumbers) -> HipAnswer:
    if row.refusal is not None:
        return HipAnswer(index, hip.side, hip.flipped, findings=hip.findings, refusal=row.refusal)
    regions = tuple(
        _answer_region(release, question, row)
        for question in row.probabilities
        if row.present[question[0]]
    )
    findings = hip.findings
    if row.confidence and min(row.confidence[r] for r in release.required_regions) < LOW_CONFIDENCE:
        findings = (*findings, Finding.LOW_MASK_CONFIDENCE)
    headline = _headline(release, regions)
    return HipAnswer(index, hip.side, hip.flipped, regions, headline, findings)


def _answer_region(release: Release, question: Question, row: HipNumbers) -> RegionAnswer:
    region, label = question
    members = [m for m in release.members if (m.region, m.label_type) == question]
    return RegionAnswer(
        region=region,
        label_type=label,
        probability=row.probabilities[question],
        calibration=describe_calibration(members),
        members=len(members),
        ensemble=tuple(
            MemberAnswer(m.bundle, m.backbone, m.repeat, m.fold, m.weight) for m in members
        ),
        research_only=region.research_only,
        mask_area_fraction=row.areas[region] if row.areas else None,
        mask_confidence=row.confidence[region] if row.confidence else None,
    )


def describe_calibration(members: Sequence[Member]) -> str:
    """Say how the probability of these members was calibrated, and for how many in vain."""
    uninformed = sum(not member.is_informed for member in members)
    fitted = "platt, fitted on inner validation"
    if not uninformed:
        return fitted
    return f"{fitted}; {uninformed} of {len(members)} members learned nothing: their base rate"


def _headline(release: Release, regions: Sequence[RegionAnswer]) -> Headline | None:
    sites = [
        r for r in regions if r.region in HEADLINE_REGIONS and r.label_type is LabelType.T_SCORE
    ]
    if not sites:
        return None
    worst = max(sites, key=lambda site: site.probability)
    threshold = release.headline_threshold
    abnormal = None if threshold is None else worst.probability >= threshold
    return Headline(worst.probability, worst.region, threshold, abnormal)


def answer_as_dict(answer: StudyAnswer) -> dict[str, Any]:
    """Return an answer as JSON values."""
    return asdict(answer)
