"""Pseudonyms: patient ids and file names leave ingest only as keyed hashes.

The key stays in the workspace; without it a pseudonym cannot be traced by trying all numbers.
"""

import hashlib
import hmac
import secrets
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

    def _hash(self, kind: str, text: str) -> str:
        return hmac.new(self._key, f"{kind}:{text}".encode(), hashlib.sha256).hexdigest()[:20]


def load_pseudonyms(store: Store) -> Pseudonyms:
    """Return the workspace's pseudonyms; its key is made by the first who asks."""
    if not store.exists(KEY_FILE):
        store.create(KEY_FILE, secrets.token_bytes(KEY_BYTES))
        _keep_private(store.local_path(KEY_FILE))
    return Pseudonyms(store.read(KEY_FILE))


def _keep_private(path: Path | None) -> None:
    """Let only the owner read the key: with it every id can be tried."""
    if path is not None:
        path.chmod(0o600)
        path.parent.chmod(0o700)
