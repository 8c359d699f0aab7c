"""One engine for all networks of a release: chosen by device and exports, or as asked for."""

import pytest

from hipray.bundles.bundle import BUNDLE_FILE, ONNX_FILE
from hipray.config.jobs import InferenceJob
from hipray.digests import digest_bytes
from hipray.errors import BundleError, ConfigError
from hipray.pipeline import load_stages
from hipray.releases.engines import choose_engine
from hipray.runtime.engine import Engine
from hipray.storage import open_store
from hipray.vocab import Device, Precision, Runtime, RuntimeChoice, View
from tests.small_release import publish_small_release


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return open_store(str(tmp_path_factory.mktemp("engines")))


@pytest.fixture(scope="module")
def release(store):
    return publish_small_release(store, view=View.WHOLE, segmenters=False)


@pytest.fixture(scope="module")
def old_release(store, release):
    """The same release with its first bundle as it was before networks were exported."""
    import json

    first, *others = release.members
    folder = store.child(f"bundles/{first.bundle}")
    description = json.loads(folder.read(BUNDLE_FILE))
    del description["onnx"], description["bfloat16_difference"], description["files"][ONNX_FILE]
    text = json.dumps(description).encode()
    old = store.child(f"bundles/{digest_bytes(text)}")
    for name in description["files"]:
        old.write(name, folder.read(name))
    old.write(BUNDLE_FILE, text)
    member = first.model_copy(update={"bundle": digest_bytes(text)})
    return release.model_copy(update={"members": (member, *others)})


def choose(store, release, runtime=RuntimeChoice.AUTO, *, device=Device.CPU, **changes):
    return choose_engine(store, release, InferenceJob(runtime=runtime, **changes), device=device)


def test_by_default_cpus_have_onnx_runtime_and_gpus_have_torch(store, release) -> None:
    assert choose(store, release) == Engine(Runtime.ONNX)
    assert choose(store, release, device=Device.CUDA) == Engine(Runtime.TORCH, Device.CUDA)


def test_torch_is_had_where_it_is_asked_for(store, release) -> None:
    assert choose(store, release, RuntimeChoice.TORCH) == Engine(Runtime.TORCH)


def test_one_bundle_without_an_export_puts_the_whole_release_on_torch(store, old_release) -> None:
    assert choose(store, old_release) == Engine(Runtime.TORCH)
    stages = load_stages(store, old_release)
    assert stages.release.digest == old_release.digest


def test_onnx_without_an_export_is_refused_and_says_why(store, old_release) -> None:
    with pytest.raises(BundleError, match=r"found none in that of .* before networks were exp"):
        choose(store, old_release, RuntimeChoice.ONNX)


def test_onnx_is_not_for_gpus(store, release) -> None:
    with pytest.raises(ConfigError, match="computes on CPUs"):
        choose(store, release, RuntimeChoice.ONNX, device=Device.CUDA)


def test_bfloat16_is_torchs_and_needs_its_measured_effect(store, release, old_release) -> None:
    lowered = choose(store, release, precision=Precision.BFLOAT16)
    assert lowered == Engine(Runtime.TORCH, precision=Precision.BFLOAT16)
    with pytest.raises(ConfigError, match="set runtime = 'torch'"):
        choose(store, release, RuntimeChoice.ONNX, precision=Precision.BFLOAT16)
    with pytest.raises(ConfigError, match="before that was measured"):
        choose(store, old_release, precision=Precision.BFLOAT16)
