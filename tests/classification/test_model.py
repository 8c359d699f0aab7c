"""Classifiers: a timm network, dropout and one dense softmax layer."""

import pytest
import timm
import torch

from hipray.classification.model import build_network, check_backbone
from hipray.config.experiment import ClassifierSettings, Freeze, VggHead
from hipray.errors import ConfigError

SETTINGS = ClassifierSettings(size_px=64)


@pytest.mark.parametrize("backbone", ["resnet10t", "densenet121", "mobilenetv3_small_050"])
def test_any_timm_network_answers_with_two_classes(backbone) -> None:
    network = build_network(backbone, SETTINGS).eval()
    with torch.inference_mode():
        assert network(torch.rand(2, 1, 64, 64)).shape == (2, 2)


def test_vgg_ends_in_pooled_features_by_default() -> None:
    network = build_network("vgg16", SETTINGS).eval()
    count = sum(p.numel() for p in network.parameters())
    assert network.dense.in_features == 512
    assert count * 4 == pytest.approx(59e6, rel=0.02)
    with torch.inference_mode():
        assert network(torch.rand(1, 1, 64, 64)).shape == (1, 2)


def test_the_full_head_of_vgg_is_a_choice() -> None:
    with torch.device("meta"):
        network = build_network("vgg16", SETTINGS.model_copy(update={"head": VggHead.FULL}))
    assert network.dense.in_features == 4096


def test_dropout_lies_before_the_dense_layer_and_is_still_when_answering() -> None:
    network = build_network("resnet10t", SETTINGS.model_copy(update={"dropout": 0.9}))
    films = torch.rand(4, 1, 64, 64)
    network.features.eval()
    network.dropout.train()
    torch.manual_seed(0)
    first, second = network(films), network(films)
    assert not torch.equal(first, second)
    network.eval()
    assert torch.equal(network(films), network(films))


def test_answers_are_finer_than_what_their_features_are_autocast_to() -> None:
    network = build_network("resnet10t", SETTINGS).eval()
    films = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        answers = network(films)
    assert not torch.equal(answers, answers.bfloat16().float())


def test_an_unknown_network_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(ConfigError, match=r"backbone 'resnet5'; did you mean .*resnet"):
        check_backbone("resnet5")


def test_a_bundles_network_is_built_without_reaching_for_start_weights() -> None:
    settings = SETTINGS.model_copy(update={"weights": "imagenet"})
    assert build_network("resnet10t", settings, pretrained=False).dense.out_features == 2


def test_frozen_layers_keep_weights_and_batch_statistics_while_the_rest_learns() -> None:
    network = build_network("resnet10t", SETTINGS)
    network.freeze(Freeze.FEATURES)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    learning = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=1.0)
    network.train()
    network(torch.rand(4, 1, 64, 64)).square().sum().backward()
    optimizer.step()
    changed = {name for name, old in before.items() if not old.equal(network.state_dict()[name])}
    assert changed == {"dense.weight", "dense.bias"}


def test_half_frozen_leaves_the_later_layers_to_learn() -> None:
    network = build_network("resnet10t", SETTINGS)
    network.freeze(Freeze.HALF)
    learns = [p.requires_grad for p in network.parameters()]
    assert not learns[0]
    assert learns[-1]
    assert 0.3 < sum(learns) / len(learns) < 0.7


def test_networks_for_one_size_of_film_are_built_for_the_size_of_the_views() -> None:
    network = build_network("deit3_small_patch16_224", SETTINGS).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 1, 64, 64)).shape == (1, 2)


def test_published_weights_are_summed_over_colours_and_taken_as_they_are() -> None:
    published = timm.create_model("resnet10t").state_dict()
    settings = SETTINGS.model_copy(update={"weights": "weights/resnet10t.safetensors"})
    taken = build_network("resnet10t", settings, start=published).features.state_dict()
    first = next(iter(published))
    assert torch.allclose(taken[first], published[first].sum(1, keepdim=True))
    assert all(torch.equal(taken[name], published[name]) for name in taken if name != first)


def test_weights_of_a_whole_network_are_where_another_starts() -> None:
    whole = build_network("resnet10t", SETTINGS).state_dict()
    again = build_network("resnet10t", SETTINGS, start=whole).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize("whole", [True, False])
def test_weights_of_another_network_are_refused_by_name(whole) -> None:
    other = build_network("resnet18", SETTINGS)
    start = other.state_dict() if whole else other.features.state_dict()
    settings = SETTINGS.model_copy(update={"weights": "weights/other.safetensors"})
    with pytest.raises(ConfigError, match=r"tensors of resnet10t in weights/other.safetensors"):
        build_network("resnet10t", settings, start=start)
