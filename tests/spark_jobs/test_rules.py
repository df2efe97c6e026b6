"""Conforming and checking rows: types of every era, every rule, and the accounts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from contracts.dataset import DatasetContract, Severity
from contracts.work import WorkItem
from spark_jobs.checks import accepted_rows, rejected_rows
from spark_jobs.preflight import check_files
from spark_jobs.scan import scan_files
from spark_jobs.transforms import nyc_taxi
from tests.spark_jobs.conftest import JobStore, silver_batch
from tests.spark_jobs.trips import PICKUP, table, trip

Drop = Callable[..., WorkItem]
Split = Callable[[pa.Table], tuple[DataFrame, DataFrame]]

BAD_ROWS: dict[str, dict[str, Any]] = {
    "null_pickup_datetime": {"tpep_pickup_datetime": None},
    "null_fare_amount": {"fare_amount": float("nan")},
    "bad_fare_amount": {"fare_amount": 1e12},
    "bad_passenger_count": {"passenger_count": 1.5},
    "bad_dropoff_datetime": {"tpep_dropoff_datetime": 2**62},
    "dropoff_not_after_pickup": {"tpep_dropoff_datetime": PICKUP},
    "longer_than_a_day": {"tpep_dropoff_datetime": PICKUP + timedelta(hours=24, seconds=1)},
    "outside_file_month": {
        "tpep_pickup_datetime": datetime(2025, 2, 2),
        "tpep_dropoff_datetime": datetime(2025, 2, 2, 0, 20),
    },
    "negative_amount": {"fare_amount": -0.01},
    "absurd_amount": {"total_amount": 5000.01},
    "distance_not_positive": {"trip_distance": 0.0},
    "distance_absurd": {"trip_distance": 200.01, "tpep_dropoff_datetime": PICKUP + timedelta(hours=10)},
    "speed_absurd": {"trip_distance": 34.0},
    "unknown_zone": {"PULocationID": 266},
    "passengers_absurd": {"passenger_count": 10.0},
}
REFUND = {name: -value for name, value in trip().items() if name.endswith("_amount")}
BAD_PAIRS: dict[str, tuple[dict[str, Any], list[list[str]]]] = {
    # reason: what the second row of two changes, reasons of both; the order of equal rows does not matter
    "refund_pair": (REFUND, [["negative_amount", "refund_pair"], ["refund_pair"]]),
    "repeated_trip": ({}, [["repeated_trip"]]),
}
GOOD_PAIRS: dict[str, dict[str, Any]] = {
    "refund_pair": {"fare_amount": 21.0},
    "repeated_trip": {"passenger_count": 2},
}

GOOD_ROWS: dict[str, dict[str, Any]] = {
    "dropoff_not_after_pickup": {"tpep_dropoff_datetime": PICKUP + timedelta(seconds=1), "trip_distance": 0.02},
    "longer_than_a_day": {"tpep_dropoff_datetime": PICKUP + timedelta(hours=24)},
    "outside_file_month": {
        "tpep_pickup_datetime": datetime(2025, 2, 1, 23),
        "tpep_dropoff_datetime": datetime(2025, 2, 1, 23, 20),
    },
    "negative_amount": {"fare_amount": 0.0},
    "absurd_amount": {"total_amount": 5000.0, "fare_amount": 5000.0},
    "distance_not_positive": {"trip_distance": 0.01},
    "distance_absurd": {"trip_distance": 200.0, "tpep_dropoff_datetime": PICKUP + timedelta(hours=10)},
    "speed_absurd": {"trip_distance": 33.0},
    "unknown_zone": {"PULocationID": 265, "DOLocationID": 1},
    "passengers_absurd": {"passenger_count": 9.0},
    "missing passengers": {"passenger_count": None},
    "whole number in a double": {"passenger_count": 2.0},
}

HERE = {"pickup_longitude": -74.0, "pickup_latitude": 40.7, "dropoff_longitude": -73.9, "dropoff_latitude": 40.8}
ODD_ROWS: dict[str, list[dict[str, Any]]] = {
    "zone_outside_or_unknown": [{"PULocationID": 264}, {"DOLocationID": 265}],
    "passengers_missing": [{"passenger_count": 0}, {"passenger_count": None}],
    "ratecode_unknown": [{"RatecodeID": 99}],
    "ratecode_not_in_dictionary": [{"RatecodeID": 7}, {"RatecodeID": 0}],
    "payment_unknown": [{"payment_type": 5}],
    "payment_not_in_dictionary": [{"payment_type": 7}, {"payment_type": -1}],
    "vendor_not_in_dictionary": [{"VendorID": 5}],
    "totals_do_not_add_up": [{"total_amount": 30.02}, {"congestion_surcharge": None, "total_amount": 29.98}],
    "coordinates_absurd": [{"pickup_longitude": 0.0}, {"dropoff_latitude": -73.9}],
}
# Codes, or none; and totals of a vendor that has all surcharges, or all but one, in `extra`.
EVEN_ROWS: list[dict[str, Any]] = [
    {"RatecodeID": None, "payment_type": None, "VendorID": None},
    {"RatecodeID": 6, "payment_type": 0, "VendorID": 7},
    {"total_amount": 30.01},
    {"total_amount": 26.75},
    {"total_amount": 25.75},
    dict.fromkeys(HERE),
]
FLOATS = {"passenger_count": pa.float64()}


@pytest.fixture
def split(spark: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop) -> Split:
    """Put a table into bronze, and give its accepted and rejected rows."""
    numbers = itertools.count()

    def run(rows: pa.Table) -> tuple[DataFrame, DataFrame]:
        files, refused = check_files(
            store, contract, silver_batch(drop(f"nyc_yellow/rules{next(numbers)}_2025-01.parquet", rows))
        )
        assert not refused
        ((layout, rows),) = scan_files(spark, contract, files)
        rows = nyc_taxi.clean(rows)
        return accepted_rows(rows, contract, layout), rejected_rows(rows, contract, layout)

    return run


def as_micros(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Times as numbers, so that one beyond Python's years can stand among them."""
    epoch = datetime(1970, 1, 1)
    return [
        {k: (v - epoch) // timedelta(microseconds=1) if isinstance(v, datetime) else v for k, v in row.items()}
        for row in rows
    ]


def test_each_bad_row_is_rejected_for_its_own_reason_and_kept_as_it_came(split: Split) -> None:
    rows = [trip(**change) for change in BAD_ROWS.values()]
    accepted, rejected = split(table(*as_micros(rows), types=FLOATS))
    assert accepted.count() == 0
    found = rejected.select("_reason", "_reasons", "_row").collect()
    assert sorted(row["_reason"] for row in found) == sorted(BAD_ROWS)
    fast = next(json.loads(row["_row"]) for row in found if row["_reason"] == "speed_absurd")
    assert (fast["trip_distance"], fast["VendorID"], fast["tpep_pickup_datetime"]) == (
        34.0,
        2,
        "2025-01-15T17:30:00.000",
    )


def test_rows_at_the_edge_of_every_rule_pass(split: Split) -> None:
    accepted, rejected = split(table(*(trip(**change) for change in GOOD_ROWS.values()), types=FLOATS))
    assert [row["_reasons"] for row in rejected.collect()] == []
    assert accepted.count() == len(GOOD_ROWS)


def test_every_rule_of_the_contract_has_a_row_that_passes_and_one_that_fails(contract: DatasetContract) -> None:
    codes = {rule.code for rule in contract.rules if rule.severity is Severity.REJECT}
    assert codes <= {*BAD_ROWS, *BAD_PAIRS}
    assert codes <= {*GOOD_ROWS, *GOOD_PAIRS}
    assert {rule.code for rule in contract.rules} - codes == set(ODD_ROWS)


@pytest.mark.parametrize("reason", BAD_PAIRS)
def test_two_rows_of_a_file_are_held_against_each_other(split: Split, reason: str) -> None:
    change, reasons = BAD_PAIRS[reason]
    accepted, rejected = split(table(trip(), trip(**change), repeats=True))
    assert sorted(row["_reasons"] for row in rejected.collect()) == reasons
    assert accepted.count() == 2 - len(reasons)


@pytest.mark.parametrize("reason", GOOD_PAIRS)
def test_two_rows_that_differ_in_more_than_the_rule_says_pass(split: Split, reason: str) -> None:
    change = GOOD_PAIRS[reason]
    refund = reason == "refund_pair"
    accepted, rejected = split(table(trip(), trip(**(REFUND if refund else {}) | change), repeats=True))
    assert [row["_reasons"] for row in rejected.collect()] == ([["negative_amount"]] if refund else [])
    assert accepted.count() == 2 - refund


def test_odd_rows_are_kept_and_each_fails_its_own_warning_alone(split: Split, contract: DatasetContract) -> None:
    rows = [trip(**HERE | change) for changes in (*ODD_ROWS.values(), EVEN_ROWS) for change in changes]
    for number, row in enumerate(rows):
        row["tolls_amount"], row["extra"] = number, 2.5 - number  # which row it is
    accepted, rejected = split(table(*rows, types=dict.fromkeys(HERE, pa.float64())))
    assert [row["_reasons"] for row in rejected.collect()] == []
    rules = [rule for rule in contract.rules if rule.severity is Severity.WARN]
    fails = [(~F.coalesce(F.expr(rule.condition), F.lit(True))).alias(rule.code) for rule in rules]
    found = accepted.select(*fails).orderBy(accepted.tolls_amount).collect()
    expected = [[code] for code, changes in ODD_ROWS.items() for _ in changes] + [[]] * len(EVEN_ROWS)
    assert [[code for code, failed in row.asDict().items() if failed] for row in found] == expected


def test_row_that_breaks_several_rules_names_the_first_and_lists_all(split: Split) -> None:
    _, rejected = split(table(trip(fare_amount=-1.0, PULocationID=0, trip_distance=0.0)))
    row = rejected.first()
    assert row is not None
    assert row["_reason"] == "negative_amount"
    assert row["_reasons"] == ["negative_amount", "distance_not_positive", "unknown_zone"]


ERAS = {
    "ids as bigint, counts as double": {
        "VendorID": pa.int64(),
        "passenger_count": pa.float64(),
        "RatecodeID": pa.float64(),
    },
    "nanoseconds": {"tpep_pickup_datetime": pa.timestamp("ns"), "tpep_dropoff_datetime": pa.timestamp("ns")},
    "surcharges of the null type": {"Airport_fee": pa.null(), "congestion_surcharge": pa.null()},
    "amounts as decimal": {"fare_amount": pa.decimal128(12, 4)},
}


@pytest.mark.parametrize("types", ERAS.values(), ids=list(ERAS))
def test_the_same_trip_reads_the_same_in_every_era(
    split: Split, contract: DatasetContract, types: dict[str, Any]
) -> None:
    change: dict[str, Any] = dict.fromkeys([name for name, kind in types.items() if kind == pa.null()])
    file = table(trip(**change))
    for name, kind in types.items():
        column = pa.nulls(1) if kind == pa.null() else file[name].cast(kind)
        file = file.set_column(file.column_names.index(name), name, column)
    accepted, _ = split(file)
    newest, _ = split(table(trip(**change)))
    names = [column.name for column in contract.silver.columns]
    assert accepted.select(*names).collect() == newest.select(*names).collect()
    assert accepted.select(*names).schema == newest.select(*names).schema


def test_column_that_a_file_lacks_is_null(split: Split) -> None:
    accepted, _ = split(table(trip(), without=("cbd_congestion_fee",)))
    row: Row | None = accepted.first()
    assert row is not None
    assert row["cbd_congestion_fee"] is None


VALUES = st.one_of(st.none(), st.floats(width=64), st.sampled_from([0.0, -0.01, 5.0, 99_999_999.994, 99_999_999.995]))


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(VALUES, VALUES, VALUES, st.integers(-(2**62), 2**62)), min_size=1, max_size=12))
def test_whatever_the_values_each_row_is_either_accepted_or_rejected(
    split: Split, values: list[tuple[float | None, float | None, float | None, int]]
) -> None:
    rows = as_micros([trip()] * len(values))
    for row, (distance, fare, tip, dropoff) in zip(rows, values, strict=True):
        row.update(trip_distance=distance, fare_amount=fare, tip_amount=tip, tpep_dropoff_datetime=dropoff)
    accepted, rejected = split(table(*rows))
    kept = accepted.select("tip_amount").collect()
    out = rejected.select("tip_amount", "_reasons").collect()
    assert len(kept) + len(out) == len(rows)
    given_tips = sum(tip is not None and tip == tip for _, _, tip, _ in values)
    lost = sum("bad_tip_amount" in row["_reasons"] for row in out)
    assert sum(row["tip_amount"] is not None for row in [*kept, *out]) == given_tips - lost
