"""What was wrong with a file, told briefly: a few examples of each kind and a count."""

from collections import Counter

MAX_EXAMPLES = 10
"""Lines kept per kind of problem; the rest is counted."""
MAX_SHOWN = 8
"""Most characters of a cell that is shown; letters never are: a shifted column holds names."""


class ProblemLog:
    """Collect problems by kind; `lines` gives the first of each kind and how many more."""

    def __init__(self) -> None:
        self._examples: dict[str, list[str]] = {}
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, line: str) -> None:
        """Note one problem; lines of one `kind` beyond the limit are only counted."""
        self._counts[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(line)

    def add_cell(self, row: int, column: str, *, expected: str, found: str) -> None:
        """Note a cell that was dropped because it is not what its column holds."""
        plain = len(found) <= MAX_SHOWN and not any(map(str.isalpha, found))
        shown = f"'{found}'" if plain else f"{len(found)} characters of text"
        line = f"row {row}, column '{column}': expected {expected}, found {shown}; not used"
        self.add(f"{column}: {expected}", line)

    def lines(self) -> tuple[str, ...]:
        """Return all problems in the order in which their kinds first came up."""
        out: list[str] = []
        for kind, examples in self._examples.items():
            out.extend(examples)
            more = self._counts[kind] - len(examples)
            if more:
                out.append(f"and {more} more like: {examples[-1]}")
        return tuple(out)
