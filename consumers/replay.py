"""Decisions: which files a replay runs again, and what a changed reference runs again by itself. No I/O.

Gold holds what its references said when a file's rows were written. When the silver of a reference changes, the files
whose gold may have read the old one go to gold once more, and to gold alone: nothing of their silver has changed. Such
a refresh is work of a version of its own, made of the reference's snapshot, so that the same change told again makes
the same work; from then on it is like any other replayed work.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from consumers.reconcile import has_expired
from consumers.routing import End, Work, dataset_of
from consumers.rows import FileRow
from contracts.dataset import DatasetContract
from contracts.markers import CommitMarker, SourceResult
from contracts.states import FileState, Layer
from contracts.work import WorkItem

REFRESH = "refresh-"
"""How versions of work begin that a changed reference asked for; it starts in gold."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A file that is not run again, and why."""

    uri: str
    why: str


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What a replay will do."""

    depth: Layer
    """The last layer that the files reach again; those of a reference go no further than silver."""
    work: tuple[Work, ...]
    passed: tuple[Passed, ...]
    batches: int
    """DAG runs of the silver stage, at least; fewer files a run when a run is under way already."""

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(work.item.size for work in self.work)


def plan_replay(
    rows: Sequence[FileRow], contracts: Mapping[str, DatasetContract], depth: Layer, version: str
) -> ReplayPlan:
    """Plan to run files again by today's contracts, whatever became of them.

    Args:
        rows: the newest version of each object.
        version: of the new work; another one than any work had before, so that listeners take it for new.
    """
    work, passed = [], []
    for row in rows:
        uri = f"{row.bucket}/{row.key}"
        dataset = dataset_of(row.key, contracts)
        if row.removed_at is not None:
            passed.append(Passed(uri, _why_gone(row, row.removed_at, contracts)))
        elif isinstance(dataset, End):
            passed.append(Passed(uri, f"{dataset.reason}: {dataset.detail}"))
        elif contracts[dataset].is_manifest(row.key):
            passed.append(Passed(uri, "It is a manifest, which holds no rows."))
        else:
            # Work that is under way to gold is replaced by this one, which must not be the shorter way.
            cut_short = row.state in (FileState.RECEIVED, FileState.RUNNING) and row.depth == Layer.GOLD
            reached = (Layer.GOLD if cut_short else depth) if contracts[dataset].gold else Layer.SILVER
            work.append(Work(dataset, _again(row, version, reached)))
    counts = Counter(one.dataset for one in work)
    batches = sum(math.ceil(count / contracts[dataset].max_batch_files) for dataset, count in counts.items())
    return ReplayPlan(depth, tuple(work), tuple(passed), batches)


def _why_gone(row: FileRow, removed_at: datetime, contracts: Mapping[str, DatasetContract]) -> str:
    contract = contracts.get(row.dataset or "")
    days = contract.keep_bronze if contract else None
    if not has_expired(row, days, removed_at):
        return "The object was deleted."
    return f"The object is gone: its contract keeps files in bronze for {days} days. Drop it again to run it."


@dataclass(frozen=True, slots=True)
class Refresh:
    """What a changed reference makes of some files of a dataset that reads it."""

    start: tuple[Work, ...]
    """Their way to gold starts anew."""
    again: tuple[Work, ...]
    """It did already, but no batch holds them: the router may have died before Kafka had them."""


def content_changed(sources: Iterable[SourceResult], before: Mapping[tuple[str, str], tuple[str, int]]) -> bool:
    """Whether a commit to a reference changed what the table holds, as far as its files tell.

    Args:
        sources: what the commit did.
        before: (bucket, key) to the etag and accepted rows of the commit before; keys without one are left out.

    Returns:
        False for the same content once more, rows that were never there and are taken back, and files refused.
    """
    for source in sources:
        etag, rows = before.get((source.bucket, source.key), (source.etag, 0))
        if source.refused is None and (source.rows_accepted != rows or (rows and source.etag != etag)):
            return True
    return False


def readers(contracts: Mapping[str, DatasetContract], dataset: str) -> list[str]:
    """The datasets whose gold reads a reference, in order."""
    return sorted(
        name for name, own in contracts.items() if any(lookup.dataset == dataset for lookup in own.references)
    )


def refresh_version(marker: CommitMarker) -> str:
    """The version of the work that a commit to a reference asks for."""
    return f"{REFRESH}{marker.snapshot_id}"


def plan_refresh(rows: Sequence[FileRow], dataset: str, version: str) -> Refresh:
    """Plan to take files of a dataset to gold once more.

    Args:
        rows: files whose gold may have read the reference as it was before, and those of this very work that no batch
            holds.
        version: see `refresh_version`.
    """
    work = [(row.version == version, Work(dataset, _again(row, version, Layer.GOLD))) for row in rows]
    return Refresh(
        start=tuple(one for started, one in work if not started), again=tuple(one for started, one in work if started)
    )


def _again(row: FileRow, version: str, depth: Layer) -> WorkItem:
    return WorkItem(
        bucket=row.bucket, key=row.key, etag=row.etag, size=row.size, version=version, cause=version, depth=depth
    )
