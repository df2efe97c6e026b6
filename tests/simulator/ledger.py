"""The ledger in memory, by the rules of `consumers/ledger.py` and of the database's triggers and constraints.

`test_ledger_model.py` holds it against the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from consumers.ledger import _batch_history, _fate, _fate_of_accepted, _marker_history, _refreshed, _replayed
from consumers.replay import REFRESH, Refresh
from consumers.routing import Work
from consumers.rows import Changes, FileRow, HistoryRow, KnownFiles
from contracts.dataset import BRONZE
from contracts.errors import AccountingMismatch, BadWork, IllegalTransition
from contracts.markers import CommitMarker, SourceResult
from contracts.states import FileState, Hop, Layer, Reason
from contracts.work import Batch, WorkItem

T = TypeVar("T")
Name = tuple[str, str, str]
OPEN = (FileState.RECEIVED, FileState.RUNNING)
OVERRULED = (Reason.RUN_FAILED, Reason.SUPERSEDED)


@dataclass(frozen=True)
class File:
    """A row of `ledger.files`; the sequencer is padded to 32 digits."""

    row: FileRow
    updated_at: datetime
    released: str = ""


@dataclass(frozen=True)
class Result:
    """A row of `ledger.results`."""

    table: str
    batch_id: str
    snapshot_id: int | None
    rows: tuple[int, int, int]
    at: datetime


@dataclass(frozen=True)
class Registered:
    """A row of `ledger.batches`, with its items."""

    batch: Batch
    created_at: datetime
    handed_over_at: datetime | None = None


@dataclass
class Tables:
    """All that the ledger holds. Values are never changed in place, so that a copy of the dicts is a moment kept."""

    files: dict[Name, File]
    history: list[HistoryRow]
    results: dict[tuple[Name, Layer], Result]
    commits: dict[tuple[str, str, int], datetime]
    sources: dict[tuple[int, str, Name], tuple[str, int, tuple[int, int, int]]]
    """(snapshot, batch, file) -> table, sequence number, rows."""
    batches: dict[str, Registered]
    marks: dict[str, str]

    def copy(self) -> Tables:
        return Tables(
            dict(self.files),
            list(self.history),
            dict(self.results),
            dict(self.commits),
            dict(self.sources),
            dict(self.batches),
            dict(self.marks),
        )


Do = Callable[..., Any]


class LedgerModel:
    """As `consumers.ledger.Ledger`."""

    def __init__(
        self, now: Callable[[], datetime], do: Do = lambda what, effect, *arguments: effect(*arguments)
    ) -> None:
        self._now = now
        self._do = do
        self.tables = Tables({}, [], {}, {}, {}, {}, {})
        self._holding: dict[tuple[str, str, str, str, str], list[str]] = {}
        """(layer, bucket, key, etag, version) -> batches that hold it."""
        self._caused: dict[tuple[str, str, str, str, str], list[str]] = {}
        """The same by cause."""

    def __enter__(self) -> LedgerModel:
        return self

    def __exit__(self, *about: object) -> None: ...

    # ---- transactions

    def apply(self, names: Iterable[Name], plan: Callable[[KnownFiles], tuple[T, Changes]]) -> T:
        asked = sorted(names)

        def work() -> T:
            keys = {name[:2] for name in asked}
            known = [f.row for name in asked if (f := self.tables.files.get(name)) is not None]
            known += [newest.row for key in sorted(keys) if (newest := self.newest(*key)) is not None]
            result, changes = plan(KnownFiles(known))
            self._write(changes)
            return result

        return self._run(f"apply {', '.join(f'{key}@{etag}' for _, key, etag in asked)}", work)

    def unclaimed(self, layer: Layer, dataset: str, items: Sequence[WorkItem]) -> list[WorkItem]:
        def work() -> list[WorkItem]:
            return [item for item in items if not self._taken(layer, item, dataset)]

        return self._run("unclaimed", work)

    def claim(self, batch: Batch) -> bool:
        def work() -> bool:
            if batch.batch_id in self.tables.batches:
                return False
            self.tables.batches[batch.batch_id] = Registered(batch, self._now())
            for item in batch.items:
                name = (str(batch.layer), item.bucket, item.key, item.etag)
                self._holding.setdefault((*name, item.version), []).append(batch.batch_id)
                self._caused.setdefault((*name, item.cause), []).append(batch.batch_id)
            self._move([_fate(item, FileState.RUNNING) for item in batch.items])
            self.tables.history += _batch_history(batch, Hop.CLAIMED, batch.run_id)
            for item in batch.items if batch.layer == Layer.GOLD else ():
                if (file := self.tables.files.get(_name(item))) is not None:
                    self._supersede(file.row, FileState.RUNNING, Hop.RECORDED)
            return True

        return self._run(f"claim {batch.batch_id}", work)

    def handed_over(self, batch_id: str) -> None:
        self._run(f"handed over {batch_id}", lambda: self._hand_over(batch_id))

    def load_batch(self, batch_id: str) -> Batch:
        found = self._run(f"load {batch_id}", lambda: self.tables.batches.get(batch_id))
        if found is None:
            raise BadWork(f"No batch {batch_id!r} is in the ledger.", batch_id=batch_id)
        return found.batch

    def started(self, batch: Batch, dag_id: str, run_id: str, attempt: int) -> None:
        def work() -> None:
            self._hand_over(batch.batch_id)
            self.tables.history += _batch_history(batch, Hop.STARTED, run_id, attempt=attempt, detail=dag_id or None)

        self._run(f"started {batch.batch_id}", work)

    def failed(self, batch: Batch, run_id: str, detail: str) -> None:
        def work() -> None:
            reason = Reason.RUN_FAILED
            self._move([_fate(item, reason.state, reason, detail) for item in batch.items])
            self.tables.history += _batch_history(batch, Hop.FAILED, run_id, reason=reason, detail=detail)

        self._run(f"failed {batch.batch_id}", work)

    def record_marker(self, marker: CommitMarker) -> None:
        self._run(f"record the marker of {marker.batch_id}", lambda: self._record(marker))

    def replay(self, works: Sequence[Work]) -> list[Work]:
        def work() -> list[Work]:
            started = []
            for one in works:
                name = _name(one.item)
                file = self.tables.files.get(name)
                if file is None or file.row.removed_at is not None or self.newest(*name[:2]) is not file:
                    continue
                fresh = {"dataset": one.dataset, "version": one.item.version, "depth": one.item.depth}
                self._set(name, replace(file.row, state=FileState.RECEIVED, reason=None, detail=None, **fresh))
                started.append(one)
            self.tables.history += [_replayed(one.item) for one in started]
            return started

        return self._run(f"replay {', '.join(work.item.key for work in works)}", work)

    def content_before(self, marker: CommitMarker) -> dict[tuple[str, str], tuple[str, int]]:
        def work() -> dict[tuple[str, str], tuple[str, int]]:
            found: dict[tuple[str, str], tuple[int, str, int]] = {}
            asked = {(source.bucket, source.key) for source in marker.sources}
            for (_, _, name), (table, sequence, rows) in self.tables.sources.items():
                if table == marker.table and sequence < marker.sequence_number and name[:2] in asked:
                    found[name[:2]] = max(found.get(name[:2], (-1, "", 0)), (sequence, name[2], rows[1]))
            return {key: (etag, rows) for key, (_, etag, rows) in found.items()}

        return self._run("content before", work)

    def refresh(
        self,
        marker: CommitMarker,
        dataset: str,
        version: str,
        plan: Callable[[Sequence[FileRow]], Refresh],
        after: str = "",
        limit: int = 1000,
    ) -> Refresh:
        def work() -> Refresh:
            refresh = plan(list(self._outdated(marker, dataset, version, after or f"{dataset}/"))[:limit])
            for one in refresh.start:
                name = _name(one.item)
                fresh = {"reason": None, "detail": None, "version": one.item.version}
                for state in (FileState.RECEIVED, FileState.RUNNING):
                    self._set(name, replace(self.tables.files[name].row, state=state, **fresh))
            self.tables.history += [_refreshed(one.item, marker.table) for one in refresh.start]
            return refresh

        return self._run(f"refresh {dataset} by {marker.table}", work)

    def set_reconciled_to(self, bucket: str, after: str) -> None:
        self._run("reconciled to", lambda: self.tables.marks.update({bucket: after}))

    # ---- questions

    def newest_of_keys(self, places: Iterable[tuple[str, str]]) -> list[FileRow]:
        asked = sorted(places)
        return self._run("newest", lambda: [file.row for key in asked if (file := self.newest(*key)) is not None])

    def newest_of_batch(self, batch_id: str) -> list[FileRow]:
        def work() -> list[FileRow]:
            names = {_name(item) for item in self.tables.batches[batch_id].batch.items}
            found = (self.newest(*name[:2]) for name in sorted(names))
            return [f.row for f in found if f is not None and _name(f.row) in names]

        return self._run("newest", work)

    def newest_between(self, bucket: str, after: str, until: str | None) -> list[FileRow]:
        def work() -> list[FileRow]:
            keys = sorted({k for b, k, _ in self.tables.files if b == bucket and k > after})
            keys = [key for key in keys if until is None or key <= until]
            return [file.row for key in keys if (file := self.newest(bucket, key)) is not None]

        return self._run("newest between", work)

    def reconciled_to(self, bucket: str) -> str:
        return self._run("reconciled to", lambda: self.tables.marks.get(bucket, ""))

    def not_taken(self, layer: Layer, before: datetime, limit: int, in_sets: Iterable[str] = ()) -> list[Work]:
        sets = set(in_sets)

        def silver() -> Iterator[tuple[datetime, Work]]:
            for file in self.tables.files.values():
                row = file.row
                waits = row.state in OPEN and file.updated_at < before and row.version and row.dataset is not None
                if waits and not row.version.startswith(REFRESH) and not self._taken_by_cause(Layer.SILVER, row):
                    deleted = row.removed_at is not None and row.version.rjust(32, "0") == row.sequencer
                    yield file.updated_at, _work(row, row.version, None, deleted)

        def gold() -> Iterator[tuple[datetime, Work]]:
            for file, result, item, version in self._due():
                held = item is not None and not item.deleted and file.released != file.row.version
                if file.updated_at < before and not (held and file.row.dataset in sets):
                    deleted = item is not None and item.deleted
                    yield file.updated_at, _work(file.row, version, result.rows[1], deleted)

        def work() -> list[Work]:
            found = list(silver() if layer == Layer.SILVER else gold())
            return [one for _, one in sorted(found, key=lambda pair: (pair[0], pair[1].item.uri))][:limit]

        return self._run(f"not taken by {layer}", work)

    def without_result(self, before: datetime, limit: int) -> list[str]:
        def work() -> list[str]:
            done = {batch_id for _, batch_id, _ in self.tables.commits}
            found = {}
            for file in self.tables.files.values():
                row = file.row
                if row.state not in OPEN or not file.updated_at < before or not row.version:
                    continue
                for layer in Layer:
                    for batch_id in self._caused.get((str(layer), *_name(row), row.version), ()):
                        at = self.tables.batches[batch_id].handed_over_at
                        if at is not None and at < before and batch_id not in done:
                            found[batch_id] = at
            return sorted(found, key=lambda batch_id: (found[batch_id], batch_id))[:limit]

        return self._run("without result", work)

    def without_marker(self, batch_ids: Iterable[str], before: datetime) -> list[str]:
        asked = sorted(batch_ids)

        def work() -> list[str]:
            done = {batch_id for _, batch_id, snapshot in self.tables.commits if snapshot}
            found = {}
            for batch_id in asked:
                registered = self.tables.batches.get(batch_id)
                at = registered.handed_over_at if registered else None
                if at is not None and at < before and batch_id not in done:
                    found[batch_id] = at
            return sorted(found, key=lambda batch_id: (found[batch_id], batch_id))

        return self._run("without marker", work)

    def waiting(self) -> dict[tuple[str, Layer], int]:
        def work() -> dict[tuple[str, Layer], int]:
            counts: dict[tuple[str, Layer], int] = {}
            for name, file in self.tables.files.items():
                row = file.row
                if row.state not in OPEN or row.dataset is None:
                    continue
                result = self.tables.results.get((name, Layer.SILVER))
                in_silver = row.version.startswith(REFRESH) or (
                    result is not None and self._item_of(result.batch_id, name, row.version) is not None
                )
                where = row.dataset, Layer.GOLD if in_silver else Layer.SILVER
                counts[where] = counts.get(where, 0) + 1
            return counts

        return self._run("waiting", work)

    def held_sets(self, datasets: Iterable[str], limit: int) -> list[Any]:
        """No dataset of the simulation has sets."""
        if list(datasets):
            raise NotImplementedError
        return []

    def newest(self, bucket: str, key: str) -> File | None:
        """The version of an object that was written last."""
        own = (f for (b, k, _), f in self.tables.files.items() if b == bucket and k == key)
        return max(own, key=lambda f: f.row.sequencer, default=None)

    # ---- inside

    def _run(self, what: str, work: Callable[[], T]) -> T:
        def transaction() -> T:
            before = self.tables.copy()
            try:
                return work()
            except BaseException:
                self.tables = before
                raise

        result: T = self._do(f"ledger: {what}", transaction)
        return result

    def _set(self, name: Name, row: FileRow, touch: bool = True, released: str | None = None) -> None:
        """Store a row, if its state may become that; `touch`: the change counts for `updated_at`."""
        row = replace(row, sequencer=row.sequencer.rjust(32, "0"))
        old = self.tables.files.get(name)
        if old is not None:
            _check_legal(old.row, row)
        if (row.reason is not None) != (row.state in (FileState.QUARANTINED, FileState.IGNORED)):
            raise BadWork("reason_given")
        at = self._now() if touch or old is None else old.updated_at
        kept = old.released if old is not None else ""
        self.tables.files[name] = File(row, at, kept if released is None else released)

    def _write(self, changes: Changes) -> None:
        files = self.tables.files
        for name in sorted(changes.reopened):
            if name in files:
                row = replace(files[name].row, state=FileState.RECEIVED, reason=None, detail=None)
                self._set(name, row, touch=False)
        for name in sorted(changes.files):
            self._set(name, changes.files[name])
        for name in sorted(changes.seen_again):
            if name in files:
                row = replace(files[name].row, sequencer=changes.seen_again[name], removed_at=None)
                self._set(name, row, touch=False)
        for name in sorted(changes.removed):
            if name in files:
                gone = changes.removed[name]
                self._set(name, replace(files[name].row, sequencer=gone.sequencer, removed_at=gone.removed_at))
        for key in sorted(changes.superseding):
            self._supersede(changes.superseding[key], FileState.RECEIVED, Hop.ROUTED)
        self.tables.history += changes.history

    def _supersede(self, newer: FileRow, waiting: FileState, hop: Hop) -> None:
        for name, file in list(self.tables.files.items()):
            row = file.row
            older = row.sequencer < newer.sequencer.rjust(32, "0") and row.etag != newer.etag
            if name[:2] == (newer.bucket, newer.key) and older and row.state == waiting:
                told = f"Version {newer.etag} was written later."
                self._set(name, replace(row, state=FileState.IGNORED, reason=Reason.SUPERSEDED, detail=told))
                ended = (FileState.IGNORED, None, None, None, Reason.SUPERSEDED, told)
                self.tables.history.append(HistoryRow(*name, self._now(), hop, *ended))

    def _hand_over(self, batch_id: str) -> None:
        found = self.tables.batches.get(batch_id)
        if found is not None and found.handed_over_at is None:
            self.tables.batches[batch_id] = replace(found, handed_over_at=self._now())

    def _move(self, fates: Iterable[tuple[Any, ...]], overrule: bool = False) -> None:
        for bucket, key, etag, cause, state, reason, detail in fates:
            file = self.tables.files.get((bucket, key, etag))
            if file is None or not self._moves(file.row, cause, state, overrule):
                continue
            fate = {"state": FileState(state), "reason": Reason(reason) if reason else None, "detail": detail}
            self._set((bucket, key, etag), replace(file.row, **fate))

    @staticmethod
    def _moves(row: FileRow, cause: str, state: str, overrule: bool) -> bool:
        if cause and row.version not in ("", cause):
            return False
        again = state in (FileState.RUNNING, FileState.DONE) and row.reason in OVERRULED
        return row.state in OPEN or (again and overrule)

    def _record(self, marker: CommitMarker) -> None:
        commit = (marker.table, marker.batch_id, marker.snapshot_id or 0)
        if commit in self.tables.commits:
            return
        self.tables.commits[commit] = self._now()
        sources = sorted(marker.sources, key=_name)
        for source in sources:
            if _name(source) not in self.tables.files:
                unknown = FileRow(*_name(source), "", FileState.RECEIVED, dataset=marker.dataset, size=source.size)
                self._set(_name(source), unknown)
        accepted = [source for source in sources if source.refused is None]
        for source in accepted:
            self._store_result(marker, source)
        self._move([_fate_of_accepted(marker.layer, source) for source in accepted], overrule=True)
        refused = ((source, source.refused) for source in sources if source.refused is not None)
        self._move([_fate(source, reason.state, reason, source.detail) for source, reason in refused])
        now = self._now()
        self.tables.history += [row for source in sources for row in _marker_history(marker, source, now)]

    def _store_result(self, marker: CommitMarker, source: SourceResult) -> None:
        name = _name(source)
        rows = (source.rows_in, source.rows_accepted, source.rows_rejected)
        if rows[0] != rows[1] + rows[2]:
            raise AccountingMismatch("rows_accounted")
        old = self.tables.results.get((name, marker.layer))
        if old is None or old.at <= marker.committed_at:
            result = Result(marker.table, marker.batch_id, marker.snapshot_id, rows, marker.committed_at)
            self.tables.results[name, marker.layer] = result
        if marker.snapshot_id is not None:
            told = (marker.table, marker.sequence_number, rows)
            self.tables.sources.setdefault((marker.snapshot_id, marker.batch_id, name), told)

    def _due(self) -> Iterator[tuple[File, Result, WorkItem | None, str]]:
        for name, file in self.tables.files.items():
            row = file.row
            result = self.tables.results.get((name, Layer.SILVER))
            if row.state != FileState.RUNNING or row.depth != Layer.GOLD or not row.version or result is None:
                continue
            caused = self._caused.get((str(Layer.SILVER), *name, row.version), ())
            told = [(batch_id, snapshot) for _, batch_id, snapshot in self.tables.commits if batch_id in caused]
            item = self._item_of(told[-1][0], name, row.version) if told else None
            if (item is not None or row.version.startswith(REFRESH)) and not self._taken_by_cause(Layer.GOLD, row):
                yield file, result, item, str(told[-1][1]) if told else row.version

    def _outdated(self, marker: CommitMarker, dataset: str, version: str, after: str) -> Iterator[FileRow]:
        changed = self.tables.commits.get((marker.table, marker.batch_id, marker.snapshot_id or 0))
        for name in sorted(self.tables.files):
            row = self.tables.files[name].row
            wanted = (
                row.dataset == dataset and row.depth == Layer.GOLD and row.state in (FileState.RUNNING, FileState.DONE)
            )
            if name[0] != BRONZE or not after < name[1] < f"{dataset}0" or not wanted:
                continue
            newest = self.newest(*name[:2])
            if newest is None or newest.row.sequencer > row.sequencer:
                continue
            batches = self._caused.get((str(Layer.GOLD), *name, row.version), ())
            claimed = max((self.tables.batches[batch].created_at for batch in batches), default=None)
            result = self.tables.results.get((name, Layer.GOLD))
            if claimed is not None:
                old = changed is not None and claimed <= changed
            elif row.state == FileState.DONE:
                old = result is not None and changed is not None and result.at <= changed
            else:
                old = row.version == version
            if old:
                yield row

    def _item_of(self, batch_id: str, name: Name, cause: str) -> WorkItem | None:
        found = self.tables.batches.get(batch_id)
        items = found.batch.items if found else ()
        return next((item for item in items if (_name(item), item.cause) == (name, cause)), None)

    def _taken(self, layer: Layer, item: WorkItem, dataset: str) -> bool:
        batches = self._holding.get((str(layer), *_name(item), item.version), ())
        own = (self.tables.batches[batch_id] for batch_id in batches if batch_id in self.tables.batches)
        return any(one.batch.dataset == dataset and one.handed_over_at is not None for one in own)

    def _taken_by_cause(self, layer: Layer, row: FileRow) -> bool:
        batches = self._caused.get((str(layer), *_name(row), row.version), ())
        return any(self.tables.batches[batch_id].handed_over_at is not None for batch_id in batches)


def _check_legal(old: FileRow, new: FileRow) -> None:
    """As the trigger `legal_transition`."""
    if old.state == new.state or new.state == FileState.RECEIVED or old.state in OPEN:
        return
    if old.reason in OVERRULED and new.state in (FileState.RUNNING, FileState.DONE):
        return
    raise IllegalTransition(f"a file cannot go from {old.state} to {new.state}")


def _name(of: WorkItem | SourceResult | FileRow) -> Name:
    return of.bucket, of.key, of.etag


def _work(row: FileRow, version: str, rows: int | None, deleted: bool) -> Work:
    item = WorkItem(
        bucket=row.bucket,
        key=row.key,
        etag=row.etag,
        size=row.size,
        version=version,
        rows=rows,
        cause=row.version,
        depth=row.depth,
        deleted=deleted,
    )
    return Work(row.dataset or "", item)
