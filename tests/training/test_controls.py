"""Controls: labels that tell nothing, and a shortcut that a mean grey value would give away."""

import numpy as np

from hipray.config.experiment import SplitSettings
from hipray.data.splits import deal_split
from hipray.training.controls import mean_intensity_auroc, overfit_accuracy, permute_labels
from hipray.vocab import Cell, LabelType, Region, Variant
from tests.data.manifests import LABEL, make_study
from tests.small_workspace import BACKBONE

CELL = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, "none", Variant.ORIGINAL)


DEALT = ("label_", "missing_", "basis_", "bmd_", "t_", "z_")


def test_permuted_labels_travel_with_the_scores_they_were_read_from(inputs) -> None:
    permuted = permute_labels(inputs.manifest, 3)
    own = [c for c in permuted if c.startswith(DEALT)]
    before, after = (
        sorted(map(str, frame[own].to_dict("records"))) for frame in (inputs.manifest, permuted)
    )
    assert before == after
    column = "label_t_score_total_hip"
    assert (inputs.manifest[column] != permuted[column]).any()
    assert permuted.drop(columns=own).equals(inputs.manifest.drop(columns=own))


def test_permuting_follows_its_seed(inputs) -> None:
    assert permute_labels(inputs.manifest, 3).equals(permute_labels(inputs.manifest, 3))
    assert not permute_labels(inputs.manifest, 3).equals(permute_labels(inputs.manifest, 4))


def test_brightness_that_tells_the_label_is_found_out() -> None:
    manifest = make_study(60)
    split = deal_split(manifest, SplitSettings(folds=5))
    noise = np.random.default_rng(0).integers(0, 100, (60, 8, 8))
    labels = manifest[LABEL].to_numpy(dtype=bool)
    plain = noise.astype(np.uint8)
    told = (noise + 60 * labels[:, None, None]).astype(np.uint8)
    assert mean_intensity_auroc(told, manifest, split, CELL) > 0.95
    assert mean_intensity_auroc(plain, manifest, split, CELL) < 0.75


def test_a_small_network_learns_a_few_films_by_heart(inputs) -> None:
    accuracy = overfit_accuracy(BACKBONE, inputs.arrays, inputs.manifest, hips=8, epochs=60)
    assert accuracy == 1.0
