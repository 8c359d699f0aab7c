import pytest

from tests.data.phantom.texture import Measures, measure_archive

DEFAULT_HIPS = 160
FULL_HIPS = 600


@pytest.fixture(scope="session")
def seen() -> Measures:
    return measure_archive(DEFAULT_HIPS, kappa=0.8)


@pytest.fixture(scope="session")
def unseen() -> Measures:
    return measure_archive(DEFAULT_HIPS, kappa=0.0)


@pytest.fixture(scope="session")
def full_archives() -> dict[float, Measures]:
    return {kappa: measure_archive(FULL_HIPS, kappa=kappa) for kappa in (0.0, 0.8, 0.9)}
