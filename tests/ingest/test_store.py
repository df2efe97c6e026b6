"""The store's edge, against a real MinIO."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import minio.time
import pytest

from contracts.errors import (
    NotRunning,
    ObjectChanged,
    ObjectGone,
    ObjectTooLarge,
    ServiceUnavailable,
    StoreRefused,
    UsageError,
)
from contracts.settings import Settings
from ingest import store as store_module
from ingest.store import Store, store_for

HOSTILE_KEYS = {
    "spaces": "a b/c  d.parquet",
    "plus": "a+b/c++d.parquet",
    "percent": "100%/%2F%41.parquet",
    "quotes": 'it\'s/"quoted".parquet',
    "not-ascii": "Zürich/東京 🚕.parquet",
    "query-and-fragment": "a?x=1&y=2#z;.parquet",
    "markup": "<Key>&amp;.parquet",
    "shell": "$(reboot)`id`|;*.parquet",
}


@pytest.fixture
def folder() -> str:
    """A prefix of this test alone."""
    return f"t-{uuid.uuid4().hex}/"


@pytest.mark.parametrize("name", HOSTILE_KEYS.values(), ids=HOSTILE_KEYS.keys())
def test_any_key_comes_back_as_it_was_put(ingest: Store, folder: str, name: str) -> None:
    key = folder + name
    put = ingest.put_bytes("bronze", key, b"content")
    found = ingest.stat("bronze", key)
    assert found is not None
    assert (found.bucket, found.key, found.etag, found.size) == (put.bucket, key, put.etag, 7)
    assert [item.key for item in ingest.list("bronze", folder)] == [key]
    assert ingest.get_bytes("bronze", key, limit=7) == b"content"


@pytest.mark.parametrize("name", HOSTILE_KEYS.values(), ids=HOSTILE_KEYS.keys())
def test_any_key_can_be_copied_to_quarantine(spark: Store, ingest: Store, root: Store, folder: str, name: str) -> None:
    key = folder + name
    put = ingest.put_bytes("bronze", key, b"content")
    spark.copy("bronze", key, put.etag, "quarantine", key)
    assert root.get_bytes("quarantine", key, limit=10) == b"content"


@pytest.mark.parametrize("key", ["a/../b", "./a", "", "x" * 1100], ids=["dots", "dot", "empty", "too-long"])
def test_a_name_that_the_store_cannot_hold_is_refused(ingest: Store, key: str) -> None:
    with pytest.raises(StoreRefused):
        ingest.put_bytes("bronze", key, b"content")


def test_stat_of_a_missing_object_is_none(ingest: Store, folder: str) -> None:
    assert ingest.stat("bronze", folder + "nothing") is None


def test_stat_in_a_missing_bucket_is_an_error_and_not_none(root: Store) -> None:
    with pytest.raises(ObjectGone, match="NoSuchBucket"):
        root.stat("no-such-bucket", "key")


def test_put_tells_etag_size_and_time(ingest: Store, folder: str) -> None:
    put = ingest.put_bytes("bronze", folder + "x", b"abc")
    assert put.etag == hashlib.md5(b"abc", usedforsecurity=False).hexdigest()
    assert put.size == 3
    assert abs(put.last_modified - datetime.now(UTC)) < timedelta(minutes=5)


def test_put_file_reports_every_byte(ingest: Store, folder: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)
    seen: list[int] = []
    assert ingest.put_file("bronze", folder + "x", path, progress=seen.append).size == 100_000
    assert sum(seen) == 100_000


def test_file_above_the_part_size_is_put_in_parts(
    ingest: Store, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PART_BYTES", 5 * 1024 * 1024)
    content = bytes(range(256)) * 4096 * 11
    (tmp_path / "file").write_bytes(content)
    put = ingest.put_file("bronze", folder + "x", tmp_path / "file")
    assert put.etag.endswith("-3")
    found = ingest.stat("bronze", folder + "x")
    assert found is not None
    assert (found.etag, found.size) == (put.etag, len(content))
    assert ingest.get_bytes("bronze", folder + "x", limit=len(content)) == content


@pytest.mark.parametrize("size", [0, 1, 5 * 1024**2, 5 * 1024**2 + 1, 10 * 1024**2], ids=str)
def test_etag_of_a_file_is_known_before_it_is_put(
    ingest: Store, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(store_module, "PART_BYTES", 5 * 1024**2)
    (tmp_path / "file").write_bytes(bytes(size))
    assert (
        store_module.content_etag(tmp_path / "file") == ingest.put_file("bronze", folder + "x", tmp_path / "file").etag
    )


def test_put_that_its_progress_ends_leaves_the_object_as_it_was(ingest: Store, folder: str, tmp_path: Path) -> None:
    def stop(length: int) -> None:
        raise KeyboardInterrupt

    before = ingest.put_bytes("bronze", folder + "x", b"before")
    (tmp_path / "file").write_bytes(bytes(3_000_000))
    with pytest.raises(KeyboardInterrupt):
        ingest.put_file("bronze", folder + "x", tmp_path / "file", progress=stop)
    found = ingest.stat("bronze", folder + "x")
    assert found is not None
    assert found.etag == before.etag


def test_source_of_a_file_is_kept_with_its_object(ingest: Store, folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    ingest.put_file("bronze", folder + "x", tmp_path / "file", source='http://x/y "version"')
    found = ingest.stat("bronze", folder + "x")
    assert found is not None
    assert found.source == 'http://x/y "version"'


def test_missing_file_is_a_usage_error(ingest: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'gone'"):
        ingest.put_file("bronze", "x", tmp_path / "gone")


def test_get_bytes_refuses_more_than_its_limit(ingest: Store, folder: str) -> None:
    ingest.put_bytes("bronze", folder + "x", b"12345")
    with pytest.raises(ObjectTooLarge, match="5 bytes; at most 4"):
        ingest.get_bytes("bronze", folder + "x", limit=4)


def test_get_bytes_of_a_version_refuses_other_content(ingest: Store, folder: str) -> None:
    first = ingest.put_bytes("bronze", folder + "x", b"1")
    assert ingest.get_bytes("bronze", folder + "x", limit=4, etag=first.etag) == b"1"
    ingest.put_bytes("bronze", folder + "x", b"2")
    with pytest.raises(ObjectChanged):
        ingest.get_bytes("bronze", folder + "x", limit=4, etag=first.etag)


def test_get_of_a_missing_object_says_that_it_is_gone(ingest: Store, folder: str) -> None:
    with pytest.raises(ObjectGone, match="NoSuchKey"):
        ingest.get_bytes("bronze", folder + "x", limit=4)


@pytest.mark.parametrize(
    ("offset", "length", "expected"), [(0, 2, b"01"), (7, 3, b"789"), (8, 100, b"89"), (3, 0, b"")]
)
def test_get_range_reads_just_that(ingest: Store, folder: str, offset: int, length: int, expected: bytes) -> None:
    ingest.put_bytes("bronze", folder + "x", b"0123456789")
    assert ingest.get_range("bronze", folder + "x", offset, length) == expected


def test_get_range_behind_the_end_is_refused(ingest: Store, folder: str) -> None:
    ingest.put_bytes("bronze", folder + "x", b"0123456789")
    with pytest.raises(StoreRefused, match="InvalidRange"):
        ingest.get_range("bronze", folder + "x", 10, 5)


def test_store_whose_clock_is_far_from_ours_is_asked_again_later(
    ingest: Store, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = minio.time.utcnow
    monkeypatch.setattr(minio.time, "utcnow", lambda: now() + timedelta(hours=2))
    with pytest.raises(ServiceUnavailable, match="clocks"):
        ingest.put_bytes("bronze", folder + "x", b"x")
    monkeypatch.undo()
    ingest.put_bytes("bronze", folder + "x", b"x")


def test_copy_refuses_a_source_that_has_changed(ingest: Store, spark: Store, root: Store, folder: str) -> None:
    old = ingest.put_bytes("bronze", folder + "x", b"old")
    ingest.put_bytes("bronze", folder + "x", b"new")
    with pytest.raises(ObjectChanged):
        spark.copy("bronze", folder + "x", old.etag, "quarantine", folder + "x")
    assert root.stat("quarantine", folder + "x") is None


def test_copy_of_a_missing_source_says_that_it_is_gone(spark: Store, folder: str) -> None:
    with pytest.raises(ObjectGone):
        spark.copy("bronze", folder + "x", "0" * 32, "quarantine", folder + "x")


def test_list_goes_below_folders_and_takes_only_the_prefix(ingest: Store, folder: str) -> None:
    for name in ("b/2", "b/1", "a", "c/d/e"):
        ingest.put_bytes("bronze", folder + name, b"x")
    assert [item.key for item in ingest.list("bronze", folder)] == [folder + n for n in ("a", "b/1", "b/2", "c/d/e")]
    assert [item.key for item in ingest.list("bronze", folder + "b/")] == [folder + "b/1", folder + "b/2"]


def test_list_of_a_missing_bucket_is_an_error_and_not_empty(root: Store) -> None:
    with pytest.raises(ObjectGone):
        list(root.list("no-such-bucket", ""))


def test_wrong_secret_is_refused_for_now_and_not_told(settings: Settings) -> None:
    stranger = Store(settings.s3_endpoint, settings.ingest_access_key, "a-wrong-secret", settings.s3_region)
    with pytest.raises(ServiceUnavailable, match=settings.ingest_access_key) as caught:
        stranger.put_bytes("bronze", "x", b"")
    assert "a-wrong-secret" not in str(caught.value)


def test_store_that_does_not_listen_is_unavailable(down: Settings) -> None:
    with pytest.raises(ServiceUnavailable, match=down.s3_endpoint):
        store_for(down, "ingest").stat("bronze", "x")


def test_stack_without_secrets_is_not_running() -> None:
    with pytest.raises(NotRunning, match="sluice-ingest"):
        store_for(Settings(), "ingest")
