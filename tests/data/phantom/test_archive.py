from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest

from hipray.config.base import build_config, read_preset
from hipray.config.jobs import DemoRun
from hipray.config.phantom import FilmFormat, PhantomConfig
from hipray.data.phantom import (
    DecoyKind,
    StudyKind,
    plan_archive,
    plan_clones,
    render_study,
    write_study,
)
from hipray.data.phantom.scanner import Densitometer
from hipray.errors import ConfigError
from hipray.vocab import Side

MIXED = PhantomConfig(
    n_patients=4,
    n_second_hips=1,
    n_device_a=3,
    image_px=128,
    pelvis_films=1,
    implants=1,
    blurred=1,
    decoys=len(DecoyKind),
    clones=7,
    write_truth=True,
)


@pytest.fixture(scope="module")
def written() -> list[dict[str, bytes]]:
    return [write_study(MIXED, study) for study in plan_archive(MIXED)]


def test_a_worker_with_a_share_of_the_plan_in_another_order_writes_the_same_bytes(written) -> None:
    order = list(range(len(written)))[::-3]
    plan = plan_archive(MIXED)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        again = list(pool.map(partial(write_study, MIXED), [plan[place] for place in order]))
    assert again == [written[place] for place in order]


def test_another_seed_gives_other_films() -> None:
    other = MIXED.model_copy(update={"seed": 1})
    first, second = (write_study(c, plan_archive(c)[0]) for c in (MIXED, other))
    assert not set(first.values()) & set(second.values())


def test_no_two_studies_share_a_name_or_a_seed() -> None:
    plan = plan_archive(PhantomConfig(pelvis_films=9, decoys=20))
    assert len({study.name for study in plan}) == len({study.seed for study in plan}) == len(plan)


def test_the_plan_holds_the_counts_that_the_config_asks_for() -> None:
    kinds = [study.kind for study in plan_archive(MIXED)]
    assert {kind: kinds.count(kind) for kind in StudyKind} == {
        StudyKind.HIP: 5,
        StudyKind.PELVIS: 1,
        StudyKind.IMPLANT: 1,
        StudyKind.BLURRED: 1,
        StudyKind.DECOY: len(DecoyKind),
    }


def test_the_demonstration_has_the_papers_counts() -> None:
    config = build_config(DemoRun, read_preset("demo")).phantom.phantom
    measured = [study for study in plan_archive(config) if study.device]
    hips = [(study.patient_id, study.device) for study in measured for _ in study.sides]
    assert (len(hips), len({patient for patient, _ in hips})) == (139, 134)
    assert sum(device is Densitometer.A for _, device in hips) == 72


def test_clones_are_dealt_over_the_hip_films_alone() -> None:
    clones = plan_clones(MIXED, plan_archive(MIXED))
    hips = [study.name for study in plan_archive(MIXED) if study.kind is StudyKind.HIP]
    assert len(clones) == len({clone.name for clone in clones}) == 7
    assert [clone.original for clone in clones] == [*hips, *hips[:2]]


def test_extra_material_leaves_the_first_films_as_they_are() -> None:
    plain = MIXED.model_copy(update={"pelvis_films": 0, "decoys": 0})
    assert plan_archive(plain)[:5] == plan_archive(MIXED)[:5]


def test_both_hips_of_a_patient_differ_in_pixels() -> None:
    hips = [study for study in plan_archive(MIXED) if study.kind is StudyKind.HIP]
    ids = [study.patient_id for study in hips]
    first, second = (study for study in hips if ids.count(study.patient_id) == 2)
    films = [render_study(MIXED, study).film for study in (first, second)]
    assert {first.sides[0], second.sides[0]} == {Side.LEFT, Side.RIGHT}
    assert not np.array_equal(films[0], films[1])
    assert not np.array_equal(films[0], films[1][:, ::-1])


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"n_patients": 3, "n_second_hips": 4}, "n_second_hips"),
        ({"n_patients": 3, "n_second_hips": 0, "n_device_a": 4}, "n_device_a"),
        ({"clones": 1, "film_format": FilmFormat.PNG}, "dicom"),
    ],
)
def test_counts_that_cannot_be_met_are_a_config_error(values, complaint) -> None:
    with pytest.raises(ConfigError, match=complaint):
        build_config(PhantomConfig, values)
