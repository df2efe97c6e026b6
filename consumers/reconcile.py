"""Decisions of reconcile: what the bucket, the ledger and Airflow say of one another, and what mends it. No I/O.

A repair is never a state written by hand: it is an event, a work message or a run, made as if it had come by itself,
and it passes the checks that those pass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from consumers.rows import FileRow
from contracts.events import EXPIRED, BucketEvent
from contracts.states import Reason

if TYPE_CHECKING:
    from ingest.store import ObjectInfo  # MinIO's client takes 0.1 s to import, and each `sluice why` would wait for it

IN_FLIGHT = timedelta(seconds=60)
"""An event, or the ledger's row for it, may still be on its way; MinIO sends a second time after some 3 s."""
STANDS_STILL = timedelta(minutes=10)
"""Work that nobody took, or whose run ended without a result, for so long is taken up again."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Finding(StrEnum):
    """What reconcile looks for."""

    OBJECT_WITHOUT_ROW = "object_without_row"
    """Bronze holds content that no event told of."""
    ROW_WITHOUT_OBJECT = "row_without_object"
    """The ledger's newest version of an object is gone, and no event told of it."""
    WORK_NOT_TAKEN = "work_not_taken"
    """A file waits for a stage, and no batch holds it."""
    RUN_MISSING = "run_missing"
    """A batch was handed over, but Airflow has no such run."""
    RUN_FAILED = "run_failed"
    """A batch's run failed, and its files do not know."""
    NO_RESULT = "no_result"
    """A batch's run ended well, but no commit marker told of it."""
    SNAPSHOT_WITHOUT_MARKER = "snapshot_without_marker"
    """A batch's rows are committed, its run is over, and no commit marker told of it."""
    NO_RESULT_TWICE = "no_result_twice"
    """One of the last two after a second run; a person has to read that run's log."""
    SET_INCOMPLETE = "set_incomplete"
    """Files waited for their set as long as their contract says; what it says then was done."""
    STAGE_PAUSED = "stage_paused"
    """Files wait for a DAG that somebody paused; unpause it."""


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of a bucket's listing."""

    objects: tuple[ObjectInfo, ...]
    after: str
    """All keys of the piece come after this one."""
    until: str | None
    """The last key that the piece covers; None: to the end of the bucket."""
    settled: datetime
    """The ledger knows what happened before, unless its event was lost."""


def lost_puts(page: Page, newest: Mapping[str, FileRow]) -> list[BucketEvent]:
    """An event for each object whose content the ledger does not know as the newest of its key.

    Args:
        newest: key to the version that the ledger has for the newest.
    """
    events = []
    for found in page.objects:
        row = newest.get(found.key)
        if found.last_modified > page.settled or (row is not None and _knows(row, found, page.settled)):
            continue
        sequencer = max(_nanoseconds(found.last_modified), _number(row) + 1)
        events.append(
            BucketEvent(
                name="s3:ObjectCreated:Put",
                bucket=found.bucket,
                key=found.key,
                etag=found.etag,
                size=found.size,
                at=found.last_modified,
                sequencer=f"{sequencer:X}",
            )
        )
    return events


def maybe_gone(
    page: Page, newest: Iterable[FileRow], retracting: Collection[str], kept: Mapping[str, int]
) -> list[FileRow]:
    """Versions of the page's range that the listing lacks; whether they are gone, a look at each has to tell.

    Args:
        retracting: datasets that take back the rows of deleted files. A removal that a run passed over, since the
            object had been put again, is still to be done when that object is gone as well.
        kept: dataset to the days that its files stay in bronze. One that expired is not taken back, so nothing is left
            to be done.
    """
    there = {found.key for found in page.objects}
    return [
        row
        for row in newest
        if row.key not in there
        and (
            row.removed_at is None
            or (
                row.reason == Reason.SUPERSEDED
                and row.dataset in retracting
                and not has_expired(row, kept.get(row.dataset or ""), row.removed_at)
            )
        )
        and all(at is None or at < page.settled for at in (row.put_at, row.removed_at))
    ]


def lost_removal(row: FileRow, now: datetime, kept: Mapping[str, int]) -> BucketEvent:
    """The event that should have told that an object was deleted, or expired: right after what the ledger knows of it.

    Args:
        kept: dataset to the days that its files stay in bronze. Who removed an older one nobody can say any more, and
            rows that are there too long are mended more easily than rows that are not.
    """
    expired = has_expired(row, kept.get(row.dataset or ""), now)
    return BucketEvent(
        name=EXPIRED if expired else "s3:ObjectRemoved:Delete",
        bucket=row.bucket,
        key=row.key,
        at=now,
        sequencer=f"{_number(row) + 1:X}",
    )


def has_expired(row: FileRow, days: int | None, gone: datetime) -> bool:
    """Whether an object that is gone was in bronze for as long as its contract keeps it.

    Args:
        days: that it is kept; None: for ever.
        gone: when it was not there any more.
    """
    if days is None:
        return False
    # The same content put again leaves `put_at`, but not the sequencer, which MinIO makes of the time of the write.
    written = max(_nanoseconds(row.put_at or _EPOCH), 0 if row.removed_at else _number(row))
    return written + days * 24 * 3600 * 10**9 <= _nanoseconds(gone)


def settled(now: datetime, oldest_unread: datetime | None) -> datetime:
    """Until when everything that came into a topic was acted on, by its reader's oldest message not yet done."""
    return min(now, oldest_unread or now) - IN_FLIGHT


def judge_run(state: str | None, second_state: str | None, committed: bool) -> Finding | None:
    """What is wrong with a batch that was handed over and has no commit marker.

    Args:
        state: of its DAG run, None when Airflow has none.
        second_state: of the run that an earlier reconcile made for it, None when there is none.
        committed: whether its table has a snapshot of it.
    """
    last = second_state or state
    if last in ("queued", "running"):
        return None
    if last is None:
        return Finding.RUN_MISSING
    if last == "failed" and not committed:
        return Finding.RUN_FAILED
    if second_state:
        return Finding.NO_RESULT_TWICE
    return Finding.SNAPSHOT_WITHOUT_MARKER if committed else Finding.NO_RESULT


def waiting_for(paused: Iterable[str], waiting: Mapping[str, int]) -> dict[str, int]:
    """Paused DAG to the files that wait for it; DAGs for which none wait are left out."""
    return {dag: waiting[dag] for dag in sorted(paused) if waiting.get(dag)}


def counts(findings: Sequence[tuple[Finding, str]]) -> dict[Finding, int]:
    """How many of each, those with none included."""
    return {kind: sum(found is kind for found, _ in findings) for kind in Finding}


def _knows(row: FileRow, found: ObjectInfo, settled_at: datetime) -> bool:
    # Content that was put back after a run had found other content, or none, waits for an event like any other.
    elsewhere = row.reason in (Reason.SUPERSEDED, Reason.OBJECT_GONE)
    if row.etag == found.etag and row.removed_at is None and not elsewhere:
        return True
    latest = row.removed_at or row.put_at
    if latest is None or latest < found.last_modified:
        return False
    # The ledger may be ahead of a listing that was read before the newest PUT or removal. What came before the listing
    # began is in it, so the ledger's newer time is then that of a clock which was ahead.
    return latest > settled_at or (row.etag == found.etag and row.removed_at is None)


def _nanoseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000


def _number(row: FileRow | None) -> int:
    return int(row.sequencer or "0", 16) if row else 0
