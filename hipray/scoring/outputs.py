"""Where a scoring run keeps its index, parts and summary."""

from collections.abc import Iterator
from functools import partial
from itertools import islice

from hipray.config.jobs import PlanRun, ScoreRun, StatusRun
from hipray.storage import ObjectInfo, Store, open_store
from hipray.storage.retrying import RetryingStore

PAGE = 10_000
"""Keys of a listing that are in memory at a time."""


def open_output(config: ScoreRun | StatusRun | PlanRun) -> Store:
    """Return the store of a run's output: the one it names, or scores/ of its workspace."""
    if config.output is not None:
        return open_store(config.output, config.storage)
    return open_store(config.workspace, config.storage).child("scores")


class PatientOutput(RetryingStore):
    """An output that waits out the store's outages; its listings, long ones, come page by page."""

    def list(self, prefix: str = "", *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """List a folder; see `Store.list`."""
        while page := self._persist(partial(self._list_page, prefix, start_after)):
            yield from page
            start_after = page[-1].key

    def _list_page(self, prefix: str, start_after: str | None) -> tuple[ObjectInfo, ...]:
        return tuple(islice(self._inner.list(prefix, start_after=start_after), PAGE))
