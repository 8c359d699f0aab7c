"""A classifier bundle with random weights in a store of its own."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
import torch

from hipray.bundles.assembly import publish_model
from hipray.bundles.bundle import BundleDescription, load_bundle
from hipray.classification.model import build_network
from hipray.classification.odds import OddsScale
from hipray.classification.spec import ClassifierSpec
from hipray.config.experiment import ClassifierSettings, MattingSettings
from hipray.data.images import PREPROCESSING_VERSION
from hipray.metrics import PlattScaling
from hipray.storage import Store, open_store
from hipray.vocab import Cell, DataSource, LabelType, Region, Variant
from tests.small_workspace import BACKBONE, one_thread

SETTINGS = ClassifierSettings(size_px=64)


@dataclass(frozen=True)
class Published:
    store: Store
    digest: str
    description: BundleDescription
    files: dict[str, bytes]


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the bundle, to be copied: export and check take a second."""
    with torch.random.fork_rng(), one_thread():
        torch.manual_seed(0)
        network = build_network(BACKBONE, SETTINGS)
        description = BundleDescription(
            name="total_hip-t_score-small",
            model=ClassifierSpec(
                cell=Cell(Region.TOTAL_HIP, LabelType.T_SCORE, BACKBONE, Variant.ORIGINAL),
                settings=SETTINGS,
                matting=MattingSettings(),
                odds=OddsScale((1.0, 2.0)),
                calibrator=PlattScaling(1.0, 0.0),
                threshold=0.5,
                working_px=128,
            ),
            summary={"n_train": 20},
            preprocessing_version=PREPROCESSING_VERSION,
            data_source=DataSource.PHANTOM,
            software={"python": "3.11"},
        )
        folder = tmp_path_factory.mktemp("bundle")
        weights = safetensors.torch.save(network.state_dict())
        publish_model(open_store(str(folder)), description, weights)
    return folder


@pytest.fixture
def published(folder: Path, tmp_path: Path) -> Published:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    store = open_store(str(tmp_path))
    (digest,) = store.child("bundles").list_folders()
    bundle = load_bundle(store, digest)
    return Published(store, digest, bundle.description, bundle.files)
