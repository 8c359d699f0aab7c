"""An S3 server on loopback that lists as SeaweedFS does: folder by folder, each by its names.

`P1/x` comes before `P1-L/x`, and a listing that starts after the name of a folder skips it whole.
"""

import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

from hipray.config.storage import StorageSettings
from hipray.storage import Store, open_store

CONTENTS = (
    "<Contents><Key>{}</Key><Size>1</Size><ETag>e</ETag>"
    "<LastModified>2025-01-01T00:00:00Z</LastModified></Contents>"
)
FOLDER = "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>"
MORE = "<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>"


class FolderOrderS3:
    """Holds keys of `s3://bucket` and answers listings, and HEAD requests, of them."""

    def __init__(self, keys: Sequence[str], *, repeats_marker: bool = False, page: int = 3) -> None:
        self.keys = list(keys)
        self._repeats_marker = repeats_marker
        self._page = page
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def store(self, prefix: str = "", **settings: object) -> Store:
        url = f"http://127.0.0.1:{self._server.server_port}"
        known = StorageSettings.model_validate({"endpoint_url": url, "max_attempts": 1, **settings})
        return open_store(f"s3://bucket/{prefix}", known)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def list(self, asked: dict[str, str]) -> str:
        """Return the answer to a listing."""
        after = asked.get("continuation-token") or asked.get("start-after", "")
        listed = self._shown(asked.get("prefix", ""), asked.get("delimiter", ""))
        repeated = [after] if self._repeats_marker and after in self.keys else []
        found = repeated + [key for key in listed if _is_behind(key, after)]
        page = found[: min(self._page, int(asked.get("max-keys", "1000")))]
        shown = (FOLDER if key.endswith("/") else CONTENTS for key in page)
        text = "".join(form.format(escape(key)) for form, key in zip(shown, page, strict=True))
        more = MORE.format(escape(page[-1].rstrip("/"))) if len(page) < len(found) else ""
        return f"<ListBucketResult>{text}{more}</ListBucketResult>"

    def _shown(self, prefix: str, delimiter: str) -> Sequence[str]:
        """Return keys, or the first folders on their way, in the order of the names in a path."""
        keys = [key for key in self.keys if key.startswith(prefix)]
        if delimiter:
            rests = (key[len(prefix) :].partition("/") for key in keys)
            keys = [prefix + name + slash for name, slash, _ in rests]
        return sorted(set(keys), key=lambda key: key.rstrip("/").split("/"))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                asked = {name: values[0] for name, values in query.items()}
                self._answer(200, server.list(asked).encode())

            def do_HEAD(self) -> None:
                there = urlsplit(self.path).path.removeprefix("/bucket/") in server.keys
                self._answer(200 if there or self.path == "/bucket" else 404, b"")

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("ETag", '"e"')
                self.send_header("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _is_behind(key: str, marker: str) -> bool:
    if not marker:
        return True
    names, before = key.rstrip("/").split("/"), marker.rstrip("/").split("/")
    return names > before and names[: len(before)] != before
