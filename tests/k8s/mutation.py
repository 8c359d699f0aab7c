"""Spoiling one place of a configuration, to see that the checks notice."""

from typing import Any


def spoil(config: Any, path: str, value: Any) -> None:
    """Set the place `a/0/b` to a value; None takes it away, `+` at the end appends to a list."""
    *way, last = path.split("/")
    node = config
    for key in way:
        node = node[int(key)] if isinstance(node, list) else node[key]
    if last == "+":
        node.append(value)
    elif value is None:
        del node[last]
    else:
        node[last] = value
