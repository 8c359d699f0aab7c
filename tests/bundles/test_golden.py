"""Golden answers: what a bundle must say of one phantom film, wherever it is loaded."""

import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest
import safetensors.torch

from hipray.bundles.bundle import WEIGHTS_FILE, Bundle, load_bundle
from hipray.bundles.golden import (
    GOLDEN_ANSWERS,
    GOLDEN_FILM,
    GREY_LEVELS,
    TOLERANCE,
    answer_golden,
    check_decoding,
    check_golden,
    draw_golden_film,
    dump_answers,
    read_golden_hip,
)
from hipray.classification.classifier import Classifier
from hipray.classification.odds import OddsScale, ScoreScale
from hipray.errors import BundleError
from hipray.vocab import Precision
from tests.data.film_files import encode_image


@pytest.fixture
def bundle(published):
    return load_bundle(published.store, published.digest)


def change(bundle: Bundle, **answers) -> Bundle:
    import io

    with np.load(io.BytesIO(bundle.files[GOLDEN_ANSWERS])) as archive:
        known = {name: archive[name] for name in archive.files}
    changed = {name: value + answers.get(name, 0) for name, value in known.items()}
    files = bundle.files | {GOLDEN_ANSWERS: dump_answers(changed)}
    return dataclasses.replace(bundle, files=files)


def test_the_bundle_that_was_published_reproduces_its_answers(bundle) -> None:
    check_golden(bundle)


def test_differences_of_other_processors_are_allowed(bundle) -> None:
    check_golden(change(bundle, log_odds=TOLERANCE / 2))


def test_another_answer_is_refused_with_the_difference(bundle) -> None:
    with pytest.raises(BundleError, match=r"golden log_odds .* found a difference of 0.0"):
        check_golden(change(bundle, log_odds=0.01))


def test_a_decoder_that_gives_other_pixels_is_refused(bundle) -> None:
    with pytest.raises(BundleError, match=r"golden pixels .* within 1, found a difference of 2"):
        check_golden(change(bundle, pixels=np.int16(GREY_LEVELS + 1)))


def test_where_no_networks_are_loaded_the_decoding_alone_is_checked(
    published, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_decoding(published.store, published.digest)

    def read_darker(film: bytes) -> np.ndarray:
        return read_golden_hip(film) // 2

    monkeypatch.setattr("hipray.bundles.golden.read_golden_hip", read_darker)
    with pytest.raises(BundleError, match=r"golden pixels .* within 1"):
        check_decoding(published.store, published.digest)


class Constant:
    """A score network that always gives the same answer, changed a little by bfloat16."""

    def __init__(self, change: float) -> None:
        self.change = change

    def __call__(self, films: np.ndarray, people: np.ndarray | None = None) -> np.ndarray:
        return np.full((len(films), 1), self.change, np.float32)


@pytest.mark.parametrize(("times", "passes"), [(3, True), (5, False)])
def test_bfloat16_may_change_the_log_odds_of_a_score_as_much_as_its_measured_answers(
    bundle, times: int, passes: bool
) -> None:
    scale = ScoreScale(centre=-1.0, spread=1.2, threshold=-2.5, error=0.4)
    spec = bundle.description.model.model_copy(update={"odds": OddsScale(score=scale)})
    noted = {"model": spec, "bfloat16_difference": 0.01}
    description = bundle.description.model_copy(update=noted)
    scored = dataclasses.replace(bundle, description=description)

    def answering(change: float) -> Classifier:
        return Classifier(Constant(change), settings=spec.settings, odds=spec.odds)

    golden = answer_golden(scored, scored.files[GOLDEN_FILM], answering(0.0))
    files = scored.files | {GOLDEN_ANSWERS: dump_answers(golden)}
    scored = dataclasses.replace(scored, files=files)
    changed = answering(times * description.bfloat16_difference)
    with nullcontext() if passes else pytest.raises(BundleError, match="golden log_odds"):
        check_golden(scored, changed, precision=Precision.BFLOAT16)


def test_other_weights_do_not_pass(bundle) -> None:
    weights = bundle.weights()
    weights["dense.bias"] = weights["dense.bias"] + weights["dense.bias"].new_tensor([0.0, 0.5])
    files = bundle.files | {WEIGHTS_FILE: safetensors.torch.save(weights)}
    with pytest.raises(BundleError, match=r"golden log_odds"):
        check_golden(dataclasses.replace(bundle, files=files))


def test_another_film_does_not_pass(bundle) -> None:
    film = encode_image(255 - read_golden_hip(draw_golden_film()) // 2)
    with pytest.raises(BundleError, match=r"golden|one hip"):
        check_golden(dataclasses.replace(bundle, files=bundle.files | {GOLDEN_FILM: film}))


def test_the_golden_film_is_the_same_every_time_and_a_phantom() -> None:
    assert draw_golden_film() == draw_golden_film()
    assert read_golden_hip(draw_golden_film()).std() > 20


def test_a_golden_film_that_cannot_be_read_is_a_bundle_error() -> None:
    with pytest.raises(BundleError, match=r"one hip on the golden film"):
        read_golden_hip(b"no film")
