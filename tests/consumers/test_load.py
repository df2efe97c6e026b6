"""What keeps the router's cost and memory flat, told by rows read and bytes held instead of time."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import kafka.record.util
import psycopg
import pytest
import structlog
from psycopg.conninfo import make_conninfo

from consumers.broker import Record
from consumers.ledger import Ledger
from consumers.recent import RecentEvents
from consumers.router import TOLD_ONE_BY_ONE, Router
from consumers.rows import Changes, KnownFiles
from consumers.watched_contracts import WatchedContracts
from contracts.events import BucketEvent
from contracts.settings import PROJECT
from contracts.states import Reason
from tests.consumers.samples import body, message, planned, put

POLL = 50


def files(folder: str, count: int) -> list[BucketEvent]:
    return [put(f"nyc_yellow/{folder}/{n}.parquet", etag=f"{folder}{n}", sequencer=f"{n + 1:X}") for n in range(count)]


def corrected(events: Iterable[BucketEvent]) -> list[BucketEvent]:
    return [put(e.key, etag=f"{e.etag}x", sequencer=f"{int(e.sequencer, 16) + 100:X}") for e in events]


def drop(ledger: Ledger, events: list[BucketEvent]) -> None:
    ledger.apply([(e.bucket, e.key, e.etag) for e in events], lambda known: planned(known, *events))


def rows_read(ledger: Ledger, table: str) -> int:
    """Rows of a table that were ever read, in sequence or by an index."""
    # A session hands its counts on by and by; this is the one that the ledger works with.
    ledger._run(lambda connection: connection.execute("SELECT pg_stat_force_next_flush()"))
    asked = "SELECT seq_tup_read + idx_tup_fetch AS read FROM pg_stat_user_tables WHERE relid = %s::regclass"
    row = ledger._run(lambda connection: connection.execute(asked, (table,)).fetchone())
    assert row is not None
    return int(row["read"])


@pytest.mark.services
# Small enough, each, that Postgres would rather read them all for what it takes to be a hundred events.
@pytest.mark.parametrize(("grown", "arriving"), [(10_000, 1), (30_000, POLL)])
@pytest.mark.parametrize(
    "again",
    [
        pytest.param(lambda events: files("more", len(events)), id="new-files"),
        pytest.param(lambda events: events, id="second-deliveries"),
        pytest.param(corrected, id="corrections"),
    ],
)
def test_events_read_few_rows_of_a_ledger_that_grew_since_their_statements_were_planned(
    ledger: Ledger, ledger_url: str, again: Callable[[list[BucketEvent]], list[BucketEvent]], grown: int, arriving: int
) -> None:
    ledger._pool.wait()  # A first one that found no connection would have a second one made, and both used in turn.
    events = files("first", POLL)
    for _ in range(12):  # Postgres keeps a statement's plan after ten times, here for the few rows of a first start.
        drop(ledger, events)
        events = corrected(events)
    with psycopg.connect(ledger_url) as connection:
        connection.execute(
            "INSERT INTO ledger.files (bucket, key, etag, dataset, state, size, sequencer)"
            " SELECT 'bronze', 'nyc_yellow/old/' || n, n, 'nyc_yellow', 'received', 1, lpad(n::text, 32, '0')"
            " FROM generate_series(1, %s) n",
            (grown,),
        )
    before = rows_read(ledger, "ledger.files") + rows_read(ledger, "ledger.history")
    drop(ledger, again(events)[:arriving])
    after = rows_read(ledger, "ledger.files") + rows_read(ledger, "ledger.history")
    assert after - before < 20 * POLL


@pytest.mark.services
def test_event_of_an_object_that_was_overwritten_all_the_time_reads_few_of_its_versions(
    ledger: Ledger, ledger_url: str
) -> None:
    key = "nyc_yellow/latest.parquet"
    with psycopg.connect(ledger_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO ledger.files (bucket, key, etag, dataset, state, size, sequencer)"
            " SELECT 'bronze', %s, n, 'nyc_yellow', 'done', 1, lpad(n::text, 32, '0')"
            " FROM generate_series(1, 20000) n",
            (key,),
        )
        connection.execute("ANALYZE ledger.files")  # as autovacuum does
    first = put(key=key, etag="a", sequencer="F0000")
    drop(ledger, [first])
    before = rows_read(ledger, "ledger.files")
    second = put(key=key, etag="b", sequencer="F0001")
    drop(ledger, [second])
    assert rows_read(ledger, "ledger.files") - before < 100
    with Ledger(ledger_url) as other:
        story = other.story("bronze", key, "a")
    assert story is not None
    assert story.reason == Reason.SUPERSEDED


@pytest.mark.services
def test_many_files_wait_at_once_in_a_ledger_that_knows_only_files_that_are_done(ledger_url: str) -> None:
    with psycopg.connect(ledger_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO ledger.files (bucket, key, etag, dataset, state, size, sequencer)"
            " SELECT 'bronze', 'nyc_yellow/old/' || n, n, 'nyc_yellow', 'done', 1, lpad(n::text, 32, '0')"
            " FROM generate_series(1, 100) n"
        )
        connection.execute("ANALYZE ledger.files")
    # Each event compared with each file that waits is 27 million pairs, some 11 s; by their names it is a moment.
    with Ledger(make_conninfo(ledger_url, options="-c statement_timeout=4000")) as ledger:
        for folder in ("a", "b", "c"):
            drop(ledger, files(folder, 3_000))


def test_checksums_of_messages_are_not_computed_in_python() -> None:
    # It took more than all else that the router does.
    assert kafka.record.util.calc_crc32c(memoryview(b"123456789")) == 0xE3069283
    assert kafka.record.util.crc32c_c is not None


class Servers:
    """Kafka and a ledger that forget what they are given."""

    def __init__(self) -> None:
        self.polls: list[list[Record]] = []

    def poll(self, timeout_ms: int, max_records: int) -> list[Record]:
        return self.polls.pop(0)

    def commit(self, offsets: object) -> None:
        pass

    def send(self, *message: object) -> None:
        pass

    def flush(self) -> None:
        pass

    def apply(self, names: object, plan: Callable[[KnownFiles], tuple[Any, Changes]]) -> Any:
        return plan(KnownFiles())[0]


@pytest.fixture
def servers() -> Servers:
    return Servers()


@pytest.fixture
def step(servers: Servers) -> Callable[[list[Record]], int]:
    """One poll of a router."""
    fake: Any = servers
    contracts = WatchedContracts(PROJECT / "contracts" / "datasets")
    router = Router(lambda: fake, fake, fake, fake, contracts, threading.Event())
    router._recent = RecentEvents(most=POLL)

    def step(records: list[Record]) -> int:
        servers.polls.append(records)
        return router.step(fake)

    return step


def test_router_holds_no_more_after_many_events_than_after_a_few(step: Callable[[list[Record]], int]) -> None:
    def route(folders: Iterable[str]) -> int:
        for folder in folders:
            with structlog.testing.capture_logs():
                step([message(body(event), offset) for offset, event in enumerate(files(folder, POLL))])
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        few = route("abcdefghij")
        many = route(f"many-{n}" for n in range(60))
    finally:
        tracemalloc.stop()
    # An event that stayed would hold half a kilobyte.
    assert many - few < 60 * POLL * 50


def test_large_poll_has_a_log_line_a_partition_and_a_small_one_a_line_an_event(
    step: Callable[[list[Record]], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = structlog.testing.LogCapture()
    # The module's own may be bound by now to what another test configured.
    monkeypatch.setattr("consumers.router.log", structlog.wrap_logger(None, [captured], structlog.stdlib.BoundLogger))
    events = files("many", TOLD_ONE_BY_ONE + 1)
    step([message(body(event), 100 + n, partition=n % 2) for n, event in enumerate(events)])
    lines = captured.entries
    assert [(line["event"], line["partition"], line["first_offset"], line["last_offset"]) for line in lines] == [
        ("events", 0, 100, 120),
        ("events", 1, 101, 119),
    ]
    assert [line["decisions"] for line in lines] == [{"Work": 11}, {"Work": 10}]
    captured.entries = lines = []
    step([message(body(event), 200 + n) for n, event in enumerate(files("few", 2))])
    assert [(line["event"], line["offset"], line["key"]) for line in lines] == [
        ("event", 200, "nyc_yellow/few/0.parquet"),
        ("event", 201, "nyc_yellow/few/1.parquet"),
    ]
