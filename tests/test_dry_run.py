"""`--dry-run` of every job: the plan, what it would read, and the place it would run in."""

from pathlib import Path

import pytest

from hipray.cli import COMMANDS, _parse, main
from hipray.config.scoring import Selection
from hipray.config.storage import StorageSettings
from hipray.distributed import survey as place
from hipray.distributed.cluster import NodeSize
from hipray.distributed.survey import Ask, Place, survey
from hipray.errors import ConfigError, DataError, NotFoundError
from hipray.scoring import selection
from hipray.scoring.selection import find_first_film
from hipray.scoring.status import ProgressNote
from hipray.storage import open_store
from tests.conftest import S3Server
from tests.small_workspace import SmallGrid, SmallWorkspace

ALONE = {"demo": [], "skill": [], "phantom": [], "bench": ["grid"]}
"""Jobs that read nothing."""


@pytest.mark.parametrize("job", ALONE)
def test_a_job_that_reads_nothing_is_planned_anywhere(
    job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([job, *ALONE[job], "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "setting    " in said
    assert "versions   hipray" in said
    assert said.endswith("nothing was done\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "job", ["ingest", "segment", "grid", "tune", "status", "report", "release"]
)
def test_a_job_that_finds_its_inputs_is_planned(
    job: str, small_workspace: SmallWorkspace, small_grid: SmallGrid,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    before = [info.key for info in small_workspace.store.list()]
    arguments = {
        "ingest": ["--images", str(small_workspace.archive.folder)],
        "status": ["small"], "report": ["small"], "release": ["--run", "small"],
    }  # fmt: skip
    given = [*arguments.get(job, []), "--workspace", small_workspace.store.uri, "--dry-run"]
    assert main([job, *given]) == 0
    said = capsys.readouterr().out
    assert "workspace  " in said
    assert "nothing was done" in said
    assert [info.key for info in small_workspace.store.list()] == before


@pytest.mark.parametrize(
    ("job", "code"),
    [("ingest", 3), ("tune", 3), ("report", 3), ("release", 3), ("serve", 6), ("score", 6),
     ("predict", 5)],
)  # fmt: skip
def test_what_is_missing_ends_a_dry_run_as_it_would_end_the_job(
    job: str, code: int, tmp_path: Path
) -> None:
    folder = str(tmp_path)
    arguments = {
        "ingest": ["--images", folder], "score": ["--images", folder],
        "predict": [f"{folder}/film.dcm"],
    }  # fmt: skip
    given = [*arguments.get(job, []), "--workspace", folder, "--dry-run"]
    assert main([job, *given]) == code


def test_a_search_without_its_package_is_found(
    small_workspace: SmallWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    given = ["--workspace", small_workspace.store.uri, "--dry-run"]
    assert main(["tune", "--search", "optuna", *given]) == 2


def test_a_file_of_tokens_that_is_not_there_is_found_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "tokens"
    given = ["--workspace", str(tmp_path), "--token-file", str(missing), "--dry-run"]
    assert main(["serve", *given]) == 2
    assert f"no file '{missing}'" in capsys.readouterr().err


def test_the_plan_of_segmenters_has_no_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["segment", "--preset", "demo", "--workspace", str(tmp_path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "run        demo-segmenters" in said
    assert "3 = 3 segmenters + 0 classifiers" in said


def test_every_job_takes_a_dry_run() -> None:
    for job, command in COMMANDS.items():
        needed = [] if command.positional is None else ["x"]
        assert _parse([job, *needed, "--dry-run"]).dry_run


def test_a_bucket_is_written_to_and_a_missing_one_is_named(s3_server: S3Server) -> None:
    store = s3_server.new_store()
    (line,) = [text for text in survey([Place("workspace", store, True)], []) if "s3://" in text]
    assert "conditional writes work" in line
    assert list(store.list()) == []
    settings = StorageSettings(endpoint_url=s3_server.endpoint_url)
    with pytest.raises(NotFoundError):
        list(survey([Place("workspace", open_store("s3://not-there/x", settings), True)], []))


def test_a_share_that_this_machine_never_gives_is_refused_and_a_cluster_may_still_grow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask = Ask("lanes", 2, 1, gpus=1)
    monkeypatch.setattr(place, "read_this_machine", lambda: NodeSize("", 4, 0, 2**34, ""))
    monkeypatch.setattr(place, "may_grow", lambda: False)
    with pytest.raises(ConfigError, match="GPU for one of the lanes"):
        list(survey([], [ask]))
    monkeypatch.setattr(place, "may_grow", lambda: True)
    monkeypatch.setattr(place, "connect", lambda: None)
    monkeypatch.setattr(place, "read_nodes", list)
    said = list(survey([], [ask]))
    assert any("none yet" in line for line in said)
    assert any("wait until such a node comes" in line for line in said)


def test_the_status_of_a_scoring_is_found_as_the_job_finds_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = ProgressNote("archive", "first", "parts/first", started_s=0.0, updated_s=0.0)
    note.write(open_store(str(tmp_path / "scores")))
    assert main(["status", "score", "--workspace", str(tmp_path), "--dry-run"]) == 0
    assert "archive by first" in capsys.readouterr().out


def test_an_archive_is_looked_through_for_what_the_job_would_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = open_store(str(tmp_path))
    archive.write("a/table.csv", b"no film")
    archive.write("a/1.dcm", b"film")
    archive.write("b/2.png", b"film")
    assert find_first_film(archive, Selection()) == "a/1.dcm"
    assert find_first_film(archive, Selection(suffixes=(".png",))) == "b/2.png"
    with pytest.raises(DataError, match="found none; check the path and `select`"):
        find_first_film(archive, Selection(exclude=("*",)))
    monkeypatch.setattr(selection, "FIRST_KEYS", 2)
    assert find_first_film(archive, Selection(suffixes=(".png",))) is None, "nobody knows yet"
