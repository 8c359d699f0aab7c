"""The plan of a grid: every fit with its content digest and the fits it waits for.

A fit's digest covers the settings, data, split and source that shape its result, and the digests
of the segmenters whose masks it uses. Equal digests are the same work, whoever does it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType

from hipray.config.experiment import Experiment
from hipray.config.jobs import GridRun
from hipray.data.dataset import DataIdentity
from hipray.digests import digest_of, source_digest
from hipray.errors import ConfigError
from hipray.training.costs import PAPER_FILMS, FilmCounts, estimate_seconds
from hipray.vocab import (
    REGIONS,
    Cell,
    Fit,
    LabelType,
    MaskSource,
    Region,
    SegmenterFit,
    Variant,
    View,
)

NO_STARTS: Mapping[str, str] = MappingProxyType({})

COMMON_SOURCE = (
    "data/augment", "data/dataset", "data/framing", "data/intensity", "data/splits",
    "runtime/network", "training/context", "training/crew", "training/fit_files", "training/fits",
    "training/homes", "training/inputs", "training/loop", "training/schedules", "training/seeds",
    "metrics",
)  # fmt: skip
SEGMENTER_SOURCE = (*COMMON_SOURCE, "segmentation", "training/segmenter")
CLASSIFIER_SOURCE = (
    *COMMON_SOURCE, "classification", "config/labels", "data/person", "matting",
    "training/classifier", "training/starts", "training/thresholds", "training/views",
)  # fmt: skip
"""Modules a fit's numbers depend on; elsewhere a change leaves finished fits valid.

A new module that shapes what a network sees or learns is named here, or fits of before would count
as done.
"""


@dataclass(frozen=True)
class PlannedFit:
    """One unit of work of a grid."""

    fit: Fit | SegmenterFit
    digest: str
    needs: tuple[str, ...] = ()
    """Digests of the segmenter fits whose masks this fit uses."""

    @property
    def name(self) -> str:
        """The fit's readable name."""
        return self.fit.name


def list_cells(config: GridRun) -> list[Cell]:
    """Return the cells of a grid; none where it trains segmenters only."""
    if not config.cells:
        return []
    return build_cells(config.regions, config.label_types, config.backbones, config.variants)


def build_cells(
    regions: Iterable[Region],
    label_types: Iterable[LabelType],
    backbones: Iterable[str],
    variants: Iterable[Variant],
) -> list[Cell]:
    """Return every combination, in reading order."""
    return [
        Cell(region, label_type, backbone, variant)
        for region in regions
        for label_type in label_types
        for variant in variants
        for backbone in backbones
    ]


def plan_fits(
    cells: Sequence[Cell],
    experiment: Experiment,
    *,
    data: DataIdentity,
    test_folds: Sequence[int],
    has_masks: bool = True,
    films: FilmCounts = PAPER_FILMS,
    starts: Mapping[str, str] = NO_STARTS,
) -> list[PlannedFit]:
    """Return all fits of a grid in the order of work, see `order_fits`.

    Where the archive has no annotated mask (`has_masks`) no segmenter is planned. `starts` are
    the digests of files of start weights.
    """
    segmenters = plan_segmenters(experiment, data=data, starts=starts) if has_masks else []
    mask_makers = _mask_makers(segmenters, experiment)
    classifiers = [
        _plan_classifier(Fit(cell, repeat, fold), experiment, data, mask_makers, starts)
        for cell in cells
        for repeat in range(experiment.split.repeats)
        for fold in test_folds
    ]
    return order_fits(segmenters + classifiers, experiment, films)


def plan_segmenters(
    experiment: Experiment, *, data: DataIdentity, starts: Mapping[str, str] = NO_STARTS
) -> list[PlannedFit]:
    """Return one segmenter fit per network, region group, repeat and fold: full cross-fitting."""
    groups = [(r,) for r in REGIONS] if experiment.segmenter.per_region else [REGIONS]
    return [
        _plan_segmenter(SegmenterFit(arch, regions, repeat, fold), experiment, data, starts)
        for arch in experiment.segmenter.archs
        for repeat in range(experiment.split.repeats)
        for fold in range(experiment.split.folds)
        for regions in groups
    ]


def _plan_segmenter(
    fit: SegmenterFit, experiment: Experiment, data: DataIdentity, starts: Mapping[str, str]
) -> PlannedFit:
    # the list of networks is not part of one network's identity
    settings = experiment.segmenter.model_dump(mode="json", exclude={"archs"})
    digest = digest_of(
        [
            asdict(fit),
            settings,
            starts.get(experiment.segmenter.weights),
            experiment.data,
            data.films,
            data.split,
            source_digest(*SEGMENTER_SOURCE),
        ]
    )
    return PlannedFit(fit, digest)


def _plan_classifier(
    fit: Fit,
    experiment: Experiment,
    data: DataIdentity,
    mask_makers: dict[int, tuple[str, ...]],
    starts: Mapping[str, str],
) -> PlannedFit:
    settings = experiment.classifier_of(fit.cell.backbone)
    matted = fit.cell.variant.view is View.MATTED
    predicted = matted and experiment.matting.mask is not MaskSource.TRUE
    needs = mask_makers.get(fit.repeat, ()) if predicted else ()
    digest = digest_of(
        [
            asdict(fit),
            settings,
            starts.get(settings.weights),
            experiment.matting if matted else None,
            experiment.data,
            experiment.split,
            data.labels,
            data.split,
            needs,
            source_digest(*CLASSIFIER_SOURCE),
        ]
    )
    return PlannedFit(fit, digest, needs)


def _mask_makers(
    segmenters: Sequence[PlannedFit], experiment: Experiment
) -> dict[int, tuple[str, ...]]:
    """Digests, for each repeat, of the first network's fits: together they mask every hip."""
    makers: dict[int, tuple[str, ...]] = {}
    for planned in segmenters:
        if (
            isinstance(planned.fit, SegmenterFit)
            and planned.fit.arch is experiment.segmenter.archs[0]
        ):
            makers[planned.fit.repeat] = (*makers.get(planned.fit.repeat, ()), planned.digest)
    return makers


def order_fits(
    plan: Sequence[PlannedFit], experiment: Experiment, films: FilmCounts
) -> list[PlannedFit]:
    """Return the plan in the order of work: mask makers, then the longest fits first.

    Others wait for the masks; a long fit that starts last would keep one lane busy alone.
    """
    needed = {digest for planned in plan for digest in planned.needs}

    def rank(planned: PlannedFit) -> tuple[bool, float, str]:
        seconds = estimate_seconds(planned.fit, experiment, films)
        return planned.digest not in needed, -seconds, planned.name

    return sorted(plan, key=rank)


def require_own_source(found: str, *, own: str) -> None:
    """Raise ConfigError where a driver's digest of the source is not this process's `own`."""
    if found != own:
        raise ConfigError(
            "the driver's hipray on every worker",
            "other source code",
            "submit the job with the package as py_modules, or use one image everywhere",
        )


def shaping_digest() -> str:
    """Return the digest of the source that shapes any fit's numbers."""
    return source_digest(*sorted({*SEGMENTER_SOURCE, *CLASSIFIER_SOURCE}))
