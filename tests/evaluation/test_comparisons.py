"""Rankings and baselines: ties stay ties, chance finds nothing, signal is found."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hipray.config.evaluation import EvaluationConfig
from hipray.evaluation.baselines import evaluate_baselines, find_known
from hipray.evaluation.comparisons import compare_cells
from hipray.evaluation.intervals import (
    Interval,
    build_interval,
    build_sample,
    draw_weights,
    widen,
)
from hipray.evaluation.paired import Contestant, PairedAurocs
from hipray.evaluation.results import read_predictions, summarise_cells
from hipray.evaluation.simultaneous import adjust_step_down, adjust_two_sided
from hipray.evaluation.statistics import STATISTICS, Metric
from hipray.evaluation.worth import assess_worth
from hipray.vocab import Backbone, Baseline, Cell, LabelType, Region, Variant

from .conftest import build_manifest, list_fits, predict_cell

CELLS = [
    Cell(region, LabelType.T_SCORE, backbone, variant)
    for region in (Region.FEMORAL_NECK, Region.TOTAL_HIP)
    for backbone in (Backbone.VGG16, Backbone.RESNET50)
    for variant in (Variant.ORIGINAL, Variant.AUGMENTED)
]


def shuffle_labels(manifest: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the manifest with labels that nothing, age included, can know."""
    random = np.random.default_rng(seed)
    columns = [c for c in manifest if c.startswith("label_t_score")]
    return manifest.assign(**{c: random.permutation(manifest[c]) for c in columns})


def assess(manifest: pd.DataFrame, strengths: list[float], *, seed: int = 0, repeats: int = 1):
    config = EvaluationConfig(resamples=400)
    rows = pd.concat(
        [
            predict_cell(manifest, cell, strength=strength, repeats=repeats, seed=100 * seed + i)
            for i, (cell, strength) in enumerate(zip(CELLS, strengths, strict=True))
        ],
        ignore_index=True,
    )
    predictions = read_predictions(rows)
    cells = summarise_cells(predictions, list_fits(rows), config)
    known = find_known(manifest, ())
    baselines = evaluate_baselines(predictions, manifest, config, known=known)
    comparisons = compare_cells(cells, baselines, config)
    worth = assess_worth(cells, comparisons, planned=8, level=config.level, known=known)
    return cells, comparisons, worth


def test_random_scores_on_permuted_labels_beat_nothing() -> None:
    for seed in range(5):
        manifest = shuffle_labels(build_manifest(80, seed=seed), seed)
        _, _, worth = assess(manifest, [0.0] * 8, seed=seed)
        assert worth.verdict.startswith("Nothing here beats the baseline")
        assert (worth.n_beating, worth.n_tested) == (0, 8)


def make_contestant(name: str, seed: int) -> Contestant:
    """Return a model whose scores know nothing of its 80 hips."""
    tests = pd.DataFrame(
        {
            "repeat": 0,
            "hip_id": [f"h{i:02d}" for i in range(80)],
            "patient_id": [f"p{i // 2:02d}" for i in range(80)],
            "label": np.arange(80) % 5 < 2,
            "probability": np.random.default_rng(seed).random(80),
        }
    )
    return Contestant(name, tests)


def find_by_chance(seed: int) -> bool:
    """Return whether any of eight random models is called better than a ninth."""
    models = [make_contestant(str(i), 9 * seed + i) for i in range(9)]
    paired = PairedAurocs(models, EvaluationConfig(resamples=400, seed=seed))
    differences = [paired.compare(model, models[8]) for model in models[:8]]
    values = np.array([d.value for d in differences])
    p = adjust_step_down(values, np.stack([d.drawn for d in differences], axis=1))
    return bool(p.min() <= 0.05)


@pytest.mark.full
def test_random_models_are_seldom_called_better_than_a_random_one() -> None:
    found = [find_by_chance(seed) for seed in range(100)]
    assert np.mean(found) <= 0.12  # 5 % and three standard errors of 100 runs


def train_on_noise(seed: int, n: int = 139, folds: int = 5) -> pd.DataFrame:
    """Return the out-of-fold scores of ridge regressions on features that know nothing."""
    random = np.random.default_rng(seed)
    features, labels = random.normal(size=(n, 40)), NOISE_LABELS[:n]
    scores = np.zeros(n)
    for fold in range(folds):
        test = np.arange(n) % folds == fold
        x, y = features[~test], labels[~test] - labels[~test].mean()
        scores[test] = features[test] @ np.linalg.solve(x.T @ x + 10 * np.eye(40), x.T @ y)
    return pd.DataFrame(
        {
            "repeat": 0,
            "hip_id": [f"h{i:03d}" for i in range(n)],
            "patient_id": [f"p{i:03d}" for i in range(n)],
            "label": labels == 1,
            "probability": scores,
        }
    )


NOISE_LABELS = (np.random.default_rng(0).random(139) < 0.46).astype(float)


