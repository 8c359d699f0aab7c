"""Spoiling one place of a configuration, to see that the checks notice."""

import copy
from collections.abc import Iterator
from typing import Any


def spoil(config: Any, path: str, value: Any) -> None:
    """Set the place `a/0/b` to a value; None takes it away, `+` at the end appends to a list.

    A `~` stands for a slash within a key.
    """
    *way, last = (key.replace("~", "/") for key in path.split("/"))
    node = config
    for key in way:
        node = node[int(key)] if isinstance(node, list) else node[key]
    if last == "+":
        node.append(value)
    elif value is None:
        del node[last]
    elif isinstance(node, list):
        node[int(last)] = value
    else:
        node[last] = value


def spoil_everywhere(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the configuration with each key misspelt, each left out, each value of another type."""
    for path in list(_places(config)):
        for slip in ("misspelt", "left out", "other type"):
            if slip != "other type" and isinstance(path[-1], int):
                continue
            spoilt = copy.deepcopy(config)
            parent = spoilt
            for key in path[:-1]:
                parent = parent[key]
            value = parent[path[-1]] if slip == "other type" else parent.pop(path[-1])
            if slip == "misspelt":
                parent[f"{path[-1]}x"] = value
            elif slip == "other type":
                parent[path[-1]] = 12345 if isinstance(value, str) else "x!"
            yield f"{'/'.join(map(str, path))} {slip}", spoilt


def _places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in entries:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from _places(value, (*path, key))
