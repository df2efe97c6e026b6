"""The transformations, against values worked out by hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from contracts.dataset import DatasetContract
from spark_jobs.transforms import nyc_taxi

NIGHT = datetime(2025, 1, 18, 23, 59, 30)  # a Saturday


def silver(spark: SparkSession, contract: DatasetContract, *changes: dict[str, Any]) -> DataFrame:
    """Silver rows: a trip of 30 minutes and 10 miles, 40 dollars of 50 for the fare, from Wednesday 17:30 on."""
    start = datetime(2025, 1, 15, 17, 30)
    base = {
        "pickup_datetime": start,
        "dropoff_datetime": start + timedelta(minutes=30),
        "trip_distance": 10,
        "pickup_location_id": 1,
        "dropoff_location_id": 2,
        "fare_amount": 40,
        "tip_amount": 5,
        "tolls_amount": 2,
        "total_amount": 50,
    }
    names = [column.name for column in contract.silver.columns]
    rows = [
        tuple(None if (base | change).get(n) is None else str((base | change)[n]) for n in names) for change in changes
    ]
    text = spark.createDataFrame(rows, ", ".join(f"{name} string" for name in names))
    return text.select(*(text[column.name].cast(column.type) for column in contract.silver.columns))


def features(spark: SparkSession, contract: DatasetContract, **change: Any) -> Row:
    row = nyc_taxi.features(silver(spark, contract, change)).first()
    assert row is not None
    return row


def test_features_of_a_weekday_trip_are_those_worked_out_by_hand(
    spark: SparkSession, contract: DatasetContract
) -> None:
    row = features(spark, contract)
    assert (row.hour_of_day, row.day_of_week, row.day_of_month, row.month) == (17, 3, 15, 1)
    assert (row.is_weekend, row.is_rush_hour, row.is_night, row.is_same_zone) == (False, True, False, False)
    assert (row.pickup_hour, row.duration_seconds, row.duration_minutes) == (datetime(2025, 1, 15, 17), 1800, 30.0)
    assert (row.speed_mph, row.fare_per_mile) == (20.0, 4.0)
    assert row.fare_per_minute == pytest.approx(40 / 30)
    assert (row.tip_share, row.tolls_share) == (0.1, 0.04)
    assert row.log_distance == pytest.approx(2.3978952727983707)


def test_saturday_night_is_weekend_and_night_but_no_rush_hour(spark: SparkSession, contract: DatasetContract) -> None:
    row = features(spark, contract, pickup_datetime=NIGHT, dropoff_datetime=NIGHT + timedelta(minutes=1))
    assert (row.day_of_week, row.is_weekend, row.is_rush_hour, row.is_night) == (6, True, False, True)
    assert row.pickup_hour == datetime(2025, 1, 18, 23)


def test_ratios_with_a_zero_divisor_or_a_missing_part_are_null(spark: SparkSession, contract: DatasetContract) -> None:
    start = datetime(2025, 1, 15, 17, 30)
    row = features(
        spark, contract, dropoff_datetime=start, trip_distance=0, total_amount=0, tip_amount=None, fare_amount=None
    )
    assert (row.duration_seconds, row.log_distance) == (0, 0.0)
    assert [row[name] for name in ("speed_mph", "fare_per_mile", "fare_per_minute", "tip_share", "tolls_share")] == [
        None
    ] * 5


def test_features_have_every_column_of_the_contract(spark: SparkSession, contract: DatasetContract) -> None:
    looked_up = [name for lookup in contract.references for name in lookup.columns]
    rows = silver(spark, contract, {}).withColumns({name: F.lit(None).cast("string") for name in looked_up})
    df = nyc_taxi.features(rows)
    types = dict(df.dtypes)
    assert {column.name: types[column.name] for column in contract.features.columns} == {
        column.name: column.type for column in contract.features.columns
    }


def test_aggregate_sums_an_hour_of_a_zone_and_leaves_nulls_out_of_the_means(
    spark: SparkSession, contract: DatasetContract
) -> None:
    start = datetime(2025, 1, 15, 17, 30)
    rows = silver(
        spark,
        contract,
        {},
        {"total_amount": 150, "tip_amount": 35, "trip_distance": 20},
        {"dropoff_datetime": start, "total_amount": 0, "tip_amount": None},
        {"pickup_location_id": 7},
    )
    found = {row.pickup_location_id: row for row in nyc_taxi.aggregate(nyc_taxi.features(rows)).collect()}
    assert (found[1].trips, float(found[1].revenue), found[1].mean_duration_minutes) == (3, 200.0, 20.0)
    assert (found[1].mean_speed_mph, found[1].tip_share) == (30.0, 0.2)
    assert found[7].trips == 1


def test_clean_capitalises_the_flag_and_takes_a_blank_for_missing(
    spark: SparkSession, contract: DatasetContract
) -> None:
    rows = silver(spark, contract, *({"store_and_fwd_flag": flag} for flag in (" y ", "", None, "N")))
    assert [row.store_and_fwd_flag for row in nyc_taxi.clean(rows).collect()] == ["Y", None, None, "N"]
