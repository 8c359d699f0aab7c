"""The pipeline: one file in, one answer out. Endpoint and batch run these same stages.

    read      bytes -> canonical hips, or a refusal        hipray.data.images
    frame     hips -> square frames                        hipray.data.framing
    segment   frames -> masks of all regions               hipray.segmentation
    cut       frames, masks -> one view per region         hipray.matting
    classify  views -> calibrated probabilities            hipray.classification
    judge     masks -> a refusal where no hip has them     hipray.segmentation.plausibility
    answer    probabilities -> headline, marks, findings    hipray.answers

Legend of shapes: N hips, S side of the frame, P side of a view, R regions in `vocab.REGIONS` order,
C numbers that tell a person.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hipray.answers import HipNumbers, StudyAnswer, build_answer, distribute
from hipray.bundles.loading import Loading, load_model
from hipray.bundles.networks import FILMS_AT_ONCE
from hipray.classification.classifier import Classifier
from hipray.classification.spec import ClassifierSpec
from hipray.data.framing import Frame, Mask, Pixels, frame_hip
from hipray.data.hips import Hip
from hipray.data.images import ReadResult, read_hips
from hipray.data.person import NOBODY, People, Person, encode_people, person_on
from hipray.errors import BundleError
from hipray.explanation import Explainer, HeatMap, merge_maps
from hipray.matting.cutting import cut_views
from hipray.metrics import PlattScaling, apply_platt, sigmoid
from hipray.releases.release import Member, Question, Release, ViewSize, check_preprocessing
from hipray.runtime.devices import torch_device
from hipray.runtime.engine import Engine
from hipray.segmentation.plausibility import check_geometry
from hipray.segmentation.segmenter import Segmentation, Segmenter, SegmenterNetwork
from hipray.storage import Store
from hipray.vocab import REGIONS, Region
from hipray.voting import combine_votes


@dataclass(frozen=True)
class FramedHips:
    """Hips as the networks take them."""

    frames: Pixels
    """(N, S, S) uint8."""
    people: People
    """(N, C) what is known of each hip's person."""


@dataclass(frozen=True)
class Views:
    """What the members look at: one stack of views per region."""

    people: People
    """(N, C) what is known of each hip's person."""
    films: dict[ViewSize, Pixels] = field(default_factory=dict)
    """(N, P, P) uint8 for each region and size that a member looks at."""
    present: dict[Region, npt.NDArray[np.bool_]] = field(default_factory=dict)
    """(N,) whether the region could be cut out."""


Probabilities = dict[Question, npt.NDArray[np.float64]]

Explanations = dict[Question, list[HeatMap]]
"""The heat maps of N hips for each region and label."""


class Cutter:
    """Cuts the view of each region that a release answers for, as training cut its own."""

    def __init__(self, release: Release) -> None:
        self._release = release

    def __call__(self, hips: FramedHips, masks: Mask | None) -> Views:
        """Return the views of hips; matted views need masks (N, R, S, S)."""
        views, release = Views(hips.people), self._release
        for region, size_px in release.view_sizes:
            # cut at the size a member was trained on: resizing twice would show it other pixels
            cut = cut_views(
                hips.frames,
                None if masks is None else masks[:, REGIONS.index(region)],
                view=release.view,
                settings=release.matting,
                size_px=size_px,
            )
            views.films[region, size_px], views.present[region] = cut.films, cut.present
        return views


@dataclass(frozen=True)
class Voter:
    """One loaded member."""

    classifier: Classifier
    calibrator: PlattScaling
    weight: float
    size_px: int
    explainer: Explainer | None
    """None where nobody will ask for an explanation: it needs torch and the weights."""


