"""Decisions: what a bucket event means, given the contracts and what the ledger knows. No I/O.

The rules of one version (etag) of one object, tried in order:

1. The event is not later than the one that made the row: a second delivery. Nothing is stored, but what
   the first delivery handed on is handed on again while nobody has taken it, since the router may have
   died between the ledger and Kafka.
2. Another version of the object was written later: this one is superseded, whatever the order of arrival.
3. The same content again while it is the object's newest version: `received`, `running` and `done` stay as
   they are; `quarantined` and `ignored` start anew, and so does whatever was deleted meanwhile and is not `done`.
   So does an event redriven from the dead letters, however old, if the file's name was all that was wrong with it:
   a contract may have come since. If it ends for the same reason, it is a dead letter again.
4. Otherwise (new content, or old content put back over newer): the file starts.

A removal concerns the object's newest version. Where the contract says `keep` it is written down and no more;
where it says `retract` the version starts anew, as work that takes the object's rows back. An object that expired
keeps its rows, whatever the contract says: its time in bronze is over, and nobody took it back.

Names of which any part begins with `_` or `.` are work files to Spark and Hadoop, and so they are here.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from consumers.rows import Changes, FileRow, HistoryRow, KnownFiles
from contracts.dataset import BRONZE, DatasetContract, hidden_part
from contracts.events import BucketEvent, later
from contracts.landing import landed_name
from contracts.markers import PREFIX, CommitMarker
from contracts.states import FileState, Hop, Layer, Reason
from contracts.work import WorkItem, WorkMessage

MAX_ITEMS = 100
"""Files of one work message: 100 keys of 1,024 bytes, six-fold when escaped, stay below Kafka's 1 MB."""

_LAYERS = frozenset(Layer)
_DEAD_LETTERS = frozenset({Reason.UNKNOWN_DATASET, Reason.PATH_NOT_IN_CONTRACT, Reason.CSV_NEEDS_LANDING})
_BY_NAME = _DEAD_LETTERS | {Reason.DIRECTORY_MARKER, Reason.HIDDEN_NAME}
"""What `classify` ends files for: no stage has claimed them yet, so the same event can still start them."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A bucket event, and when its message came into Kafka."""

    event: BucketEvent
    recorded_at: datetime
    redriven: bool = False
    """Whether somebody sent it again from the dead letters."""


@dataclass(frozen=True, slots=True)
class Work:
    """The file, or its removal, goes to its dataset's silver stage."""

    dataset: str
    item: WorkItem


@dataclass(frozen=True, slots=True)
class FetchManifest:
    """The object lists the files of a set."""

    dataset: str


@dataclass(frozen=True, slots=True)
class End:
    """The file's way ends here."""

    reason: Reason
    detail: str
    dataset: str | None = None

    @property
    def dead_letter(self) -> bool:
        """Whether a person has to look at the message."""
        return self.reason in _DEAD_LETTERS


@dataclass(frozen=True, slots=True)
class Repeat:
    """Nothing new: a second delivery, or the same content dropped again."""

    dropped: bool
    """The content was dropped, or its event redriven, again; the history tells so."""
    again: Work | FetchManifest | End | None = None
    """What a second delivery, or a redriven event, hands on once more."""


@dataclass(frozen=True, slots=True)
class Removed:
    """The object was deleted, and its rows stay."""

    etag: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class FetchMarker:
    """A stage put a commit marker."""

    layer: Layer


@dataclass(frozen=True, slots=True)
class Nothing:
    """The event concerns nobody."""

    why: str


@dataclass(frozen=True, slots=True)
class UnknownBucket:
    """The event is of a bucket that is no layer: somebody set a notification rule by hand."""


Decision = Work | FetchManifest | End | Repeat | Removed | FetchMarker | Nothing | UnknownBucket


