"""Exactly once in effect, on the real servers: the tables equal those of a run without faults, row for row."""

from __future__ import annotations

import os
import sys
from calendar import monthrange
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import pytest
from kafka import KafkaProducer

from consumers.broker import Reader, client_options
from consumers.ledger import Ledger
from consumers.topics import BRONZE_EVENTS, DEAD_LETTERS, PARTITIONS
from contracts.dataset import DatasetContract
from contracts.errors import JobFailed
from contracts.events import parse_events
from contracts.loading import load_contracts
from contracts.markers import CommitMarker
from contracts.states import FileState, Layer, Reason
from contracts.work import Batch, WorkItem, make_batch
from ingest.store import store_for
from sluice.files import wait_for_end
from spark_jobs import data_preprocessing_job as silver_job
from spark_jobs import tables
from spark_jobs.lake import open_lake
from spark_jobs.session import connect_session
from tests.chain.accounting import ROW_TABLES, assert_accounted, assert_zone_hour_agrees, content
from tests.chain.conftest import WAIT_SECONDS, Drop, DropAll, MakeMonth, Query, sql_text, wait_until
from tests.conftest import CONNECT_MODE, TWIN, Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]
MONTH = 2025, 2


def caught_up(stack: Stack) -> bool:
    return all(
        lag == 0 for topic in stack.json("topics") if topic["topic"] != DEAD_LETTERS for lag in topic["lag"].values()
    )


def events_of(stack: Stack, folder: str) -> list[tuple[bytes, bytes]]:
    """Key and value of the events of a folder, as MinIO wrote them; of all that Kafka holds by now."""
    with Reader(stack.settings.kafka_login("operator")) as reader:
        return [
            (record.key, record.value)
            for partition in range(PARTITIONS[BRONZE_EVENTS])
            for record in reader.read(BRONZE_EVENTS, partition, 0, sys.maxsize)
            if record.key is not None and record.value is not None and folder.encode() in record.key
        ]


def test_duplicate_reordered_and_replayed_events_leave_the_tables_of_a_run_without_faults(
    stack: Stack, put: Drop, put_all: DropAll, month: MakeMonth, query: Query, ledger: Ledger, unique: str
) -> None:
    bodies = {"a_2025-02.parquet": month(300, seed=31), "b_2025-02.parquet": month(200, seed=32)}
    put(f"nyc_yellow/{unique}/a_2025-02.parquet", month(250, seed=30))
    put_all({f"nyc_yellow/{unique}/{name}": body for name, body in bodies.items()})
    events = events_of(stack, unique)
    assert len({parse_events(value)[0].etag for _, value in events}) == 3
    producer = KafkaProducer(**client_options(stack.settings.kafka_login("admin")))
    for key, value in [*reversed(events), *events, *events]:
        producer.send(BRONZE_EVENTS, key=key, value=value)
    producer.flush()
    producer.close()
    put_all({f"{TWIN}/{unique}/{name}": body for name, body in bodies.items()})
    wait_until(lambda: caught_up(stack), "the repeated events are read")
    stories = [ledger.story("bronze", f"nyc_yellow/{unique}/{name}") for name in bodies]
    assert_accounted(query, *zip(stories, (300, 200), strict=True))
    assert content(query, "nyc_yellow", unique) == content(query, TWIN, unique)
    assert_zone_hour_agrees(query)


class ByHand:
    """The silver job as a second driver runs it: in this process, on the stack's Spark."""

    def __init__(self, stack: Stack) -> None:
        self._settings = stack.settings
        self._contract: DatasetContract = load_contracts(stack.settings.contracts_dir)["nyc_yellow"]

    def silver(self, batch: Batch) -> CommitMarker:
        store = store_for(self._settings, "spark")
        spark = connect_session(self._settings)
        try:
            return silver_job.run(spark, open_lake(self._settings, store), store, self._contract, batch)
        finally:
            spark.stop()


@pytest.fixture
def by_hand(stack: Stack) -> Iterator[ByHand]:
    """The job, ready to be run for a batch."""
    before = {name: os.environ.get(name) for name in CONNECT_MODE}
    yield ByHand(stack)
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def batch_of(s3: Any, *keys: str) -> Batch:
    """A batch of the objects as they are now."""
    heads = {key: s3.head_object(Bucket="bronze", Key=key) for key in keys}
    items = [
        WorkItem(bucket="bronze", key=key, etag=head["ETag"].strip('"'), size=head["ContentLength"], version="by-hand")
        for key, head in heads.items()
    ]
    return make_batch(Layer.SILVER, "nyc_yellow", items)


