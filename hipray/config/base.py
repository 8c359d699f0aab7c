"""How a configuration is read: one frozen model per job, from a preset, a file and `--set a.b=c`.

Unknown keys are refused with the nearest known one. The text under a field is its documentation.
"""

import difflib
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from hipray.errors import ConfigError


class Config(BaseModel):
    """A frozen section of configuration; unknown keys are an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_flags_as_numbers(cls, values: Any) -> Any:
        """To pydantic `true` is the number 1: nobody means that."""
        for name, value in values.items() if isinstance(values, Mapping) else ():
            if isinstance(value, bool) and name in cls.model_fields:
                kinds = _list_kinds(cls.model_fields[name].annotation)
                if {int, float} & kinds and bool not in kinds:
                    raise ValueError(f"{name} must be a number, not {value}")
        return values


def _list_kinds(annotation: Any) -> set[Any]:
    """Return a field's type, and what it is made of."""
    return {annotation}.union(*map(_list_kinds, get_args(annotation)))


ConfigT = TypeVar("ConfigT", bound=Config)


def preset_names() -> list[str]:
    """Return the names that `--preset` accepts."""
    folder = resources.files("hipray.config") / "presets"
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith("toml"))


def read_preset(name: str) -> dict[str, Any]:
    """Return the packaged preset `name` as a nested dictionary."""
    if name not in preset_names():
        raise ConfigError(f"one of the presets {', '.join(preset_names())}", f"'{name}'", "fix it")
    text = (resources.files("hipray.config") / "presets" / f"{name}.toml").read_text("utf-8")
    return tomllib.loads(text)


def load_config(
    model: type[ConfigT],
    *,
    preset: str | None = None,
    path: str | None = None,
    overrides: Sequence[str] = (),
    section: str | None = None,
    sections: Collection[str] = (),
    read: Callable[[str], str] | None = None,
) -> ConfigT:
    """Build `model` from a preset, then a TOML file, then `a.b=c` overrides; later wins.

    A preset or file may serve several jobs: then a top-level table named `section` holds this
    job's keys, and nothing may stand beside it but tables of the jobs in `sections`. `read` gives
    the text at `path` where that is no local file. Raises ConfigError naming the key, what it
    takes and what was given.
    """
    values: dict[str, Any] = {}
    if preset is not None:
        values = _own_section(read_preset(preset), section, ())
    if path is not None:
        values = _merge(
            values, _own_section(_read_toml(path, read or _read_file), section, sections)
        )
    for override in overrides:
        values = _merge(values, _parse_override(override))
    return build_config(model, _keep_texts(model, values, overrides))


def build_config(model: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """Validate `values` as `model`; raise ConfigError with one sentence per problem."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_explain(model, detail) for detail in _drop_consequences(error.errors())]
        raise ConfigError(
            f"a valid {model.__name__} configuration", "; ".join(problems), "correct these keys"
        ) from None


def _drop_consequences(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Leave out that a list is too short where that is so because its own items are wrong."""
    inside = {detail["loc"][:-1] for detail in errors}
    return [e for e in errors if e["type"] != "too_short" or e["loc"] not in inside]


def take_unset(config: ConfigT, other: ConfigT, *, but: Collection[str] = ()) -> ConfigT:
    """Return `config` with each key that it does not set, at any depth, as `other` sets it.

    The top-level keys `but` are its own, set or not. Raises ConfigError where both together mean
    nothing.
    """
    theirs = other.model_dump(exclude_unset=True, exclude={*but})
    return build_config(type(config), _merge(theirs, config.model_dump(exclude_unset=True)))


def list_values(config: Config, *, only_set: bool = False) -> dict[str, Any]:
    """Return the values of a configuration by their keys, as `--set` writes these."""
    return _flatten(config.model_dump(exclude_unset=only_set))


def _flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        below = _flatten(value) if isinstance(value, dict) else None
        flat |= {key: value} if below is None else {f"{key}.{k}": v for k, v in below.items()}
    return flat


def _keep_texts(
    model: type[BaseModel], values: dict[str, Any], overrides: Sequence[str]
) -> dict[str, Any]:
    """Give fields of text what was typed: a run may be called 1 or 2024-05-01."""
    try:
        model.model_validate(values)
    except ValidationError as error:
        texts = {detail["loc"] for detail in error.errors() if detail["type"] == "string_type"}
        for override in overrides:
            path, text = _split_override(override)
            if _list_path(path) in texts:
                values = _merge(values, _fill(path, text))
    return values


def _own_section(
    values: dict[str, Any], section: str | None, sections: Collection[str]
) -> dict[str, Any]:
    if section is None or section not in values:
        return values
    own = values[section]
    if not isinstance(own, dict):
        raise ConfigError(f"a table [{section}]", f"{own!r}", "write its keys below a header")
    strange = [key for key in values if sections and key not in sections]
    if strange:
        raise ConfigError(
            f"only tables of jobs beside [{section}]",
            ", ".join(f"'{key}'" for key in strange),
            f"move it below [{section}] or correct its name",
        )
    return own


def _read_file(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError as error:
        raise ConfigError(
            "a readable TOML file", f"{path} ({error.strerror})", "check the path"
        ) from None


def _read_toml(path: str, read: Callable[[str], str]) -> dict[str, Any]:
    try:
        return tomllib.loads(read(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("valid TOML", f"{path}: {error}", "correct the file") from None


def _parse_override(override: str) -> dict[str, Any]:
    path, text = _split_override(override)
    return _fill(path, _parse_value(text))


def _split_override(override: str) -> tuple[dict[str, Any], str]:
    """Return an override's path as a chain of single keys, and its text."""
    key, _, text = override.partition("=")
    try:
        path = tomllib.loads(f"{key} = 0")  # a name with dots stands in quotes, as in a file
    except tomllib.TOMLDecodeError:
        path = {}
    if not path or "=" not in override:
        raise ConfigError("--set key.path=value", f"'{override}'", "write it so")
    return path, text.strip()


def _list_path(path: dict[str, Any]) -> tuple[str, ...]:
    ((key, rest),) = path.items()
    return (key, *(_list_path(rest) if isinstance(rest, dict) else ()))


def _fill(path: dict[str, Any], value: Any) -> dict[str, Any]:
    """Put `value` at the end of a chain of single keys."""
    ((key, rest),) = path.items()
    return {key: _fill(rest, value) if isinstance(rest, dict) else value}


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a string, as on any command line


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = (
            _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged


LISTS = dict.fromkeys(("tuple_type", "list_type"), """expected a list such as '["a", "b"]'""")
"""What pydantic calls a tuple, a person writes as a list of TOML."""


def _explain(model: type[BaseModel], detail: ErrorDetails) -> str:
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _fields_at(model, detail["loc"][:-1])
        close = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(known)}"
        return f"unknown key '{path}' ({hint})"
    message = LISTS.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    return f"{path or 'configuration'}: {message}" + (
        f" (given {detail['input']!r})" if path and detail["type"] != "missing" else ""
    )


def _fields_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    for part in loc:
        field = model.model_fields.get(str(part))
        if field is None:
            break
        candidates = (field.annotation, *get_args(field.annotation))
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not nested:
            break
        model = nested[0]
    return list(model.model_fields)
