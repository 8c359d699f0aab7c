"""What a release that takes another's place takes over: every setting that is not said anew.

So a swap that names a release alone neither opens an endpoint nor forgets what it may read.
"""

from hipray.config.base import list_values, take_unset
from hipray.config.jobs import ServeRun

OWN = ("workspace", "release", "allow_phantom_release", "block")
"""What each command says for itself: where the release lies, and that phantoms may answer."""

ADDRESS = ("host", "port")
"""What stays in any case."""


def inherit_settings(config: ServeRun, before: ServeRun) -> ServeRun:
    """Return a configuration with what it does not set itself as the running endpoint has it."""
    return take_unset(config, before, but=OWN)


def tell_inherited(config: ServeRun, before: ServeRun) -> str:
    """Return what a configuration keeps of the running endpoint's settings, and what it changes.

    `config` is as it was given; keys are told and no values. Empty where nothing is to tell.
    """
    said = list_values(config, only_set=True).keys() - {*OWN, *ADDRESS}
    kept = sorted(list_values(before, only_set=True).keys() - said - {*OWN, *ADDRESS})
    new, old = list_values(config), list_values(before)
    changed = sorted(key for key in said if new[key] != old[key])
    parts = [f"keeps {', '.join(kept)}"] * bool(kept)
    parts += [f"changes {', '.join(changed)}"] * bool(changed)
    if before.guarded and not inherit_settings(config, before).guarded:
        parts.append("asks for no token any more")
    return " and ".join(parts)
