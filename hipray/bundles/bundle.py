"""A bundle: one fitted model as a folder that explains itself.

    bundles/<digest>/bundle.json          what it is, trained on what, and the sha256 of the rest
                     weights.safetensors
                     model.onnx           the same network for ONNX Runtime, where it can be had
                     golden-film.dcm      a phantom film, and golden.npz: what this model must
                     golden.npz           answer to it, pixels first
                     card.md

The digest is that of bundle.json, so a bundle cannot change under its name. Nothing in it is
unpickled, and nothing in it names a patient or a path.
"""

import json
from collections.abc import Container
from dataclasses import dataclass
from typing import Any, Final, Literal

import safetensors.torch
from pydantic import Field

from hipray import RESEARCH_NOTICE
from hipray.classification.spec import ClassifierSpec
from hipray.config.base import Config, build_config
from hipray.digests import digest_bytes
from hipray.errors import BundleError, ConfigError, NotFoundError
from hipray.segmentation.spec import SegmenterSpec
from hipray.storage import Store
from hipray.vocab import DataSource

FORMAT: Final = 2
BUNDLE_FILE = "bundle.json"
WEIGHTS_FILE = "weights.safetensors"
ONNX_FILE = "model.onnx"
CARD_FILE = "card.md"


class OnnxNote(Config):
    """How the exported network compares with torch's, or why there is none."""

    difference: float | None = None
    """Largest difference of an answer on the films that both were asked about."""
    reason: str = "it was published before networks were exported"
    """Why there is no export; empty where there is one."""


class BundleDescription(Config):
    """The content of bundle.json."""

    format: Literal[2] = FORMAT
    """Version of this folder's layout."""
    name: str
    """The fit it came from."""
    model: ClassifierSpec | SegmenterSpec = Field(discriminator="kind")
    """What rebuilds the network and its calibration."""
    summary: dict[str, Any]
    """Counts and scores of the fit."""
    preprocessing_version: str
    """Version of the decoding and framing the model was trained with."""
    data_source: DataSource
    """Whether it learned from phantoms or from films of people."""
    leaks_allowed: bool = False
    """Whether the leakage guard was overridden."""
    optimistic: str | None = None
    """Why its scores are better than the truth, such as settings tuned on tested hips."""
    software: dict[str, str]
    """Versions that trained it."""
    onnx: OnnxNote = OnnxNote()
    """The network's export to ONNX."""
    bfloat16_difference: float | None = None
    """Largest change of an answer in bfloat16, on the same films; None where it is not known."""
    files: dict[str, str] = Field(default_factory=dict)
    """sha256 of every other file."""
    research_notice: str = RESEARCH_NOTICE
    """What this model is not."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle in memory."""

    digest: str
    description: BundleDescription
    files: dict[str, bytes]

    def weights(self) -> dict[str, Any]:
        """Return the network's tensors by name."""
        tensors: dict[str, Any] = safetensors.torch.load(self.files[WEIGHTS_FILE])
        return tensors


def publish_bundle(store: Store, description: BundleDescription, files: dict[str, bytes]) -> str:
    """Write a bundle and return its digest; the same content is written once."""
    sums = {name: digest_bytes(data) for name, data in files.items()}
    text = description.model_copy(update={"files": sums}).model_dump_json(indent=1).encode()
    digest = digest_bytes(text)
    folder = store.child(f"bundles/{digest}")
    if not folder.exists(BUNDLE_FILE):
        for name, data in files.items():
            folder.write(name, data)
        folder.create(BUNDLE_FILE, text)  # last: a bundle with its description is complete
    return digest


def read_description(store: Store, digest: str) -> BundleDescription:
    """Return what a bundle says of itself, checked against its digest; raises BundleError."""
    folder = store.child(f"bundles/{digest}")
    if not folder.exists(BUNDLE_FILE):
        raise BundleError(
            f"bundle {digest[:12]}", f"nothing at {folder.uri}", "publish the release again"
        )
    text = folder.read(BUNDLE_FILE)
    if digest_bytes(text) != digest:
        raise _altered(folder, BUNDLE_FILE)
    try:
        return build_config(BundleDescription, json.loads(text))
    except ConfigError as error:
        raise BundleError(
            f"a bundle of format {FORMAT}", error.found, "use the hipray that wrote it"
        ) from None


def load_bundle(store: Store, digest: str, *, leave_out: Container[str] = ()) -> Bundle:
    """Return a bundle after checking the sha256 of every file but those left out.

    Raises BundleError.
    """
    return read_files(store, digest, read_description(store, digest), leave_out=leave_out)


def read_files(
    store: Store, digest: str, description: BundleDescription, *, leave_out: Container[str] = ()
) -> Bundle:
    """Return a bundle that is known by its description; see `load_bundle`."""
    folder = store.child(f"bundles/{digest}")
    wanted = {name: sha for name, sha in description.files.items() if name not in leave_out}
    return Bundle(
        digest, description, {name: _read_checked(folder, name, wanted[name]) for name in wanted}
    )


def _read_checked(folder: Store, name: str, expected: str) -> bytes:
    try:
        data = folder.read(name)
    except NotFoundError:
        raise _altered(folder, name, found="none") from None
    if digest_bytes(data) != expected:
        raise _altered(folder, name)
    return data


def measure_files(store: Store, digest: str, *, leave_out: Container[str] = ()) -> int:
    """Return the bytes of a bundle's files but those left out."""
    files = store.child(f"bundles/{digest}").list()
    return sum(info.size for info in files if info.key not in leave_out)


def _altered(folder: Store, name: str, *, found: str = "other bytes") -> BundleError:
    return BundleError(
        f"{name} of {folder.uri} as it was published", found, "restore or publish it again"
    )