def route(
    event: BucketEvent, contracts: Mapping[str, DatasetContract], known: KnownFiles, redriven: bool = False
) -> Decision:
    """Decide what one event means; `redriven`: somebody sent it again from the dead letters."""
    if event.bucket in _LAYERS:
        return _layer_event(event)
    if event.bucket != BRONZE:
        return UnknownBucket()
    newest = known.newest(event.bucket, event.key)
    if event.removed:
        return _removal(event, newest, contracts)
    if not event.created:
        return Nothing(f"{event.name} changes no content")
    same = known.version(event.bucket, event.key, event.etag)
    if redriven and same is not None and same is newest:
        # It is about the content that is there, so it stands for the latest event that told of it.
        event = event.model_copy(update={"sequencer": _latest(event, same)})
        if same.reason in _BY_NAME:
            return _redriven(event, same, contracts)
    if same is not None and not later(event.sequencer, same.sequencer):
        return _second_delivery(event, same, contracts)
    if newest is not None and newest is not same and later(newest.sequencer, event.sequencer):
        if same is not None:
            return Repeat(dropped=True)
        return End(Reason.SUPERSEDED, f"Version {newest.etag} was written later.", newest.dataset)
    verdict = classify(event, contracts)
    if same is not None and newest is same:
        # A run that is under way may have found the object deleted, so its result is not waited for.
        under_way = same.state in (FileState.RECEIVED, FileState.RUNNING) and same.removed_at is None
        if under_way or same.state == FileState.DONE or (isinstance(verdict, End) and verdict.reason == same.reason):
            return Repeat(dropped=True)
    return verdict


def classify(event: BucketEvent, contracts: Mapping[str, DatasetContract]) -> Work | FetchManifest | End:
    """Find the dataset of a new object in bronze by its key alone."""
    place = dataset_of(event.key, contracts)
    if isinstance(place, End):
        return place
    if contracts[place].is_manifest(event.key):
        return FetchManifest(place)
    return Work(place, _item(event, event.etag, contracts[place].last_layer))


def dataset_of(key: str, contracts: Mapping[str, DatasetContract]) -> str | End:
    """The dataset that a key belongs to, or why it belongs to none."""
    if key.endswith("/"):
        return End(Reason.DIRECTORY_MARKER, "The key ends with '/'.")
    parts = key.split("/")
    hidden = hidden_part(key)
    if hidden is not None:
        return End(Reason.HIDDEN_NAME, f"{hidden!r} begins with '{hidden[0]}'.")
    contract = contracts.get(parts[0]) if len(parts) > 1 else None
    if contract is None:
        found = f"the folder {parts[0]!r}" if len(parts) > 1 else "no folder"
        names = ", ".join(sorted(contracts)) or "none"
        return End(Reason.UNKNOWN_DATASET, f"The key has {found}; known datasets: {names}.")
    if not contract.accepts(key) and not contract.is_manifest(key):
        if contract.accepts(landed_name(key)):
            return End(Reason.CSV_NEEDS_LANDING, f"Run `{_landing_command(key, contract.dataset)}`.", contract.dataset)
        return End(Reason.PATH_NOT_IN_CONTRACT, f"Expected {parts[0]}/{contract.path}", contract.dataset)
    return contract.dataset


def _landing_command(key: str, dataset: str) -> str:
    """The command that puts as parquet what an object holds as CSV. The object itself is its owner's."""
    name = key.rpartition("/")[2]
    words = ["sluice", "drop", name, "--dataset", dataset]
    if key != f"{dataset}/{name}":
        words += ["--key", landed_name(key)]
    return shlex.join(words)


def _item(event: BucketEvent, etag: str, depth: Layer, deleted: bool = False) -> WorkItem:
    return WorkItem(
        bucket=event.bucket,
        key=event.key,
        etag=etag,
        size=event.size,
        version=event.sequencer,
        cause=event.sequencer,
        depth=depth,
        deleted=deleted,
    )


def plan(
    arrivals: Sequence[Arrival], contracts: Mapping[str, DatasetContract], known: KnownFiles, now: datetime
) -> tuple[list[Decision], Changes]:
    """Decide on a poll of events in their order; each sees what the ones before it did.

    Args:
        known: rows of the events' versions and of each object's newest; updated on the way.

    Returns:
        One decision per arrival, and what the ledger has to store for all of them.
    """
    changes = Changes()
    decisions = []
    for arrival in arrivals:
        decision = route(arrival.event, contracts, known, redriven=arrival.redriven)
        _record(arrival, decision, known, now, changes)
        decisions.append(decision)
    return decisions, changes


def silver_work(works: Iterable[Work], now: datetime) -> list[WorkMessage]:
    """Work messages for the silver stage: one a dataset, or a few where there are many files."""
    return work_messages(Layer.SILVER, works, now)


