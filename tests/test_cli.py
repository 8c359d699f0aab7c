"""The command line as a user meets it: help, plans, mistakes and exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest

from hipray.cli import COMMANDS, main
from tests.conftest import S3Server

JOBS = Path(__file__).resolve().parent.parent / "jobs"


def _run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "hipray.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_every_command_has_a_job_file_of_its_name() -> None:
    assert {path.stem for path in JOBS.glob("*.py")} == set(COMMANDS)


@pytest.mark.parametrize("job", COMMANDS)
def test_every_command_explains_itself(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([job, "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert "not a medical device" in " ".join(text.split())


def test_help_loads_no_torch_and_no_ray() -> None:
    code = (
        "import sys, hipray.cli as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'ray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_the_paper_grid_is_planned_without_any_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["grid", "--preset", "paper", "--dry-run", "--workspace", str(tmp_path)]) == 0
    plan = capsys.readouterr().out
    for words in (
        "72 = 4 regions x 2 labels x 3 backbones x 3 variants",
        "40 segmenters + 72 classifiers",
        "139 hips",
        "patients   134",
        "OVERRIDDEN",
        "resources",
        "time",
    ):
        assert words in plan
    assert not list(tmp_path.iterdir()), "a dry run writes nothing"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["grid", "--set", "scaling.lane=4"], 2, "did you mean 'lanes'?"),
        (["grid", "--preset", "none"], 2, "one of the presets"),
        (["grid", "--backbones", "['vgg99']", "--workspace", "{tmp}"], 2, "timm network"),
        (["grid", "--workspace", "{tmp}"], 3, "run `hipray ingest` first"),
        (["grid", "--regions", "total_hip", "--workspace", "{tmp}"], 2, """'["a", "b"]'"""),
        (["report", "nothing", "--workspace", "{tmp}"], 3, "runs none"),
        (["status", "nothing", "--workspace", "{tmp}"], 3, "runs none"),
        (["ingest", "--images", "{tmp}/none", "--workspace", "{tmp}"], 3, "films in"),
        (["ingest", "--images", "ftp://host/x", "--workspace", "{tmp}"], 2, "ftp"),
        (["predict", "film.dcm", "--release", "none", "--workspace", "{tmp}"], 6, "release 'none'"),
    ],
)
def test_a_mistake_is_one_sentence_and_an_exit_code(
    arguments: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    assert main(given) == code
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith(f"hipray {arguments[0]}: expected ")
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--tokn-file", "did you mean --token-file?"),
        ("--releas=x", "did you mean --release?"),
        ("--nothing-like-it", "see hipray serve --help"),
    ],
)
def test_an_unknown_option_ends_with_the_nearest_one_and_none_is_completed(
    option: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", option])
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip().endswith(hint)


def test_a_settings_file_may_lie_on_s3(
    s3_server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    store = s3_server.new_store()
    store.write("runs/search/tuned.toml", b'[grid]\nrun = "tuned-elsewhere"\n')
    reached = f"storage.endpoint_url={s3_server.settings.endpoint_url}"
    shared = ["--set", reached, "--workspace", store.uri, "--dry-run"]
    assert main(["grid", "--config", store.uri_of("runs/search/tuned.toml"), *shared]) == 0
    assert "run        tuned-elsewhere" in capsys.readouterr().out
    assert main(["grid", "--config", store.uri_of("none.toml"), *shared]) == 5
    assert "none.toml" in capsys.readouterr().err


def test_a_process_ends_with_the_code_of_its_error(tmp_path: Path) -> None:
    ended = _run("grid", "--set", "nonsense=1", "--workspace", str(tmp_path))
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
