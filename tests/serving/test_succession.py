"""Which stages are left, and nobody's."""

import pytest
from ray.serve.schema import ApplicationStatusOverview, DeploymentStatusOverview, ServeStatus

from hipray.serving.applications import APPLICATION, INGRESS, STAGES_PREFIX
from hipray.serving.succession import find_left_stages

OLD, OWN = f"{STAGES_PREFIX}old", f"{STAGES_PREFIX}own"


def status_of(door: str, *, old: str = "RUNNING", **replicas: int) -> ServeStatus:
    ingress = DeploymentStatusOverview("HEALTHY", "UNSPECIFIED", replicas, "")
    return ServeStatus(
        applications={
            APPLICATION: ApplicationStatusOverview(door, "", 0, {INGRESS: ingress}),
            OLD: ApplicationStatusOverview(old, "", 0, {}),
            OWN: ApplicationStatusOverview("RUNNING", "", 0, {}),
            "another": ApplicationStatusOverview("RUNNING", "", 0, {}),
        }
    )


def find(status: ServeStatus) -> set[str]:
    return find_left_stages(status, door=APPLICATION, keeps=OWN)


def test_stages_are_left_once_only_new_replicas_of_the_ingress_answer() -> None:
    assert find(status_of("RUNNING", RUNNING=2)) == {OLD}


@pytest.mark.parametrize("state", ["STARTING", "UPDATING", "STOPPING", "RECOVERING"])
def test_nothing_is_left_while_replicas_of_the_ingress_start_or_end(state: str) -> None:
    assert find(status_of("RUNNING", RUNNING=1, **{state: 1})) == set()


@pytest.mark.parametrize("state", ["DEPLOYING", "DEPLOY_FAILED", "UNHEALTHY", "DELETING"])
def test_nothing_is_left_while_a_release_is_built_or_has_failed(state: str) -> None:
    assert find(status_of(state, RUNNING=1)) == set()


def test_nothing_is_left_where_the_ingress_is_not_known_yet() -> None:
    building = ServeStatus(
        applications={
            APPLICATION: ApplicationStatusOverview("RUNNING", "", 0, {}),
            OLD: ApplicationStatusOverview("RUNNING", "", 0, {}),
        }
    )
    assert find(building) == set()
    assert find(ServeStatus()) == set()


def test_stages_that_end_already_are_not_ended_again() -> None:
    assert find(status_of("RUNNING", old="DELETING", RUNNING=1)) == set()
