"""Whose hips are whose: one person may be named by a DXA table and by film headers.

A film whose table cell is empty is known by its header alone. Where another film ties that header
to a name in the table, both are one person, so that no split can part them.
"""

from collections.abc import Iterable, Mapping

MOST_NAMES = 2
"""Names in the table that one PatientID may join: an id shared by more is a placeholder such as
ANON, and says nothing of persons."""

Link = tuple[str, str]
"""The patient a table names for a film, and the one its header names."""


def join_patients(links: Iterable[Link]) -> tuple[Mapping[str, str], int]:
    """Return each linked patient's joint name, and how many header names joined nobody.

    The joint name is the least of the names of one person.
    """
    named: dict[str, set[str]] = {}
    for stated, header in links:
        named.setdefault(header, set()).add(stated)
    placeholders = [header for header, stated in named.items() if len(stated) > MOST_NAMES]
    leader: dict[str, str] = {}
    for header, patients in named.items():
        if len(patients) <= MOST_NAMES:
            _join({header, *patients}, leader)
    return leader, len(placeholders)


def _join(names: set[str], leader: dict[str, str]) -> None:
    """Give the persons behind `names`, and all who share a leader with one, one leader."""
    leaders = {leader.get(name, name) for name in names}
    everyone = names | {name for name, old in leader.items() if old in leaders}
    leader.update(dict.fromkeys(everyone, min(leaders)))
