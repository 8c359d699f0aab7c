"""An exported network answers what torch answers, in any batch; one that does not is not kept."""

import numpy as np
import pytest
import torch
from torch import nn

from hipray.classification.model import build_network
from hipray.config.experiment import ClassifierSettings, SegmenterSettings, Target
from hipray.data.person import Person, encode_people
from hipray.runtime.export import TOLERANCE, Probe, compare, export_network, measure_bfloat16
from hipray.runtime.network import Network, TorchNetwork
from hipray.runtime.onnx_network import OnnxNetwork
from hipray.segmentation.model import build_network as build_segmenter
from hipray.segmentation.segmenter import MaskNetwork
from hipray.vocab import Covariate, SegmenterArch, Sex

SIDE = 64
BACKBONE = "resnet10t"
PEOPLE = encode_people([Person(Sex.FEMALE, age=80.0), Person(Sex.MALE, age=50.0), Person()])
FILMS = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE)).astype(np.uint8)
PROBE = Probe(FILMS, PEOPLE)


def build(**settings) -> nn.Module:
    torch.manual_seed(0)
    return build_network(BACKBONE, ClassifierSettings(size_px=SIDE, **settings), pretrained=False)


def onnx_of(module: nn.Module, probe: Probe = PROBE) -> Network:
    export = export_network(module, probe)
    assert export.model is not None, export.reason
    return OnnxNetwork(export.model)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"background_fraction": 0.06},
        {"covariates": (Covariate.AGE, Covariate.SEX)},
        {"target": Target.SCORE},
    ],
)
def test_classifiers_answer_alike_on_films_that_the_export_did_not_see(settings) -> None:
    module = build(**settings)
    others = np.random.default_rng(1).integers(0, 256, (5, SIDE, SIDE)).astype(np.uint8)
    probe = Probe(others, np.concatenate([PEOPLE, PEOPLE[:2]]))
    assert compare(TorchNetwork(module), onnx_of(module), probe) < TOLERANCE


@pytest.mark.parametrize("arch", SegmenterArch)
def test_segmenters_answer_alike_with_probabilities(arch) -> None:
    settings = SegmenterSettings(size_px=SIDE, decoder_channels=(32, 16, 16, 8, 8))
    module = MaskNetwork(build_segmenter(arch, settings, outputs=4, pretrained=False))
    probe = Probe(FILMS)
    network = onnx_of(module, probe)
    answers = network(FILMS)
    assert answers.shape == (3, 4, SIDE, SIDE)
    assert ((answers >= 0) & (answers <= 1)).all()
    assert compare(TorchNetwork(module), network, probe) < TOLERANCE


def test_covariates_are_told_to_the_exported_network() -> None:
    network = onnx_of(build(covariates=(Covariate.AGE,)))
    other = encode_people([Person(age=20.0)] * 3)
    assert not np.allclose(network(FILMS, PEOPLE), network(FILMS, other))


def test_covariates_that_the_vocabulary_got_later_change_no_answer() -> None:
    module = build(covariates=tuple(Covariate))
    network = onnx_of(module)
    later = np.concatenate([PEOPLE, np.ones((3, 2), np.float32)], axis=1)
    assert np.array_equal(network(FILMS, later), network(FILMS, PEOPLE))


class CountsFilms(nn.Module):
    """Answers by how many films there are, which a trace freezes."""

    def forward(self, films: torch.Tensor, people: torch.Tensor) -> torch.Tensor:
        return films.mean((1, 2, 3))[:, None] * int(films.shape[0])


class Untraceable(nn.Module):
    """Has no counterpart in ONNX."""

    def forward(self, films: torch.Tensor, people: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(films[:, 0]).real


def test_an_export_that_answers_otherwise_is_not_kept_and_the_difference_is_told() -> None:
    export = export_network(CountsFilms(), PROBE)
    assert export.model is None
    assert "differs by" in export.reason


def test_a_network_that_cannot_be_exported_stays_with_torch_and_says_so() -> None:
    export = export_network(Untraceable(), PROBE)
    assert export.model is None
    assert "the export failed" in export.reason


def test_the_same_network_is_exported_to_the_same_bytes() -> None:
    first, again = (export_network(build(), PROBE).model for _ in range(2))
    assert first == again


def test_bfloat16_changes_answers_a_little() -> None:
    assert 0 < measure_bfloat16(build(), PROBE) < 0.1


def test_a_session_computes_with_torchs_threads_and_none_of_them_spins() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        options = onnx_of(build())._session.get_session_options()
    finally:
        torch.set_num_threads(before)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
