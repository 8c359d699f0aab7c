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
