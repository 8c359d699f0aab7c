"""The project's own image: two targets of one recipe, told apart by a name or a tag."""

import re
from dataclasses import dataclass
from enum import StrEnum

OWN = re.compile(
    r"(?P<registry>(?:[\w.-]+(?::\d+)?/)*)hipray(?:-(?P<name>[cg]pu))?"
    r":(?P<version>\d[\w.-]*?)(?:-(?P<tag>[cg]pu))?"
)


class Target(StrEnum):
    """A target of cluster/Dockerfile."""

    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True)
class OwnImage:
    """Where an image is pulled from, its version and its target."""

    registry: str
    version: str
    target: Target


def read_image(image: str) -> OwnImage | None:
    """Return what an image of the project says of itself; None where it is none, or says it twice.

    The base says the target by the name (`hipray-gpu:0.1.0`), so that an overlay can tag each on
    its own; registries hold one name and say it by the tag (`hipray:0.1.0-gpu`).
    """
    found = OWN.fullmatch(image)
    if found is None or bool(found["name"]) == bool(found["tag"]):
        return None
    return OwnImage(found["registry"], found["version"], Target(found["name"] or found["tag"]))