def work_messages(layer: Layer, works: Iterable[Work], now: datetime) -> list[WorkMessage]:
    """Work messages for a stage: one a dataset, or a few where there are many files."""
    items: dict[str, list[WorkItem]] = {}
    for work in works:
        items.setdefault(work.dataset, []).append(work.item)
    return [message for dataset, own in items.items() for message in _messages(layer, dataset, own, now)]


def gold_work(marker: CommitMarker, now: datetime, in_sets: bool = False) -> list[WorkMessage]:
    """Work messages for the gold stage after a commit to silver.

    A file all of whose rows were rejected goes on too: rows that gold holds of an earlier version must go.

    Args:
        in_sets: files of the dataset wait for their set (`consumers.completeness`); what was deleted, or what a person
            ran by hand, does not.
    """
    items = [
        WorkItem(
            bucket=source.bucket,
            key=source.key,
            etag=source.etag,
            size=source.size,
            version=str(marker.snapshot_id),
            rows=source.rows_accepted,
            cause=source.cause,
            depth=source.depth,
            deleted=source.deleted,
        )
        for source in marker.sources
        if source.refused is None and source.depth == Layer.GOLD and (source.deleted or not source.cause or not in_sets)
    ]
    return _messages(Layer.GOLD, marker.dataset, items, now)


def _messages(layer: Layer, dataset: str, items: Sequence[WorkItem], now: datetime) -> list[WorkMessage]:
    return [
        WorkMessage(layer=layer, dataset=dataset, items=tuple(items[start : start + MAX_ITEMS]), at=now)
        for start in range(0, len(items), MAX_ITEMS)
    ]


def _layer_event(event: BucketEvent) -> Decision:
    if event.created and event.key.startswith(PREFIX) and event.key.endswith(".json"):
        return FetchMarker(Layer(event.bucket))
    return Nothing("not a new commit marker")


def _removal(event: BucketEvent, newest: FileRow | None, contracts: Mapping[str, DatasetContract]) -> Decision:
    if newest is None:
        return Nothing("an object that the ledger does not know was removed")
    if later(newest.sequencer, event.sequencer):
        return Nothing("newer content was written after the removal")
    contract = contracts.get(newest.dataset or "")
    takes_back = contract is not None and contract.on_delete == "retract" and contract.accepts(event.key)
    retract = takes_back and not event.expired
    work = None
    if contract is not None and retract:
        work = Work(contract.dataset, _item(event, newest.etag, contract.last_layer, deleted=True))
    if not later(event.sequencer, newest.sequencer):
        untaken = newest.state == FileState.RECEIVED and newest.version == event.sequencer
        return Repeat(dropped=False, again=work if untaken else None)
    return work or Removed(newest.etag, "it expired, and its rows stay" if event.expired else None)


def _redriven(event: BucketEvent, same: FileRow, contracts: Mapping[str, DatasetContract]) -> Decision:
    verdict = classify(event, contracts)
    if isinstance(verdict, End) and verdict.reason == same.reason:
        return Repeat(dropped=True, again=verdict)
    return verdict


def _second_delivery(event: BucketEvent, same: FileRow, contracts: Mapping[str, DatasetContract]) -> Repeat:
    waits = same.state == FileState.RECEIVED
    if later(same.sequencer, event.sequencer) and not (waits and same.version == event.sequencer):
        return Repeat(dropped=False)
    verdict = classify(event, contracts)
    if isinstance(verdict, Work) and waits and same.version:
        # What is handed on again is the work that the ledger waits for: an event of the same content, its removal or a
        # replay may have come since.
        work = {"version": same.version, "cause": same.version, "depth": same.depth}
        verdict = Work(verdict.dataset, verdict.item.model_copy(update=work))
    if isinstance(verdict, End):
        untaken = same.reason == verdict.reason
    else:
        # A manifest is done before what it completes is handed on; reading it once more hands that on again.
        read = isinstance(verdict, FetchManifest) and same.state == FileState.DONE
        untaken = waits or read
    return Repeat(dropped=False, again=verdict if untaken else None)


