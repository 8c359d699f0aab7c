"""The endpoint as a Serve config file names it: `import_path: hipray.serving.app:build_app`.

Serve's controller calls `build_app` in a task of the cluster and keeps the application before,
untouched, until it returns. So the stages of the new release are deployed here, in an application
of their own, and the ingress changes over to them once they run: as in `rollout`, nobody meets two
releases, and a release that does not load leaves the one before answering.
"""

import ray
from ray import serve
from ray.serve import Application
from ray.serve.exceptions import RayServeException

from hipray.config.jobs import ServeRun
from hipray.distributed.cluster import read_nodes
from hipray.errors import BundleError, ConfigError
from hipray.serving.address import choose_address
from hipray.serving.applications import end_applications, is_there
from hipray.serving.bindings import build_door, describe_setup, name_stages, read_served
from hipray.serving.deploying import NotRunningError, ServingError, deploy_stages, drain_time
from hipray.serving.logs import open_logs
from hipray.serving.plan import size_stages
from hipray.serving.stages import StageSetup


class BuildError(ServingError, RayServeException):  # type: ignore[misc]
    """The application of a Serve config file was not built.

    Serve tells these by their text; any other error makes it build three times more.
    """


def build_app(config: ServeRun) -> Application:
    """Deploy the stages of a configuration's release and return the application of its ingress.

    The address is the one where Serve listens, by the file's `http_options` or, without them, by
    Ray's own default of every interface: whatever `host` says, an open one without tokens is
    refused. Raises BuildError with one sentence.
    """
    open_logs()
    try:
        return _build(config)
    except (ConfigError, BundleError, ServingError) as error:
        raise BuildError(error.expected, error.found, error.remedy) from None


def _build(config: ServeRun) -> Application:
    if not ray.is_initialized():
        raise BuildError(
            "a Ray cluster, on which the stages of a release start before its ingress",
            "none",
            "deploy the file to one (`serve deploy`)",
        )
    config = choose_address(config)
    release = read_served(config)
    config = size_stages(config, release, read_nodes())
    setup = describe_setup(config, release)
    _start_stages(config, setup)
    return build_door(config, setup, from_file=True)


def _start_stages(config: ServeRun, setup: StageSetup) -> None:
    """Deploy the stages; those that do not run end, unless an ingress may be asking them."""
    home = name_stages(config, setup)
    was_there = is_there(serve.status(), home)
    try:
        deploy_stages(config, setup)
    except Exception as error:
        if not was_there:
            end_applications({home}, drain_s=drain_time(config))
        if not isinstance(error, NotRunningError):
            raise
        raise BuildError(
            f"release '{setup.release.name}' to start",
            str(error),
            "correct that and deploy again; what answered before answers on",
        ) from None
