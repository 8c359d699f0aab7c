"""Batch scoring: rounds of the pipeline until every film is scored, refused or failed."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray.data import Dataset

from hipray.config.jobs import ScoreRun
from hipray.config.scoring import RetryScope
from hipray.distributed.capacity import require_places
from hipray.distributed.cluster import connect, may_grow
from hipray.distributed.ray_errors import raise_own
from hipray.distributed.score_feed import WorkFeed
from hipray.distributed.score_pipeline import ACTOR_RESTARTS, TASK_RETRIES, build_dataset
from hipray.distributed.silence import warn_of_silence
from hipray.errors import (
    ClusterUnavailableError,
    ConfigError,
    HiprayError,
    ProcessLostError,
    StorageError,
    StoreUnavailableError,
)
from hipray.progress import LOG_INTERVAL_S
from hipray.releases.engines import choose_engine
from hipray.releases.release import Release, read_servable
from hipray.scoring.claim import claim_output
from hipray.scoring.faults import FailureWatch, parse_letters
from hipray.scoring.index import Index
from hipray.scoring.key_list import check_key_list
from hipray.scoring.open_work import list_lost, list_open_work
from hipray.scoring.outputs import open_output, open_patient_output
from hipray.scoring.parts import PartSet
from hipray.scoring.retries import Retries
from hipray.scoring.selection import find_first_film
from hipray.scoring.session import (
    ScoreResult,
    check_current,
    check_output,
    conclude,
    count_listed,
    hold_output,
    settle,
    still_gives,
)
from hipray.scoring.status import NOTE_KEY, ProgressNote
from hipray.storage import Lease, Store, check_still_held, check_store, open_store
from hipray.vocab import Device, RuntimeChoice

MOST_ROUNDS = 5
"""Rounds of the pipeline in one submission: a further one takes up what a lost node took along."""
NOTHING_NEW_S = 20.0
"""Seconds that a finished run's archive is listed here before Ray is started for it."""
DEATHS = (
    ray.exceptions.RayActorError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.WorkerCrashedError,
)
"""What Ray raises where it will not start a process again."""

logger = logging.getLogger(__name__)


def run_score(config: ScoreRun) -> ScoreResult:
    """Score the archive's films that have no part yet; return the counts of the whole run.

    Raises RunBusyError where another driver works on the output, ConfigError for a release of
    phantoms or an output of another archive, the last film's error where more than
    `max_failed_fraction` of the films fail, StorageError where the output cannot be written,
    ProcessLostError where actors die for no shard's sake, and ClusterUnavailableError where
    machines take work along again and again. Submitting again goes on where it stopped.
    """
    started = time.monotonic()
    config = _with_addresses(config)
    release = _read_release(config)
    config = _with_runtime(config, release)
    archive, output = open_store(config.images, config.storage), open_output(config)
    check_output(archive, output)
    if config.select.keys is not None:
        check_key_list(config.select.keys, config.storage)
    with hold_output(output) as lease:
        _check_archive(config, archive, output)  # a mistyped archive claims no output
        claim_output(config, output)
        submission = _Submission(config, release, lease)
        submission.announce()
        if not submission.has_nothing_to_do(archive):
            check_store(output)
            submission.run()
        return submission.conclude(seconds=time.monotonic() - started)


