"""Resumable downloads, against a local web server that breaks off on demand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.errors import DownloadFailed, ServiceUnavailable, UsageError
from ingest.fetch import current_version, fetch
from tests.ingest.web import Site, serve

CONTENT = bytes(range(256)) * 1000
SIZE = len(CONTENT)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' server is on this machine whatever proxy the machine uses."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(Site(files={"/file": CONTENT})) as site:
        yield site


def test_cut_download_goes_on_where_it_was_cut(site: Site, tmp_path: Path) -> None:
    site.cuts = [100_000]
    fetch(f"{site.url}/file", tmp_path / "out", pause=0)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert site.requests == [("/file", None, 200), ("/file", "bytes=100000-", 206)]


def test_later_call_goes_on_where_an_earlier_one_gave_up(site: Site, tmp_path: Path) -> None:
    site.cuts = [50_000, 1000, 1000, 1000, 1000]
    with pytest.raises(ServiceUnavailable):
        fetch(f"{site.url}/file", tmp_path / "out", pause=0)
    fetch(f"{site.url}/file", tmp_path / "out", pause=0)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert site.requests[-1] == ("/file", "bytes=54000-", 206)


def test_whole_file_on_disk_is_not_downloaded_again(site: Site, tmp_path: Path) -> None:
    fetch(f"{site.url}/file", tmp_path / "out", pause=0)
    fetch(f"{site.url}/file", tmp_path / "out", pause=0)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert [status for _, _, status in site.requests] == [200, 416]


def test_content_that_changed_meanwhile_is_downloaded_anew(site: Site, tmp_path: Path) -> None:
    site.cuts = [100_000] * 5
    site.ranges = False
    with pytest.raises(ServiceUnavailable):
        fetch(f"{site.url}/file", tmp_path / "out", pause=0)
    site.ranges = True
    site.files["/file"] = CONTENT[::-1]
    fetch(f"{site.url}/file", tmp_path / "out", pause=0)
    assert (tmp_path / "out").read_bytes() == CONTENT[::-1]
    assert site.requests[-1] == ("/file", "bytes=100000-", 200)


def test_shorter_new_content_replaces_longer_old(site: Site, tmp_path: Path) -> None:
    fetch(f"{site.url}/file", tmp_path / "out", pause=0)
    site.files["/file"] = b"short"
    fetch(f"{site.url}/file", tmp_path / "out", pause=0)
    assert (tmp_path / "out").read_bytes() == b"short"


def test_server_without_a_strong_etag_is_asked_for_the_whole_again(site: Site, tmp_path: Path) -> None:
    site.weak_etags = True
    site.cuts = [100_000]
    fetch(f"{site.url}/file", tmp_path / "out", pause=0)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert site.requests == [("/file", None, 200), ("/file", None, 200)]


def test_part_of_another_address_is_not_gone_on_from(site: Site, tmp_path: Path) -> None:
    site.files["/other"] = CONTENT[::-1]
    site.cuts = [1000] * 5
    with pytest.raises(ServiceUnavailable):
        fetch(f"{site.url}/other", tmp_path / "out", pause=0)
    fetch(f"{site.url}/file", tmp_path / "out", pause=0)
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_server_that_never_gives_what_it_promises_is_given_up(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    site.cuts = [SIZE - 1] * 10
    with pytest.raises(ServiceUnavailable, match="could not be read"):
        fetch(f"{site.url}/file", tmp_path / "out", pause=0)
    assert len(site.requests) == 5


def test_server_error_is_tried_again(site: Site, tmp_path: Path) -> None:
    site.failures = [500, 503, 429]
    fetch(f"{site.url}/file", tmp_path / "out", pause=0)
    assert (tmp_path / "out").read_bytes() == CONTENT


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_refusal_is_final_at_once(site: Site, tmp_path: Path, status: int) -> None:
    site.failures = [status, status]
    with pytest.raises(DownloadFailed, match=f"HTTP {status}"):
        fetch(f"{site.url}/file", tmp_path / "out", pause=0)
    assert len(site.requests) == 1


def test_progress_counts_what_an_earlier_call_left(site: Site, tmp_path: Path) -> None:
    site.cuts = [100_000]
    seen: list[tuple[int, int | None]] = []
    fetch(f"{site.url}/file", tmp_path / "out", lambda *report: seen.append(report), pause=0)
    assert seen == sorted(seen)
    assert seen[-1] == (SIZE, SIZE)


def test_damaged_note_of_the_version_starts_anew(site: Site, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"left over")
    (tmp_path / "out.json").write_text("{")
    fetch(f"{site.url}/file", tmp_path / "out", pause=0)
    assert (tmp_path / "out").read_bytes() == CONTENT


@pytest.mark.parametrize("value", ["http://user:taken@host:no-port", "ftp://user:taken@host", "socks5://host:1"])
def test_proxy_that_cannot_be_used_is_told_by_its_variable_and_without_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(ServiceUnavailable, match="Put it right in ALL_PROXY") as told:
        fetch("http://tlc.example/file", tmp_path / "out", pause=0)
    assert "taken" not in told.value.message
    assert current_version("http://tlc.example/file") == ""


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/file", "no address", "http://", "http://host:port/"])
def test_only_http_addresses_are_fetched(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError):
        fetch(url, tmp_path / "out", pause=0)
