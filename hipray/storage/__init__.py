"""The one door to local folders and S3: open_store, Store and the leases on top of it."""

from hipray.storage.addresses import ANY_SCHEME, Scheme, parse_address
from hipray.storage.leases import (
    Lease,
    LeaseInfo,
    acquire,
    acquire_when_silent,
    check_still_held,
    hold,
    holder,
    list_held,
    list_unreleased,
    read_claim,
)
from hipray.storage.open import check_store, lies_within, open_file, open_store
from hipray.storage.store import (
    InvalidKeyError,
    ObjectChangedError,
    ObjectInfo,
    ObjectTooLargeError,
    Store,
    check_foreign_key,
    check_key,
)

__all__ = [
    "ANY_SCHEME",
    "InvalidKeyError",
    "Lease",
    "LeaseInfo",
    "ObjectChangedError",
    "ObjectInfo",
    "ObjectTooLargeError",
    "Scheme",
    "Store",
    "acquire",
    "acquire_when_silent",
    "check_foreign_key",
    "check_key",
    "check_still_held",
    "check_store",
    "hold",
    "holder",
    "lies_within",
    "list_held",
    "list_unreleased",
    "open_file",
    "open_store",
    "parse_address",
    "read_claim",
]
