"""New York taxi trips: what is done to the rows. Pure functions; no session, no files, no dataset's name.

`spark_jobs.transforms.trip_times` says what holds for the times.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs.transforms.trip_times import is_weekend, mean_duration_minutes, moments, of_moments

# The TLC's rush-hour surcharge: 16:00 to 20:00 on weekdays.
_RUSH_FROM, _RUSH_TO = 16, 20
_MICRO = 1_000_000


def clean(df: DataFrame) -> DataFrame:
    """Tidy conformed silver rows: codes without blanks and in capitals; a blank code is a missing one.

    Rows and columns stay the same.
    """
    flag = F.upper(F.trim(F.col("store_and_fwd_flag")))
    return df.withColumn("store_and_fwd_flag", F.when(flag != "", flag))


def features(df: DataFrame) -> DataFrame:
    """Add the features of each trip; one row in, one row out, all columns kept.

    Args:
        df: silver rows. Amounts in USD, distance in miles.

    Returns:
        With time, distance, duration and ratio features. A ratio is null where its divisor is 0 or a part is null.
    """
    times = moments()
    miles = F.col("trip_distance").cast("double")
    seconds = F.col("duration_seconds").cast("double")
    fare = F.col("fare_amount").cast("double")
    return df.withColumns(
        {
            **times,
            "day_of_month": F.dayofmonth(times["pickup_date"]),
            "month": F.month(times["pickup_date"]),
            "is_same_zone": F.col("pickup_location_id") == F.col("dropoff_location_id"),
            "log_distance": F.when(miles >= 0, F.log1p(miles)),
        }
    ).withColumns(
        {
            **of_moments(),
            "is_rush_hour": ~is_weekend() & F.col("hour_of_day").between(_RUSH_FROM, _RUSH_TO - 1),
            "speed_mph": F.try_divide(miles * 3600, seconds),
            "fare_per_mile": F.try_divide(fare, miles),
            "fare_per_minute": F.try_divide(fare * 60, seconds),
            "tip_share": _share_of_total("tip_amount"),
            "tolls_share": _share_of_total("tolls_amount"),
        }
    )


def aggregate(df: DataFrame) -> DataFrame:
    """One row a pickup zone and hour: trips, revenue, mean duration, mean speed, tips as a share of the totals.

    Means are quotients of exact sums, so the order of the rows changes nothing; nulls are left out.
    """
    micro_mph = F.round(F.col("speed_mph") * _MICRO).try_cast("bigint")
    return df.groupBy("pickup_date", "pickup_hour", "pickup_location_id").agg(
        F.count("*").alias("trips"),
        F.sum("total_amount").cast("decimal(18,2)").alias("revenue"),
        mean_duration_minutes().alias("mean_duration_minutes"),
        F.try_divide(F.sum(micro_mph).cast("double"), F.count(micro_mph) * float(_MICRO)).alias("mean_speed_mph"),
        F.try_divide(F.sum("tip_amount").cast("double"), F.sum("total_amount").cast("double")).alias("tip_share"),
    )


def _share_of_total(part: str) -> Column:
    return F.try_divide(F.col(part).cast("double"), F.col("total_amount").cast("double"))
