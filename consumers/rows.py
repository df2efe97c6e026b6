"""What the ledger reads and writes for a poll of events: plain values, so that decisions need no database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from contracts.events import later
from contracts.states import FileState, Hop, Layer, Reason


@dataclass(frozen=True, slots=True)
class FileRow:
    """One version (etag) of one object, as the ledger holds it."""

    bucket: str
    key: str
    etag: str
    sequencer: str
    """Of the latest event that told of this version."""
    state: FileState
    reason: Reason | None = None
    detail: str | None = None
    dataset: str | None = None
    size: int = 0
    put_at: datetime | None = None
    version: str = ""
    """Of the work that was handed on last; what an older one did changes no state."""
    depth: Layer = Layer.GOLD
    """The last layer that this work is to reach."""
    removed_at: datetime | None = None
    """When the object was deleted; None while it is there."""


class HistoryRow(NamedTuple):
    """One passage of one version. A tuple, since there are three an event, and it is made in half the time."""

    bucket: str
    key: str
    etag: str
    at: datetime
    hop: Hop
    state: FileState | None = None
    layer: Layer | None = None
    attempt: int | None = None
    run_id: str | None = None
    reason: Reason | None = None
    detail: str | None = None


class KnownFiles:
    """The versions that the ledger knows of the objects of a poll: those asked for, and each object's newest."""

    def __init__(self, rows: Iterable[FileRow] = ()) -> None:
        self._versions: dict[tuple[str, str], dict[str, FileRow]] = {}
        for row in rows:
            self.put(row)

    def version(self, bucket: str, key: str, etag: str) -> FileRow | None:
        """The row of one version."""
        return self._versions.get((bucket, key), {}).get(etag)

    def newest(self, bucket: str, key: str) -> FileRow | None:
        """The version of an object that was written last."""
        newest: FileRow | None = None
        for row in self._versions.get((bucket, key), {}).values():
            if newest is None or later(row.sequencer, newest.sequencer):
                newest = row
        return newest

    def put(self, row: FileRow) -> None:
        """Add a version, or replace what was known of it."""
        self._versions.setdefault((row.bucket, row.key), {})[row.etag] = row


@dataclass(slots=True)
class Changes:
    """What one ledger transaction writes."""

    files: dict[tuple[str, str, str], FileRow] = field(default_factory=dict)
    """(bucket, key, etag) -> the row to be stored."""
    seen_again: dict[tuple[str, str, str], str] = field(default_factory=dict)
    """(bucket, key, etag) -> sequencer of the event that told of the same content again."""
    removed: dict[tuple[str, str, str], FileRow] = field(default_factory=dict)
    """Known rows whose object was deleted: their new sequencer and `removed_at`; all else stays."""
    reopened: set[tuple[str, str, str]] = field(default_factory=set)
    """Known rows whose way starts anew: they pass through `received` whatever they were."""
    superseding: dict[tuple[str, str], FileRow] = field(default_factory=dict)
    """(bucket, key) -> its new newest version; older ones that still wait are then ignored as superseded."""
    history: list[HistoryRow] = field(default_factory=list)
