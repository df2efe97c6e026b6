"""A small web server for the download tests: files with ranges and etags, and faults on demand."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server serves, and how it misbehaves."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    """Each of the next answers ends after so many bytes of its body."""
    failures: list[int] = field(default_factory=list)
    """Each of the next answers has this status and no body."""
    ranges: bool = True
    weak_etags: bool = False
    requests: list[tuple[str, str | None, int]] = field(default_factory=list)
    """Path, Range header (of a HEAD, that word) and status of each answer so far."""

    def etag(self, content: bytes) -> str:
        """The etag that the server gives for some content."""
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        return f"W/{etag}" if self.weak_etags else etag


@contextmanager
def serve(site: Site) -> Iterator[Site]:
    """Serve a site on a free loopback port until the block ends."""

    class Handler(_Handler):
        served = site

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Site

    def do_GET(self) -> None:
        site = self.served
        content = site.files.get(self.path)
        if site.failures:
            self._answer(site.failures.pop(0), b"", {})
        elif content is None:
            self._answer(404, b"", {})
        else:
            self._serve(content)

    def do_HEAD(self) -> None:
        content = self.served.files.get(self.path)
        self.served.requests.append((self.path, "HEAD", 404 if content is None else 200))
        self.send_response(404 if content is None else 200)
        if content is not None:
            self.send_header("ETag", self.served.etag(content))
        self.end_headers()

    def _serve(self, content: bytes) -> None:
        site, size = self.served, len(content)
        headers = {"ETag": site.etag(content)}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not asked or not site.ranges or self.headers.get("If-Range") != site.etag(content):
            self._answer(200, content, headers)
            return
        start = int(asked[1])
        if start >= size:
            self._answer(416, b"", headers | {"Content-Range": f"bytes */{size}"})
        else:
            self._answer(206, content[start:], headers | {"Content-Range": f"bytes {start}-{size - 1}/{size}"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        site = self.served
        site.requests.append((self.path, self.headers.get("Range"), status))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body and site.cuts:
            body = body[: site.cuts.pop(0)]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests look at `requests` instead."""
