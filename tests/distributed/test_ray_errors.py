import pytest
from ray.exceptions import RayTaskError

from hipray.distributed.ray_errors import find_own, raise_own
from hipray.errors import StoreFullError

OWN = StoreFullError("room for a part", "none", "free some")


def wrap(cause: Exception) -> RayTaskError:
    """What a driver gets of an error that a task raised."""
    wrapped: RayTaskError = RayTaskError("take", "trace", cause).as_instanceof_cause()
    return wrapped


@pytest.mark.parametrize("error", [wrap(OWN), wrap(wrap(OWN))])
def test_an_error_of_hipray_comes_out_of_ray_s_as_it_was_raised(error: RayTaskError) -> None:
    with pytest.raises(StoreFullError) as caught, raise_own():
        raise error
    assert caught.value is OWN


def test_a_defect_keeps_the_trace_that_ray_brings() -> None:
    defect = wrap(ValueError("a defect"))
    assert find_own(defect) is None
    with pytest.raises(RayTaskError) as caught, raise_own():
        raise defect
    assert caught.value is defect
