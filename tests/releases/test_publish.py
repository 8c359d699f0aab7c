"""Publishing: what is served is what was scored out of fold."""

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest

from hipray import __version__
from hipray.bundles.bundle import load_bundle
from hipray.config.evaluation import Combine, EvaluationConfig
from hipray.config.experiment import MattingSettings
from hipray.config.jobs import ReleaseRun
from hipray.data.person import NOBODY, encode_people, read_people
from hipray.errors import BundleError, DataError
from hipray.metrics import PlattScaling, apply_platt, youden_threshold
from hipray.pipeline import Cutter, FramedHips, load_stages, score_hips
from hipray.releases import publish as publish_module
from hipray.releases.publish import run_release
from hipray.releases.release import read_release
from hipray.training.fit_files import PREDICTIONS_FILE, load_frame
from hipray.training.results import read_run
from hipray.training.views import build_views
from hipray.vocab import Cell, DataSource, Fit, LabelType, MaskSource, Region, Variant, View
from tests.small_workspace import BACKBONE, one_thread


def publish(small_grid, variant, **changes):
    values = {
        "workspace": small_grid.store.uri,
        "run": "small",
        "name": f"small-{variant}",
        "regions": (Region.TOTAL_HIP,),
        "variant": variant,
        "evaluation": EvaluationConfig(resamples=100),
    }
    return run_release(ReleaseRun(**(values | changes)))


@pytest.fixture(scope="module", params=[Variant.ORIGINAL, Variant.SEGMENTED])
def release(request, small_grid):
    return publish(small_grid, request.param)


def frame_of(small_grid, variant, fold=0):
    fit = Fit(Cell(Region.TOTAL_HIP, LabelType.T_SCORE, BACKBONE, variant), 0, fold)
    planned = next(p for p in small_grid.preparation.plan if p.fit == fit)
    done = small_grid.ledger.read_done(planned.digest)
    return load_frame(small_grid.ledger.read_file(done, PREDICTIONS_FILE))


def variant_of(release):
    return Variant.SEGMENTED if release.view is View.MATTED else Variant.ORIGINAL


def test_the_released_pipeline_repeats_the_out_of_fold_scores(small_grid, release) -> None:
    frame = frame_of(small_grid, variant_of(release))
    tested = frame[frame["part"] == "test"].set_index("hip_id")
    inputs = small_grid.preparation.inputs
    rows = np.flatnonzero(inputs.manifest["hip_id"].isin(tested.index))
    with one_thread():
        stages = load_stages(small_grid.store, release)
        people = encode_people(read_people(inputs.manifest.iloc[rows]))
        scored, _ = score_hips(stages, FramedHips(np.array(inputs.arrays.films[rows]), people))
    question = (Region.TOTAL_HIP, LabelType.T_SCORE)
    served = [row.probabilities[question] for row in scored]
    expected = tested.loc[inputs.manifest["hip_id"].iloc[rows]]["calibrated"]
    assert len(served) > 8
    assert np.allclose(served, expected, atol=1e-4)


def test_the_released_pipeline_cuts_the_views_that_its_networks_learned_from(
    small_grid, release
) -> None:
    inputs = small_grid.preparation.inputs
    masks = inputs.arrays.masks
    learned = build_views(
        Cell(Region.TOTAL_HIP, LabelType.T_SCORE, BACKBONE, variant_of(release)),
        inputs.manifest, inputs.arrays, masks=masks,
        classifier=inputs.experiment.classifier_of(BACKBONE), matting=inputs.experiment.matting,
    )  # fmt: skip
    hips = FramedHips(np.array(inputs.arrays.films[learned.rows]), learned.people)
    seen = Cutter(release)(hips, np.array(masks[learned.rows]))
    (size,) = {member.size_px for member in release.members}
    assert len(learned.rows) > 8
    assert np.array_equal(seen.films[Region.TOTAL_HIP, size], learned.films)


def test_a_release_pins_the_calibration_and_threshold_of_its_fit(small_grid, release) -> None:
    frame = frame_of(small_grid, variant_of(release))
    member = release.members[0]
    calibrator = PlattScaling(member.platt_slope, member.platt_intercept)
    assert np.allclose(apply_platt(calibrator, frame["score"]), frame["calibrated"])
    assert member.threshold == frame["threshold"].iloc[0]


def test_the_headline_threshold_comes_from_inner_validation(small_grid, release) -> None:
    frame = frame_of(small_grid, variant_of(release))
    inner = frame[frame["part"] == "inner"]
    assert release.headline_threshold == pytest.approx(
        youden_threshold(inner["label"], inner["calibrated"]), abs=1e-9
    )


def test_segmenters_are_those_of_the_members_folds(small_grid, release) -> None:
    assert len(release.segmenters) == 1
    name = load_bundle(small_grid.store, release.segmenters[0]).description.name
    assert name == "unet-all-r0f0"


def test_a_release_says_where_its_members_may_have_been_chosen_by_their_results(release) -> None:
    if variant_of(release) is Variant.SEGMENTED:  # the one that the report evaluates by its rule
        assert release.optimistic is None
    else:
        assert "may have been chosen among 2 kinds of cells" in str(release.optimistic)


def test_more_folds_make_more_members_and_segmenters(small_grid) -> None:
    release = publish(small_grid, Variant.ORIGINAL, folds=(0, 1, 2), name="all-folds")
    assert (len(release.members), len(release.segmenters)) == (3, 3)
    assert len({member.bundle for member in release.members}) == 3


