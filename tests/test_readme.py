"""The README: every command in it is run as written, after a small demonstration.

`make demo` and `make test` are what runs these tests; commands with a bucket or a server are in
indented text and covered by the tests of those rooms.
"""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.dataset as ds
import pytest

from hipray.cli import main
from hipray.config.phantom import FilmFormat
from tests.small_workspace import PHANTOMS, write_archive

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
MINI_DEMO = (
    "phantom.phantom.n_patients=34", "phantom.phantom.n_second_hips=2",
    "phantom.phantom.n_device_a=18", "phantom.phantom.decoys=15", "phantom.phantom.image_px=192",
    "unseen.phantom.n_patients=5", "unseen.phantom.n_second_hips=1", "unseen.phantom.n_device_a=3",
    "unseen.phantom.image_px=192",
    "grid.experiment.data.working_px=192",
    "grid.experiment.segmenter.size_px=96", "grid.experiment.segmenter.epochs=10",
    "grid.experiment.segmenter.lr=0.003",
    "grid.experiment.classifier.size_px=32", "grid.experiment.classifier.epochs=1",
    "grid.scaling.local_lanes=true", "serve.fused=true",
    'grid.backbones=["resnet18", "resnet50"]',
)  # fmt: skip


def _commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


HIPRAY_COMMANDS = [c for c in _commands() if c.startswith("hipray ")]
LOOKS = [c for c in HIPRAY_COMMANDS if "--dry-run" in c or c.startswith("hipray status")]
"""Those that start and change nothing: they need no process of their own."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's reader has run a small demonstration and brought films."""
    folder = tmp_path_factory.mktemp("reader")
    overrides = [part for override in MINI_DEMO for part in ("--set", override)]
    ended = subprocess.run(
        [sys.executable, "-m", "hipray.cli", "demo", *overrides],
        cwd=folder, capture_output=True, text=True, timeout=900, env=_environment(),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    (folder / "demo.log").write_text(ended.stdout)
    _bring_films(folder)
    return folder


def _environment() -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_"))}
    return clean | {"CUDA_VISIBLE_DEVICES": ""}


def _bring_films(folder: Path) -> None:
    """PNG films and a plain table of T-scores, as someone without DICOM would bring them."""
    config = PHANTOMS.model_copy(update={"film_format": FilmFormat.PNG})
    archive = write_archive(folder / "brought", config)
    films = folder / "films"
    films.mkdir()
    with (archive.folder / "dxa.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["region"] == "total_hip"]
    with (folder / "labels.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["image", "age", "sex", "t_score"])
        for row in rows:
            source = archive.folder / row["file"]
            name = f"{source.stem}.png"
            (films / name).write_bytes(source.read_bytes())
            table.writerow([name, row["age"], row["sex"], row["t_score"]])


@pytest.mark.cluster
@pytest.mark.timeout(1500)
def test_the_demonstration_leaves_what_the_readme_promises(demo: Path) -> None:
    out = demo / "out" / "demo"
    for name in ("manifest.parquet", "report/index.html", "report/tables.csv", "answer.json"):
        assert (out / name).stat().st_size > 0, name
    assert list((out / "splits").glob("*.parquet"))
    assert list((out / "releases").glob("*.json"))
    assert list((out / "bundles").iterdir())
    assert list((out / "runs").iterdir())
    scored = ds.dataset(list((out / "scores").glob("parts/*/*.parquet"))).to_table().to_pandas()
    (table,) = (out / "scores").glob("*.parquet")
    assert scored["key"].nunique() == pd.read_parquet(table)["key"].nunique() == 6
    answer = json.loads((out / "answer.json").read_text())
    assert answer["data_source"] == "phantom"
    assert "not a medical device" in answer["research_notice"]


@pytest.mark.cluster
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("command", HIPRAY_COMMANDS)
def test_every_command_of_the_readme_works(
    command: str, demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = shlex.split(command)[1:]
    if command in LOOKS:
        monkeypatch.chdir(demo)
        assert main(arguments) == 0
        assert capsys.readouterr().out.strip()
        return
    ended = subprocess.run(
        [sys.executable, "-m", "hipray.cli", *arguments],
        cwd=demo, capture_output=True, text=True, timeout=600, env=_environment(),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.strip()


def test_the_two_commands_come_first_and_exist() -> None:
    assert _commands()[:2] == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^demo:", makefile, re.M)
    assert re.search(r"^test:", makefile, re.M)


def test_every_file_the_readme_links_to_exists() -> None:
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert linked
    assert all((ROOT / path).exists() for path in linked)


def test_the_readme_says_what_the_software_is_not() -> None:
    assert "not a medical device" in README.split("## ")[0]


def test_the_skill_command_of_the_readme_is_understood() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["skill", "--help"])
    assert ended.value.code == 0
