"""Repeated rows, and rows that are taken back, few and many, against counting them in Python."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from contracts.dataset import DatasetContract, Negation, Rule
from contracts.work import WorkItem
from spark_jobs import repeats
from spark_jobs.preflight import check_files
from spark_jobs.scan import scan_files
from tests.spark_jobs.conftest import JobStore, silver_batch
from tests.spark_jobs.trips import PICKUP, TYPES, table, trip

Drop = Callable[..., WorkItem]
AMOUNTS = ("fare_amount", "total_amount")
ROWS = [
    trip(),
    trip(fare_amount=7.0, total_amount=9.0, passenger_count=3),
    trip(fare_amount=-7.0, total_amount=-9.0),
    trip(PULocationID=7),
    trip(PULocationID=7),
    trip(PULocationID=7),
    trip(PULocationID=8, passenger_count=None, RatecodeID=1),
    trip(PULocationID=8, passenger_count=1, RatecodeID=None),
    trip(PULocationID=9, fare_amount=0.0, total_amount=0.0),
    trip(PULocationID=9, fare_amount=0.0, total_amount=0.0),
    trip(PULocationID=10, fare_amount=-3.0, total_amount=-4.0),
    trip(PULocationID=10, fare_amount=-3.0, total_amount=-4.0),
    trip(PULocationID=11, fare_amount=5.0, total_amount=None),
    trip(PULocationID=11, fare_amount=-5.0, total_amount=None),
    trip(PULocationID=12, fare_amount=0.29, total_amount=1.15),
    trip(PULocationID=12, fare_amount=-0.29, total_amount=-1.15),
]


def expected(rows: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    """How often each row is there with each number and verdict."""
    found: Counter[tuple[Any, ...]] = Counter()
    seen: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        values = tuple(row.values())
        amounts = [row[name] for name in AMOUNTS]
        negated = (
            None not in amounts
            and any(amounts)
            and any(
                all(other[name] is not None and other[name] == -row[name] for name in AMOUNTS)
                for other in rows
                if all(other[name] == row[name] for name in ("tpep_pickup_datetime", "PULocationID"))
            )
        )
        found[(*values, seen[values], negated)] += 1
        seen[values] += 1
    return found


@pytest.fixture
def asking(contract: DatasetContract) -> DatasetContract:
    """The contract with rules that ask for both."""
    negation = Negation(same=("pickup_datetime", "pickup_location_id"), negated=AMOUNTS)
    rules = (Rule(code="repeated", condition="_copy = 0"), Rule(code="refund", condition="not _negated"))
    return contract.model_copy(update={"rules": rules, "negation": negation})


@pytest.mark.parametrize(("few", "at_hand"), [(200_000, 100_000), (0, 100_000), (0, 0)], ids=["few", "many", "lazily"])
def test_each_row_is_numbered_among_its_equals_and_its_opposite_is_found(
    lake: SparkSession,
    store: JobStore,
    asking: DatasetContract,
    drop: Drop,
    monkeypatch: pytest.MonkeyPatch,
    few: int,
    at_hand: int,
) -> None:
    monkeypatch.setattr(repeats, "_FEW_ROWS", few)
    monkeypatch.setattr(repeats, "_AT_HAND", at_hand)
    others = [trip(tpep_pickup_datetime=PICKUP.replace(minute=minute)) for minute in range(20)]
    rows = others + ROWS
    # The same rows in a second file are no repeats; a file with one column more is read by a scan of its own.
    more = table(*ROWS, repeats=True).append_column("what`ever.x", pa.array(["?"] * len(ROWS)))
    items = [
        drop(f"nyc_yellow/{name}.parquet", content)
        for name, content in (("a", table(*rows, repeats=True)), ("b", table(*rows, repeats=True)), ("c", more))
    ]
    files, refused = check_files(store, asking, silver_batch(*items))
    assert not refused
    frames = [rows for _, rows in scan_files(lake, asking, files)]
    names = [f"`_raw:{name}`" for name in TYPES]
    for item, wanted in zip(items, (rows, rows, ROWS), strict=True):
        found: Counter[tuple[Any, ...]] = Counter()
        for frame in frames:
            own = frame.where(frame["_source_key"] == item.key)
            found += Counter(tuple(row) for row in own.select(*names, "_copy", "_negated").collect())
        assert found == expected(wanted)


def test_hash_of_many_columns_tells_at_which_of_them_a_value_is_missing(lake: SparkSession) -> None:
    missing = [-1, 0, 30, 31, 69, 70, 99]
    rows = [[None if place == gone else 1 for place in range(100)] for gone in missing]
    frame = lake.createDataFrame(rows, ", ".join(f"c{place} int" for place in range(100)))
    hashes = frame.select(repeats._hash([F.col(f"c{place}") for place in range(100)])).collect()
    assert len({row[0] for row in hashes}) == len(missing)


@pytest.mark.parametrize("few", [200_000, 0], ids=["few", "many"])
def test_repeats_are_found_in_a_file_that_is_read_in_parts(
    lake: SparkSession,
    store: JobStore,
    asking: DatasetContract,
    drop: Drop,
    monkeypatch: pytest.MonkeyPatch,
    few: int,
) -> None:
    monkeypatch.setattr(repeats, "_FEW_ROWS", few)
    rows = ROWS + [trip(tpep_pickup_datetime=PICKUP.replace(minute=minute)) for minute in range(20)] + ROWS
    content = io.BytesIO()
    pq.write_table(table(*rows, repeats=True), content, row_group_size=3)
    files, _ = check_files(store, asking, silver_batch(drop("nyc_yellow/a.parquet", content.getvalue())))
    with small_parts(lake):
        ((_, frame),) = scan_files(lake, asking, files)
        assert frame.select(F.spark_partition_id()).distinct().count() > 3
        chosen = frame.select(*(f"`_raw:{name}`" for name in TYPES), "_copy", "_negated")
        for _ in range(2):
            assert Counter(tuple(row) for row in chosen.collect()) == expected(rows)


@contextmanager
def small_parts(spark: SparkSession) -> Iterator[None]:
    """Split files into parts of a few row groups of a few rows."""
    names = ("spark.sql.files.maxPartitionBytes", "spark.sql.files.openCostInBytes")
    before = {name: spark.conf.get(name) for name in names}
    for name in names:
        spark.conf.set(name, "4096")
    try:
        yield
    finally:
        for name, value in before.items():
            spark.conf.set(name, value)


def test_file_without_repeats_is_read_as_if_nobody_had_asked(
    lake: SparkSession, store: JobStore, asking: DatasetContract, drop: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "_FEW_ROWS", 0)
    files, _ = check_files(
        store, asking, silver_batch(drop("nyc_yellow/a.parquet", table(trip(), trip(PULocationID=7))))
    )
    ((_, frame),) = scan_files(lake, asking, files)
    assert [tuple(row) for row in frame.select("_copy", "_negated").collect()] == [(0, False)] * 2