def find_in_noise(seed: int, config: EvaluationConfig) -> bool:
    """Return whether any of nine models trained on noise is called better than a constant."""
    tests = [train_on_noise(9 * seed + i) for i in range(9)]
    models = [Contestant(str(i), own) for i, own in enumerate(tests)]
    constant = Contestant("constant", tests[0].assign(probability=0.5))
    paired = PairedAurocs([*models, constant], config)
    differences = [paired.compare(model, constant) for model in models]
    drawn = np.stack([widen(d.value, d.drawn, config) for d in differences], axis=1)
    p = adjust_step_down(np.array([d.value for d in differences]), drawn)
    return bool(p.min() <= 0.05)


@pytest.mark.full
def test_models_trained_on_noise_are_seldom_called_better_than_a_constant() -> None:
    config = EvaluationConfig(resamples=200)
    naive = config.model_copy(update={"fold_widening": 1.0})
    found = {w: [find_in_noise(s, w) for s in range(40)] for w in (config, naive)}
    assert np.mean(found[config]) <= 0.15  # 5 % and three standard errors of 40 runs
    assert np.mean(found[naive]) > 0.15


def test_true_signal_is_found_and_noise_beside_it_is_not() -> None:
    _, comparisons, worth = assess(build_manifest(80), [3.0] * 4 + [0.0] * 4)
    assert worth.verdict.startswith("4 of 8 cells beat age and sex and a constant")
    assert [comparisons[cell].beats_baseline for cell in CELLS] == [True] * 4 + [False] * 4


def test_a_clearly_worse_cell_is_behind_and_equal_ones_are_tied() -> None:
    cells, comparisons, worth = assess(build_manifest(100), [2.0, 2.0, 2.0, -0.5] + [1.0] * 4)
    neck = {cell: comparisons[cell] for cell in CELLS[:4]}
    assert sorted(c.rank for c in neck.values()) == [1, 2, 3, 4]
    worst = neck[CELLS[3]]
    assert worst.rank == 4
    assert not worst.tied_with_best
    assert sum(c.tied_with_best for c in neck.values()) == 2
    first = next(best for best in worth.best if best.result.cell in neck)
    assert (len(first.ties), first.n_rivals) == (2, 3)
    aurocs = {c.cell: c.pooled[Metric.AUROC].value for c in cells}
    assert first.result.cell == max(neck, key=lambda cell: aurocs[cell])


def resample_gain(first: pd.DataFrame, second: pd.DataFrame, config: EvaluationConfig) -> Interval:
    """The interval of a gain in AUROC, written down the plain way."""
    auroc = STATISTICS[Metric.AUROC]
    hips = [frame.sort_values("hip_id").reset_index(drop=True) for frame in (first, second)]
    samples = [build_sample(frame) for frame in hips]
    drawn = [
        auroc(samples[0], weights) - auroc(samples[1], weights)
        for weights in draw_weights(hips[0], config.resamples, config.seed)
    ]
    once = np.ones((1, len(hips[0])))
    value = float((auroc(samples[0], once) - auroc(samples[1], once))[0])
    return build_interval(value, np.concatenate(drawn), config)


def test_a_gain_is_the_paired_difference_of_the_bootstrap() -> None:
    config = EvaluationConfig(resamples=400)
    manifest = build_manifest(80)
    rows = predict_cell(manifest, CELLS[0], repeats=1)
    predictions = read_predictions(rows)
    cells = summarise_cells(predictions, list_fits(rows), config)
    known = find_known(manifest, ())
    baselines = evaluate_baselines(predictions, manifest, config, known=known)
    gain = compare_cells(cells, baselines, config)[CELLS[0]].over[Baseline.COVARIATES]
    rival = next(b for b in baselines if b.baseline is Baseline.COVARIATES)
    expected = resample_gain(cells[0].hips, rival.hips, config)
    assert gain.interval.value == pytest.approx(expected.value)
    assert gain.interval.low == pytest.approx(expected.low)


def test_cells_with_too_few_hips_of_a_class_are_not_tested() -> None:
    cells, comparisons, worth = assess(build_manifest(14), [3.0] * 8)
    assert worth.n_tested == 0
    assert "8 cells have fewer than 10 patients of a class" in worth.verdict
    assert all(gain.p is None for c in comparisons.values() for gain in c.over.values())
    assert len(cells) == 8


def compare(rows: list[pd.DataFrame], config: EvaluationConfig):
    frame = pd.concat(rows, ignore_index=True)
    cells = summarise_cells(read_predictions(frame), list_fits(frame), config)
    return compare_cells(cells, [], config)


def answer(rows: pd.DataFrame, scores) -> pd.DataFrame:
    return rows.assign(score=scores, calibrated=scores)


def test_an_unfinished_cell_comes_last_and_is_held_against_no_other() -> None:
    config = EvaluationConfig(resamples=200)
    manifest = build_manifest(80)
    easy, *others = (predict_cell(manifest, c, seed=i) for i, c in enumerate(CELLS[:3]))
    easy = answer(easy, np.where(easy["label"] == 1, 0.9, 0.1))
    found = compare([easy[easy["repeat"] == 0], *others], config)
    assert (found[CELLS[0]].rank, found[CELLS[0]].behind_best) == (3, None)
    assert sum(found[cell].behind_best is not None for cell in CELLS[1:3]) == 1


