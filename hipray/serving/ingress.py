"""The ingress deployment: validates, fetches and decodes, and asks the model stages."""

import logging
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from ray.serve.handle import DeploymentHandle

from hipray.bundles.golden import check_decoding
from hipray.config.jobs import ServeRun
from hipray.config.storage import StorageSettings
from hipray.data.pseudonyms import Pseudonyms, load_pseudonyms
from hipray.errors import StorageError
from hipray.releases.release import Release
from hipray.runtime.devices import claim_cpus
from hipray.runtime.engine import Engine
from hipray.serving.access import HostCheck, TokenCheck
from hipray.serving.admission import Admission
from hipray.serving.api import build_api
from hipray.serving.graph import FusedGraph, Graph, SplitGraph, StageCall
from hipray.serving.logs import TOLD, open_logs
from hipray.serving.readers import ReaderPool
from hipray.serving.service import ScoringService, ServiceLimits
from hipray.serving.source import FilmSource, hasten
from hipray.serving.stages import StageSetup
from hipray.serving.succession import watch_left_stages
from hipray.storage import Store, open_store

logger = logging.getLogger(__name__)


def count_running(config: ServeRun) -> int:
    """Return how many requests one ingress replica works on: two batches keep a model busy."""
    return 2 * config.batch


@dataclass(frozen=True)
class DoorPlan:
    """What an ingress was deployed with, so that it can be deployed again."""

    config: ServeRun
    setup: StageSetup
    from_file: bool
    """Whether a Serve config file says what it is, and not `hipray serve`."""


class Ingress:
    """The HTTP interface over deployed stages; stages that the graph does not have are None.

    One that a Serve config file deployed gets the name of the application that holds its stages,
    `keeps`, and ends those of releases before.
    """

    def __init__(
        self,
        config: ServeRun,
        setup: StageSetup,
        *,
        keeps: str | None = None,
        segment: DeploymentHandle | None = None,
        matte: DeploymentHandle | None = None,
        classify: DeploymentHandle | None = None,
        fused: DeploymentHandle | None = None,
    ) -> None:
        release = setup.read_release()
        claim_cpus(setup.engine, config.cpus_per_ingress)
        graph: Graph
        if fused is not None:
            graph = FusedGraph(release.digest, by_value(fused), by_value(fused, "explain"))
        else:
            graph = SplitGraph(
                release,
                segment=segment and by_value(segment),
                matte=matte and by_value(matte),
                classify=by_value(classify),
                explain=by_value(classify, "explain"),
            )
        self._config = config
        self._plan = DoorPlan(config, setup, from_file=keeps is not None)
        self._check_token = TokenCheck(config.token_sha256, config.token_file)
        self._service = build_service(config, release, setup.engine, graph)
        open_logs()
        check_decoders(open_store(setup.workspace, _hasten(config)), release)
        self._pseudonyms = read_pseudonyms(config)
        if keeps is not None:
            watch_left_stages(keeps)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application that this replica runs."""
        config = self._config
        return build_api(
            self._service,
            Admission(running=count_running(config), waiting=config.queue),
            max_file_bytes=config.limits.max_file_bytes,
            check_token=self._check_token,
            check_host=HostCheck(config.host),
            pseudonyms=self._pseudonyms,
        )

    async def tell_plan(self) -> DoorPlan:
        """Say what this replica was deployed with."""
        return self._plan


def check_decoders(workspace: Store, release: Release) -> None:
    """Raise BundleError where films would be decoded to other pixels than a release was tested on.

    A store out of reach is no reason not to start: the stages have checked the same where they run.
    """
    try:
        workspace.check_root()  # of a mount that is away, every file looks as if it were missing
        check_decoding(workspace, release.bundles[0])
    except (StorageError, OSError) as error:
        logger.warning(
            "this replica's decoding is not checked, for the workspace is out of reach",
            extra={TOLD: {"kind": type(error).__name__}},
        )


def read_pseudonyms(config: ServeRun) -> Pseudonyms | None:
    """Return those of the workspace; None where it cannot be read, or has no key and takes none.

    An endpoint whose store is out of reach serves films that are uploaded all the same.
    """
    workspace = open_store(config.workspace, _hasten(config))
    try:
        workspace.check_root()  # else a mount that is away got a key of its own
        return load_pseudonyms(workspace)
    except (StorageError, OSError) as error:
        logger.warning(
            "audit lines of this replica name no films, for the workspace's key is out of reach",
            extra={TOLD: {"kind": type(error).__name__}},
        )
        return None


def build_service(
    config: ServeRun, release: Release, engine: Engine, graph: Graph
) -> ScoringService:
    """Return the service of one release over its stages; raises ConfigError."""
    limits = config.limits
    return ScoringService(
        release,
        graph,
        engine=engine,
        source=FilmSource(
            config.allowed_prefixes,
            _hasten(config),
            max_bytes=limits.max_file_bytes,
            archives=config.pacs,
        ),
        readers=ReaderPool(limits, release.preprocessing, readers=config.readers),
        limits=ServiceLimits(
            timeout_s=config.request_timeout_s,
            fetches=count_running(config),
            batch_at_once=config.batch_at_once,
            max_batch_bytes=config.max_batch_bytes,
            dicom_of_named_films=config.dicom_of_named_films,
        ),
    )


def _hasten(config: ServeRun) -> StorageSettings:
    return hasten(config.storage, config.request_timeout_s)


def by_value(handle: DeploymentHandle, method: str = "__call__") -> StageCall[Any, Any]:
    """Return a handle's method as a call that carries arrays in its message.

    A film's frame has some 64 KiB; a round trip over the object store costs more than a copy.
    """
    stage: StageCall[Any, Any] = handle.options(method_name=method, _by_reference=False).remote
    return stage
