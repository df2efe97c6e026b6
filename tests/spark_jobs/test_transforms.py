"""The transformations, against values worked out by hand."""

from __future__ import annotations

from datetime import date, datetime, timedelta
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
        "duration_seconds": 1800,
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
    cast = (text[column.name].cast(column.type) for column in contract.silver.columns)
    return text.select(*cast, *(F.lit(None).cast("string").alias(name) for name in looked_up(contract)))


def conformed(spark: SparkSession, contract: DatasetContract, *changes: dict[str, Any]) -> DataFrame:
    """As `silver`, without the columns that are derived."""
    return silver(spark, contract, *changes).drop(
        *(column.name for column in contract.silver.columns if column.derived)
    )


def looked_up(contract: DatasetContract) -> list[str]:
    """The columns that come from references."""
    return [name for lookup in contract.references for name in lookup.columns]


def features(spark: SparkSession, contract: DatasetContract, **change: Any) -> Row:
    """The features of one trip, whose duration is that of its times."""
    row = nyc_taxi.features(nyc_taxi.clean(conformed(spark, contract, change))).first()
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
    assert row.miles_per_minute == pytest.approx(1 / 3)
    assert (row.tip_share, row.tolls_share) == (0.1, 0.04)
    assert row.log_distance == pytest.approx(2.3978952727983707)
    assert row.log_fare == pytest.approx(3.713572066704308)
    assert (row.is_holiday, row.is_airport, row.distance_bucket) == (False, True, 4)


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
    ratios = ("speed_mph", "miles_per_minute", "fare_per_mile", "fare_per_minute", "tip_share", "tolls_share")
    assert [row[name] for name in (*ratios, "log_fare")] == [None] * 7


def test_trip_without_zones_has_no_features_of_zones(spark: SparkSession, contract: DatasetContract) -> None:
    row = features(spark, contract, pickup_location_id=None, dropoff_location_id=None)
    assert (row.is_same_zone, row.is_airport, row.distance_bucket) == (None, None, 4)


def test_each_distance_has_its_bucket(spark: SparkSession, contract: DatasetContract) -> None:
    miles = {0: 0, 0.99: 0, 1: 1, 1.99: 1, 2: 2, 4.99: 2, 5: 3, 9.99: 3, 10: 4, 19.99: 4, 20: 5, 199: 5, None: None}
    rows = nyc_taxi.features(silver(spark, contract, *({"trip_distance": distance} for distance in miles))).collect()
    assert [row.distance_bucket for row in rows] == list(miles.values())


# Of the list of the Office of Personnel Management, but for days off in place of a Saturday or Sunday.
HOLIDAYS = {
    2009: "01-01 01-19 02-16 05-25 07-04 09-07 10-12 11-11 11-26 12-25",
    2020: "01-01 01-20 02-17 05-25 07-04 09-07 10-12 11-11 11-26 12-25",
    2021: "01-01 01-18 02-15 05-31 06-19 07-04 09-06 10-11 11-11 11-25 12-25",
    2024: "01-01 01-15 02-19 05-27 06-19 07-04 09-02 10-14 11-11 11-28 12-25",
    2025: "01-01 01-20 02-17 05-26 06-19 07-04 09-01 10-13 11-11 11-27 12-25",
}


def test_holidays_are_those_of_the_federal_calendar(spark: SparkSession, contract: DatasetContract) -> None:
    days = [date(year, 1, 1) + timedelta(days=number) for year in HOLIDAYS for number in range(365 + (year % 4 == 0))]
    one = silver(spark, contract, {}).drop("pickup_datetime")
    rows = spark.createDataFrame([(day,) for day in days], "day date").crossJoin(one)
    rows = rows.withColumn("pickup_datetime", F.col("day").cast("timestamp_ntz") + F.expr("INTERVAL 23 HOURS"))
    found = {row.day for row in nyc_taxi.features(rows).where("is_holiday").collect()}
    assert found == {date.fromisoformat(f"{year}-{day}") for year, text in HOLIDAYS.items() for day in text.split()}


