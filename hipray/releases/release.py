"""A release: one JSON that pins everything that answers a request.

Endpoint and batch take a release and nothing else; two releases never mix in one answer.
"""

import json
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field

from hipray import RESEARCH_NOTICE
from hipray.classification.spec import ClassifierSpec
from hipray.config.base import Config, build_config
from hipray.config.evaluation import Combine
from hipray.config.experiment import MattingSettings
from hipray.config.images import Preprocessing
from hipray.data.images import PREPROCESSING_VERSION
from hipray.digests import digest_of
from hipray.errors import BundleError, ConfigError, NotFoundError
from hipray.evaluation.release_result import ReleaseResult
from hipray.metrics import NEXT_TO_FLAT
from hipray.storage import Store
from hipray.vocab import HEADLINE_REGIONS, REGIONS, DataSource, LabelType, Region, View

FORMAT: Final = 2

ViewSize = tuple[Region, int]
"""A region and the side in pixels at which members look at it."""
Question = tuple[Region, LabelType]
"""What a member answers."""


class Member(Config):
    """One classifier of the ensemble."""

    bundle: str
    """Digest of its bundle."""
    region: Region
    """Region it answers for."""
    label_type: LabelType
    """Label it answers for."""
    backbone: str
    """Its network."""
    repeat: int
    """Repeat of the split it was trained on."""
    fold: int
    """Fold it was not trained on."""
    platt_slope: float
    """Slope of its calibration on the logit."""
    platt_intercept: float
    """Intercept of its calibration."""
    threshold: float
    """Decision threshold of its raw probability, chosen on inner validation."""
    size_px: int
    """Side in pixels of the views it was trained on."""
    weight: float = Field(1.0, ge=0)
    """Its weight among the members of its region and label; they need not sum to one."""

    @classmethod
    def of(
        cls, bundle: str, spec: ClassifierSpec, *, repeat: int, fold: int, weight: float = 1.0
    ) -> Self:
        """Return the member that a published network is."""
        return cls(
            bundle=bundle,
            region=spec.cell.region,
            label_type=spec.cell.label_type,
            backbone=spec.cell.backbone,
            repeat=repeat,
            fold=fold,
            platt_slope=spec.calibrator.slope,
            platt_intercept=spec.calibrator.intercept,
            threshold=spec.threshold,
            size_px=spec.settings.size_px,
            weight=weight,
        )

    @property
    def is_informed(self) -> bool:
        """Whether it learned something: calibrated, others answer the base rate of every hip."""
        return self.platt_slope > NEXT_TO_FLAT


