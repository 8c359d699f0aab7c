"""Stores a film in an Orthanc and reads it back as the endpoint does; run inside its network."""

import hashlib
import json
import sys
import time
from pathlib import Path

import httpx

from hipray.config.serving import Pacs
from hipray.errors import AccessDeniedError, NotFoundError
from hipray.serving.pacs import PacsSource

USER = ("u", "p")
BASIC = "Basic dTpw"


def wait_for(url: str) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            httpx.get(f"{url}/system", auth=USER).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise SystemExit("Orthanc does not answer")


def main(url: str, film: Path, uri: str) -> None:
    wait_for(url)
    httpx.post(f"{url}/instances", content=film.read_bytes(), auth=USER).raise_for_status()
    secret = film.with_name("authorization")
    secret.write_text(BASIC)
    given = {"name": "orthanc", "url": f"{url}/dicom-web"}
    known = PacsSource([Pacs(**given, authorization_file=str(secret))], max_bytes=10_000_000)
    told = {"sha256": hashlib.sha256(known.read(uri)).hexdigest(), "missing": "", "denied": ""}
    try:
        known.read(f"{uri}.9")
    except NotFoundError as error:
        told["missing"] = str(error)
    try:
        PacsSource([Pacs(**given)], max_bytes=10_000_000).read(uri)
    except AccessDeniedError as error:
        told["denied"] = str(error)
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
