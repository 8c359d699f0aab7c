"""The paths of the interface; this module loads no networks, so that the proxy may."""

from enum import StrEnum


class Path(StrEnum):
    """Where an operation is asked for."""

    SCORE = "/v1/score"
    SCORE_BATCH = "/v1/score:batch"
    MODELS = "/v1/models"
    METRICS = "/metrics"
    HEALTHZ = "/healthz"
    READYZ = "/readyz"


NO_ROUTE = "none"
"""The route of a request whose path the interface does not have."""


def name_route(path: str) -> str:
    """Return the name of the operation at a path, as audit lines and metrics have it."""
    return next((each.name.lower() for each in Path if each.value == path), NO_ROUTE)