CLOCKS: dict[str, tuple[str, str, int, bool]] = {
    # id: pickup, dropoff, minutes, whether it is uncertain
    "any-day": ("2025-01-15 17:30", "2025-01-15 18:00", 30, False),
    "any-sunday": ("2025-03-16 01:30", "2025-03-16 03:30", 120, False),
    "over-the-gap": ("2025-03-09 01:30", "2025-03-09 03:30", 60, False),
    "over-the-gap-by-a-minute": ("2025-03-09 01:59", "2025-03-09 03:00", 1, False),
    "over-the-gap-from-saturday": ("2025-03-08 23:50", "2025-03-09 03:10", 140, False),
    "over-the-gap-for-nearly-a-day": ("2025-03-08 04:00", "2025-03-09 04:30", 23 * 60 + 30, False),
    "before-the-gap": ("2025-03-09 01:00", "2025-03-09 01:59", 59, False),
    "after-the-gap": ("2025-03-09 03:00", "2025-03-09 03:20", 20, False),
    "into-the-gap": ("2025-03-09 01:50", "2025-03-09 02:10", 20, True),
    "out-of-the-gap": ("2025-03-09 02:50", "2025-03-09 03:10", 20, True),
    "inside-of-the-gap": ("2025-03-09 02:10", "2025-03-09 02:10", 0, True),
    "march-of-2009": ("2009-03-08 01:30", "2009-03-08 03:30", 60, False),
    "second-sunday-is-the-14th": ("2010-03-14 01:30", "2010-03-14 03:30", 60, False),
    "over-the-hour-twice": ("2025-11-02 00:50", "2025-11-02 02:10", 140, False),
    "over-the-hour-twice-from-saturday": ("2025-11-01 23:50", "2025-11-02 02:10", 200, False),
    "over-the-hour-twice-until-monday": ("2025-11-02 00:30", "2025-11-03 00:10", 24 * 60 + 40, False),
    "before-the-hour-twice": ("2025-11-02 00:10", "2025-11-02 00:59", 49, False),
    "after-the-hour-twice": ("2025-11-02 02:00", "2025-11-02 02:30", 30, False),
    "into-the-hour-twice": ("2025-11-02 00:50", "2025-11-02 01:30", 40, True),
    "out-of-the-hour-twice": ("2025-11-02 01:30", "2025-11-02 02:10", 40, True),
    "inside-of-the-hour-twice": ("2025-11-02 01:10", "2025-11-02 01:40", 30, True),
    "clock-goes-back": ("2025-11-02 01:50", "2025-11-02 01:10", 20, True),
    "clock-stands": ("2025-11-02 01:50", "2025-11-02 01:50", 60, True),
    "back-before-the-hour-twice": ("2025-11-02 01:10", "2025-11-02 00:50", -20, True),
    "back-into-the-hour-twice": ("2025-11-02 02:10", "2025-11-02 01:50", -20, True),
    "first-sunday-is-the-7th": ("2010-11-07 00:50", "2010-11-07 02:10", 140, False),
    "last-sunday-of-october": ("2025-10-26 00:50", "2025-10-26 02:10", 80, False),
    "before-the-law": ("2006-11-05 00:50", "2006-11-05 02:10", 80, False),
}


def test_duration_is_the_time_that_passed_on_days_when_clocks_change(
    spark: SparkSession, contract: DatasetContract
) -> None:
    times = [{"pickup_datetime": pickup, "dropoff_datetime": dropoff} for pickup, dropoff, *_ in CLOCKS.values()]
    rows = nyc_taxi.clean(conformed(spark, contract, *times)).collect()
    found = {case: (row.duration_seconds, row._ambiguous_time) for case, row in zip(CLOCKS, rows, strict=True)}
    assert found == {case: (minutes * 60, odd) for case, (_, _, minutes, odd) in CLOCKS.items()}


def test_duration_is_null_where_a_time_is_null(spark: SparkSession, contract: DatasetContract) -> None:
    times = ("pickup_datetime", "dropoff_datetime")
    rows = nyc_taxi.clean(conformed(spark, contract, *({name: None} for name in times))).collect()
    assert [(row.duration_seconds, row._ambiguous_time) for row in rows] == [(None, None)] * 2


def test_clean_makes_the_derived_columns_of_the_contract_with_their_types(
    spark: SparkSession, contract: DatasetContract
) -> None:
    derived = {column.name: column.type for column in contract.silver.columns if column.derived}
    df = nyc_taxi.clean(conformed(spark, contract, {}))
    assert {name: kind for name, kind in df.dtypes if name in derived} == derived


def test_features_have_every_column_of_the_contract(spark: SparkSession, contract: DatasetContract) -> None:
    df = nyc_taxi.features(silver(spark, contract, {}))
    types = dict(df.dtypes)
    assert {column.name: types[column.name] for column in contract.features.columns} == {
        column.name: column.type for column in contract.features.columns
    }


def test_aggregate_sums_an_hour_of_a_zone_and_leaves_nulls_out_of_the_means(
    spark: SparkSession, contract: DatasetContract
) -> None:
    rows = silver(
        spark,
        contract,
        {},
        {"total_amount": 150, "tip_amount": 35, "trip_distance": 20},
        {"duration_seconds": 0, "total_amount": 0, "tip_amount": None},
        {"pickup_location_id": 7},
    )
    found = {row.pickup_location_id: row for row in nyc_taxi.aggregate(nyc_taxi.features(rows)).collect()}
    assert (found[1].trips, float(found[1].revenue), found[1].mean_duration_minutes) == (3, 200.0, 20.0)
    assert (found[1].mean_speed_mph, found[1].tip_share) == (30.0, 0.2)
    assert found[7].trips == 1


def test_clean_capitalises_the_flag_and_takes_a_blank_for_missing(
    spark: SparkSession, contract: DatasetContract
) -> None:
    rows = conformed(spark, contract, *({"store_and_fwd_flag": flag} for flag in (" y ", "", None, "N")))
    assert [row.store_and_fwd_flag for row in nyc_taxi.clean(rows).collect()] == ["Y", None, None, "N"]