def test_a_release_says_that_it_learned_from_phantoms(small_grid, release) -> None:
    assert release.data_source is DataSource.PHANTOM
    assert read_release(small_grid.store, release.name) == release
    for digest in (*release.segmenters, *(m.bundle for m in release.members)):
        description = load_bundle(small_grid.store, digest).description
        assert description.data_source is DataSource.PHANTOM


def test_no_patient_or_path_lies_in_a_release_or_its_bundles(small_grid, release) -> None:
    patients = small_grid.preparation.inputs.manifest["patient_id"].str.encode("ascii")
    secrets = [*patients, small_grid.store.uri.encode()]
    texts = [release.model_dump_json().encode()]
    for digest in (*release.segmenters, *(m.bundle for m in release.members)):
        texts += load_bundle(small_grid.store, digest).files.values()
    assert not [s for s in secrets for text in texts if s in text]


def test_the_packages_of_a_release_are_named_where_hipray_itself_is_only_a_source_tree(
    monkeypatch,
) -> None:
    def only_libraries(name: str) -> str:
        if name == "hipray":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(publish_module, "version", only_libraries)
    named = publish_module.name_software()
    assert named["hipray"] == __version__
    assert named["torch"] == version("torch")


def test_what_a_release_does_not_name_comes_from_its_run(small_grid) -> None:
    config = ReleaseRun(workspace=small_grid.store.uri, run="small", name="unnamed")
    (member,) = run_release(config).members
    assert (member.region, member.backbone) == (Region.TOTAL_HIP, BACKBONE)
    assert read_release(small_grid.store, "unnamed").view is View.MATTED


def test_a_member_that_another_bundle_is_named_for_is_refused(small_grid) -> None:
    release = publish(small_grid, Variant.SEGMENTED, name="edited")
    (member,) = release.members
    moved = member.model_copy(update={"region": Region.WARDS_TRIANGLE})
    swapped = member.model_copy(update={"bundle": release.segmenters[0]})
    for wrong in (
        release.model_copy(update={"members": (moved,)}),
        release.model_copy(update={"members": (swapped,)}),
        release.model_copy(update={"segmenters": (member.bundle,)}),
    ):
        with pytest.raises(BundleError, match="as the release says of it"):
            load_stages(small_grid.store, wrong)


def test_publishing_twice_gives_the_same_release(small_grid) -> None:
    first, again = (publish(small_grid, Variant.ORIGINAL, name="twice") for _ in range(2))
    assert first.digest == again.digest


@pytest.mark.parametrize(
    "changes", [{"backbones": ("resnet50",)}, {"regions": (Region.FEMORAL_NECK,)}, {"folds": (7,)}]
)
def test_fits_that_the_run_has_not_finished_are_named(small_grid, changes) -> None:
    with pytest.raises(
        DataError, match=r"1 finished fits in run 'small', found 1 missing, such as"
    ):
        publish(small_grid, Variant.ORIGINAL, **changes)


def test_weights_of_members_come_from_inner_validation_and_are_served(small_grid) -> None:
    weighted = EvaluationConfig(resamples=100, combine=Combine.WEIGHTED)
    release = publish(small_grid, Variant.ORIGINAL, folds=(0, 1), evaluation=weighted)
    assert release.combine is Combine.WEIGHTED
    assert release.evaluation.combine is Combine.WEIGHTED
    assert sum(member.weight for member in release.members) == pytest.approx(2.0)


def test_each_member_looks_at_views_of_the_size_it_was_trained_on(small_grid) -> None:
    release = publish(small_grid, Variant.SEGMENTED)
    stages = load_stages(small_grid.store, release)
    frames = np.array(small_grid.preparation.inputs.arrays.films[:2])
    other = release.members[0].model_copy(update={"size_px": 48})
    mixed = Cutter(release.model_copy(update={"members": (*release.members, other)}))
    hips = FramedHips(frames, encode_people([NOBODY] * 2))
    views = mixed(hips, np.ones((2, 4, *frames.shape[1:]), np.bool_))
    own = release.members[0].size_px
    assert set(views.films) == {(Region.TOTAL_HIP, own), (Region.TOTAL_HIP, 48)}
    assert all(films.shape[1] == size for (_, size), films in views.films.items())
    assert stages.release.view_sizes == ((Region.TOTAL_HIP, own),)


def test_a_run_of_annotated_masks_is_no_release_of_matted_views(small_grid, monkeypatch) -> None:
    results = read_run(small_grid.store, "small")
    true = results.config.experiment.model_copy(
        update={"matting": MattingSettings(mask=MaskSource.TRUE)}
    )
    config = results.config.model_copy(update={"experiment": true})
    told = replace(results, plan=results.plan.model_copy(update={"config": config}))
    monkeypatch.setattr(publish_module, "read_run", lambda *_: told)
    with pytest.raises(DataError, match="trained and tested on annotated masks"):
        publish(small_grid, Variant.SEGMENTED)


def test_an_archive_ingested_again_is_not_published_with_the_networks_of_before(
    small_grid, monkeypatch
) -> None:
    results = read_run(small_grid.store, "small")
    data = replace(results.plan.data, films="others")
    other = replace(results, plan=results.plan.model_copy(update={"data": data}))
    monkeypatch.setattr(publish_module, "read_run", lambda *_: other)
    with pytest.raises(DataError, match="the archive was ingested again since"):
        publish(small_grid, Variant.ORIGINAL)
