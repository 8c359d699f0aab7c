"""The command line: `hipray <job> [--preset NAME] [--config FILE] [--set a.b=c]`.

`jobs/<job>.py` calls the same `main`, so a laptop, `ray job submit` and a Kubernetes RayJob run
the same thing. The command line never grows: every key of a job's configuration is reached by
`--set`, and each of its plain top-level keys also as `--key VALUE`.
"""

import argparse
import difflib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, get_args

from pydantic import BaseModel

from hipray import RESEARCH_NOTICE, __version__
from hipray.config import jobs
from hipray.config.base import Config, load_config, preset_names
from hipray.config.benchmarks import BenchRun
from hipray.config.storage import StorageSettings
from hipray.config.tuning import TuneRun
from hipray.errors import ConfigError, HiprayError


@dataclass(frozen=True)
class Command:
    """One job: its configuration and the function that does it."""

    config: type[Config]
    call: str
    """`module:function`, imported when the job runs: `hipray --help` loads no torch."""
    positional: str | None = None
    """Key that may be given without its name."""
    preset: str | None = None
    """Preset taken where none is named."""
    section: str | None = None
    """Table of a preset or file that holds its keys; default: its own name."""


COMMANDS: dict[str, Command] = {
    "demo": Command(jobs.DemoRun, "hipray.demo:run_demo", preset="demo"),
    "phantom": Command(jobs.PhantomRun, "hipray.commands:phantom"),
    "ingest": Command(jobs.IngestRun, "hipray.commands:ingest"),
    "segment": Command(jobs.SegmentRun, "hipray.commands:segment", section="grid"),
    "grid": Command(jobs.GridRun, "hipray.commands:grid"),
    "tune": Command(TuneRun, "hipray.commands:tune"),
    "status": Command(jobs.StatusRun, "hipray.commands:status", positional="run"),
    "report": Command(jobs.ReportRun, "hipray.commands:report", positional="run"),
    "release": Command(jobs.ReleaseRun, "hipray.commands:release"),
    "predict": Command(jobs.PredictRun, "hipray.commands:predict", positional="file"),
    "serve": Command(jobs.ServeRun, "hipray.commands:serve"),
    "score": Command(jobs.ScoreRun, "hipray.commands:score"),
    "plan": Command(jobs.PlanRun, "hipray.commands:plan", positional="job"),
    "skill": Command(jobs.SkillRun, "hipray.skill:run_skill", preset="skill"),
    "bench": Command(BenchRun, "hipray.commands:bench", positional="name"),
}
"""Every job by its name."""

DRY_RUN = "hipray.commands:dry_run"
"""What `--dry-run` calls instead, with any job's configuration."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one job and return its exit code; a user's mistake is one sentence on stderr."""
    options = _parse(arguments)
    logging.basicConfig(
        level=options.log_level.upper(), format="%(levelname)s %(name)s: %(message)s"
    )
    command = COMMANDS[options.job]
    try:
        config = _read_config(command, options)
        _load(DRY_RUN if options.dry_run else command.call)(config)
    except HiprayError as error:
        print(f"hipray {options.job}: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        print(f"hipray {options.job}: interrupted", file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; an unknown option ends with the known one that is nearest."""
    parser = _build_parser()
    options, strange = parser.parse_known_args(arguments)
    if strange:
        known = [flag for action in _options_of(parser, options.job) for flag in action]
        close = difflib.get_close_matches(strange[0].partition("=")[0], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"see hipray {options.job} --help"
        print(f"hipray {options.job}: unknown option {strange[0]}; {hint}", file=sys.stderr)  # noqa: T201
        raise SystemExit(ConfigError.exit_code)
    return options


def _options_of(parser: argparse.ArgumentParser, job: str) -> Iterator[Sequence[str]]:
    for action in parser._actions:  # argparse has no public way to list them
        if isinstance(action, argparse._SubParsersAction):
            yield from (each.option_strings for each in action.choices[job]._actions)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hipray", description=RESEARCH_NOTICE)
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="job", required=True, metavar="JOB")
    for name, command in COMMANDS.items():
        summary = (command.config.__doc__ or "").strip().splitlines()[0]
        sub = subparsers.add_parser(
            name, help=summary, description=f"{summary} {RESEARCH_NOTICE}", allow_abbrev=False
        )
        _add_options(sub, command)
    return parser


def _add_options(parser: argparse.ArgumentParser, command: Command) -> None:
    parser.add_argument("--preset", metavar="NAME", help=f"one of {', '.join(preset_names())}")
    parser.add_argument("--config", metavar="FILE", help="TOML file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="override one key, for example scaling.lanes=4",
    )  # fmt: skip
    parser.add_argument("--log-level", default="warning", help="debug, info, warning or error")
    parser.add_argument(
        "--dry-run", action="store_true",
        help="print the plan and check it: inputs, store, resources, token, versions",
    )  # fmt: skip
    for key, field in command.config.model_fields.items():
        if _is_section(field.annotation):
            continue
        text = (field.description or "").replace("%", "%%")
        if key == command.positional:
            parser.add_argument(f"key_{key}", nargs="?", metavar=key.upper(), help=text)
        else:
            flag = f"--{key.replace('_', '-')}"
            parser.add_argument(flag, dest=f"key_{key}", metavar="VALUE", help=text)


def _is_section(annotation: Any) -> bool:
    parts = (annotation, *get_args(annotation))
    return any(isinstance(part, type) and issubclass(part, BaseModel) for part in parts)


def _read_config(command: Command, options: argparse.Namespace) -> Config:
    named = [
        f"{key}={getattr(options, f'key_{key}')}"
        for key in command.config.model_fields
        if getattr(options, f"key_{key}", None) is not None
    ]
    overrides = [*options.overrides, *named]
    remote = "://" in (options.config or "")
    return load_config(
        command.config,
        preset=options.preset or command.preset,
        path=options.config,
        read=partial(_read_object, overrides=overrides) if remote else None,
        overrides=overrides,
        section=command.section or options.job,
        sections={*COMMANDS, *jobs.DemoRun.model_fields, *jobs.SkillRun.model_fields},
    )


def _read_object(uri: str, *, overrides: Sequence[str]) -> str:
    """Return the text of an object; `overrides` may say how its store is reached."""
    from hipray.storage import open_file

    own = [text.removeprefix("storage.") for text in overrides if text.startswith("storage.")]
    store, key = open_file(uri, load_config(StorageSettings, overrides=own))
    return store.read(key).decode("utf-8")


def _load(path: str) -> Callable[[Any], None]:
    module, _, name = path.partition(":")
    function: Callable[[Any], None] = getattr(import_module(module), name)
    return function


if __name__ == "__main__":
    raise SystemExit(main())
