"""What a search leaves: its trials, the chosen settings as a grid's configuration, its plan."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from hipray.config.base import build_config
from hipray.config.experiment import Experiment, TuningOrigin
from hipray.config.tuning import Axis, TuneRun, Value, change_settings
from hipray.data.dataset import DataIdentity
from hipray.data.manifest import write_table
from hipray.digests import source_digest
from hipray.errors import ConfigError, DataError
from hipray.storage import Store
from hipray.training.plan import CLASSIFIER_SOURCE
from hipray.training.run_keys import RunKeys
from hipray.training.trials import read_study


@dataclass(frozen=True)
class Choice:
    """The best trial of one network."""

    backbone: str
    chosen: dict[str, Value]
    log_loss: float
    auroc: float
    own_log_loss: float | None
    """Of the first trial, where it had the experiment's own settings."""


_ELSEWHERE = {"workspace", "storage", "run", "resources"}
"""Keys of a search that change no figure of its trials."""


def hold_to_search(store: Store, config: TuneRun, data: DataIdentity) -> None:
    """Write down what this run searches, or refuse to go on with something else.

    Where and how fast the work is done (workspace, storage, resources) may change. Raises
    ConfigError naming the keys that differ, and DataError where the data or the source is not the
    same any more.
    """
    key = RunKeys(config.run).search
    searched = config.model_dump(mode="json", exclude=_ELSEWHERE)
    about = {"data": asdict(data), "source": search_source(), "config": searched}
    if store.create(key, json.dumps(about, indent=1).encode()):
        return
    begun = json.loads(store.read(key))
    differing = sorted(_differing(begun["config"], searched))
    if differing:
        raise ConfigError(
            f"the configuration that run '{config.run}' was begun with",
            f"other values of {', '.join(differing)}",
            "restore them or choose another run name",
        )
    for part in ("data", "source"):
        if begun[part] != about[part]:
            raise DataError(
                f"the {part} that run '{config.run}' was begun with",
                "a changed one: its trials cannot be compared with new ones",
                "choose another run name",
            )


def search_source() -> str:
    """Return the digest of the source that shapes a trial's figures."""
    return source_digest(*CLASSIFIER_SOURCE, "training/lockstep", "training/tuning")


def _differing(old: Any, new: Any, path: str = "") -> list[str]:
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return [] if old == new else [path]
    keys = {*old, *new}
    return [
        name
        for key in keys
        for name in _differing(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    ]


def conclude(
    store: Store, config: TuneRun, data: DataIdentity
) -> tuple[tuple[Choice, ...], pd.DataFrame]:
    """Write the table of all trials and the chosen settings; return the best and the table."""
    studies = {backbone: read_study(store, config, backbone) for backbone in config.backbones}
    finished = {name: study for name, study in studies.items() if study is not None}
    choices = tuple(choose(config, name, study) for name, study in finished.items())
    table = pd.concat(list(finished.values()), ignore_index=True)
    rows = pa.Table.from_pandas(table, preserve_index=False)
    keys = RunKeys(config.run)
    write_table(store, keys.trials, rows)
    store.write(keys.tuned, dump_tuned(config, data, choices).encode())
    return choices, table


def choose(config: TuneRun, backbone: str, trials: pd.DataFrame) -> Choice:
    """Return the trial with the lowest log loss of a finished search, which comes first."""
    best, own = trials.iloc[0], trials[trials["own"]]["log_loss"]
    return Choice(
        backbone=backbone,
        chosen={name: _plain(best[name]) for name in config.offered(backbone)},
        log_loss=float(best["log_loss"]),
        auroc=float(best["auroc"]),
        own_log_loss=float(own.iloc[0]) if len(own) else None,
    )


def describe_choices(config: TuneRun, choices: Sequence[Choice]) -> str:
    """Return the best settings of each network and what their figures are worth."""
    lines = []
    for choice in choices:
        searched = {n: v for n, v in choice.chosen.items() if not _is_fixed(config, choice, n)}
        values = ", ".join(f"{n} = {_show(v)}" for n, v in searched.items()) or "nothing searched"
        own = choice.own_log_loss
        instead = "" if own is None else f" (own settings: {own:.4f})"
        lines.append(
            f"{choice.backbone}: {values}; inner log loss {choice.log_loss:.4f}{instead}, "
            f"AUROC {choice.auroc:.3f}"
        )
    lines.append(
        "An inner-validation figure that chose settings is optimistic: only a test on the hips of "
        f"fold {config.fold}, repeat {config.repeat}, which the search did not see, counts."
    )
    return "\n".join(lines)


def _is_fixed(config: TuneRun, choice: Choice, name: str) -> bool:
    axis = config.offered(choice.backbone)[name]
    return len(axis.choices if isinstance(axis, Axis) else axis) == 1


def _show(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Value:
    plain: Value = value.item() if hasattr(value, "item") else value
    return plain


def own_values(config: TuneRun, backbone: str) -> dict[str, Value] | None:
    """Return the experiment's own settings as a trial; None where the space does not hold them."""
    settings = config.experiment.classifier_of(backbone).model_dump(mode="json")
    own: dict[str, Value] = {"augmentation": 1.0}
    for name, axis in config.offered(backbone).items():
        value = own.setdefault(name, settings.get(name, 1.0))
        if not (axis.holds(value) if isinstance(axis, Axis) else value in axis):
            return None
    return own


def dump_tuned(config: TuneRun, data: DataIdentity, choices: tuple[Choice, ...]) -> str:
    """Return the chosen settings as the configuration of a grid in TOML."""
    origin = TuningOrigin(run=config.run, split=data.split, repeat=config.repeat, fold=config.fold)
    backbones = dict(config.experiment.backbones)
    for choice in choices:
        base = config.experiment.classifier_of(choice.backbone)
        own = backbones.get(choice.backbone, {})
        backbones[choice.backbone] = own | change_settings(base, choice.chosen)
    values = config.experiment.model_dump() | {
        "backbones": backbones,
        "tuning": origin.model_dump(),
    }
    experiment = build_config(Experiment, values).model_dump(mode="json", exclude_none=True)
    grid = {
        "run": f"{config.run}-grid",
        "manifest": config.manifest,
        "regions": [config.region.value],
        "label_types": [config.label_type.value],
        "variants": [config.variant.value],
        "backbones": list(config.backbones),
        "experiment": experiment,
    }
    cell = f"{config.region}, {config.label_type}, {config.variant}"
    head = [
        f"# Settings chosen by `hipray tune`, run '{config.run}', on {cell}:",
        f"# all but fold {config.fold} of repeat {config.repeat} took part in choosing.",
        f"# Tested on hips that did not: --test-folds '[{config.fold}]' with split.repeats = 1.",
        *(f"# {c.backbone}: inner log loss {c.log_loss:.4f}, AUROC {c.auroc:.3f}" for c in choices),
        "",
    ]
    return "\n".join([*head, *_dump_table(("grid",), grid), ""])


def _dump_table(path: tuple[str, ...], table: Mapping[str, Any]) -> list[str]:
    """Lines of one TOML table: its own keys, then the tables below it."""
    plain = {k: v for k, v in table.items() if not isinstance(v, Mapping)}
    lines = [f"[{'.'.join(map(_key, path))}]"]
    # a JSON string or list of strings and numbers is a TOML one (TOML 1.0, "String", "Array")
    lines += [f"{_key(k)} = {json.dumps(v, ensure_ascii=False)}" for k, v in plain.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += ["", *_dump_table((*path, key), value)]
    return lines


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