class Release(Config):
    """What is served: segmenters, members and how their answers become one."""

    format: Literal[2] = FORMAT
    """Version of this file."""
    name: str
    """Name of the release."""
    run: str
    """Run its fits came from."""
    data_source: DataSource
    """Whether it learned from phantoms or from films of people."""
    leaks_allowed: bool
    """Whether the leakage guard was overridden when it was trained."""
    optimistic: str | None = None
    """Why its evaluation is better than the truth, such as settings tuned on tested hips."""
    preprocessing_version: str
    """Version of the decoding and framing."""
    preprocessing: Preprocessing = Preprocessing()
    """Settings of the decoding: the ones its training films were ingested with."""
    working_px: int
    """Side of the square frame."""
    segmenters: tuple[str, ...]
    """Digests of the segmenter bundles; empty where whole films are read without masks."""
    view: View
    """What the members look at."""
    matting: MattingSettings
    """How regions are cut out."""
    members: tuple[Member, ...] = Field(min_length=1)
    """The ensemble."""
    combine: Combine = Combine.MEAN
    """How members of one region and label become one probability."""
    headline_threshold: float | None
    """Threshold of the headline probability, chosen on inner validation."""
    evaluation: ReleaseResult | None
    """End-to-end out-of-fold result of the release; None where no member answers the headline."""
    research_notice: str = RESEARCH_NOTICE
    """What this release is not."""

    @property
    def digest(self) -> str:
        """The digest that every answer names.

        It leaves out what has its default: a field that is added later renames no release.
        """
        return digest_of(self.model_dump(mode="json", exclude_defaults=True))

    @property
    def bundles(self) -> tuple[str, ...]:
        """The digests of all bundles, segmenters first."""
        return (*self.segmenters, *(member.bundle for member in self.members))

    @property
    def uninformed(self) -> tuple[Member, ...]:
        """Members that learned nothing: calibrated, they answer the base rate of every hip."""
        return tuple(member for member in self.members if not member.is_informed)

    @property
    def questions(self) -> tuple[Question, ...]:
        """The regions and labels that are answered, in reading order."""
        asked = {(member.region, member.label_type) for member in self.members}
        return tuple(sorted(asked, key=lambda q: (REGIONS.index(q[0]), q[1])))

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions that are answered, in the order of `vocab.REGIONS`."""
        return tuple(dict.fromkeys(region for region, _ in self.questions))

    @property
    def view_sizes(self) -> tuple[ViewSize, ...]:
        """The sizes in which members look at each region, in reading order."""
        sizes = {(member.region, member.size_px) for member in self.members}
        return tuple(sorted(sizes, key=lambda size: (REGIONS.index(size[0]), size[1])))

    @property
    def required_regions(self) -> tuple[Region, ...]:
        """The regions without which a hip is refused: the headline's, else all answered ones.

        A research-only region that cannot be cut out is left out of the answer.
        """
        return tuple(r for r in self.regions if r in HEADLINE_REGIONS) or self.regions


def release_key(name: str) -> str:
    """Return the workspace key of a release."""
    return f"releases/{name}.json"


def write_release(store: Store, release: Release) -> None:
    """Publish a release under its name; the name then means this release."""
    text = release.model_dump_json(indent=1).encode()
    store.write(release_key(release.name), text)


def read_release(store: Store, name: str) -> Release:
    """Return a release by its name, or by the path of its JSON file."""
    if name.endswith(".json"):
        return parse_release(_read_path(Path(name)), name)
    try:
        return parse_release(store.read(release_key(name)), name)
    except NotFoundError:
        known = [info.key.removesuffix(".json") for info in store.child("releases").list()]
        raise BundleError(
            f"release '{name}' in {store.uri}",
            f"releases {', '.join(known) or 'none'}",
            "name one of them or run `hipray release`",
        ) from None


def parse_release(data: bytes, name: str) -> Release:
    """Return the release written in `data`; raises BundleError."""
    try:
        return build_config(Release, json.loads(data))
    except (ConfigError, ValueError) as error:
        found = error.found if isinstance(error, ConfigError) else "no JSON"
        raise BundleError(
            f"a release of format {FORMAT} in '{name}'",
            found,
            "publish one from a run of this version",
        ) from None


def read_servable(store: Store, name: str, *, allow_phantom: bool) -> Release:
    """Return a release after all that is checked before its networks are loaded.

    Raises as `read_release`, `check_servable` and `check_preprocessing` do.
    """
    release = read_release(store, name)
    check_servable(release, allow_phantom=allow_phantom)
    check_preprocessing(release)
    return release


def check_servable(release: Release, *, allow_phantom: bool) -> None:
    """Raise ConfigError for a release of phantoms unless that is allowed."""
    if release.data_source is DataSource.PHANTOM and not allow_phantom:
        raise ConfigError(
            "a release trained on films of people",
            f"release '{release.name}', which was trained on phantoms",
            "set allow_phantom_release = true to try it out; every answer then says phantom",
        )


def check_preprocessing(release: Release) -> None:
    """Raise BundleError unless this hipray decodes films as the release was trained with."""
    if release.preprocessing_version != PREPROCESSING_VERSION:
        raise BundleError(
            f"a release of preprocessing version {PREPROCESSING_VERSION}",
            f"version {release.preprocessing_version}",
            "use the hipray it was trained with or train again",
        )


def _read_path(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(
            "a release file", f"{path} ({error.strerror})", "check the path"
        ) from None
