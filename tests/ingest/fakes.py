"""A store in memory, for what needs no real one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from ingest.store import ObjectInfo


class FakeStore:
    """As much of `ingest.store.Store` as puts need; an object's etag is its MD5, as in MinIO."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}
        self.puts = 0

    def stat(self, bucket: str, key: str) -> ObjectInfo | None:
        """The newest version of an object, or None when there is none."""
        content = self.objects.get((bucket, key))
        if content is None:
            return None
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return ObjectInfo(bucket, key, etag, len(content), datetime.now(UTC))

    def list(self, bucket: str, prefix: str = "") -> Iterator[ObjectInfo]:
        """The newest version of each object below a prefix, by key."""
        for found, key in sorted(self.objects):
            info = self.stat(found, key)
            if found == bucket and key.startswith(prefix) and info is not None:
                yield info

    def put_file(
        self, bucket: str, key: str, path: Path, progress: Callable[[int], None] | None = None, source: str = ""
    ) -> ObjectInfo:
        """Put a local file."""
        self.objects[bucket, key] = path.read_bytes()
        self.puts += 1
        info = self.stat(bucket, key)
        assert info is not None
        return info
