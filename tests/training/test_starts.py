"""Start weights are read, named and tried out before anything is trained."""

import pytest
import safetensors.torch
import segmentation_models_pytorch as smp
import timm

from hipray.config.experiment import ClassifierSettings, Experiment, SegmenterSettings
from hipray.data.dataset import DataIdentity
from hipray.errors import ConfigError
from hipray.storage import open_store
from hipray.training.plan import PlannedFit, plan_segmenters
from hipray.training.starts import digest_starts, read_start_weights, try_starts
from hipray.vocab import Cell, Fit, LabelType, Region, Variant

FILE = "weights/start.safetensors"


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path))


def starting_from(weights):
    return Experiment(classifier=ClassifierSettings(size_px=64, weights=weights))


def planned(backbone):
    cell = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, backbone, Variant.ORIGINAL)
    return PlannedFit(Fit(cell, 0, 0), backbone)


def put_published(store, backbone):
    tensors = dict(timm.create_model(backbone).state_dict())
    store.write(FILE, safetensors.torch.save(tensors))
    return tensors


def test_a_file_is_read_as_tensors_and_a_word_as_none(store) -> None:
    tensors = put_published(store, "resnet10t")
    read = read_start_weights(store, FILE)
    assert read is not None
    assert read.keys() == tensors.keys()
    assert read_start_weights(store, "none") is None
    assert read_start_weights(store, "imagenet") is None


def test_a_file_of_another_kind_is_refused_by_name(store) -> None:
    store.write(FILE, b"PK\x03\x04 a pickle of torch")
    with pytest.raises(ConfigError, match=rf"expected a safetensors file as {FILE}"):
        read_start_weights(store, FILE)


def test_other_bytes_are_another_digest(store) -> None:
    put_published(store, "resnet10t")
    first = digest_starts(store, starting_from(FILE), ["resnet10t"])
    store.delete(FILE)
    put_published(store, "resnet10t")
    assert digest_starts(store, starting_from(FILE), ["resnet10t"]).keys() == first.keys() == {FILE}
    assert digest_starts(store, starting_from(FILE), ["resnet10t"]) != first


def test_weights_of_the_planned_network_pass(store) -> None:
    put_published(store, "resnet10t")
    try_starts(store, starting_from(FILE), [planned("resnet10t")])


def test_weights_of_another_network_are_refused_before_anything_is_trained(store) -> None:
    put_published(store, "resnet10t")
    with pytest.raises(ConfigError, match=rf"tensors of densenet121 in {FILE}.*no features"):
        try_starts(store, starting_from(FILE), [planned("resnet10t"), planned("densenet121")])


def test_a_segmenter_starts_from_a_file_too_and_is_another_fit_for_it(store) -> None:
    encoder = smp.Unet("resnet18", encoder_weights=None).encoder.state_dict()
    store.write(FILE, safetensors.torch.save(dict(encoder)))
    experiment = Experiment(segmenter=SegmenterSettings(weights=FILE))
    starts = digest_starts(store, experiment, [])
    assert starts.keys() == {FILE}
    data = DataIdentity("films", "labels", "split")
    plan = plan_segmenters(experiment, data=data, starts=starts)
    try_starts(store, experiment, plan)
    others = plan_segmenters(experiment, data=data, starts={FILE: "other bytes"})
    assert not {p.digest for p in plan} & {p.digest for p in others}
    put_published(store, "resnet10t")
    with pytest.raises(ConfigError, match="tensors of resnet18"):
        try_starts(store, experiment, plan)


def test_a_plan_of_networks_without_start_weights_reads_nothing(store) -> None:
    try_starts(store, starting_from("none"), [planned("no_such_network")])


def test_half_a_file_is_refused(store) -> None:
    tensors = put_published(store, "resnet10t")
    kept = dict(list(tensors.items())[: len(tensors) // 2])
    store.delete(FILE)
    store.write(FILE, safetensors.torch.save(kept))
    with pytest.raises(ConfigError, match="tensors of resnet10t"):
        try_starts(store, starting_from(FILE), [planned("resnet10t")])
