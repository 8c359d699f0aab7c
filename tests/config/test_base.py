"""How configurations are read: presets, files, overrides and the sentences for mistakes."""

from pathlib import Path

import pytest

from hipray.cli import COMMANDS
from hipray.config.base import Config, build_config, load_config, preset_names, read_preset
from hipray.config.jobs import DemoRun, GridRun, SkillRun
from hipray.errors import ConfigError


class Inner(Config):
    size: int = 3
    """Size in pixels."""


class Outer(Config):
    name: str = "plain"
    """A name."""
    inner: Inner = Inner()
    """A section."""


def test_a_file_wins_over_defaults_and_an_override_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text('name = "file"\n[inner]\nsize = 5\n')
    config = load_config(Outer, path=str(path), overrides=["inner.size=7"])
    assert (config.name, config.inner.size) == ("file", 7)


def test_one_file_may_serve_several_jobs(tmp_path: Path) -> None:
    path = tmp_path / "jobs.toml"
    path.write_text('[grid]\nname = "for the grid"\n[report]\nname = "for the report"\n')
    assert load_config(Outer, path=str(path), section="report").name == "for the report"


@pytest.mark.parametrize(
    ("override", "value"),
    [("name=word", "word"), ("name='quoted'", "quoted"), ("name=s3://b/k", "s3://b/k")],
)
def test_a_bare_word_is_a_string(override: str, value: str) -> None:
    assert load_config(Outer, overrides=[override]).name == value


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'inner\.sise' \(did you mean 'size'\?\)"):
        load_config(Outer, overrides=["inner.sise=4"])


def test_a_wrong_type_names_the_key_and_what_was_given() -> None:
    with pytest.raises(ConfigError, match=r"inner\.size: .* \(given 'large'\)"):
        load_config(Outer, overrides=["inner.size=large"])


@pytest.mark.parametrize("override", ["inner.size", "=4", ""])
def test_an_override_without_a_value_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=r"--set key\.path=value"):
        load_config(Outer, overrides=[override])


def test_a_missing_file_and_broken_toml_are_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(Outer, path=str(tmp_path / "none.toml"))
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    with pytest.raises(ConfigError, match="valid TOML"):
        load_config(Outer, path=str(broken))


def test_an_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="demo, grid, paper, paper-mini, skill"):
        read_preset("papier")


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_is_valid_for_every_job_it_serves(preset: str) -> None:
    whole = {"demo": DemoRun, "skill": SkillRun}
    if preset in whole:
        assert load_config(whole[preset], preset=preset)
    assert load_config(GridRun, preset=preset, section="grid").run == preset
    served = [name for name in read_preset(preset) if name in COMMANDS]
    assert served
    for name in served:
        assert load_config(COMMANDS[name].config, preset=preset, section=name)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer().name = "other"  # type: ignore[misc]


def test_every_field_of_every_job_says_what_it_means() -> None:
    from hipray.config import jobs

    silent = [
        f"{name}.{field}"
        for name, model in vars(jobs).items()
        if isinstance(model, type) and issubclass(model, Config)
        for field, info in model.model_fields.items()
        if not info.description
    ]
    assert not silent


def test_fresh_weights_with_the_papers_learning_rate_are_refused_with_the_reason() -> None:
    wish = {"experiment": {"classifier": {"weights": "none", "lr": 1e-6}}}
    with pytest.raises(ConfigError, match="cannot learn: Adam moves a weight by at most lr a step"):
        build_config(GridRun, wish)


def test_the_paper_preset_is_the_papers_protocol() -> None:
    config = load_config(GridRun, preset="paper", section="grid")
    cells = (
        len(config.regions) * len(config.label_types) * len(config.backbones) * len(config.variants)
    )
    assert cells == 72
    classifier = config.experiment.classifier
    assert (classifier.lr, classifier.batch, classifier.size_px) == (1e-6, 16, 224)
    assert (classifier.rotation_degrees, classifier.shift_px_at_224) == (3.0, 5.0)
    assert config.experiment.leakage.allow
    assert config.test_folds == (0,)
    assert config.experiment.split.folds == 5


def test_a_key_with_dots_in_it_is_set_in_quotes() -> None:
    key = 'experiment.backbones."efficientnet_b3.ra2_in1k".lr=1e-5'
    config = load_config(GridRun, overrides=[key])
    assert config.experiment.backbones == {"efficientnet_b3.ra2_in1k": {"lr": 1e-5}}


def test_a_file_with_a_jobs_table_holds_nothing_that_no_job_reads(tmp_path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('workspace = "out/mine"\n[gird.experiment]\n[grid]\nrun = "a"\n[report]\n')
    with pytest.raises(ConfigError, match="found 'workspace', 'gird'"):
        load_config(GridRun, path=str(file), section="grid", sections=("grid", "report"))


@pytest.mark.parametrize("override", ["backbones=[]", "regions=[]", "test_folds=[]"])
def test_a_grid_without_a_cell_is_refused(override) -> None:
    with pytest.raises(ConfigError, match="at least 1 item"):
        load_config(GridRun, overrides=[override])


@pytest.mark.parametrize("key", ["experiment.classifier.epochs", "experiment.classifier.lr"])
def test_a_flag_is_no_number(key) -> None:
    with pytest.raises(ConfigError, match="must be a number, not True"):
        load_config(GridRun, overrides=[f"{key}=true"])


def test_a_list_with_a_wrong_item_is_not_called_too_short() -> None:
    with pytest.raises(ConfigError) as told:
        load_config(GridRun, overrides=['regions=["hip"]'])
    assert "total_hip" in str(told.value)
    assert "at least" not in str(told.value)


def test_a_network_named_twice_is_trained_once() -> None:
    config = load_config(GridRun, overrides=['backbones=["vgg16", "vgg16"]'])
    assert config.backbones == ("vgg16",)


@pytest.mark.parametrize("name", ["1", "2024-05-01", "1e5", "true"])
def test_a_name_that_looks_like_another_kind_of_value_is_taken_as_typed(name: str) -> None:
    assert load_config(GridRun, overrides=[f"run={name}"]).run == name
    tracking = load_config(GridRun, overrides=[f"tracking.mlflow_experiment={name}"]).tracking
    assert name in tracking.model_dump(mode="json").values()
