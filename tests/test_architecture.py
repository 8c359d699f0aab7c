"""The rules of the house, held by reading the source."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hipray"

FLOORS: dict[str, int] = {
    "hipray": 0, "vocab": 0, "errors": 0, "digests": 0,
    "config": 1,
    "storage": 2, "metrics": 2, "voting": 2, "progress": 2,
    "data": 3,
    "runtime": 4,
    "segmentation": 5, "matting": 5, "classification": 5,
    "training": 6, "bundles": 6, "explanation": 6,
    "evaluation": 7,
    "releases": 8,
    "answers": 9,
    "pipeline": 10,
    "inference": 11, "overlay": 11, "dicom_objects": 11,
    "predict": 12, "scoring": 12,
    "distributed": 13, "run_status": 13,
    "serving": 14,
    "benchmarks": 15,
    "dry_run": 16,
    "commands": 17,
    "demo": 18, "skill": 18,
    "cli": 19,
}  # fmt: skip
"""Each room's floor; imports go down."""

RAY_ROOMS = {"distributed", "serving", "benchmarks"}
SINGLE_IMPORTERS = {
    "albumentations": "hipray/data/augment.py",
    "timm": "hipray/classification/model.py",
    "segmentation_models_pytorch": "hipray/segmentation/model.py",
    "boto3": "hipray/storage/s3.py",
    "onnxruntime": "hipray/runtime/onnx_network.py",
}
LIGHT_MODULES = {
    "hipray.cli": {"torch", "ray", "pandas", "scipy", "sklearn", "boto3", "cv2"},
    "hipray.run_status": {"torch", "ray", "scipy.stats", "sklearn"},
    "hipray.scoring.decoder": {"torch", "ray", "scipy.stats", "sklearn", "onnxruntime"},
    "hipray.serving.stages": {"timm", "torchvision", "scipy.stats", "sklearn"},
}
"""Processes that start often or in numbers, and libraries that would cost each of them seconds."""
MODEL_ROOMS = ("segmentation", "matting", "classification")
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc"}
FORBIDDEN_ENDINGS = ("Manager", "Helper", "Utils")


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(_parse(path)):
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
    own = _room(path)
    strays = {
        name for name in _imports(path)
        if (room := _room_of_import(name)) not in (None, own, "hipray") and FLOORS[room] >= floor
    }  # fmt: skip
    assert not strays


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


@pytest.mark.parametrize(("module", "heavy"), LIGHT_MODULES.items())
def test_a_process_brings_no_library_it_does_without(module: str, heavy: set[str]) -> None:
    asked = f"import sys, {module}; print(sorted({heavy} & {{*sys.modules}}))"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


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
    classes = {
        node.name
        for path in _modules()
        for node in ast.walk(_parse(path))
        if isinstance(node, ast.ClassDef)
    }
    assert not names & FORBIDDEN_NAMES
    assert not {name for name in classes if name.endswith(FORBIDDEN_ENDINGS)}


def test_region_names_are_spelled_in_the_vocabulary_only() -> None:
    for path in _modules():
        if path == PACKAGE / "vocab.py":
            continue
        strings = {
            node.value
            for node in ast.walk(_parse(path))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not strings & {"femoral_neck", "greater_trochanter", "wards_triangle", "total_hip"}


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.py")), ids=lambda p: p.name)
def test_a_job_is_a_sentence(path: Path) -> None:
    statements = ast.parse(path.read_text("utf-8")).body[1:]
    assert [ast.unparse(statement) for statement in statements] == [
        "import sys",
        "from hipray.cli import main",
        f"if __name__ == '__main__':\n    raise SystemExit(main(['{path.stem}', *sys.argv[1:]]))",
    ]


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
