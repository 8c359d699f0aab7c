"""Whose an output is: one archive, one selection of it, and one key of pseudonyms."""

import json
import platform
from collections.abc import Mapping

from hipray.config.jobs import ScoreRun
from hipray.data.pseudonyms import KEY_FILE, Pseudonyms, has_pseudonyms, load_pseudonyms
from hipray.errors import ConfigError
from hipray.storage import Store, open_store

RUN_KEY = "run.json"
KEY_OF_CLAIM = "pseudonym_key"
"""Field of RUN_KEY: the fingerprint of the key that made the pseudonyms of all rows."""


def claim_output(config: ScoreRun, output: Store) -> None:
    """Make the output that of this selection of this archive and of the workspace's pseudonyms.

    Raises ConfigError for another's: the same patient would be two.
    """
    claim = {"archive": config.images, "select": config.select.model_dump(mode="json")}
    known = json.loads(output.read(RUN_KEY)) if output.exists(RUN_KEY) else {}
    key = known.pop(KEY_OF_CLAIM, None)
    if known and known != claim:
        raise ConfigError(
            f"an output for {_describe_claim(claim)}",
            f"that of {_describe_claim(known)}",
            "choose another output",
        )
    workspace = open_store(config.workspace, config.storage)
    if key:
        _load_known(workspace, key, output)
    else:
        claim[KEY_OF_CLAIM] = load_pseudonyms(workspace).fingerprint
        output.write(RUN_KEY, json.dumps(claim).encode())


def load_claimed_pseudonyms(config: ScoreRun, output: Store) -> Pseudonyms:
    """Return the pseudonyms that an output was claimed with, on any machine of its run.

    Raises ConfigError where this machine's workspace has another key or none: a folder that is not
    mounted here would get a key of its own, and each patient two pseudonyms.
    """
    key = json.loads(output.read(RUN_KEY))[KEY_OF_CLAIM]
    return _load_known(open_store(config.workspace, config.storage), key, output)


def _load_known(workspace: Store, fingerprint: str, output: Store) -> Pseudonyms:
    if has_pseudonyms(workspace):
        found = load_pseudonyms(workspace)
        if found.fingerprint == fingerprint:
            return found
    raise ConfigError(
        f"the pseudonym key that the rows of {output.uri} are made with",
        f"another or none in {workspace.uri} on {platform.node()}",
        f"mount or restore {workspace.uri_of(KEY_FILE)}, or choose another output",
    )


def _describe_claim(claim: Mapping[str, object]) -> str:
    chosen = claim.get("select")
    narrowed = {k: v for k, v in chosen.items() if v} if isinstance(chosen, dict) else {}
    return f"{claim['archive']}" + (f" with select {narrowed}" if narrowed else "")
