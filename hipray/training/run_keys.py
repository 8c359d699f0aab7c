"""Where the files of a run lie, and what else its workspace holds.

    manifest.parquet  hips/        a row and a film for each hip; ingest/ tells of every file
    splits/                        who is tested when, and what the leakage guard found
    runs/<run>/                    a run's own files, below
    fits/                          finished fits by content, see `hipray.training.ledger`
    bundles/<digest>/              released networks by content
    releases/<name>.json           what is served: its bundles, thresholds and figures
    report/                        the report that was written last
    secrets/pseudonym.key          what patients and files are named by

A grid's plan names its fits by digest, and runs share those that are equal: all that is large lies
in fits/ and belongs to no run. Without its folder a run cannot be reported any more, and submitted
again it finds its fits done; without fits/ all is trained again. A release has copies of its
networks in bundles/ and needs neither.

    runs/<run>/driver/             lease of the process that drives the run

    runs/<run>/plan.json           of a grid: what it is made of
    runs/<run>/lanes/<lane>.json   what each lane says of itself
    runs/<run>/train/              Ray Train's own files
    runs/<run>/tensorboard/<fit>/  curves of finished fits, where they are asked for

    runs/<run>/tune.json           of a search: what is searched
    runs/<run>/tune/<network>/     Ray Tune's own files
    runs/<run>/trials/<network>/<trial>/   a trial's checkpoints, and its outcome
    runs/<run>/studies/<network>.parquet   a finished network's trials
    runs/<run>/trials.parquet      all trials
    runs/<run>/tuned.toml          what `hipray grid --config` takes as it is
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

from hipray.storage import Store

_RUNS = "runs"


def list_runs(store: Store) -> list[str]:
    """Return the names of a workspace's runs."""
    return [PurePosixPath(folder).name for folder in store.list_folders(_RUNS)]


@dataclass(frozen=True)
class RunKeys:
    """The workspace keys of one run; `network` is a network's name as one part of a path."""

    run: str

    @property
    def driver(self) -> str:
        """Lease of the process that drives the run."""
        return self._below("driver")

    @property
    def plan(self) -> str:
        """What a grid is made of."""
        return self._below("plan.json")

    @property
    def lanes(self) -> str:
        """Folder of the notes of all lanes."""
        return self._below("lanes")

    def lane(self, lane: str) -> str:
        """Return the key of a lane's note."""
        return f"{self.lanes}/{lane}.json"

    @property
    def ray_train(self) -> str:
        """Folder of Ray Train's own files."""
        return self._below("train")

    def tensorboard(self, fit: str) -> str:
        """Return the folder of a fit's event files."""
        return self._below(f"tensorboard/{fit}")

    @property
    def search(self) -> str:
        """What a search searches."""
        return self._below("tune.json")

    @property
    def ray_tune(self) -> str:
        """Folder of Ray Tune's own files, with one folder for each network."""
        return self._below("tune")

    def trial(self, network: str, trial: str) -> str:
        """Return the folder of a trial's checkpoints and outcome."""
        return self._below(f"trials/{network}/{trial}")

    def study(self, network: str) -> str:
        """Return the key of the table of a finished network's trials."""
        return self._below(f"studies/{network}.parquet")

    @property
    def trials(self) -> str:
        """The table of all trials of a search."""
        return self._below("trials.parquet")

    @property
    def tuned(self) -> str:
        """The chosen settings as the configuration of a grid."""
        return self._below("tuned.toml")

    def _below(self, name: str) -> str:
        return f"{_RUNS}/{self.run}/{name}"