def test_cells_are_ranked_on_the_hips_that_all_of_them_have() -> None:
    config = EvaluationConfig(resamples=200)
    first, second = (
        predict_cell(build_manifest(80), c, repeats=1, seed=i) for i, c in enumerate(CELLS[:2])
    )
    left_out = first["hip_id"].isin(sorted(set(first["hip_id"]))[::3])
    second = answer(second, first["score"])[~left_out]
    first = answer(first, np.where(left_out, 0.5, first["score"]))
    found = compare([first, second], config)
    gap = next(c.behind_best for c in found.values() if c.behind_best is not None)
    assert gap.interval.value == 0, "on the hips that both have they do not differ"


def test_a_model_of_one_repeat_is_held_against_one_repeat_of_another() -> None:
    tests = pd.concat([train_on_noise(seed).assign(repeat=seed) for seed in range(5)])
    averaged, single = Contestant("five", tests), Contestant("one", tests[tests["repeat"] == 0])
    found = PairedAurocs([averaged, single], EvaluationConfig(resamples=100)).compare(
        averaged, single
    )
    assert (found.value, found.drawn.any()) == (0, False)


def test_no_results_have_no_comparisons(config) -> None:
    assert compare_cells([], [], config) == {}


def draw_differences(values, n_resamples=2000, seed=0, shared=0.0):
    random = np.random.default_rng(seed)
    noise = random.normal(size=(n_resamples, len(values)))
    common = random.normal(size=(n_resamples, 1))
    return values + np.sqrt(1 - shared) * noise + np.sqrt(shared) * common


def test_an_adjusted_p_of_one_difference_is_its_plain_one() -> None:
    values = np.array([2.0])
    drawn = draw_differences(values)
    p = adjust_step_down(values, drawn)[0]
    assert p == pytest.approx(0.023, abs=0.01)


def test_p_of_a_gain_agrees_with_the_interval_beside_it() -> None:
    _, comparisons, _ = assess(build_manifest(80), [0.8] + [0.0] * 7)
    gain = comparisons[CELLS[0]].over[Baseline.MAJORITY]
    assert gain.interval.low < 0 or gain.p < 0.05
    assert gain.p <= 1


def test_more_differences_raise_p_and_dependence_lowers_it() -> None:
    values = np.array([2.5, *[0.0] * 19])
    alone = adjust_step_down(values[:1], draw_differences(values[:1]))[0]
    apart = adjust_step_down(values, draw_differences(values))[0]
    together = adjust_step_down(values, draw_differences(values, shared=0.95))[0]
    assert alone < together < apart


def test_step_down_p_rises_from_the_largest_difference_to_the_smallest() -> None:
    values = np.array([0.5, 3.0, 1.5, -1.0])
    p = adjust_step_down(values, draw_differences(values))
    assert list(np.argsort(p, kind="stable")) == [1, 2, 0, 3]
    assert (np.diff(p[[1, 2, 0, 3]]) >= 0).all()
    assert p[3] > 0.5


def test_a_difference_without_spread_is_certain_unless_it_is_zero() -> None:
    values = np.array([0.5, 0.0, 0.3])
    drawn = draw_differences(values)
    drawn[:, :2] = values[:2]
    p = adjust_step_down(values, drawn)
    assert p[0] == pytest.approx(1 / 2001)
    assert p[1] > 0.2


def test_two_sided_p_does_not_depend_on_the_sign() -> None:
    values = np.array([2.0, -2.0, 0.1])
    drawn = draw_differences(values)
    drawn[:, 1] = -drawn[:, 0]
    p = adjust_two_sided(values, drawn)
    assert p[0] == pytest.approx(p[1])
    assert p[0] < 0.2 < p[2]


def test_undefined_resamples_are_left_out() -> None:
    values = np.array([2.5])
    drawn = draw_differences(values)
    drawn[:100] = np.nan
    assert adjust_step_down(values, drawn)[0] < 0.05


def test_beating_takes_both_age_and_sex_and_a_constant() -> None:
    _, comparisons, _ = assess(build_manifest(80), [3.0] * 8)
    comparison = comparisons[CELLS[0]]
    assert comparison.beats_baseline
    chance = replace(comparison.over[Baseline.MAJORITY], p=0.5)
    weak = replace(comparison, over={**comparison.over, Baseline.MAJORITY: chance})
    assert not weak.beats_baseline


def test_where_age_and_sex_are_unknown_a_constant_is_what_must_be_beaten() -> None:
    manifest = build_manifest(80).assign(age=np.nan, sex="unknown")
    _, comparisons, worth = assess(manifest, [3.0] * 4 + [0.0] * 4)
    assert Baseline.COVARIATES not in comparisons[CELLS[0]].over
    assert worth.verdict.startswith("4 of 8 cells beat a constant by AUROC")
    assert "Age and sex are not known" in worth.verdict
