"""DXA reports: who was examined and what the densitometer found, from CSV or JSON."""

from hipray.config.labels import DxaSystem
from hipray.data.dxa.checks import TScoreCheck, check_t_scores
from hipray.data.dxa.reader import read_dxa
from hipray.data.dxa.records import DxaRecord, DxaTable, RegionValues

__all__ = [
    "DxaRecord",
    "DxaSystem",
    "DxaTable",
    "RegionValues",
    "TScoreCheck",
    "check_t_scores",
    "read_dxa",
]