class Ensemble:
    """Combines the calibrated probabilities of a release's members."""

    def __init__(self, release: Release, voters: Sequence[Voter]) -> None:
        self._questions = release.questions
        self._combine = release.combine
        self._voters: dict[Question, list[Voter]] = {}
        for member, voter in zip(release.members, voters, strict=True):
            self._voters.setdefault((member.region, member.label_type), []).append(voter)

    def __call__(self, views: Views) -> Probabilities:
        """Return the probability (N,) of being abnormal for each region and label."""
        return {
            (region, label): self._poll(self._voters[region, label], views, region)
            for region, label in self._questions
        }

    def explain(self, views: Views) -> Explanations:
        """Return where the members see what speaks for "abnormal", on these very views."""
        return {question: self._explain(question, views) for question in self._questions}

    def _explain(self, question: Question, views: Views) -> list[HeatMap]:
        region, voters = question[0], self._voters[question]
        seen = [views.films[region, voter.size_px] for voter in voters]
        found = [
            _explainer_of(voter)(films, views.people)
            for voter, films in zip(voters, seen, strict=True)
        ]
        return merge_maps(found, views=max(seen, key=lambda films: films.shape[1]))

    def _poll(
        self, voters: Sequence[Voter], views: Views, region: Region
    ) -> npt.NDArray[np.float64]:
        looks = [
            voter.classifier(views.films[region, voter.size_px], views.people) for voter in voters
        ]
        votes = [
            apply_platt(voter.calibrator, sigmoid(odds))
            for voter, odds in zip(voters, looks, strict=True)
        ]
        weights = [voter.weight for voter in voters]
        return combine_votes(np.asarray(votes), weights, self._combine)


def _explainer_of(voter: Voter) -> Explainer:
    assert voter.explainer is not None, "stages that explain are loaded with `explaining`"
    return voter.explainer


@dataclass(frozen=True)
class Stages:
    """The model stages of one release, loaded and checked."""

    release: Release
    engine: Engine
    segmenter: Segmenter | None
    cutter: Cutter
    ensemble: Ensemble


def load_stages(store: Store, release: Release, loading: Loading | None = None) -> Stages:
    """Load a release's bundles and check their golden answers; by default on torch and CPUs.

    Raises BundleError, and MemoryLimitError where they do not fit.
    """
    check_preprocessing(release)
    loading = loading or Loading()
    segmenter = load_segmenter(store, release, loading)
    ensemble = load_ensemble(store, release, loading)
    return Stages(release, loading.engine, segmenter, Cutter(release), ensemble)


def load_segmenter(store: Store, release: Release, loading: Loading) -> Segmenter | None:
    """Load the release's segmenters, or None where it has none."""
    if not release.segmenters:
        return None
    networks = [_load_segmenter_network(store, digest, loading) for digest in release.segmenters]
    return Segmenter(networks, batch=FILMS_AT_ONCE[loading.engine.device])


def _load_segmenter_network(store: Store, digest: str, loading: Loading) -> SegmenterNetwork:
    model = load_model(store, digest, loading).model
    if not isinstance(model, SegmenterNetwork):
        raise _another_bundle(digest, "a segmenter")
    return model


def load_ensemble(store: Store, release: Release, loading: Loading) -> Ensemble:
    """Load the release's classifiers."""
    return Ensemble(release, [_load_voter(store, member, loading) for member in release.members])


def _load_voter(store: Store, member: Member, loading: Loading) -> Voter:
    loaded = load_model(store, member.bundle, loading)
    model, spec = loaded.model, loaded.spec
    if not (
        isinstance(model, Classifier)
        and isinstance(spec, ClassifierSpec)
        and member
        == Member.of(
            member.bundle, spec, repeat=member.repeat, fold=member.fold, weight=member.weight
        )
    ):
        raise _another_bundle(
            member.bundle, f"{member.backbone} for {member.region} {member.label_type}"
        )
    explainer = None
    if loaded.module is not None and loading.explaining:
        device = torch_device(loading.engine)
        explainer = Explainer(loaded.module, size_px=member.size_px, device=device)
    return Voter(
        model,
        PlattScaling(member.platt_slope, member.platt_intercept),
        member.weight,
        member.size_px,
        explainer,
    )


def _another_bundle(digest: str, named: str) -> BundleError:
    return BundleError(
        f"{named} in bundle {digest[:12]}, as the release says of it",
        "a bundle that says otherwise",
        "publish the release again: it was changed by hand",
    )


def frame_hips(result: ReadResult, working_px: int, *, stated: Person) -> FramedHips:
    """Return the hips of one film as the networks take them.

    `stated` is what the caller's records say of the person; the film's header fills in the rest,
    as in ingest.
    """
    person = stated.completed_by(person_on(result.film_info))
    frames = [frame_hip(hip.pixels, working_px) for hip in result.hips]
    return FramedHips(
        np.asarray(frames, np.uint8).reshape(-1, working_px, working_px),
        encode_people([person] * len(frames)),
    )


