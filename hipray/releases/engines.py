"""Which engine answers for a release: one for all of its networks, so that an answer has a name."""

from typing import assert_never

from hipray.bundles.bundle import ONNX_FILE, BundleDescription, read_description
from hipray.config.jobs import InferenceJob
from hipray.errors import BundleError, ConfigError
from hipray.releases.release import Release
from hipray.runtime.engine import Engine
from hipray.storage import Store
from hipray.vocab import Device, Precision, Runtime, RuntimeChoice


def choose_engine(
    store: Store, release: Release, config: InferenceJob, *, device: Device
) -> Engine:
    """Return the engine of a release's networks on a device.

    By default torch on GPUs, and on CPUs ONNX Runtime where every bundle has an export. Raises
    ConfigError for what does not go together and BundleError for a bundle without an export
    where one is asked for.
    """
    descriptions = [read_description(store, digest) for digest in release.bundles]
    runtime = _choose_runtime(descriptions, config, device)
    if config.precision is Precision.BFLOAT16:
        _check_bfloat16(descriptions, runtime)
    return Engine(runtime, device, config.precision)


def _choose_runtime(
    descriptions: list[BundleDescription], config: InferenceJob, device: Device
) -> Runtime:
    without = [d for d in descriptions if ONNX_FILE not in d.files]
    match config.runtime:
        case RuntimeChoice.TORCH:
            return Runtime.TORCH
        case RuntimeChoice.AUTO:
            torch_only = device is Device.CUDA or without or config.precision is Precision.BFLOAT16
            return Runtime.TORCH if torch_only else Runtime.ONNX
        case RuntimeChoice.ONNX:
            if device is Device.CUDA:
                raise ConfigError(
                    "runtime = 'torch' or 'auto' on a GPU",
                    "runtime = 'onnx', which computes on CPUs",
                    "change it, or ask for no GPU",
                )
            if without:
                raise BundleError(
                    f"{ONNX_FILE} in all bundles of the release",
                    f"none in that of {without[0].name} ({without[0].onnx.reason})",
                    "set runtime = 'torch' or 'auto', or publish the release again",
                )
            return Runtime.ONNX
        case unknown:
            assert_never(unknown)


def _check_bfloat16(descriptions: list[BundleDescription], runtime: Runtime) -> None:
    if runtime is Runtime.ONNX:
        raise ConfigError(
            "precision = 'float32' with runtime = 'onnx'", "'bfloat16'", "set runtime = 'torch'"
        )
    unknown = [d.name for d in descriptions if d.bfloat16_difference is None]
    if unknown:
        raise ConfigError(
            "bundles whose change in bfloat16 is known",
            f"{unknown[0]}, which was published before that was measured",
            "set precision = 'float32' or publish the release again",
        )
