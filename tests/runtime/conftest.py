"""One thread: small networks gain nothing from more and wait for them on a busy machine."""

from collections.abc import Iterator

import pytest

from tests.small_workspace import one_thread


@pytest.fixture(scope="package", autouse=True)
def compute_with_one_thread() -> Iterator[None]:
    with one_thread():
        yield
