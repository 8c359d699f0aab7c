"""Small tables of results, read as a file would be."""

from hipray.data.dxa import read_dxa
from hipray.vocab import REGIONS

FN, GT, WT, TH = REGIONS
LONG_HEADER = (
    "file,patient_id,side,sex,age,weight_kg,height_cm,device,region,bmd_g_cm2,t_score,z_score"
)


def read(text, **kwargs):
    data = text if isinstance(text, bytes) else text.encode("utf-8")
    return read_dxa(data, name="scores.csv", **kwargs)


def only(table):
    assert len(table.records) == 1, table
    return table.records[0]


def read_total_hip(text):
    return read(text, region=TH)
