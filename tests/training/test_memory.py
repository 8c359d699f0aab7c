"""What fits need in memory, and the refusal of a grid that cannot fit."""

import re

import pytest
import torch

from hipray.classification.model import build_network
from hipray.config.experiment import ClassifierSettings, Experiment, SegmenterSettings
from hipray.errors import ConfigError
from hipray.training.memory import (
    CONTEXT_BYTES,
    GIB,
    check_gpu_memory,
    describe_fit_memory,
    find_largest,
    measure_classifier,
    pool_share,
)
from hipray.training.plan import PlannedFit
from hipray.vocab import (
    REGIONS,
    Backbone,
    Cell,
    Covariate,
    Fit,
    LabelType,
    Region,
    SegmenterArch,
    SegmenterFit,
    Variant,
)


def planned(backbone="resnet10t"):
    cell = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, backbone, Variant.ORIGINAL)
    return PlannedFit(Fit(cell, 0, 0), backbone)


def experiment(**settings):
    return Experiment(classifier=ClassifierSettings(**{"size_px": 64, **settings}))


def need(backbone="resnet10t", **settings):
    return describe_fit_memory(planned(backbone).fit, experiment(**settings)).total_bytes


def kept_by_a_real_step(settings):
    """Bytes that a forward pass of two films on the CPU keeps for the backward pass."""
    network = build_network("resnet10t", settings).train()
    own = {t.data_ptr() for t in (*network.parameters(), *network.buffers())}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = network(torch.rand(2, 1, 64, 64)).sum()
    assert loss.requires_grad
    return sum(kept.values())


def test_what_is_counted_without_memory_is_what_a_real_step_keeps() -> None:
    settings = ClassifierSettings(size_px=64)
    counted = measure_classifier("resnet10t", settings)
    assert 2 * counted.saved_bytes_per_film == pytest.approx(
        kept_by_a_real_step(settings), rel=0.02
    )
    real = build_network("resnet10t", settings)
    assert counted.weights == sum(p.numel() for p in real.parameters())


def test_need_grows_with_batch_film_size_and_head() -> None:
    assert need(batch=256) > need(batch=128)
    assert need(batch=64, size_px=128) > need(batch=64, size_px=64)
    full = need("vgg16", head="full", size_px=224)
    assert full > need("vgg16", size_px=224) + 20 * 100_000_000, "the full head has 120 M weights"


def test_a_gpu_keeps_activations_in_half_precision() -> None:
    large = experiment(batch=512)
    on_cpu = describe_fit_memory(planned().fit, large, gpu=False)
    on_gpu = describe_fit_memory(planned().fit, large)
    assert on_gpu.bytes_per_film < on_cpu.bytes_per_film


@pytest.mark.parametrize("arch", SegmenterArch)
def test_every_segmenter_can_be_counted(arch) -> None:
    fit = SegmenterFit(arch, REGIONS, 0, 0)
    settings = SegmenterSettings(size_px=64, weights="imagenet")
    size = describe_fit_memory(fit, Experiment(segmenter=settings))
    assert 0.1 * GIB < size.total_bytes < 20 * GIB
    assert arch in size.network


def test_the_papers_networks_fit_into_a_quarter_of_a_large_gpu() -> None:
    plan = [planned(backbone.value) for backbone in Backbone]
    settings = experiment(size_px=224, batch=16)
    check_gpu_memory(plan, settings, gpu_bytes=80 * GIB, gpus_per_lane=0.25)
    largest = find_largest(plan, settings)
    assert largest is not None
    assert GIB < largest.total_bytes < 20 * GIB


def test_a_grid_that_does_not_fit_is_refused_with_a_share_and_a_batch_that_do() -> None:
    plan, settings = [planned(), planned("vgg16")], experiment(batch=512, size_px=224)
    with pytest.raises(ConfigError, match=r"\(vgg16, batch 512\).*gpus_per_lane = 0\.1 of 80") as e:
        check_gpu_memory(plan, settings, gpu_bytes=80 * GIB, gpus_per_lane=0.1)
    share = float(re.search(r"gpus_per_lane to ([\d.]+)", e.value.remedy).group(1))
    check_gpu_memory(plan, settings, gpu_bytes=80 * GIB, gpus_per_lane=share)
    batch = int(re.search(r"batch to (\d+)", e.value.remedy).group(1))
    smaller = experiment(batch=batch, size_px=224)
    check_gpu_memory(plan, smaller, gpu_bytes=80 * GIB, gpus_per_lane=0.1)
    with pytest.raises(ConfigError):
        larger = experiment(batch=batch + 1, size_px=224)
        check_gpu_memory(plan, larger, gpu_bytes=80 * GIB, gpus_per_lane=0.1)


def test_where_neither_share_nor_batch_helps_another_gpu_is_named() -> None:
    settings = experiment(head="full", size_px=224)
    with pytest.raises(ConfigError, match="use a GPU with more memory"):
        check_gpu_memory([planned("vgg16")], settings, gpu_bytes=2 * GIB, gpus_per_lane=1)


def test_an_empty_plan_needs_nothing() -> None:
    assert find_largest([], Experiment()) is None
    check_gpu_memory([], Experiment(), gpu_bytes=1, gpus_per_lane=1)


def test_networks_with_covariates_are_counted_too() -> None:
    told = ClassifierSettings(size_px=32, covariates=tuple(Covariate))
    alone = ClassifierSettings(size_px=32)
    assert (
        measure_classifier("resnet10t", told).weights
        > measure_classifier("resnet10t", alone).weights
    )


def test_films_that_are_too_small_for_a_network_are_refused_by_name() -> None:
    settings = ClassifierSettings(size_px=64)
    with pytest.raises(ConfigError, match=r"films that inception_v3 can take, found size_px = 64"):
        measure_classifier("inception_v3", settings)


@pytest.mark.parametrize("lanes", [1, 2, 4, 7])
def test_full_pools_and_contexts_of_all_lanes_fit_on_their_gpu(lanes: int) -> None:
    size = 16 * GIB
    pools = lanes * pool_share(gpu_bytes=size, gpus=1 / lanes) * size
    assert pools + lanes * CONTEXT_BYTES == pytest.approx(size)


def test_a_share_below_what_a_process_holds_beside_its_pool_leaves_no_pool() -> None:
    assert pool_share(gpu_bytes=4 * GIB, gpus=0.01) == 0