def test_two_drivers_of_one_batch_at_once_write_its_rows_once(
    put: Drop, month: MakeMonth, query: Query, s3: Any, by_hand: ByHand, unique: str
) -> None:
    key = f"nyc_yellow/{unique}/a_2025-02.parquet"
    put(key, month(300, seed=33))
    before = content(query, "nyc_yellow", unique)
    batch = batch_of(s3, key)

    def drive(_: int) -> CommitMarker | JobFailed:
        try:
            return by_hand.silver(batch)
        except JobFailed as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(drive, range(2)))
    assert any(isinstance(outcome, CommitMarker) for outcome in outcomes), outcomes
    again = by_hand.silver(batch)
    snapshots = {outcome.snapshot_id for outcome in outcomes if isinstance(outcome, CommitMarker)}
    assert snapshots == {again.snapshot_id}
    assert content(query, "nyc_yellow", unique) == before


def test_driver_that_slept_while_a_correction_passed_cannot_put_the_old_rows_back(
    put: Drop, month: MakeMonth, query: Query, s3: Any, by_hand: ByHand, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = f"nyc_yellow/{unique}/a_2025-02.parquet"
    put(key, month(300, seed=34))
    stale = batch_of(s3, key)
    commit = tables.commit_rows

    def slowly(df: Any, table: str, *arguments: Any) -> None:
        if table == "silver.nyc_yellow":
            # Both checks of the version are behind the driver; it is about to write the old rows.
            corrected = put(key, month(120, seed=35))
            assert corrected.state is FileState.DONE
        commit(df, table, *arguments)

    monkeypatch.setattr(tables, "commit_rows", slowly)
    with pytest.raises(JobFailed):
        by_hand.silver(stale)
    story = put(key, month(120, seed=35))
    assert query(f"select count(*) from silver.nyc_yellow where _source_key = {sql_text(key)}")[0][0] == (
        story.layers[0].rows_accepted
    )
    etags = query(f"select distinct _source_etag from silver.nyc_yellow where _source_key = {sql_text(key)}")
    assert etags == [(story.etag,)]
    assert_zone_hour_agrees(query)


def test_file_overwritten_while_it_is_read_is_left_out_and_its_newer_content_is_processed(
    put: Drop,
    put_all: DropAll,
    month: MakeMonth,
    query: Query,
    s3: Any,
    by_hand: ByHand,
    unique: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key, neighbour = (f"nyc_yellow/{unique}/{name}_2025-02.parquet" for name in "ab")
    put_all({key: month(300, seed=36), neighbour: month(150, seed=37)})
    batch = batch_of(s3, key, neighbour)
    split = silver_job.split_rows
    newer = month(110, seed=38)
    stories = []

    def while_reading(*arguments: Any) -> Any:
        if not stories:
            stories.append(put(key, newer))
        return split(*arguments)

    monkeypatch.setattr(silver_job, "split_rows", while_reading)
    try:
        marker = by_hand.silver(batch)
    except JobFailed:
        # The fence around the rejects noticed first; a second attempt is what Airflow makes.
        marker = by_hand.silver(batch)
    assert {source.key: source.refused for source in marker.sources} == {key: Reason.SUPERSEDED, neighbour: None}
    assert_accounted(query, (stories[0], 110))


def test_deleted_object_takes_its_rows_back_up_to_the_aggregate_where_the_contract_says_retract(
    put: Drop, put_all: DropAll, month: MakeMonth, query: Query, ledger: Ledger, owner: Any, unique: str
) -> None:
    key, neighbour = (f"{TWIN}/{unique}/{name}_2025-02.parquet" for name in "ab")
    etag = put_all({key: month(200, seed=39), neighbour: month(150, seed=40)})[key].etag
    # Another worker's tests fill and empty other months meanwhile.
    mine = f"pickup_date between date '{date(*MONTH, 1)}' and date '{date(*MONTH, monthrange(*MONTH)[1])}'"
    hours = f"select sum(trips) from gold.{TWIN}_zone_hour where {mine}"
    with_both = query(hours)[0][0]
    owner.delete_object(Bucket="bronze", Key=key)
    wait_until(lambda: _state(ledger, key, etag) is FileState.IGNORED, f"{key} is taken back")
    story = ledger.story("bronze", key, etag)
    assert story is not None
    assert story.reason is Reason.RETRACTED
    for pattern in ROW_TABLES:
        found = query(
            f"select _source_key, count(*) from {pattern.format(TWIN)}"
            f" where starts_with(_source_key, {sql_text(f'{TWIN}/{unique}/')}) group by all"
        )
        assert {name for name, _ in found} == {neighbour}, pattern
    features = query(f"select count(*) from gold.{TWIN}_features where {mine}")[0][0]
    assert query(hours)[0][0] == features < with_both
    back = put(key, month(200, seed=39))
    assert (back.state, back.etag) == (FileState.DONE, etag)
    assert query(hours)[0][0] == with_both


def test_deleted_object_keeps_its_rows_where_the_contract_says_keep(
    put: Drop, month: MakeMonth, query: Query, ledger: Ledger, owner: Any, unique: str
) -> None:
    key = f"nyc_yellow/{unique}/a_2025-02.parquet"
    put(key, month(100, seed=41))
    before = content(query, "nyc_yellow", unique)
    owner.delete_object(Bucket="bronze", Key=key)
    wait_until(lambda: _told_of(ledger, key, "removed"), f"{key} is known to be removed")
    story = ledger.story("bronze", key)
    assert story is not None
    assert_accounted(query, (story, 100))
    assert content(query, "nyc_yellow", unique) == before


def test_replay_runs_files_again_to_the_depth_asked_for_in_few_batches_and_changes_no_row(
    stack: Stack, s3: Any, month: MakeMonth, query: Query, ledger: Ledger, unique: str
) -> None:
    keys = [f"nyc_yellow/{unique}/{number:02d}_2025-02.parquet" for number in range(6)]
    for number, key in enumerate(keys):
        s3.put_object(Bucket="bronze", Key=key, Body=month(60, seed=200 + number))
    first = {key: wait_for_end(lambda key=key: ledger.story("bronze", key), key, 0, WAIT_SECONDS) for key in keys}
    before = content(query, "nyc_yellow", unique)
    names = [f"bronze/{key}" for key in keys]
    dry = stack.json("replay", *names, "--depth", "silver", "--dry-run")
    assert (len(dry["files"]), dry["batches"], dry["started"]) == (6, 1, 0)
    for depth, layers in (("silver", [Layer.SILVER]), ("gold", [Layer.SILVER, Layer.GOLD])):
        known = {key: ledger.story("bronze", key) for key in keys}
        assert stack.json("replay", *names, "--depth", depth)["started"] == 6
        again = {
            key: wait_for_end(
                lambda key=key: ledger.story("bronze", key),
                key,
                len(known[key].timeline),
                WAIT_SECONDS,  # type: ignore[union-attr]
            )
            for key in keys
        }
        for key in keys:
            ran = {r.layer for r, old in zip(again[key].layers, known[key].layers, strict=True) if r != old}  # type: ignore[union-attr]
            assert ran == set(layers), (depth, key)
        assert_accounted(query, *((story, 60) for story in again.values()))
        assert len({story.layers[0].run_id for story in again.values()}) <= 2
    assert content(query, "nyc_yellow", unique) == before
    assert all(story.state is FileState.DONE for story in first.values())


def test_snapshot_tells_its_files_and_a_file_its_snapshots(
    stack: Stack, put: Drop, month: MakeMonth, query: Query, unique: str
) -> None:
    lake = open_lake(stack.settings, store_for(stack.settings, "spark"))
    story = put(f"nyc_yellow/{unique}/a_2025-02.parquet", month(70, seed=42))
    for layer in story.layers:
        # A batch may hold files of other tests too.
        sources = {item["key"]: item for item in stack.json("why", "--snapshot", str(layer.snapshot_id))}
        source = sources[story.key]
        assert (source["etag"], source["table_name"]) == (story.etag, layer.table)
        assert source["rows_accepted"] == layer.rows_accepted
        held = {item["key"]: item for item in stack.json("why", "--snapshot", str(layer.snapshot_id), "--all")}
        keys = {key for (key,) in query(f"select distinct _source_key from {layer.table}")}
        table = lake.table(layer.table)
        assert table is not None
        # Files of other tests may have come since, so the table is asked as of the snapshot.
        rows = table.source_rows(layer.snapshot_id or 0, sorted(keys | set(held)))
        assert {key: (item["rows_accepted"], {item["etag"]}) for key, item in held.items()} == {
            key: (found.rows, found.etags) for key, found in rows.items()
        }
    for options in ([], ["--all"]):
        assert stack.json("why", "--snapshot", "1", *options, code=2)["error"] == "UsageError"


def _state(ledger: Ledger, key: str, etag: str) -> FileState | None:
    story = ledger.story("bronze", key, etag)
    return story.state if story else None


def _told_of(ledger: Ledger, key: str, hop: str) -> bool:
    story = ledger.story("bronze", key)
    return story is not None and hop in [passage.hop for passage in story.timeline]
