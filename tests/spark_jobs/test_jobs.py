"""Bronze to gold on a local session: what the tables and the markers hold afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import time, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from contracts.dataset import DatasetContract, Table
from contracts.errors import JobFailed
from contracts.markers import CommitMarker, parse_marker
from contracts.states import Layer, Reason
from contracts.work import WorkItem, make_batch
from spark_jobs import data_preprocessing_job, feature_engineering_job, packs, tables
from spark_jobs.lake import source_id
from spark_jobs.preflight import check_files
from spark_jobs.scan import find_unreadable
from spark_jobs.session import spark_errors
from spark_jobs.tables import aggregate_spec, replace_rows
from spark_jobs.warmup import _ROUNDS, _made_up
from tests.spark_jobs.conftest import TABLES, TAXI, JobStore, gold_batch, silver_batch
from tests.spark_jobs.trips import PICKUP, table, trip

Drop = Callable[..., WorkItem]

HOSTILE = [
    "nyc_yellow/a b+c%20d é 東京 #1%2F..parquet",
    "nyc_yellow/what?.parquet",
    "nyc_yellow/q'\"[x]{y}*&=;,\\z.parquet",
    "nyc_yellow/year=2025/`$HOME`\u00a0\U0001f600.parquet",
]


@pytest.fixture
def contract(few_rules: DatasetContract) -> DatasetContract:
    return few_rules


def run_silver(spark: SparkSession, store: JobStore, *arguments: Any) -> CommitMarker:
    return data_preprocessing_job.run(spark, store.lake, store, *arguments)  # type: ignore[arg-type]


def run_gold(spark: SparkSession, store: JobStore, *arguments: Any) -> CommitMarker:
    return feature_engineering_job.run(spark, store.lake, store, *arguments)  # type: ignore[arg-type]


def to_gold(item: WorkItem, marker: CommitMarker) -> WorkItem:
    accepted = {source.key: source.rows_accepted for source in marker.sources}
    return item.model_copy(update={"version": str(marker.snapshot_id), "rows": accepted[item.key]})


def count_by_key(spark: SparkSession, name: str) -> dict[str, int]:
    return {row[0]: row[1] for row in spark.table(name).groupBy("_source_key").count().collect()}


def snapshots(spark: SparkSession, name: str) -> int:
    return spark.table(f"{name}.snapshots").count()


def aggregate(spark: SparkSession) -> list[Row]:
    return spark.table("gold.nyc_yellow_zone_hour").orderBy("pickup_hour", "pickup_location_id").collect()


def test_files_of_hostile_names_and_two_eras_reach_silver_with_their_own_rows(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    files = {key: index + 1 for index, key in enumerate(HOSTILE)}
    items = [drop(key, table(*[trip()] * rows)) for key, rows in files.items()]
    old = {"passenger_count": pa.float64(), "VendorID": pa.int64()}
    items.append(
        drop("nyc_yellow/old.parquet", table(trip(), trip(fare_amount=-1.0), types=old, without=("Airport_fee",)))
    )
    marker = run_silver(lake, store, contract, silver_batch(*items))
    assert count_by_key(lake, "silver.nyc_yellow") == files | {"nyc_yellow/old.parquet": 1}
    assert count_by_key(lake, "silver.nyc_yellow_rejects") == {"nyc_yellow/old.parquet": 1}
    assert {source.key: source.rows_in for source in marker.sources} == files | {"nyc_yellow/old.parquet": 2}
    assert all(source.refused is None for source in marker.sources)


def test_marker_in_the_bucket_is_the_one_returned_and_names_the_snapshot(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    item = drop("nyc_yellow/m.parquet", table(trip(), trip(fare_amount=-1.0)))
    marker = run_silver(lake, store, contract, silver_batch(item), "dag", "run")
    assert parse_marker(store.get_range("silver", marker.key, 0, 100_000)) == marker
    assert marker.snapshot_id == lake.table("silver.nyc_yellow.refs").first()["snapshot_id"]
    assert (marker.sources[0].rows_in, marker.sources[0].rows_accepted, marker.sources[0].rows_rejected) == (2, 1, 1)


def test_same_batch_twice_writes_once_in_each_layer(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    item = drop("nyc_yellow/twice.parquet", table(trip(), trip()))
    first = run_silver(lake, store, contract, silver_batch(item))
    again = run_silver(lake, store, contract, silver_batch(item))
    assert again.model_copy(update={"started_at": first.started_at}) == first
    gold = gold_batch(to_gold(item, first))
    first = run_gold(lake, store, contract, gold)
    again = run_gold(lake, store, contract, gold)
    assert again.model_copy(update={"started_at": first.started_at}) == first
    tables = ["silver.nyc_yellow", "silver.nyc_yellow_rejects", "gold.nyc_yellow_features", "gold.nyc_yellow_zone_hour"]
    assert [snapshots(lake, name) for name in tables] == [1, 1, 1, 1]


def test_bad_files_are_refused_with_their_reason_and_the_good_one_gets_in(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    good = drop("nyc_yellow/good.parquet", table(trip()))
    whole = store.get_range("bronze", good.key, 0, 1_000_000)
    gone = WorkItem(bucket="bronze", key="nyc_yellow/gone.parquet", etag="0", version="1")
    items = {
        Reason.EMPTY_FILE: drop("nyc_yellow/empty.parquet", b""),
        Reason.NOT_PARQUET: drop("nyc_yellow/csv.parquet", b"a,b\n1,2\n"),
        Reason.DAMAGED_PARQUET: drop("nyc_yellow/cut.parquet", whole[:-100]),
        Reason.NO_ROWS: drop("nyc_yellow/norows.parquet", table()),
        Reason.MISSING_COLUMNS: drop("nyc_yellow/columns.parquet", table(trip(), without=("fare_amount",))),
        Reason.WRONG_TYPES: drop(
            "nyc_yellow/types.parquet", table(trip(fare_amount=True), types={"fare_amount": pa.bool_()})
        ),
        Reason.OBJECT_GONE: gone,
        Reason.SUPERSEDED: drop("nyc_yellow/new.parquet", table(trip())).model_copy(update={"etag": "old"}),
    }
    marker = run_silver(lake, store, contract, silver_batch(good, *items.values()))
    refused = {source.key: source.refused for source in marker.sources}
    assert refused == {good.key: None} | {item.key: reason for reason, item in items.items()}
    assert count_by_key(lake, "silver.nyc_yellow") == {good.key: 1}
    kept = {f"{item.key}/{item.etag}" for reason, item in items.items() if reason not in ("object_gone", "superseded")}
    assert set(store.copied) == kept


def test_batch_of_refused_files_alone_commits_nothing(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    marker = run_silver(lake, store, contract, silver_batch(drop("nyc_yellow/x.parquet", b"x")))
    assert marker.snapshot_id is None
    assert snapshots(lake, "silver.nyc_yellow") == 0


def test_damaged_pages_are_refused_while_the_other_files_get_in(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    goods = [drop(f"nyc_yellow/fine{n}.parquet", table(*[trip()] * n)) for n in (1, 2, 3)]
    sink = pa.BufferOutputStream()
    pq.write_table(table(*[trip()] * 500), sink)
    data = bytearray(sink.getvalue().to_pybytes())
    data[4:400] = b"\xff" * 396
    bad = drop("nyc_yellow/pages.parquet", bytes(data))
    batch = silver_batch(*goods, bad)
    for _ in range(2):
        marker = run_silver(lake, store, contract, batch)
        assert {source.key for source in marker.sources if source.refused} == {bad.key}
        assert {source.refused for source in marker.sources} == {None, Reason.UNREADABLE_DATA}
    assert count_by_key(lake, "silver.nyc_yellow") == {good.key: n for n, good in enumerate(goods, 1)}
    assert snapshots(lake, "silver.nyc_yellow") == 1


def test_corrected_file_replaces_exactly_its_own_rows_in_every_table(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    later = {
        "tpep_pickup_datetime": PICKUP + timedelta(days=1),
        "tpep_dropoff_datetime": PICKUP + timedelta(days=1, hours=1),
    }
    other = drop("nyc_yellow/other.parquet", table(trip(), trip(PULocationID=7)))
    first = drop("nyc_yellow/first.parquet", table(trip(), trip(**later), trip(fare_amount=-1.0)))
    for items in ([other, first], [drop("nyc_yellow/first.parquet", table(trip(total_amount=50.0)), "2")]):
        marker = run_silver(lake, store, contract, silver_batch(*items))
        run_gold(lake, store, contract, gold_batch(*(to_gold(item, marker) for item in items)))
    for name in ("silver.nyc_yellow", "gold.nyc_yellow_features"):
        assert count_by_key(lake, name) == {"nyc_yellow/other.parquet": 2, "nyc_yellow/first.parquet": 1}
    assert count_by_key(lake, "silver.nyc_yellow_rejects") == {}
    found = [(row.pickup_location_id, row.trips, float(row.revenue)) for row in aggregate(lake)]
    assert found == [(7, 1, 30.0), (132, 2, 80.0)]


def test_file_without_an_accepted_row_still_takes_its_old_rows_away(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    for version, row in (("1", trip()), ("2", trip(fare_amount=-1.0))):
        item = drop("nyc_yellow/none.parquet", table(row), version)
        marker = run_silver(lake, store, contract, silver_batch(item))
        run_gold(lake, store, contract, gold_batch(to_gold(item, marker)))
    assert count_by_key(lake, "silver.nyc_yellow") == count_by_key(lake, "gold.nyc_yellow_features") == {}
    assert aggregate(lake) == []


def test_crash_between_the_commits_of_gold_leaves_no_old_day_in_the_aggregate(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = {
        "tpep_pickup_datetime": PICKUP + timedelta(days=1),
        "tpep_dropoff_datetime": PICKUP + timedelta(days=1, hours=1),
    }
    batches = []
    for version, row in (("1", trip(**later)), ("2", trip())):
        item = drop("nyc_yellow/crash.parquet", table(row), version)
        marker = run_silver(lake, store, contract, silver_batch(item))
        batches.append(gold_batch(to_gold(item, marker)))
        if version == "1":
            run_gold(lake, store, contract, batches[0])

    def crash(*_: object) -> None:
        raise JobFailed("killed")

    with monkeypatch.context() as patch:
        patch.setattr(feature_engineering_job, "_write_aggregate", crash)
        with pytest.raises(JobFailed):
            run_gold(lake, store, contract, batches[1])
    run_gold(lake, store, contract, batches[1])
    assert [(row.pickup_date, row.trips) for row in aggregate(lake)] == [(PICKUP.date(), 1)]


def test_run_that_was_given_up_between_the_commits_of_gold_is_mended_by_the_next_one_of_its_files(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise JobFailed("given up")

    def put(day: int, name: str, number: int) -> WorkItem:
        start = PICKUP.replace(day=day)
        row = trip(tpep_pickup_datetime=start, tpep_dropoff_datetime=start + timedelta(minutes=30))
        item = drop(f"nyc_yellow/{name}.parquet", table(*[row] * number), f"{day}")
        return to_gold(item, run_silver(lake, store, contract, silver_batch(item)))

    run_gold(lake, store, contract, gold_batch(put(5, "moved", 1)))
    with monkeypatch.context() as patch:
        patch.setattr(feature_engineering_job, "_write_aggregate", crash)
        for day in (6, 7):
            with pytest.raises(JobFailed):
                run_gold(lake, store, contract, gold_batch(put(day, "moved", 1)))
        lost = put(6, "new", 2)
        with pytest.raises(JobFailed):
            run_gold(lake, store, contract, gold_batch(lost))
    last = put(8, "moved", 1)
    run_gold(lake, store, contract, gold_batch(last))
    assert {row.pickup_date.day: row.trips for row in aggregate(lake) if row.pickup_date.day != 6} == {8: 1}
    replayed = lost.model_copy(update={"version": "replay-1"})
    run_gold(lake, store, contract, gold_batch(replayed))
    assert {row.pickup_date.day: row.trips for row in aggregate(lake)} == {6: 2, 8: 1}


def test_tables_that_gained_columns_since_are_read_with_nulls_in_them(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    def without(table: Table, name: str) -> Table:
        return table.model_copy(update={"columns": tuple(one for one in table.columns if one.name != name)})

    assert contract.gold is not None
    gold = contract.gold.model_copy(
        update={
            "aggregate": without(contract.aggregate, "tip_share"),
            "features": without(contract.features, "passenger_count"),
        }
    )
    before = contract.model_copy(update={"gold": gold, "silver": without(contract.silver, "passenger_count")})

    def put(day: int) -> WorkItem:
        start = PICKUP.replace(day=day)
        row = trip(tpep_pickup_datetime=start, tpep_dropoff_datetime=start + timedelta(minutes=30))
        item = drop(f"nyc_yellow/{day}.parquet", table(row), "1")
        return to_gold(item, run_silver(lake, store, before, silver_batch(item)))

    items = [put(day) for day in (5, 6)]
    run_gold(lake, store, before, gold_batch(*items))
    # Silver gets the column with its next commit; gold is asked for before.
    for column in contract.silver.columns:
        if column.name == "passenger_count":
            lake.sql(f"ALTER TABLE {TABLES[0]} ADD COLUMNS (`{column.name}` {column.type})")
    run_gold(lake, store, contract, gold_batch(items[0].model_copy(update={"version": "again"})))
    assert {row.pickup_date.day: row.tip_share is None for row in aggregate(lake)} == {5: False, 6: True}
    counts = lake.table("gold.nyc_yellow_features").select("passenger_count").collect()
    assert [row[0] for row in counts] == [None, None]


@pytest.mark.parametrize("by_day", [False, True], ids=["month", "partitions-of-an-earlier-version"])
def test_correction_of_one_day_keeps_the_other_days_of_its_month(
    lake: SparkSession,
    store: JobStore,
    contract: DatasetContract,
    drop: Drop,
    monkeypatch: pytest.MonkeyPatch,
    by_day: bool,
) -> None:
    def put(name: str, month: int, day: int, rows: int) -> dict[str, int]:
        start = PICKUP.replace(month=month, day=day)
        moved = trip(tpep_pickup_datetime=start, tpep_dropoff_datetime=start + timedelta(minutes=30))
        item = drop(f"nyc_yellow/{name}.parquet", table(*[moved] * rows), str(rows))
        marker = run_silver(lake, store, contract, silver_batch(item))
        run_gold(lake, store, contract, gold_batch(to_gold(item, marker)))
        return {row.pickup_date.isoformat()[5:]: row.trips for row in aggregate(lake)}

    with monkeypatch.context() as patch:
        if by_day:
            spec = replace(aggregate_spec(contract), monthly=False)
            patch.setattr(feature_engineering_job, "aggregate_spec", lambda _: spec)
        put("a", 1, 1, rows=1)
        put("b", 1, 31, rows=1)
        assert put("c", 2, 1, rows=1) == {"01-01": 1, "01-31": 1, "02-01": 1}
    assert put("b", 1, 31, rows=2) == {"01-01": 1, "01-31": 2, "02-01": 1}
    assert lake.table("gold.nyc_yellow_zone_hour.files").count() == (3 if by_day else 2)


def test_rows_of_one_file_that_are_years_apart_reach_and_leave_the_aggregate(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    days = [PICKUP - timedelta(days=800), PICKUP]
    rows = [trip(tpep_pickup_datetime=day, tpep_dropoff_datetime=day + timedelta(minutes=30)) for day in days]
    for version, content in (("1", rows), ("2", rows[:1])):
        item = drop("nyc_yellow/apart.parquet", table(*content), version)
        marker = run_silver(lake, store, contract, silver_batch(item))
        run_gold(lake, store, contract, gold_batch(to_gold(item, marker)))
        found = [(row.pickup_date, row.trips) for row in aggregate(lake)]
        assert found == [(day.date(), 1) for day in days[: len(content)]]


def test_file_of_a_hundred_separate_months_reaches_the_aggregate(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    days = [PICKUP.replace(year=1990 + place // 4, month=1 + 3 * (place % 4)) for place in range(100)]
    rows = [trip(tpep_pickup_datetime=day, tpep_dropoff_datetime=day + timedelta(minutes=30)) for day in days]
    item = drop("nyc_yellow/months.parquet", table(*rows))
    marker = run_silver(lake, store, contract, silver_batch(item))
    run_gold(lake, store, contract, gold_batch(to_gold(item, marker)))
    assert [(row.pickup_date, row.trips) for row in aggregate(lake)] == [(day.date(), 1) for day in days]


def test_file_with_150_columns_that_no_contract_names_is_taken_in(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    wide = table(trip(), trip())
    for place in range(150):
        wide = wide.append_column(f"more_{place}", pa.array([None, place if place == 149 else None], pa.int64()))
    source = run_silver(lake, store, contract, silver_batch(drop("nyc_yellow/wide.parquet", wide))).sources[0]
    assert source.rows_accepted == 2
    found = [row[0] for row in lake.table("silver.nyc_yellow").select("_rescued").collect()]
    assert set(found) == {None, '{"more_149":149}'}


def test_rows_of_the_warm_up_pass_the_rules_so_that_features_are_warmed_too(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    item = drop("nyc_yellow/rows_2020-01.parquet", _made_up(contract, max(_ROUNDS)))
    source = run_silver(lake, store, contract, silver_batch(item)).sources[0]
    assert source.rows_accepted == source.rows_in > 0


def test_gold_by_hand_of_a_file_that_silver_does_not_hold_says_so(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    run_silver(lake, store, contract, silver_batch(drop("nyc_yellow/there.parquet", table(trip()))))
    missing = drop("nyc_yellow/missing.parquet", table(trip()))
    assert missing.rows is None
    marker = run_gold(lake, store, contract, gold_batch(missing))
    assert (marker.snapshot_id, marker.sources[0].refused) == (None, Reason.SUPERSEDED)


def test_work_for_a_version_that_silver_no_longer_holds_leaves_gold_alone(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    old = drop("nyc_yellow/late.parquet", table(trip(), trip()), "1")
    stale = to_gold(old, run_silver(lake, store, contract, silver_batch(old)))
    new = drop("nyc_yellow/late.parquet", table(trip()), "2")
    marker = run_silver(lake, store, contract, silver_batch(new))
    run_gold(lake, store, contract, gold_batch(to_gold(new, marker)))
    late = run_gold(lake, store, contract, gold_batch(stale))
    assert (late.snapshot_id, late.sources[0].refused) == (None, Reason.SUPERSEDED)
    assert (late.sequence_number, marker.sequence_number) == (0, 2)
    assert count_by_key(lake, "gold.nyc_yellow_features") == {"nyc_yellow/late.parquet": 1}


def test_job_that_was_overtaken_cannot_commit_older_rows(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    key = "nyc_yellow/zombie.parquet"
    base = run_silver(lake, store, contract, silver_batch(drop(key, table(trip())))).snapshot_id
    stale = lake.table("silver.nyc_yellow").localCheckpoint()
    run_silver(lake, store, contract, silver_batch(drop(key, table(trip(), trip()), "2")))
    with pytest.raises(JobFailed, match="ValidationException"), spark_errors("writing"):
        replace_rows(stale, "silver.nyc_yellow", F.col("_source_id") == source_id(key), "zombie", base)
    assert count_by_key(lake, "silver.nyc_yellow") == {key: 2}


def test_job_that_was_overtaken_cannot_commit_to_a_table_that_was_empty_when_it_began(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    key = "nyc_yellow/first.parquet"
    run_silver(lake, store, contract, silver_batch(drop(key, table(trip(), trip(fare_amount=-1.0)))))
    for name in ("silver.nyc_yellow", "silver.nyc_yellow_rejects"):
        stale = lake.table(name).localCheckpoint()
        with pytest.raises(JobFailed, match="ValidationException"), spark_errors("writing"):
            replace_rows(stale, name, F.col("_source_id") == source_id(key), "zombie", None)
    assert count_by_key(lake, "silver.nyc_yellow") == count_by_key(lake, "silver.nyc_yellow_rejects") == {key: 1}


def test_aggregate_cannot_be_overwritten_by_a_job_that_was_overtaken(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [drop(f"nyc_yellow/{name}.parquet", table(trip())) for name in "ab"]
    marker = run_silver(lake, store, contract, silver_batch(*items))
    slow, quick = (gold_batch(to_gold(item, marker)) for item in items)
    write = tables.commit_rows

    def overtaken(df: Any, table: str, *arguments: Any) -> None:
        if table == "gold.nyc_yellow_zone_hour":
            monkeypatch.setattr(tables, "commit_rows", write)
            run_gold(lake, store, contract, quick)
        write(df, table, *arguments)

    monkeypatch.setattr(tables, "commit_rows", overtaken)
    with pytest.raises(JobFailed, match="ValidationException"):
        run_gold(lake, store, contract, slow)
    run_gold(lake, store, contract, slow)
    assert [row.trips for row in aggregate(lake)] == [2]


def test_deleted_file_is_taken_back_from_every_table_and_its_neighbours_stay(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    items = [drop(f"nyc_yellow/{name}.parquet", table(trip(), trip(fare_amount=-1.0))) for name in "ab"]
    marker = run_silver(lake, store, contract, silver_batch(*items))
    run_gold(lake, store, contract, gold_batch(*(to_gold(item, marker) for item in items)))
    store.delete(items[0].key)
    deletion = items[0].model_copy(update={"version": "2", "deleted": True})
    for _ in range(2):
        marker = run_silver(lake, store, contract, silver_batch(deletion))
        assert [(s.deleted, s.refused, s.rows_in) for s in marker.sources] == [(True, None, 0)]
        run_gold(lake, store, contract, gold_batch(to_gold(deletion, marker)))
    kept = {items[1].key: 1}
    for name in ("silver.nyc_yellow", "silver.nyc_yellow_rejects", "gold.nyc_yellow_features"):
        assert count_by_key(lake, name) == kept
    assert [row.trips for row in aggregate(lake)] == [1]


def test_deletion_of_a_file_that_was_put_again_since_takes_nothing_back(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    item = drop("nyc_yellow/back.parquet", table(trip()))
    run_silver(lake, store, contract, silver_batch(item))
    marker = run_silver(lake, store, contract, silver_batch(item.model_copy(update={"version": "2", "deleted": True})))
    assert [source.refused for source in marker.sources] == [Reason.SUPERSEDED]
    assert count_by_key(lake, "silver.nyc_yellow") == {item.key: 1}


@pytest.mark.parametrize("few", [20_000, 0], ids=["judged-once", "judged-for-each-table"])
def test_data_files_are_written_by_the_native_writer(
    lake: SparkSession,
    store: JobStore,
    contract: DatasetContract,
    drop: Drop,
    monkeypatch: pytest.MonkeyPatch,
    few: int,
) -> None:
    monkeypatch.setattr(packs, "_FEW_ROWS", few)
    # A setting or table property that Comet does not know makes it hand the write back to Spark without a word.
    items = [drop(f"nyc_yellow/{name}.parquet", table(trip(), trip(fare_amount=-1.0))) for name in "ab"]
    for batch in (items[:1], items):
        marker = run_silver(lake, store, contract, silver_batch(*batch))
        run_gold(lake, store, contract, gold_batch(*(to_gold(item, marker) for item in batch)))
    files = [(bucket, key) for bucket in ("silver", "gold") for key in store.keys(bucket) if key.endswith(".parquet")]
    writers = {
        (key.split("/")[0], "parquet-mr" in pq.read_metadata(pa.BufferReader(store.read(bucket, key))).created_by)
        for bucket, key in files
    }
    assert writers == {(name.split(".")[1], False) for name in TABLES}


def test_read_that_fails_by_the_store_blames_no_file(
    spark: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    item = drop("nyc_yellow/gone.parquet", table(trip()))
    files, _ = check_files(store, contract, silver_batch(item))
    store.delete(item.key)
    with pytest.raises(JobFailed):
        find_unreadable(spark, files)


def test_columns_that_no_contract_names_are_kept_row_by_row_nested_ones_too(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    more = {
        "note": pa.array(["night shift", None]),
        "stops": pa.array([[{"zone": 7, "at `it`": 1.5}], None]),
        "meter": pa.array([{"maker": "A", "seals": [1, 2]}, None]),
        "tags": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int32())),
        # Spark has no time of day, so it is the count that the file holds.
        "seen": pa.array([time(0, 0, 1), None], pa.time64("us")),
        # Spark does not read fields that differ by case only.
        "twins": pa.array([{"a": 1, "A": 2}, None]),
    }
    file = table(trip(), trip(PULocationID=7))
    for name, column in more.items():
        file = file.append_column(name, column)
    marker = run_silver(lake, store, contract, silver_batch(drop("nyc_yellow/more.parquet", file)))
    assert (marker.sources[0].rescued, marker.sources[0].left_out) == (
        ("meter", "note", "seen", "stops", "tags"),
        ("twins",),
    )
    rows = lake.table("silver.nyc_yellow").orderBy("pickup_location_id").select("_rescued").collect()
    assert rows[0][0] is None
    assert json.loads(rows[1][0]) == {
        "note": "night shift",
        "stops": [{"zone": 7, "at `it`": 1.5}],
        "meter": {"maker": "A", "seals": [1, 2]},
        "seen": 1_000_000,
        "tags": {"k": 1},
    }


def test_real_sample_of_2025_is_accounted_for_to_the_row(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    sample = TAXI / "yellow_tripdata_sample.parquet"
    if not sample.is_file():
        pytest.skip(f"{sample.name} is not beside the repository (shared/data/taxi)")
    item = drop("nyc_yellow/yellow_tripdata_sample.parquet", sample.read_bytes())
    marker = run_silver(lake, store, contract, silver_batch(item))
    gold = run_gold(lake, store, contract, gold_batch(to_gold(item, marker)))
    source = marker.sources[0]
    assert source.rows_in == 5000
    assert source.rows_accepted > 4000
    assert gold.sources[0].rows_accepted == source.rows_accepted
    assert sum(row.trips for row in aggregate(lake)) == source.rows_accepted


def test_files_of_sixty_layouts_are_one_batch(
    lake: SparkSession, store: JobStore, zones_contract: DatasetContract, drop: Drop
) -> None:
    zone = {name: pa.array(["1"]) for name in ("LocationID", "Borough", "Zone", "service_zone")}
    items = [
        drop(f"taxi_zones/{place}.parquet", pa.table({**zone, f"more_{place}": pa.array([place])}))
        for place in range(60)
    ]
    batch = make_batch(Layer.SILVER, "taxi_zones", [item.model_copy(update={"depth": Layer.SILVER}) for item in items])
    marker = run_silver(lake, store, zones_contract, batch)
    assert {source.rows_accepted for source in marker.sources} == {1}
