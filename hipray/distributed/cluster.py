"""The connection to Ray: the cluster a job was submitted to, or a private one on this machine."""

import logging
import os

import ray

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no report leaves a hospital's network
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}


def connect() -> None:
    """Connect to the cluster of RAY_ADDRESS, else start Ray here; do nothing when connected.

    A private Ray listens on loopback only and opens no dashboard.
    """
    if ray.is_initialized():
        return
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    options = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
    ray.init(
        address=os.environ.get("RAY_ADDRESS"),
        log_to_driver=bool(os.environ.get("HIPRAY_RAY_LOGS")),
        logging_level=logging.ERROR,
        configure_logging=False,
        **options,
    )