def join_hips(films: Sequence[FramedHips]) -> FramedHips:
    """Return the hips of several films in one batch."""
    return FramedHips(
        np.concatenate([film.frames for film in films]),
        np.concatenate([film.people for film in films]),
    )


class Pipeline:
    """All stages in this process."""

    def __init__(self, stages: Stages) -> None:
        self.stages = stages

    def __call__(self, data: bytes, *, name: str = "") -> StudyAnswer:
        """Return the answer for one file; bad files are refusals and nothing is raised."""
        preprocessing = self.stages.release.preprocessing
        return self.answer([read_hips(data, name=name, preprocessing=preprocessing)])[0]

    def answer(
        self, results: Sequence[ReadResult], *, stated: Sequence[Person] = ()
    ) -> list[StudyAnswer]:
        """Return the answers for decoded files, all their hips in one batch."""
        answers, _ = self.answer_with_masks(results, stated=stated)
        return answers

    def answer_with_masks(
        self, results: Sequence[ReadResult], *, stated: Sequence[Person] = ()
    ) -> tuple[list[StudyAnswer], Mask | None]:
        """Return answers, and the masks (N, R, S, S) of all hips in order.

        `stated` is what the caller's records say of the person on each film; none says nothing.
        Batch scoring passes whom the header names: its films come without one (`scoring.packing`).
        """
        release, engine = self.stages.release, self.stages.engine
        people = stated or [NOBODY] * len(results)
        if not any(result.hips for result in results):
            return [build_answer(release, engine, result, []) for result in results], None
        films = [
            frame_hips(result, release.working_px, stated=person)
            for result, person in zip(results, people, strict=True)
        ]
        hips = join_hips(films)
        rows, masks = score_hips(self.stages, hips)
        return distribute(release, engine, results, rows), masks


@dataclass(frozen=True)
class ScoredHips:
    """The numbers of N hips, and what they were computed from."""

    rows: list[HipNumbers]
    views: Views
    segmentation: Segmentation | None


def run_stages(stages: Stages, hips: FramedHips) -> ScoredHips:
    """Send hips through all model stages, once."""
    segmentation = stages.segmenter(hips.frames) if stages.segmenter else None
    views = stages.cutter(hips, segmentation.masks if segmentation else None)
    rows = list_rows(stages.release, stages.ensemble(views), views, segmentation)
    return ScoredHips(rows, views, segmentation)


def score_hips(stages: Stages, hips: FramedHips) -> tuple[list[HipNumbers], Mask | None]:
    """Return the numbers of hips, and their masks (N, R, S, S) if there are any."""
    scored = run_stages(stages, hips)
    return scored.rows, scored.segmentation.masks if scored.segmentation else None


def list_rows(
    release: Release,
    probabilities: Probabilities,
    views: Views,
    segmentation: Segmentation | None,
) -> list[HipNumbers]:
    """Return the numbers of each hip of a batch."""
    hips = range(len(views.people))
    return [_row_of(release, probabilities, views, segmentation, n) for n in hips]


def _row_of(
    release: Release,
    probabilities: Probabilities,
    views: Views,
    segmentation: Segmentation | None,
    index: int,
) -> HipNumbers:
    chances = {question: float(values[index]) for question, values in probabilities.items()}
    present = {region: bool(values[index]) for region, values in views.present.items()}
    if segmentation is None:
        return HipNumbers(chances, present, None, None, None)
    masks, confidence = segmentation.masks[index], segmentation.confidence[index]
    refusal = check_geometry(
        masks,
        asked=release.required_regions,
        min_area_fraction=release.matting.min_area_fraction,
    )
    return HipNumbers(
        chances,
        present,
        {region: float(masks[c].mean()) for c, region in enumerate(REGIONS)},
        {region: float(confidence[c]) for c, region in enumerate(REGIONS)},
        refusal,
    )


def lift_masks(hip: Hip, masks: Mask, working_px: int) -> dict[Region, Mask]:
    """Return a hip's masks (R, S, S) on its canonical pixels."""
    frame = Frame.around(hip.pixels, working_px)
    return {region: frame.lift_mask(masks[c]) for c, region in enumerate(REGIONS)}
