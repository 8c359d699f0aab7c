"""What is scored into one part: the unit that is handed from stage to stage."""

import json
from dataclasses import dataclass

from hipray.scoring.shards import Entry


@dataclass(frozen=True)
class Work:
    """Films to score into one part: an open shard, or what failed of a published one."""

    part: str
    """Name of the part without its suffix."""
    entries: tuple[Entry, ...]

    def dump(self) -> str:
        """Return the work as JSON.

        What an entry replaces stays in the index: retraction reads it there.
        """
        films = [[entry.key, entry.size, entry.etag] for entry in self.entries]
        return json.dumps({"part": self.part, "films": films})


def parse_work(text: str) -> Work:
    """Return the work that `Work.dump` wrote."""
    fields = json.loads(text)
    return Work(fields["part"], tuple(Entry(*film) for film in fields["films"]))
