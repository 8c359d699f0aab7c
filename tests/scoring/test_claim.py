"""An output is that of one archive and of one key of pseudonyms, on every machine of its run."""

from pathlib import Path

import pytest

from hipray.config.jobs import ScoreRun
from hipray.data.pseudonyms import KEY_FILE, load_pseudonyms
from hipray.errors import ConfigError
from hipray.scoring.claim import RUN_KEY, claim_output, load_claimed_pseudonyms
from hipray.storage import Store, open_store


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "scores"))


def build_run(tmp_path: Path, workspace: str) -> ScoreRun:
    return ScoreRun(workspace=str(tmp_path / workspace), images=str(tmp_path / "archive"))


def test_an_output_keeps_to_the_key_of_its_pseudonyms(tmp_path: Path, output: Store) -> None:
    run = build_run(tmp_path, "work")
    for _ in range(2):
        claim_output(run, output)
    key = open_store(run.workspace).read(KEY_FILE)
    assert key.hex() not in output.read(RUN_KEY).decode()
    with pytest.raises(ConfigError, match="pseudonym key"):
        claim_output(build_run(tmp_path, "elsewhere"), output)
    open_store(run.workspace).delete(KEY_FILE)
    with pytest.raises(ConfigError, match=r"mount or restore .*pseudonym\.key"):
        claim_output(run, output)
    assert not open_store(run.workspace).exists(KEY_FILE), "none is made in its place"
    open_store(run.workspace).create(KEY_FILE, key)
    claim_output(run, output)


def test_a_machine_without_the_key_makes_none_and_names_no_patient(
    tmp_path: Path, output: Store
) -> None:
    run = build_run(tmp_path, "work")
    claim_output(run, output)
    known = load_claimed_pseudonyms(run, output)
    assert known.patient("4711") == load_pseudonyms(open_store(run.workspace)).patient("4711")
    not_mounted = build_run(tmp_path, "elsewhere")
    with pytest.raises(ConfigError, match=r"mount or restore .*pseudonym\.key"):
        load_claimed_pseudonyms(not_mounted, output)
    assert not open_store(not_mounted.workspace).exists(KEY_FILE)
