"""Pseudonyms: patient ids and file names leave ingest only as keyed hashes.

The key stays in the workspace; without it a pseudonym cannot be traced by trying all numbers.
"""

import hashlib
import hmac
import secrets
from contextlib import suppress
from pathlib import Path

from hipray.storage import Store

KEY_FILE = "secrets/pseudonym.key"
KEY_BYTES = 32


class Pseudonyms:
    """Hashes names with the workspace's key (HMAC-SHA256)."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def patient(self, raw: str) -> str:
        """Return the pseudonym of a patient id."""
        return f"p-{self._hash('patient', raw.strip().upper())}"

    def file(self, key: str) -> str:
        """Return the pseudonym of a file name."""
        return f"f-{self._hash('file', key)}"

    @property
    def fingerprint(self) -> str:
        """What tells this key from others, and nothing of the key itself."""
        return self._hash("key", "fingerprint")

    def _hash(self, kind: str, text: str) -> str:
        return hmac.new(self._key, f"{kind}:{text}".encode(), hashlib.sha256).hexdigest()[:20]


def has_pseudonyms(store: Store) -> bool:
    """Tell whether a workspace has its key already."""
    return store.exists(KEY_FILE)


def load_pseudonyms(store: Store) -> Pseudonyms:
    """Return the workspace's pseudonyms; its key is made by the first who asks."""
    path = store.local_path(KEY_FILE)
    _close(path)
    if not store.exists(KEY_FILE):
        store.create(KEY_FILE, secrets.token_bytes(KEY_BYTES))
    _close(path)
    return Pseudonyms(store.read(KEY_FILE))


def _close(path: Path | None) -> None:
    """Let only the owner read the key and its folder: with it every id can be tried."""
    if path is None:
        return
    # another owner's is theirs to close, and what cannot be written the store explains
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        if path.exists():
            path.chmod(0o600)
