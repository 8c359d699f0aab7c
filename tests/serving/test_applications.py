"""The applications of an endpoint: how they end."""

from collections.abc import Callable

import pytest

from hipray.serving.applications import APPLICATION, STAGES_PREFIX, end_applications, end_stages
from tests.serving.fake_serve import FakeServe


def test_applications_are_ended_and_waited_for(
    fake_serve: Callable[..., FakeServe], caplog: pytest.LogCaptureFixture
) -> None:
    old, new = f"{STAGES_PREFIX}old", f"{STAGES_PREFIX}new"
    fake = fake_serve(old, new, "other", looks=5)
    end_stages(but=new, drain_s=30)
    assert (fake.deleted, fake.names) == ({old}, {new, "other"})
    end_applications({"never deployed"}, drain_s=30)
    assert caplog.text == ""


def test_an_application_that_does_not_end_in_time_is_told_of_and_fails_nothing(
    fake_serve: Callable[..., FakeServe], caplog: pytest.LogCaptureFixture
) -> None:
    fake = fake_serve(APPLICATION, looks=1e9)
    end_applications({APPLICATION}, drain_s=0.01)
    assert fake.deleted == {APPLICATION}
    assert f"{APPLICATION} still ends" in caplog.text
