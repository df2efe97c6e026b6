"""The simulator's ledger against the real one: the same operations, in any order, leave the same rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from consumers.ledger import Ledger
from consumers.replay import plan_refresh, plan_replay, refresh_version
from consumers.routing import Arrival, Work, gold_work, plan
from consumers.rows import FileRow
from contracts.errors import SluiceError
from contracts.events import BucketEvent
from contracts.markers import CommitMarker, SourceResult
from contracts.states import Layer, Reason
from contracts.work import Batch, WorkItem, make_batch
from tests.consumers.samples import NOON
from tests.simulator.datasets import CONTRACTS
from tests.simulator.ledger import LedgerModel

pytestmark = pytest.mark.services

EVER = datetime(2100, 1, 1, tzinfo=UTC)
KEYS = ("keeps/a.parquet", "keeps/b.parquet", "takes/a.parquet", "takes/b.parquet", "nowhere/x.parquet", "takes/.x")
REFUSED = (Reason.SUPERSEDED, Reason.OBJECT_GONE, Reason.NOT_PARQUET)


class Both:
    """Two ledgers that are told the same, and what there is to tell them."""

    def __init__(self, real: Ledger, seed: int) -> None:
        self.random = Random(seed)
        self.real = real
        self.ticks = 0
        self.model = LedgerModel(self._now)
        self.works: list[tuple[Layer, Work]] = []
        self.batches: list[Batch] = []
        self.markers: list[CommitMarker] = []
        self.events_told: list[BucketEvent] = []
        self.sequencer = 0

    def _now(self) -> datetime:
        self.ticks += 1
        return NOON + timedelta(milliseconds=self.ticks)

    def tell(self, method: str, *arguments: Any) -> Any:
        """Do the same to both; the answer, or the error's kind, is the same."""
        answers = [self._answer(getattr(ledger, method), arguments) for ledger in (self.real, self.model)]
        assert answers[0] == answers[1], (method, arguments)
        return answers[0]

    @staticmethod
    def _answer(method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        try:
            answer = method(*arguments)
        except SluiceError as error:
            return type(error)
        return answer

    # ---- operations

    def events(self) -> None:
        arrivals = [Arrival(self._event(), NOON) for _ in range(self.random.randint(1, 3))]
        names = {(a.event.bucket, a.event.key, a.event.etag) for a in arrivals}
        for ledger in (self.real, self.model):
            decided: Any = ledger.apply(names, lambda known: plan(arrivals, CONTRACTS, known, NOON))
        works = (one if isinstance(one, Work) else getattr(one, "again", None) for one in decided)
        self.works += [(Layer.SILVER, one) for one in works if isinstance(one, Work)]

    def _event(self) -> BucketEvent:
        """One in any order; no two of an object have the same sequencer, but for second deliveries."""
        if self.events_told and self.random.random() < 0.2:
            return self.random.choice(self.events_told)
        self.sequencer += 0x100
        created = self.random.random() < 0.8
        number = self.sequencer + self.random.randint(-4, 0) * 0x100 + len(self.events_told) % 0x100
        event = BucketEvent(
            name="s3:ObjectCreated:Put" if created else "s3:ObjectRemoved:Delete",
            bucket="bronze",
            key=self.random.choice(KEYS),
            etag=self.random.choice("abc") if created else "",
            size=7 if created else 0,
            at=NOON + timedelta(seconds=number),
            sequencer=f"{0x1000 + number:X}",
        )
        self.events_told.append(event)
        return event

    def claim(self) -> None:
        if not self.works:
            return
        layer, first = self.random.choice(self.works)
        own = [work.item for at, work in self.works if (at, work.dataset) == (layer, first.dataset)]
        items = self.random.sample(own, self.random.randint(1, min(3, len(own))))
        self.tell("unclaimed", layer, first.dataset, items)
        batch = make_batch(layer, first.dataset, items)
        self.batches.append(batch)
        self.tell("claim", batch)

    def hand_over(self) -> None:
        if self.batches:
            self.tell("handed_over", self.random.choice(self.batches).batch_id)

    def start(self) -> None:
        if self.batches:
            self.tell("started", self.random.choice(self.batches), "dag", "run", 1)

    def fail(self) -> None:
        if self.batches and self.random.random() < 0.4:
            self.tell("failed", self.random.choice(self.batches), "run", "It broke.")

    def load(self) -> None:
        self.tell("load_batch", self.random.choice([*(batch.batch_id for batch in self.batches), "none"]))

    def mark(self) -> None:
        if not self.batches:
            return
        if self.markers and self.random.random() < 0.2:
            self.tell("record_marker", self.random.choice(self.markers))
            return
        batch, number = self.random.choice(self.batches), len(self.markers) + 1
        contract = CONTRACTS[batch.dataset]
        at = NOON + timedelta(minutes=number + self.random.randint(-3, 3))
        sources = [self._source(item) for item in batch.items]
        marker = CommitMarker(
            layer=batch.layer,
            dataset=batch.dataset,
            table=(contract.silver if batch.layer == Layer.SILVER else contract.features).name,
            snapshot_id=number if any(source.refused is None for source in sources) else None,
            sequence_number=number,
            batch_id=batch.batch_id,
            started_at=at,
            committed_at=at,
            sources=tuple(sources),
        )
        self.markers.append(marker)
        self.tell("record_marker", marker)
        if marker.layer == Layer.SILVER:
            items = [item for message in gold_work(marker, NOON) for item in message.items]
            self.works += [(Layer.GOLD, Work(batch.dataset, item)) for item in items]

    def _source(self, item: WorkItem) -> SourceResult:
        about = item.model_dump(include={"bucket", "key", "etag", "size", "cause", "depth", "deleted"})
        if self.random.random() < 0.25:
            return SourceResult(**about, refused=self.random.choice(REFUSED), detail="why")
        good, bad = self.random.randint(0, 2), self.random.randint(0, 2)
        return SourceResult(**about, rows_in=good + bad, rows_accepted=good, rows_rejected=bad)

    def unknown(self) -> None:
        """A job by hand, of a file of which no event told."""
        at = NOON + timedelta(hours=1)
        source = SourceResult(bucket="bronze", key="keeps/hand.parquet", etag="h", rows_in=1, rows_accepted=1)
        about = {"layer": Layer.SILVER, "dataset": "keeps", "table": "silver.keeps", "batch_id": "hand"}
        self.tell(
            "record_marker", CommitMarker(**about, snapshot_id=9, started_at=at, committed_at=at, sources=(source,))
        )

    def replay(self) -> None:
        version = f"replay-{self.random.getrandbits(30)}"
        rows = self.tell("newest_of_keys", {("bronze", self.random.choice(KEYS)) for _ in range(2)})
        planned = plan_replay(rows, CONTRACTS, self.random.choice(list(Layer)), version)
        self.works += [(Layer.SILVER, work) for work in self.tell("replay", planned.work)]

    def replay_stale(self) -> None:
        """Planned before something else happened."""
        if self.works:
            _, work = self.random.choice(self.works)
            item = work.item.model_copy(update={"version": "replay-stale", "cause": "replay-stale", "deleted": False})
            self.tell("replay", [Work(work.dataset, item)])

    def refresh(self) -> None:
        if not self.markers:
            return
        marker, dataset = self.random.choice(self.markers), self.random.choice(list(CONTRACTS))
        self.tell("content_before", marker)
        version = refresh_version(marker)

        def decide(rows: Any) -> Any:
            return plan_refresh(rows, dataset, version)

        self.tell("refresh", marker, dataset, version, decide)

    def ask(self) -> None:
        for layer in Layer:
            works = [ledger.not_taken(layer, EVER, 100) for ledger in (self.real, self.model)]
            assert sorted(works[0], key=repr) == sorted(works[1], key=repr)
            assert self.tell("not_taken", layer, NOON - timedelta(days=1), 100) == []
        assert sorted(self.real.without_result(EVER, 100)) == sorted(self.model.without_result(EVER, 100))
        ids = [batch.batch_id for batch in self.batches]
        assert set(self.real.without_marker(ids, EVER)) == set(self.model.without_marker(ids, EVER))
        self.tell("waiting")
        for batch in self.batches[-2:]:
            self.tell("newest_of_batch", batch.batch_id)
        self.tell("newest_between", "bronze", "keeps/a.parquet", "takes/a.parquet")
        self.tell("newest_between", "bronze", "", None)
        self.tell("set_reconciled_to", "bronze", self.random.choice(KEYS))
        self.tell("reconciled_to", "bronze")

    # ---- what they hold

    def compare(self) -> None:
        """Every row of both, but for the moments at which they were written."""

        def read(table: str) -> list[dict[str, Any]]:
            return self.real._run(lambda c: c.execute(f"SELECT * FROM ledger.{table}").fetchall())

        tables = self.model.tables
        files = {(f["bucket"], f["key"], f["etag"]): f for f in read("files")}
        assert files.keys() == tables.files.keys()
        for name, file in tables.files.items():
            known, row = files[name], file.row
            same: list[str] = [field for field in FileRow.__dataclass_fields__ if known[field] != getattr(row, field)]
            assert same == [], (name, known, row)
        fields = ("key", "etag", "hop", "state", "layer", "reason", "detail")
        told = [tuple(h[field] for field in fields) for h in read("history")]
        kept = [tuple(_text(getattr(h, field)) for field in fields) for h in tables.history]
        assert sorted(told, key=repr) == sorted(kept, key=repr)
        results = {((r["bucket"], r["key"], r["etag"]), r["layer"]): r for r in read("results")}
        assert results.keys() == {(name, str(layer)) for name, layer in tables.results}
        for (name, layer), result in tables.results.items():
            r = results[name, layer]
            assert (r["batch_id"], r["snapshot_id"], r["at"]) == (result.batch_id, result.snapshot_id, result.at)
            assert (r["rows_in"], r["rows_accepted"], r["rows_rejected"]) == result.rows
        over = {b["batch_id"]: b["handed_over_at"] is not None for b in read("batches")}
        assert over == {name: b.handed_over_at is not None for name, b in tables.batches.items()}
        assert len(read("commit_sources")) == len(tables.sources)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


@pytest.mark.parametrize("seed", range(8))
def test_model_and_ledger_hold_the_same_after_any_operations(ledger: Ledger, seed: int) -> None:
    both = Both(ledger, seed)
    operations = [
        *[both.events] * 6,
        *[both.claim, both.hand_over, both.mark] * 4,
        *[both.start, both.fail, both.load, both.replay, both.replay_stale, both.refresh, both.ask],
        both.unknown,
    ]
    for number in range(150):
        both.random.choice(operations)()
        if number % 10 == 9:
            both.ask()
            both.compare()