def _record(arrival: Arrival, decision: Decision, known: KnownFiles, now: datetime, changes: Changes) -> None:
    event = arrival.event
    if isinstance(decision, Removed):
        gone = known.version(event.bucket, event.key, decision.etag)
        if gone is not None:
            _remove(replace(gone, sequencer=event.sequencer, removed_at=event.at), known, changes)
        hop = HistoryRow(event.bucket, event.key, decision.etag, event.at, Hop.REMOVED, detail=decision.detail)
        changes.history.append(hop)
    elif isinstance(decision, Work) and decision.item.deleted:
        _start_retraction(arrival, decision, known, now, changes)
    elif isinstance(decision, Repeat):
        same = known.version(event.bucket, event.key, event.etag)
        if decision.dropped and same is not None:
            _see_again(replace(same, sequencer=_latest(event, same), removed_at=None), known, changes)
            changes.history.append(HistoryRow(event.bucket, event.key, event.etag, event.at, Hop.REPEATED, same.state))
    elif isinstance(decision, Work | FetchManifest | End):
        _start(arrival, decision, known, now, changes)


def _start(
    arrival: Arrival, decision: Work | FetchManifest | End, known: KnownFiles, now: datetime, changes: Changes
) -> None:
    event = arrival.event
    name = (event.bucket, event.key, event.etag)
    same = known.version(*name)
    ends = decision if isinstance(decision, End) else None
    row = FileRow(
        *name,
        sequencer=_latest(event, same),
        state=ends.reason.state if ends else FileState.RECEIVED,
        reason=ends.reason if ends else None,
        detail=ends.detail if ends else None,
        dataset=decision.dataset,
        size=event.size,
        put_at=event.at,
        version=decision.item.version if isinstance(decision, Work) else "",
        depth=decision.item.depth if isinstance(decision, Work) else Layer.GOLD,
    )
    if same is not None:
        changes.reopened.add(name)
    if ends is None or ends.reason != Reason.SUPERSEDED:
        changes.superseding[event.bucket, event.key] = row
    _store(row, known, changes)
    if same is None or not arrival.redriven:
        changes.history.append(HistoryRow(*name, at=event.at, hop=Hop.PUT))
    changes.history += [
        HistoryRow(*name, at=arrival.recorded_at, hop=Hop.EVENT),
        HistoryRow(*name, at=now, hop=Hop.ROUTED, state=row.state, reason=row.reason, detail=row.detail),
    ]


def _start_retraction(arrival: Arrival, decision: Work, known: KnownFiles, now: datetime, changes: Changes) -> None:
    event, etag = arrival.event, decision.item.etag
    name = (event.bucket, event.key, etag)
    old = known.version(*name)
    if old is None:
        return
    row = replace(
        old,
        sequencer=event.sequencer,
        state=FileState.RECEIVED,
        reason=None,
        detail=None,
        version=event.sequencer,
        depth=decision.item.depth,
        removed_at=event.at,
    )
    changes.reopened.add(name)
    _store(row, known, changes)
    changes.history += [
        HistoryRow(*name, at=event.at, hop=Hop.REMOVED),
        HistoryRow(*name, at=arrival.recorded_at, hop=Hop.EVENT),
        HistoryRow(*name, at=now, hop=Hop.ROUTED, state=row.state, detail="its rows are taken back"),
    ]


def _remove(row: FileRow, known: KnownFiles, changes: Changes) -> None:
    known.put(row)
    name = (row.bucket, row.key, row.etag)
    if name in changes.files:
        changes.files[name] = row
    else:
        changes.seen_again.pop(name, None)
        changes.removed[name] = row


def _latest(event: BucketEvent, same: FileRow | None) -> str:
    """The sequencer of the version's latest event: a redriven one may be older than what the ledger knows."""
    if same is not None and later(same.sequencer, event.sequencer):
        return same.sequencer.lstrip("0")
    return event.sequencer


def _see_again(row: FileRow, known: KnownFiles, changes: Changes) -> None:
    known.put(row)
    name = (row.bucket, row.key, row.etag)
    if name in changes.files:
        changes.files[name] = row
    else:
        changes.removed.pop(name, None)
        # Only the sequencer: the state may have moved on since it was read.
        changes.seen_again[name] = row.sequencer


def _store(row: FileRow, known: KnownFiles, changes: Changes) -> None:
    known.put(row)
    name = (row.bucket, row.key, row.etag)
    # What the poll noted of the version before is in the row, and must not be written over it.
    changes.seen_again.pop(name, None)
    changes.removed.pop(name, None)
    changes.files[name] = row
