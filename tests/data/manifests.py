"""Manifests without films, for tests of what reads only their rows."""

from typing import Any

import pandas as pd

from hipray.data.manifest import build_manifest, label_column
from hipray.vocab import REGIONS, LabelType, Region

LABEL = label_column(LabelType.T_SCORE, Region.TOTAL_HIP)


def make_row(number: int, patient: str, **changes: Any) -> dict[str, Any]:
    row = {
        "hip_id": f"h{number}",
        "patient_id": patient,
        "pixel_sha256": f"pixels-{number}",
        "device": "device_a",
        LABEL: bool(number % 3 == 0),
    }
    return row | changes


def make_manifest(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame: pd.DataFrame = build_manifest(rows).to_pandas()
    labels = [label_column(kind, region) for kind in LabelType for region in REGIONS]
    return frame.astype(dict.fromkeys(labels, "boolean"))


def make_study(patients: int, *, second_hips: int = 0) -> pd.DataFrame:
    """A manifest whose first patients have two hips; two devices, every third hip abnormal."""
    owners = [f"p{n}" for n in range(patients)] + [f"p{n}" for n in range(second_hips)]
    return make_manifest(
        [
            make_row(number, owner, device=f"device_{'ab'[int(owner[1:]) % 2]}")
            for number, owner in enumerate(owners)
        ]
    )
