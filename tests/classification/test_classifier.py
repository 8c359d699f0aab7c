"""The classifier answers log odds, free of class weights, in any batch."""

import numpy as np
import pytest
import torch
from torch import nn

from hipray.classification.classifier import Classifier
from hipray.data.framing import resize_square

FILMS = np.random.default_rng(0).integers(0, 256, (7, 96, 96)).astype(np.uint8)


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                         nn.Dropout(0.5), nn.Linear(16, 2))  # fmt: skip


def test_the_answer_is_the_difference_of_the_two_logits(module):
    odds = Classifier(module, size_px=96)(FILMS)
    batch = (torch.from_numpy(FILMS)[:, None].float() / 255 - 0.449) / 0.226
    with torch.inference_mode():
        logits = module.eval()(batch).double()
    assert odds.dtype == np.float64
    assert np.allclose(odds, logits[:, 1] - logits[:, 0], atol=1e-6)


def test_the_batch_size_changes_no_answer(module):
    answers = [Classifier(module, size_px=64, batch=size)(FILMS) for size in (1, 3, 32)]
    assert np.allclose(answers[0], answers[1], atol=1e-5)
    assert np.allclose(answers[0], answers[2], atol=1e-5)


def test_class_weights_shift_every_answer_alike(module):
    plain = Classifier(module, size_px=64)(FILMS)
    weighted = Classifier(module, size_px=64, weights=(0.5, 2.0))(FILMS)
    assert np.allclose(plain - weighted, np.log(4))


def test_views_of_another_size_are_resized_to_what_the_network_was_trained_on(module):
    small = resize_square(FILMS, 64)
    classifier = Classifier(module, size_px=64)
    assert np.allclose(classifier(FILMS), classifier(small))


def test_no_views_give_no_answers(module):
    assert Classifier(module, size_px=64)(FILMS[:0]).shape == (0,)


def test_read_only_views_are_answered_and_dropout_is_off(module):
    views = FILMS.copy()
    views.flags.writeable = False
    module.train()
    classifier = Classifier(module, size_px=96)
    assert np.array_equal(classifier(views), classifier(views))
