"""Edge: downloads one file over HTTP, resumable. The only place that imports httpx in this package."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import httpx
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from contracts.errors import DownloadFailed, ServiceUnavailable, UsageError

Report = Callable[[int, int | None], None]
"""Called with the bytes that are there, and how many there will be (None when the server does not say)."""

_ATTEMPTS = 5
_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
"""Variables that httpx reads, in either case."""


class _NotFinished(ServiceUnavailable):
    """This attempt ended early; the next one goes on from what is there."""


@dataclass(frozen=True)
class _Version:
    """Which version of the remote file the bytes on disk are of."""

    url: str
    validator: str
    """Strong ETag or Last-Modified; empty when the server gives neither, and nothing can be resumed."""
    total: int | None
    """Bytes of the whole file."""


def current_version(url: str) -> str:
    """The strong ETag, or else Last-Modified, of the file at an address, without downloading it.

    Empty where there is neither; whatever is wrong with the address or the file, `fetch` tells.
    """
    _check_address(url)
    try:
        with _client() as client:
            response = client.head(url)
    except (httpx.HTTPError, ServiceUnavailable):
        return ""
    return _validator(response) if response.status_code == 200 else ""


def fetch(url: str, path: Path, report: Report | None = None, pause: float = 0.5) -> str:
    """Download a file to `path`, going on from what an earlier call left there if it is of the same version.

    Beside `path`, a file `<name>.json` says which version the bytes are of; the caller removes both.

    Args:
        pause: seconds before the first repetition; it doubles each time.

    Returns:
        The version of what is there now, as `current_version` tells it.

    Raises:
        DownloadFailed: the server says that the file is not there (401, 403, 404, 410, other 4xx), or what came is
            not as long as the server promised.
        ServiceUnavailable: the server cannot be reached, or keeps breaking off, or the environment names a proxy that
            cannot be used.
        UsageError: not an http or https address.
    """
    _check_address(url)
    attempt = retry(
        retry=retry_if_exception_type(_NotFinished),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_exponential(multiplier=pause, max=10),
        reraise=True,
    )(_attempt)
    with _client() as client:
        return attempt(client, url, path, report)


def _client() -> httpx.Client:
    try:
        return httpx.Client(timeout=httpx.Timeout(30, connect=5), follow_redirects=True)
    except (ImportError, httpx.InvalidURL, ValueError) as error:
        # Told without its value, which may hold a password. ImportError: SOCKS takes a package that is not there.
        names = ", ".join(sorted(name for name in os.environ if name.lower() in _PROXIES)) or "the system's settings"
        raise ServiceUnavailable(
            f"The proxy that the environment names cannot be used ({type(error).__name__}); an http or https address, "
            f"as http://host:port, was expected. Put it right in {names}, or unset it."
        ) from error


def _check_address(url: str) -> None:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UsageError(f"{url!r} is no address: {error}.") from error
    if parts.scheme not in ("http", "https") or not parts.host:
        raise UsageError(f"{url!r} is no http or https address.")


def _attempt(client: httpx.Client, url: str, path: Path, report: Report | None) -> str:
    version = _load(url, path)
    have = path.stat().st_size if version else 0
    headers = {"Accept-Encoding": "identity"}
    if version and have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version.validator}
    try:
        with client.stream("GET", url, headers=headers) as response:
            if version is not None and _complete(response, version, have):
                return version.validator
            _check_status(response, path)
            _receive(response, url, path, version, have, report)
            return version.validator if version is not None and response.status_code == 206 else _validator(response)
    except httpx.HTTPError as error:
        raise _NotFinished(f"{url} could not be read ({type(error).__name__}: {error}).", url=url) from error


def _complete(response: httpx.Response, version: _Version, have: int) -> bool:
    """Whether the server says that the bytes on disk are all there are of the same version."""
    return response.status_code == 416 and version.total == have


def _check_status(response: httpx.Response, path: Path) -> None:
    status, url = response.status_code, response.request.url
    if status in (200, 206):
        return
    if status == 416:
        _version_file(path).unlink(missing_ok=True)
        raise _NotFinished(f"{url} is shorter than what was downloaded before; starting anew.")
    if status >= 500 or status in (408, 429):
        raise _NotFinished(f"The server of {url} is not ready (HTTP {status}).")
    raise DownloadFailed(f"{url} cannot be had (HTTP {status}).", url=str(url), status=status)


def _receive(
    response: httpx.Response, url: str, path: Path, version: _Version | None, have: int, report: Report | None
) -> None:
    resumed = response.status_code == 206
    if resumed:
        start, total = _content_range(response)
        if version is None or start != have or total != version.total:
            _version_file(path).unlink(missing_ok=True)
            raise _NotFinished(f"{url} answered with another part than was asked for; starting anew.")
    else:
        have, total = 0, _content_length(response)
        # The file is cut before its version is noted: a crash in between leaves nothing that looks resumable.
        path.write_bytes(b"")
        _save(_Version(url, _validator(response), total), path)
    with path.open("r+b") as file:
        file.seek(have)
        have = _copy(response, file, have, total, report)
    if total is not None and have != total:
        _version_file(path).unlink(missing_ok=True)
        raise DownloadFailed(f"{url} gave {have} bytes where {total} were promised. Try again later.", url=url)


def _copy(response: httpx.Response, file: BinaryIO, have: int, total: int | None, report: Report | None) -> int:
    for chunk in response.iter_raw():
        file.write(chunk)
        have += len(chunk)
        if report:
            report(have, total)
    return have


def _content_range(response: httpx.Response) -> tuple[int, int | None]:
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("content-range", ""))
    if found is None:
        return -1, None
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _content_length(response: httpx.Response) -> int | None:
    length = response.headers.get("content-length", "")
    return int(length) if length.isdecimal() else None


def _validator(response: httpx.Response) -> str:
    etag = str(response.headers.get("etag", ""))
    # A weak ETag may not stand in If-Range (RFC 9110, 13.1.5).
    return etag if etag.startswith('"') else str(response.headers.get("last-modified", ""))


def _version_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _save(version: _Version, path: Path) -> None:
    _version_file(path).write_text(json.dumps(asdict(version)), "utf-8")


def _load(url: str, path: Path) -> _Version | None:
    """The version of the bytes on disk, or None when they cannot be gone on from."""
    try:
        version = _Version(**json.loads(_version_file(path).read_text("utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    resumable = version.url == url and bool(version.validator) and version.total is not None and path.is_file()
    return version if resumable else None
