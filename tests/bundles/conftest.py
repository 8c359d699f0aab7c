"""A classifier bundle with random weights in a store of its own."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
import torch

from hipray.bundles.bundle import (
    CARD_FILE,
    WEIGHTS_FILE,
    Bundle,
    BundleDescription,
    publish_bundle,
)
from hipray.bundles.card import write_card
from hipray.bundles.golden import (
    GOLDEN_ANSWERS,
    GOLDEN_FILM,
    answer_golden,
    draw_golden_film,
    dump_answers,
)
from hipray.classification.model import build_network
from hipray.config.experiment import ClassifierSettings
from hipray.data.images import PREPROCESSING_VERSION
from hipray.storage import Store, open_store
from hipray.vocab import DataSource
from tests.small_workspace import BACKBONE

SETTINGS = ClassifierSettings(size_px=64)


@dataclass(frozen=True)
class Published:
    store: Store
    digest: str
    description: BundleDescription
    files: dict[str, bytes]


@pytest.fixture
def published(tmp_path: Path) -> Published:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(BACKBONE, SETTINGS)
    description = BundleDescription(
        kind="classifier",
        name="total_hip-t_score-small",
        model={
            "cell": {"backbone": BACKBONE},
            "settings": SETTINGS.model_dump(mode="json"),
            "odds": {"class_weights": [1.0, 2.0], "score": None},
            "working_px": 128,
        },
        summary={"n_train": 20},
        preprocessing_version=PREPROCESSING_VERSION,
        data_source=DataSource.PHANTOM,
        software={"python": "3.11"},
    )
    film = draw_golden_film()
    files = {WEIGHTS_FILE: safetensors.torch.save(network.state_dict()), GOLDEN_FILM: film}
    files[GOLDEN_ANSWERS] = dump_answers(answer_golden(Bundle("", description, files), film))
    files[CARD_FILE] = write_card(description).encode()
    store = open_store(str(tmp_path))
    return Published(store, publish_bundle(store, description, files), description, files)
