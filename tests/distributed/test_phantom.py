"""The phantom archive written through Ray."""

from pathlib import Path

import pytest

from hipray.config.jobs import PhantomRun
from hipray.config.phantom import PhantomConfig
from hipray.data.images import read_hips
from hipray.data.phantom import plan_archive, write_study
from hipray.distributed.phantom import LEASE_KEY, run_phantom
from hipray.errors import RunBusyError
from hipray.storage import acquire, open_store

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

PHANTOMS = PhantomConfig(
    n_patients=9, n_second_hips=1, n_device_a=4, image_px=128, clones=30, exact_prevalence=False
)


def test_parallel_workers_write_the_same_bytes_as_one_process(tmp_path: Path) -> None:
    config = PhantomRun(archive=str(tmp_path), phantom=PHANTOMS)
    assert run_phantom(config) == 40
    for study in plan_archive(PHANTOMS):
        for name, data in write_study(PHANTOMS, study).items():
            assert (tmp_path / name).read_bytes() == data


def test_of_two_writers_of_one_archive_the_second_is_told(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    lease = acquire(store, LEASE_KEY, ttl_s=60, owner_note="the first")
    assert lease is not None
    with lease, pytest.raises(RunBusyError, match="the first"):
        run_phantom(PhantomRun(archive=str(tmp_path), phantom=PHANTOMS))
    assert run_phantom(PhantomRun(archive=str(tmp_path), phantom=PHANTOMS)) == 40


def test_clones_are_films_of_their_own_and_a_finished_archive_is_left_alone(
    tmp_path: Path,
) -> None:
    config = PhantomRun(archive=str(tmp_path), phantom=PHANTOMS)
    run_phantom(config)
    store = open_store(str(tmp_path))
    before = {info.key: info.etag for info in store.list()}
    clones = [key for key in before if "clone" in key]
    assert len(clones) == 30
    films = [store.read(key) for key in clones]
    assert len(set(films)) == 30
    assert all(len(read_hips(film, name="clone").hips) == 1 for film in films)
    assert run_phantom(config) == 40
    assert {info.key: info.etag for info in store.list()} == before
