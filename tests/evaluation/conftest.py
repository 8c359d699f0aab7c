"""Made-up results of a small grid, with a score whose quality is known."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from hipray.config.evaluation import EvaluationConfig
from hipray.evaluation.flow import FlowCounts, LeakCheck
from hipray.evaluation.inputs import ReportInputs
from hipray.metrics import sigmoid
from hipray.vocab import Backbone, Cell, LabelType, RefusalCode, Region, SegmenterArch, Variant

N_FOLDS = 5


@dataclass(frozen=True)
class Grid:
    """The frames that a grid leaves behind."""

    manifest: pd.DataFrame
    predictions: pd.DataFrame
    fits: pd.DataFrame
    cells: tuple[Cell, ...]


def build_manifest(n_patients: int, seed: int = 0) -> pd.DataFrame:
    """Return hips of `n_patients`, every tenth with both hips."""
    random = np.random.default_rng(seed)
    patients = [f"p{i:03d}" for i in range(n_patients) for _ in range(2 if i % 10 == 0 else 1)]
    n = len(patients)
    frame = pd.DataFrame({"hip_id": [f"h{i:03d}" for i in range(n)], "patient_id": patients})
    frame["side"] = random.choice(["left", "right"], n)
    frame["sex"] = random.choice(["female", "male"], n, p=[0.77, 0.23])
    frame["age"] = random.normal(73, 9, n).round()
    frame["weight_kg"] = random.normal(60, 9, n).round(1)
    frame["height_cm"] = np.random.default_rng(seed + 1000).normal(158, 7, n).round()
    frame["device"] = random.choice(["A", "B"], n)
    frame["source"] = "phantom"
    for region in Region:
        t_score = (-2.4 - 0.04 * (frame["age"] - 73) + random.normal(0, 1, n)).round(1)
        frame[f"t_{region}"] = t_score
        frame[f"bmd_{region}"] = (0.9 + 0.12 * t_score).round(3)
        frame[f"label_t_score_{region}"] = (t_score <= -2.5).astype("boolean")
        frame[f"label_bmd_{region}"] = (t_score <= -2.2).astype("boolean")
    frame.loc[::2, "label_t_score_wards_triangle"] = pd.NA
    return frame


def predict_cell(
    manifest: pd.DataFrame, cell: Cell, *, strength: float = 1.5, repeats: int = 2, seed: int = 1
) -> pd.DataFrame:
    """Return test and inner rows of one cell; `strength` is the gap of the classes in SD."""
    random = np.random.default_rng(seed)
    labelled = manifest.dropna(subset=[f"label_{cell.label_type}_{cell.region}"])
    labels = labelled[f"label_{cell.label_type}_{cell.region}"].astype(int).to_numpy()
    fold_of = labelled["patient_id"].str[1:].astype(int).to_numpy() % N_FOLDS
    parts = []
    for repeat in range(repeats):
        folds = (fold_of + repeat) % N_FOLDS
        scores = sigmoid(strength * (labels - 0.5) + random.normal(0, 1, len(labels)))
        for fold in range(N_FOLDS):
            for part, chosen in (
                ("test", folds == fold),
                ("inner", folds == (fold + 1) % N_FOLDS),
            ):
                rows = labelled.loc[chosen, ["hip_id", "patient_id"]].assign(
                    region=str(cell.region),
                    label_type=str(cell.label_type),
                    backbone=cell.backbone,
                    variant=str(cell.variant),
                    repeat=repeat,
                    fold=fold,
                    part=part,
                    label=labels[chosen],
                    score=scores[chosen],
                    calibrated=scores[chosen] ** 1.1,
                    threshold=0.5,
                )
                parts.append(rows)
    return pd.concat(parts, ignore_index=True)


def list_fits(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return one row per fit with made-up training numbers."""
    keys = ["region", "label_type", "backbone", "variant", "repeat", "fold"]
    fits = predictions[keys].drop_duplicates().reset_index(drop=True)
    return fits.assign(
        fit=[f"fit-{i}" for i in range(len(fits))],
        **dict.fromkeys(("seconds", "epochs", "best_epoch"), 3),
        n_train=111,
        n_train_images=np.where(fits["variant"] == "augmented", 777, 111),
        **{"n_inner": 20, "n_test": 28, "train_accuracy": 0.9, "train_f1": 0.88},
        **{"train_sensitivity": 0.87, "train_specificity": 0.93},
    )


def build_grid(cells: tuple[Cell, ...], n_patients: int = 60, repeats: int = 2) -> Grid:
    manifest = build_manifest(n_patients)
    predictions = pd.concat(
        [predict_cell(manifest, c, repeats=repeats, seed=i) for i, c in enumerate(cells)],
        ignore_index=True,
    )
    return Grid(manifest, predictions, list_fits(predictions), cells)


def score_segmenters(manifest: pd.DataFrame) -> pd.DataFrame:
    random = np.random.default_rng(3)
    parts = []
    for arch in SegmenterArch:
        for region in Region:
            iou = random.beta(9, 2, len(manifest))
            rows = manifest[["hip_id", "patient_id"]].assign(
                **{"arch": str(arch), "region": str(region), "repeat": 0, "fold": 0, "iou": iou},
                **{"dice": 2 * iou / (1 + iou), "background_iou": 0.99},
            )
            parts.append(rows)
    return pd.concat(parts, ignore_index=True)


SMALL_CELLS = (
    *(
        Cell(region, LabelType.T_SCORE, backbone, Variant.ORIGINAL)
        for region in (Region.FEMORAL_NECK, Region.TOTAL_HIP, Region.WARDS_TRIANGLE)
        for backbone in (Backbone.VGG16, Backbone.RESNET50)
    ),
    Cell(Region.WARDS_TRIANGLE, LabelType.BMD, Backbone.VGG16, Variant.AUGMENTED),
)


@pytest.fixture(scope="session")
def config() -> EvaluationConfig:
    return EvaluationConfig(resamples=200, subgroup_minimum=10)


@pytest.fixture(scope="session")
def grid() -> Grid:
    return build_grid(SMALL_CELLS)


@pytest.fixture
def make_grid() -> Callable[..., Grid]:
    return build_grid


@pytest.fixture(scope="session")
def report_inputs(grid: Grid, config: EvaluationConfig) -> ReportInputs:
    return ReportInputs(
        predictions=grid.predictions,
        fits=grid.fits,
        manifest=grid.manifest,
        flow=FlowCounts(
            found=70,
            accepted=66,
            refused={RefusalCode.UNREADABLE: 3, RefusalCode.IMPLANT: 1},
            dropped={Region.WARDS_TRIANGLE: {"device reports no such region": 33}},
        ),
        leak=LeakCheck(patients_shared=0, duplicates=0, near_duplicates=0, overridden=False),
        labels={LabelType.T_SCORE: "T-score at or below -2.5"},
        segmentation=score_segmenters(grid.manifest),
        overlays=(TINY_PNG,),
        protocol={"Split": "patient-grouped 5-fold"},
        members=grid.cells[:4],
        config=config,
    )


TINY_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a49444154789c63680000008200817745"
    "6a0000000049454e44ae426082"
)