class _Submission:
    """Runs the pipeline until all work has an end, and says how it goes."""

    def __init__(self, config: ScoreRun, release: Release, lease: Lease) -> None:
        self._config = config
        self._release = release
        self._lease = lease
        self._parts = PartSet.of(release, config)
        self._output = open_patient_output(config)
        self._retries = Retries(self._output, self._parts, lease.attempt)
        self._watch = FailureWatch(
            config.max_failed_fraction,
            count_listed=partial(count_listed, self._output),
            still_gives=partial(still_gives, config, self._output, self._parts),
        )
        now = time.time()
        self._note = ProgressNote(
            config.images, release.name, self._parts.folder, now, now,
            price_per_hour=config.price_per_hour,
        )  # fmt: skip
        self._noted = 0.0

    def announce(self) -> None:
        """Let `hipray status` find a run that has only begun."""
        if not self._output.exists(NOTE_KEY):
            self._write_note()

    def has_nothing_to_do(self, archive: Store) -> bool:
        """Plan what is read again; tell whether a complete run has nothing to do, without Ray.

        A listing that takes long is left to the pipeline, where work flows while it goes on.
        """
        planned = self._retries.plan() if self._config.retry is RetryScope.FAILED else 0
        if planned or not Index(self._output).is_complete():
            return False
        work = list_open_work(
            self._config, archive, open_output(self._config), self._parts,
            relist=True, patience_s=NOTHING_NEW_S,
        )  # fmt: skip
        try:
            with closing(work):
                return next(work, None) is None
        except TimeoutError:
            return False

    def run(self) -> None:
        """Run rounds; one that stops early leaves its reasons and each key once behind.

        Raises ClusterUnavailableError where several rounds leave work undone.
        """
        try:
            self._run()
        except HiprayError:
            with suppress(HiprayError):  # the first error says more
                settle(self._config, self._output, self._release, self._parts, self._check_held)
            raise

    def conclude(self, *, seconds: float) -> ScoreResult:
        """Count the parts and return the result; see `session.conclude`."""
        result = conclude(
            self._config, self._output, self._release, self._parts, self._watch,
            seconds=seconds, check_held=self._check_held,
        )  # fmt: skip
        self._retries.forget()
        return result

    def _check_held(self) -> None:
        check_current(self._lease, self._output)

    def _run(self) -> None:
        connect(min_cpus=math.ceil(_count_cpus(self._config)))
        _require_room(self._config)
        self._write_note()
        try:
            self._run_rounds()
        finally:
            with suppress(StorageError):  # the store's own error says more
                self._write_note(ended=True)

    def _run_rounds(self) -> None:
        for relist in [True] + [False] * (MOST_ROUNDS - 1):
            feed = WorkFeed(
                self._config, self._release, relist=relist, submission=self._lease.attempt
            )
            self._run_round(feed)
            left = sum(1 for _ in list_lost(self._output, self._parts)) + len(self._retries.open())
            if not left:
                return
            logger.warning("score: %d shards were lost on the way and are done again", left)
        raise ClusterUnavailableError(
            "every shard done or failed", f"{left} lost on the way {MOST_ROUNDS} times",
            "see which machines or actors ended, then submit again",
        )  # fmt: skip

    def _run_round(self, feed: WorkFeed) -> None:
        try:
            with _explain_deaths():
                more = True  # not asked at first: actors start while the listing begins
                while more:
                    self._drain(build_dataset(self._config, self._release, feed))
                    more = feed.has_more()
        finally:
            feed.close()

    def _drain(self, dataset: Dataset) -> None:
        with raise_own(), warn_of_silence() as heard:
            for outcome in _iterate(dataset):
                heard()
                self._take(outcome)
                check_still_held(self._lease, thing=f"the output {self._output.uri}")

    def _take(self, outcome: dict[str, Any]) -> None:
        letters = parse_letters(outcome["letters"])
        try:
            self._watch.add(
                files=outcome["files"], letters=letters, unlike_listed=outcome["unlike_listed"]
            )
        finally:
            if time.monotonic() - self._noted >= LOG_INTERVAL_S:
                with suppress(StoreUnavailableError):  # the next note will say it
                    self._write_note()

    def _write_note(self, *, ended: bool = False) -> None:
        self._noted = time.monotonic()
        self._note = replace(
            self._note,
            updated_s=time.time(),
            files=self._watch.seen,
            failed={fault.value: count for fault, count in self._watch.faults.items()},
            ended=ended,
        )
        self._note.write(open_output(self._config))  # without patience: there will be others
        logger.info("score: %d files, %d failed", self._watch.seen, self._watch.failed)


def _count_cpus(config: ScoreRun) -> float:
    """Return what the fewest actors of the pipeline reserve: with less it would wait for ever."""
    return config.actors * config.cpus_per_actor + config.cpus_per_decoder


def _require_room(config: ScoreRun) -> None:
    require_places(
        config.actors, "model actors", cpus=config.cpus_per_actor, gpus=config.gpus_per_actor,
        mend="lower actors, cpus_per_actor or gpus_per_actor",
    )  # fmt: skip
    found, needed = ray.cluster_resources().get("CPU", 0), _count_cpus(config)
    if found < needed and not may_grow():
        raise ConfigError(
            f"{needed:g} CPU for {config.actors} model actors and a decoder",
            f"a cluster of {found:g}",
            "lower actors, cpus_per_actor or cpus_per_decoder",
        )


def _with_addresses(config: ScoreRun) -> ScoreRun:
    """Return the run with full addresses: a worker's working directory may be another."""
    addresses: dict[str, Any] = {
        "workspace": open_store(config.workspace, config.storage).uri,
        "images": open_store(config.images, config.storage).uri,
        "output": open_output(config).uri,
    }
    if config.select.keys is not None:
        keys = open_store(config.select.keys, config.storage).uri
        addresses["select"] = config.select.model_copy(update={"keys": keys})
    return config.model_copy(update=addresses)


def _with_runtime(config: ScoreRun, release: Release) -> ScoreRun:
    """Return the run with the runtime that was chosen: all actors and all parts have one."""
    workspace = open_store(config.workspace, config.storage)
    device = Device.CUDA if config.gpus_per_actor else Device.CPU
    engine = choose_engine(workspace, release, config, device=device)
    return config.model_copy(update={"runtime": RuntimeChoice(engine.runtime.value)})


def _read_release(config: ScoreRun) -> Release:
    workspace = open_store(config.workspace, config.storage)
    return read_servable(workspace, config.release, allow_phantom=config.allow_phantom_release)


def _check_archive(config: ScoreRun, archive: Store, output: Store) -> None:
    """Raise where a first listing is due and there is no film, before anything is started.

    A large archive is looked into only a little: its listing tells, see `session.conclude`.
    """
    if config.select.keys is not None or Index(output).listings():
        return
    find_first_film(archive, config.select)


def _iterate(dataset: Dataset) -> Iterator[dict[str, Any]]:
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from batch.to_pylist()


@contextmanager
def _explain_deaths() -> Iterator[None]:
    """Raise ProcessLostError for what Ray says of actors that it will not start again."""
    try:
        yield
    except DEATHS as error:
        raise ProcessLostError(
            "decoders and model actors that live",
            f"one that Ray gave up after {ACTOR_RESTARTS} starts or {TASK_RETRIES} tries of a "
            f"shard: {str(error).splitlines()[0]}",
            "see Ray's log of it; give it more memory, or take away the machine whose GPU fails, "
            "then submit again",
        ) from error
