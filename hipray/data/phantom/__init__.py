"""A synthetic archive of hip radiographs with known truth, in the formats a hospital exports.

It exercises every stage of hipray; nothing measured on it says anything about patients.
"""

from hipray.data.phantom.archive import (
    DXA_COLUMNS,
    clone_path,
    dxa_csv,
    film_path,
    plan_archive,
    plan_clones,
)
from hipray.data.phantom.dicom import clone_film
from hipray.data.phantom.films import write_study
from hipray.data.phantom.patient import HipTruth, Patient, sample_patient, sample_truth
from hipray.data.phantom.render import RenderedHip, RenderedStudy, render_study
from hipray.data.phantom.scanner import Densitometer
from hipray.data.phantom.study import DecoyKind, PhantomClone, PhantomStudy, StudyKind

__all__ = [
    "DXA_COLUMNS",
    "DecoyKind",
    "Densitometer",
    "HipTruth",
    "Patient",
    "PhantomClone",
    "PhantomStudy",
    "RenderedHip",
    "RenderedStudy",
    "StudyKind",
    "clone_film",
    "clone_path",
    "dxa_csv",
    "film_path",
    "plan_archive",
    "plan_clones",
    "render_study",
    "sample_patient",
    "sample_truth",
    "write_study",
]
