"""I1 to I6, as checks of what the models hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from consumers.broker import Record
from consumers.routing import _DEAD_LETTERS, End, dataset_of, gold_work
from consumers.topics import LISTENER_GROUPS, ROUTER_GROUP
from contracts.dataset import BRONZE
from contracts.errors import BadEvent, BadWork
from contracts.events import BucketEvent, later, parse_events
from contracts.markers import PREFIX, parse_marker
from contracts.states import FileState, Hop, Layer, Reason
from contracts.work import parse_work
from spark_jobs.lake import source_id
from tests.simulator.datasets import CONTRACTS
from tests.simulator.jobs import sums
from tests.simulator.log import identity
from tests.simulator.store import Content
from tests.simulator.world import Violation

if TYPE_CHECKING:
    from tests.simulator.simulation import Simulation


class Invariants:
    """The checks of one simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._there_and_back: set[str] = set()
        """Keys of which silver may hold rows of other content; see `check_rows`."""

    # ---- at each commit of offsets

    def check_commit(self, group: str, records: Sequence[Record]) -> None:
        """What the passed messages stand for is durable elsewhere (I6)."""
        for record in records:
            if group == ROUTER_GROUP:
                self._check_routed(record)
            else:
                self._check_handed_over(group, record)

    def _check_routed(self, record: Record) -> None:
        try:
            events = parse_events(record.value)
        except BadEvent:
            self._require("I6", record.place in self._simulation.log.dead_places, f"{record.place} is no dead letter")
            return
        for event in events:
            if event.bucket == BRONZE:
                self._check_file(record, event)
            elif event.key.startswith(PREFIX):
                self._check_marker(record, event)

    def _check_file(self, record: Record, event: BucketEvent) -> None:
        ledger, log = self._simulation.ledger, self._simulation.log
        newest = ledger.newest(event.bucket, event.key)
        if newest is None:
            self._require("I6", event.removed, f"{record.place} is of {event.key}, which the ledger does not know")
            return
        if event.created:
            # A removal that comes before the put that it is about tells the ledger nothing; reconcile finds that out.
            seen = not later(event.sequencer, newest.row.sequencer)
            self._require("I6", seen, f"{record.place} is of {event.key} at {event.sequencer}, which the ledger missed")
            own = ledger.tables.files.get((event.bucket, event.key, event.etag))
            self._require("I6", own is not None, f"{record.place} is of {event.key}@{event.etag}, which has no row")
            if own is not None and own.row.reason in _DEAD_LETTERS:
                self._require("I6", event.key in log.dead_keys, f"{record.place} is no dead letter")
        for file in ledger.tables.files.values():
            row = file.row
            # An earlier event of the same content may pass: the latest one still stands for it.
            latest = row.sequencer == event.sequencer.rjust(32, "0")
            # A replay's command hands its own work on.
            due = row.state == FileState.RECEIVED and latest and row.version and not row.version.startswith("replay-")
            if (row.bucket, row.key) == (event.bucket, event.key) and due:
                sent = (row.bucket, row.key, row.etag, row.version) in log.work[Layer.SILVER]
                self._require("I6", sent, f"{record.place}: work of {row.key}@{row.etag} is not in Kafka")

    def _check_marker(self, record: Record, event: BucketEvent) -> None:
        ledger, log = self._simulation.ledger, self._simulation.log
        content = self._simulation.store.objects[event.bucket, event.key].content
        marker = parse_marker(content if isinstance(content, bytes) else b"")
        commit = (marker.table, marker.batch_id, marker.snapshot_id or 0)
        self._require("I6", commit in ledger.tables.commits, f"{record.place}: marker {event.key} is not recorded")
        if marker.layer == Layer.SILVER:
            for message in gold_work(marker, marker.committed_at):
                for item in message.items:
                    sent = identity(item) in log.work[Layer.GOLD]
                    self._require("I6", sent, f"{record.place}: gold work of {item.key} is not in Kafka")

    def _check_handed_over(self, group: str, record: Record) -> None:
        layer = next(layer for layer, name in LISTENER_GROUPS.items() if name == group)
        try:
            work = parse_work(record.value)
        except BadWork:
            self._require("I6", record.place in self._simulation.log.dead_places, f"{record.place} is no dead letter")
            return
        held = set()
        for registered in self._simulation.ledger.tables.batches.values():
            batch = registered.batch
            made = registered.handed_over_at is not None and batch.batch_id in self._simulation.scheduler.made
            if batch.layer == layer and batch.dataset == work.dataset and made:
                held |= {(item.bucket, item.key) for item in batch.items}
        for item in work.items:
            # Another version of the object may have taken its place in the batch; reconcile sees to it where that was
            # the older one.
            found = (item.bucket, item.key) in held
            self._require("I6", found, f"{record.place}: {item.key} for {layer} is in no batch with a run")

    # ---- at each commit to a table

    def check_rows(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        """Silver gets no rows of other content than it says: what was read was looked at once more before the commit.

        Two exceptions are known: content that was there and back again between the two looks, and rows that were not
        held, which are read again after the second look. The newer content's own run mends the latter, if it is good.
        """
        if name not in {contract.silver.name for contract in CONTRACTS.values()}:
            return
        for row in rows:
            key, etag = row["_source_key"], row["_source_etag"]
            if row["content"] == etag:
                continue
            back = sum(content.etag == etag for content in self._simulation.store.puts[key]) > 1
            self._require("I4", back or "held" not in row, f"{name} gets rows of {row['content']} as {etag}")
            self._simulation.world.counts["rows of other content, a known limit"] += 1
            if back:
                self._there_and_back.add(key)

    # ---- at the end

    def check_end(self) -> None:
        """Every guarantee, once everything is quiet."""
        self._check_answers()
        for dataset in sorted(CONTRACTS):
            self._check_tables(dataset)
            self._check_commits(dataset)
        self._check_accounts()
        self._check_runs()

    def _check_answers(self) -> None:
        """I1, I5: whatever is in bronze is done or has a reason, and so has every version that was told of."""
        store, ledger = self._simulation.store, self._simulation.ledger
        for name, file in sorted(ledger.tables.files.items()):
            self._require("I1", file.row.state.final, f"{name} is {file.row.state}")
        for (bucket, key), found in sorted(store.objects.items()):
            if bucket != BRONZE:
                continue
            newest = ledger.newest(bucket, key)
            row = newest.row if newest is not None else None
            if row is None or row.etag != found.etag or row.removed_at is not None:
                raise Violation("I1", f"{key}@{found.etag} is in bronze, but the ledger's newest is {row}")
            content = found.content
            if isinstance(content, Content) and not isinstance(dataset_of(key, CONTRACTS), End):
                done = self.is_good(key, content)
                state = FileState.DONE if done else FileState.QUARANTINED
                # Its run to gold may have found in silver what a driver that slept had put there.
                held = row.state == state or (row.reason == Reason.SUPERSEDED and self._is_unfenced(key))
                self._require("I5", held, f"{key}@{row.etag} is {row.state} ({row.reason}), not {state}")
        for name in ledger.tables.files:
            newest = ledger.newest(*name[:2])
            if newest is not None and name[:2] not in store.objects:
                self._require("I1", newest.row.removed_at is not None, f"{name} is gone, but the ledger does not know")

    def _check_tables(self, dataset: str) -> None:
        """I2, I4: silver is what bronze says, and gold is what silver says."""
        contract, lake = CONTRACTS[dataset], self._simulation.lake
        silver = _by_key(lake.all[contract.silver.name].rows)
        features = _by_key(lake.all[contract.features.name].rows)
        for key, contents in sorted(self._simulation.store.puts.items()):
            if dataset_of(key, CONTRACTS) != dataset:
                continue
            wanted = self._wanted(key, contents, contract.on_delete)
            got = silver.pop(key, Counter())
            gold = features.pop(key, Counter())
            if got in wanted and gold == got:
                continue
            limited = self._is_unfenced(key) or self._cannot_be_mended(key) or self.is_known_limit(key)
            if got not in wanted and not limited:
                raise Violation("I2", f"{contract.silver.name} holds of {key} {dict(got)}, not one of {wanted}")
            if gold != got and not limited and not self._was_cut_short(key):
                raise Violation("I2", f"{contract.features.name} holds of {key} {dict(gold)}, silver {dict(got)}")
            self._simulation.world.counts["files left as the known limits tell"] += 1
        self._require("I2", not silver and not features, f"rows of {[*silver, *features]}, which never were in bronze")
        unfenced = lake.all[contract.aggregate.name].unfenced
        rows = sorted(lake.all[contract.aggregate.name].rows, key=lambda row: row["day"])
        made = sums(lake.all[contract.features.name].rows)
        kept, made = ([row for row in of if (row["day"].year, row["day"].month) not in unfenced] for of in (rows, made))
        if kept != made:
            raise Violation("I2", f"{contract.aggregate.name} is {kept}, its features make {made}")

    def _check_commits(self, dataset: str) -> None:
        """I2: a batch writes once. Rejects may be written by each attempt; they count with silver's commit alone."""
        contract = CONTRACTS[dataset]
        for name in (contract.silver.name, contract.features.name, contract.aggregate.name):
            made = Counter(commit.batch_id for commit in self._simulation.lake.all[name].commits if commit.touched)
            twice = [batch_id for batch_id, count in made.items() if count > 1 and batch_id is not None]
            self._require("I2", not twice, f"{name} has several commits of {twice}")

    def _wanted(self, key: str, contents: Sequence[Content], on_delete: str) -> list[Counter[tuple[Any, ...]]]:
        """The rows of a key that a run without faults could have left in silver."""
        found = self._simulation.store.objects.get((BRONZE, key))
        current = found.content if found is not None else None
        if isinstance(current, Content) and self.is_good(key, current):
            return [_rows(current)]
        if current is None and on_delete == "retract":
            return [Counter()]
        newest = self._simulation.ledger.newest(BRONZE, key)
        if current is None and newest is not None and newest.row.state == FileState.DONE:
            return [_rows(content) for content in contents if content.etag == newest.row.etag]
        # Whether an earlier version was taken in before it was replaced or deleted is a matter of time.
        return [Counter(), *(_rows(content) for content in contents if self.is_good(key, content))]

    def _is_unfenced(self, key: str) -> bool:
        """Whether a driver that slept put rows of it where another had replaced nothing by nothing."""
        contract = CONTRACTS.get(key.split("/")[0])
        tables = (contract.silver.name, contract.features.name) if contract else ()
        return any(source_id(key) in self._simulation.lake.all[name].unfenced for name in tables)

    def _cannot_be_mended(self, key: str) -> bool:
        """Whether a run failed for good of a file that was deleted or overwritten since, so that no replay takes it.

        The file has its reason (I1), but its rows may have gone into silver, or out of it, or not.
        """
        newest = self._simulation.ledger.newest(BRONZE, key)
        return not self._is_mended(key) and any(
            file.row.reason == Reason.RUN_FAILED and (file is not newest or file.row.removed_at is not None)
            for file in self._simulation.ledger.tables.files.values()
            if file.row.key == key
        )

    def _was_cut_short(self, key: str) -> bool:
        """Whether rows that are in silver may be missing in gold, since the file that held them is no more.

        Their run to gold failed for good, or a replay took its place and found no such file.
        """
        ledger, scheduler = self._simulation.ledger, self._simulation.scheduler
        failed = {run.conf["batch_id"] for run in scheduler.runs.values() if run.state == "failed"}
        batches = (ledger.tables.batches[batch_id].batch for batch_id in failed)
        in_vain = any(item.key == key for batch in batches for item in batch.items)
        rows = (file.row for file in ledger.tables.files.values() if file.row.key == key)
        refused = {row.etag for row in rows if row.reason in (Reason.OBJECT_GONE, Reason.SUPERSEDED)}
        replayed = {row.etag for row in ledger.tables.history if row.key == key and row.hop == Hop.REPLAYED}
        return not self._is_mended(key) and bool(in_vain or refused & replayed)

    def _is_mended(self, key: str) -> bool:
        """Whether the file that is there now is good: whatever became of others, its rows alone are in the tables."""
        found = self._simulation.store.objects.get((BRONZE, key))
        return found is not None and isinstance(found.content, Content) and self.is_good(key, found.content)

    def is_known_limit(self, key: str) -> bool:
        """Whether silver may rightly hold other rows of a file than its content's; see `check_rows`."""
        late = key in self._simulation.store.read_late and not self._is_mended(key)
        return key in self._there_and_back or late

    def is_good(self, key: str, content: Content) -> bool:
        """Whether a file is to get into silver."""
        contract = CONTRACTS[key.split("/")[0]]
        bad = sum(not row.good for row in content.rows)
        share = contract.limits.max_rejected_share
        return content.kind == "parquet" and bool(content.rows) and bad <= share * len(content.rows)

    def _check_accounts(self) -> None:
        """I3: rows in = accepted + rejected, and they are those of the file."""
        for (name, layer), result in sorted(self._simulation.ledger.tables.results.items()):
            rows_in, accepted, rejected = result.rows
            self._require("I3", rows_in == accepted + rejected, f"{name} in {layer}: {result.rows}")
            file = self._simulation.ledger.tables.files[name]
            contents = [c for c in self._simulation.store.puts[name[1]] if c.etag == name[2]]
            if file.row.state == FileState.DONE and layer == Layer.SILVER and contents:
                good = sum(row.good for row in contents[0].rows)
                wanted = (len(contents[0].rows), good, len(contents[0].rows) - good)
                newest = self._simulation.ledger.newest(*name[:2])
                if newest is file and not self.is_known_limit(name[1]):
                    self._require("I3", result.rows == wanted, f"{name} in {layer}: {result.rows}, not {wanted}")

    def _check_runs(self) -> None:
        """No run without a batch, no run without an end, and one run a batch beside that of reconcile."""
        ledger, scheduler = self._simulation.ledger, self._simulation.scheduler
        for batch_id, runs in scheduler.made.items():
            first = [run_id for run_id in runs if not run_id.endswith("__again")]
            self._require("runs", len(first) <= 1, f"{batch_id} has the runs {first}")
        for run in scheduler.runs.values():
            known = run.conf["batch_id"] in ledger.tables.batches
            self._require("runs", known, f"{run.run_id} has no batch in the ledger")
            self._require("runs", run.state in ("success", "failed"), f"{run.run_id} is {run.state}")

    @staticmethod
    def _require(invariant: str, holds: bool, told: str) -> None:
        if not holds:
            raise Violation(invariant, told)


def _rows(content: Content) -> Counter[tuple[Any, ...]]:
    return Counter((content.etag, row.number, row.day, row.amount) for row in content.rows if row.good)


def _by_key(rows: Sequence[dict[str, Any]]) -> dict[str, Counter[tuple[Any, ...]]]:
    found: dict[str, Counter[tuple[Any, ...]]] = {}
    for row in rows:
        own = (row["content"], row["number"], row["day"], row["amount"])
        found.setdefault(row["_source_key"], Counter())[own] += 1
    return found
