import pytest
from ray.exceptions import RayTaskError

from hipray.distributed.ray_errors import find_own, raise_own
from hipray.errors import AccessDeniedError, StorageError, StoreFullError

OWN = StoreFullError("room for a part", "none", "free some")
DENIED = AccessDeniedError("leave to write a part", "403", "check the policy")


def wrap(cause: Exception) -> RayTaskError:
    """What a driver gets of an error that a task raised."""
    wrapped: RayTaskError = RayTaskError("take", "trace", cause).as_instanceof_cause()
    return wrapped


@pytest.mark.parametrize("own", [OWN, DENIED])
@pytest.mark.parametrize("times", [1, 2])
def test_an_error_of_hipray_comes_out_of_ray_s_as_it_was_raised(
    own: StorageError, times: int
) -> None:
    with pytest.raises(StorageError) as caught, raise_own():
        raise wrap(own) if times == 1 else wrap(wrap(own))
    assert caught.value is own


def test_a_defect_keeps_the_trace_that_ray_brings() -> None:
    defect = wrap(ValueError("a defect"))
    assert find_own(defect) is None
    with pytest.raises(RayTaskError) as caught, raise_own():
        raise defect
    assert caught.value is defect
