"""The rules of the house, held by reading the source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hipray"

FLOORS: dict[str, int] = {
    "hipray": 0, "vocab": 0, "errors": 0, "digests": 0, "config": 0,
    "storage": 1, "metrics": 1, "progress": 1,
    "data": 2,
    "segmentation": 3, "matting": 3, "classification": 3,
    "training": 4, "evaluation": 4, "bundles": 4, "releases": 4, "pipeline": 4, "answers": 4,
    "dicom_objects": 4,
    "predict": 4, "scoring": 4, "explanation": 4, "overlay": 4,
    "runtime": 3, "inference": 4,
    "distributed": 5, "serving": 5,
    "commands": 6, "cli": 6, "dry_run": 6, "demo": 6, "skill": 6, "benchmarks": 6,
}  # fmt: skip
"""Each room's floor; imports go down or stay on their floor."""

RAY_ROOMS = {"distributed", "serving", "benchmarks"}
SINGLE_IMPORTERS = {
    "albumentations": "hipray/data/augment.py",
    "timm": "hipray/classification/model.py",
    "segmentation_models_pytorch": "hipray/segmentation/model.py",
    "boto3": "hipray/storage/s3.py",
    "onnxruntime": "hipray/runtime/onnx_network.py",
}
MODEL_ROOMS = ("segmentation", "matting", "classification")
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc"}


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _room(path: Path) -> str:
    part = path.relative_to(PACKAGE).parts[0]
    name = part.removesuffix(".py")
    return "hipray" if name == "__init__" else name


def _room_of_import(name: str) -> str | None:
    parts = name.split(".")
    if parts[0] != "hipray":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else "hipray"


def test_every_room_has_a_floor() -> None:
    assert {_room(path) for path in _modules()} == set(FLOORS)


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_go_down(path: Path) -> None:
    floor = FLOORS[_room(path)]
    upward = {
        name for name in _imports(path)
        if (room := _room_of_import(name)) is not None and FLOORS[room] > floor
    }  # fmt: skip
    assert not upward


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {_dotted(path): _dependencies(path) for path in _modules()}
    circles = [name for name in graph if name in _reachable(graph, name)]
    assert not circles


def test_ray_is_imported_on_its_own_floor_only() -> None:
    strays = [
        str(path)
        for path in _modules()
        if _room(path) not in RAY_ROOMS and any(n.split(".")[0] == "ray" for n in _imports(path))
    ]
    assert not strays


@pytest.mark.parametrize(("library", "owner"), SINGLE_IMPORTERS.items())
def test_each_of_these_libraries_has_one_importing_file(library: str, owner: str) -> None:
    importers = {
        str(path.relative_to(ROOT))
        for path in _modules()
        if any(name.split(".")[0] == library for name in _imports(path))
    }
    assert importers == {owner}


def test_the_model_rooms_do_not_know_each_other() -> None:
    for room in MODEL_ROOMS:
        for path in (PACKAGE / room).rglob("*.py"):
            others = {_room_of_import(name) for name in _imports(path)} & set(MODEL_ROOMS)
            assert others <= {room}, path


def test_nothing_is_unpickled() -> None:
    for path in _modules():
        assert not {n.split(".")[0] for n in _imports(path)} & {"pickle", "cloudpickle", "dill"}
        assert not re.search(r"(?<!safetensors\.)torch\.load\(", path.read_text("utf-8")), path


def test_no_room_is_a_drawer_for_leftovers() -> None:
    names = {part.removesuffix(".py") for path in _modules() for part in path.parts}
    assert not names & FORBIDDEN_NAMES


def test_region_names_are_spelled_in_the_vocabulary_only() -> None:
    for path in _modules():
        if path == PACKAGE / "vocab.py":
            continue
        strings = {
            node.value
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not strings & {"femoral_neck", "greater_trochanter", "wards_triangle", "total_hip"}


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.py")), ids=lambda p: p.name)
def test_a_job_is_a_sentence(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 25


def test_the_fixed_top_level_is_kept() -> None:
    allowed = {
        "pyproject.toml", "README.md", "cluster", "hipray", "jobs", "k8s", "tests", "Makefile",
        "LICENSE", "out", "hipray.egg-info",
    }  # fmt: skip
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found <= allowed


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _dependencies(path: Path) -> set[str]:
    known = {_dotted(p) for p in _modules()}
    return {name for name in _imports(path) if name in known and name != _dotted(path)}


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = list(graph[start])
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo.extend(graph[name])
    return seen
