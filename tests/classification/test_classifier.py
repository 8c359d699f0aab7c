"""The classifier answers log odds, free of class weights, in any batch."""

import numpy as np
import pytest
import torch
from torch import nn

from hipray.classification.classifier import Classifier
from hipray.classification.odds import OddsScale, ScoreScale
from hipray.config.experiment import ClassifierSettings
from hipray.data.framing import resize_square
from hipray.data.person import NOBODY, Person, encode_people
from hipray.runtime.network import TorchNetwork

PEOPLE = encode_people([NOBODY] * 7)
FILMS = np.random.default_rng(0).integers(0, 256, (7, 96, 96)).astype(np.uint8)


class Network(nn.Module):
    """A small network that is told of people."""

    def __init__(self, outputs=2):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
                                      nn.Flatten(), nn.Dropout(0.5))  # fmt: skip
        self.dense = nn.Linear(16 + PEOPLE.shape[1], outputs)

    def forward(self, films, people):
        return self.dense(torch.cat([self.features(films), people], 1))


@pytest.fixture(scope="module")
def module():
    return Network()


def answer(module, films=FILMS, people=PEOPLE, *, size_px=64, odds=None, batch=32, **settings):
    chosen = ClassifierSettings(size_px=size_px, **settings)
    classifier = Classifier(TorchNetwork(module), settings=chosen, odds=odds, batch=batch)
    return classifier(films, people[: len(films)])


def test_the_answer_is_the_difference_of_the_two_logits(module) -> None:
    odds = answer(module, size_px=96)
    batch = torch.from_numpy(FILMS)[:, None].float() / 255
    with torch.inference_mode():
        logits = module.eval()(batch, torch.from_numpy(PEOPLE)).double()
    assert odds.dtype == np.float64
    assert np.allclose(odds, logits[:, 1] - logits[:, 0], atol=1e-6)


def test_the_batch_size_changes_no_answer(module) -> None:
    answers = [answer(module, batch=size) for size in (1, 3, 32)]
    assert np.allclose(answers[0], answers[1], atol=1e-5)
    assert np.allclose(answers[0], answers[2], atol=1e-5)


def test_class_weights_shift_every_answer_alike(module) -> None:
    weighted = answer(module, odds=OddsScale((0.5, 2.0)))
    assert np.allclose(answer(module) - weighted, np.log(4))


def test_views_of_another_size_are_resized_to_what_the_network_was_trained_on(module) -> None:
    assert np.allclose(answer(module), answer(module, resize_square(FILMS, 64)))


def test_no_views_give_no_answers(module) -> None:
    assert answer(module, FILMS[:0]).shape == (0,)


def test_read_only_views_are_answered_and_dropout_is_off(module) -> None:
    views = FILMS.copy()
    views.flags.writeable = False
    module.train()
    assert np.array_equal(answer(module, views, size_px=96), answer(module, views, size_px=96))


def test_people_are_told_to_the_network(module) -> None:
    old = encode_people([Person(age=95.0)] * 7)
    assert not np.allclose(answer(module), answer(module, people=old))


def test_test_time_augmentation_is_the_mean_over_the_papers_moves(module) -> None:
    mean = answer(module, test_time_augmentation=True)
    still = answer(module, test_time_augmentation=True, rotation_degrees=0, shift_px_at_224=0)
    assert np.allclose(still, answer(module))
    assert not np.allclose(mean, still)


def test_a_network_that_learned_scores_answers_with_scores_and_their_odds() -> None:
    scale = ScoreScale(centre=-2.0, spread=1.0, threshold=-2.5, error=0.5)
    settings = ClassifierSettings(size_px=64)
    classifier = Classifier(
        TorchNetwork(Network(outputs=1)), settings=settings, odds=OddsScale(score=scale)
    )
    answers = classifier.ask(FILMS, PEOPLE)
    scores, odds = classifier.scores(answers), classifier.log_odds(answers)
    assert np.array_equal(odds, classifier(FILMS, PEOPLE))
    assert scores.shape == odds.shape == (7,)
    assert ((scores < -2.5) == (odds > 0)).all()


def test_a_network_that_learned_labels_has_no_scores(module) -> None:
    classifier = Classifier(TorchNetwork(module), settings=ClassifierSettings(size_px=64))
    assert np.isnan(classifier.scores(classifier.ask(FILMS, PEOPLE))).all()
