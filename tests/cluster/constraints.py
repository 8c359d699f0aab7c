"""What the constraints file may say: a version of each distribution, of the image or elsewhere."""

import re
from collections import Counter
from collections.abc import Iterator

from packaging.markers import InvalidMarker, Marker

LINE = re.compile(
    r"(?P<name>[a-z0-9]+(?:-[a-z0-9]+)*)==(?P<version>\d[0-9a-z.]*)(?: ; (?P<marker>.+))?"
)
"""Neither an option nor an address: by `--extra-index-url` a stranger's wheel would come along."""
TERM = re.compile(
    r"(?:platform_python_implementation|implementation_name) != 'PyPy'"
    r"|sys_platform [!=]= '(?:linux|win32|cygwin|darwin|emscripten)'"
    r"|platform_machine == '(?:AMD64|ARM64|aarch64|amd64|arm64|x86_64)'"
    r"|python_full_version (?:<|>=) '3\.\d+'"
)
"""What uv asks of a machine: a misspelt answer would take the pin away without a word."""
JOINT = re.compile(r" (?:and|or) ")
IMAGE = {
    "implementation_name": "cpython", "platform_python_implementation": "CPython",
    "python_full_version": "3.11.14", "python_version": "3.11", "sys_platform": "linux",
    "platform_machine": "x86_64", "platform_system": "Linux", "os_name": "posix",
}  # fmt: skip
"""The machine that cluster/Dockerfile builds for."""
ELSEWHERE = {"colorama", "httpx2-jsfetch", "pywin32", "tzdata"}
"""What Windows and browsers need, and no image has."""


def find_constraint_problems(text: str) -> list[str]:
    """Return what is wrong with a constraints file."""
    lines = [line for line in text.split("\n")[:-1] if not line.startswith("#")]
    found = [(line, LINE.fullmatch(line)) for line in lines]
    problems = [f"{line} pins nothing" for line, match in found if match is None]
    pins = [match for _, match in found if match is not None]
    problems += [p for match in pins for p in _check_marker(match["marker"] or "")]
    return problems or [*_check_versions(pins)]


def _check_marker(marker: str) -> Iterator[str]:
    terms = JOINT.split(marker.replace("(", "").replace(")", ""))
    if marker and not all(map(TERM.fullmatch, terms)):
        yield f"asks for {marker}"
        return
    try:
        Marker(marker or "os_name == 'posix'")
    except InvalidMarker:
        yield f"{marker} is no marker"


def _check_versions(pins: list[re.Match[str]]) -> Iterator[str]:
    """Yield what the image would take in two versions, or in any."""
    here = Counter(pin["name"] for pin in pins if _holds(pin["marker"]))
    for name in sorted({pin["name"] for pin in pins}):
        wanted = 0 if name in ELSEWHERE else 1
        if here[name] != wanted:
            yield f"{name} has {here[name]} versions in the image instead of {wanted}"


def _holds(marker: str | None) -> bool:
    return marker is None or Marker(marker).evaluate(IMAGE)
