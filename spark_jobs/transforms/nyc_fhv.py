"""New York for-hire vehicle trips: what is done to the rows. Pure functions: no session, no files.

`spark_jobs.transforms.trip_times` says what holds for the times.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs.conform import with_new
from spark_jobs.transforms.trip_times import mean_duration_minutes, moments, of_moments

_BASES = ("dispatching_base_num", "affiliated_base_number")


def clean(df: DataFrame) -> DataFrame:
    """Tidy conformed silver rows: numbers of bases without the blanks that pad some; a blank one is a missing one.

    Rows and columns stay the same.
    """
    return df.withColumns({name: _code(name) for name in _BASES})


def features(df: DataFrame) -> DataFrame:
    """Add the features of each trip; one row in, one row out, all columns kept.

    Args:
        df: silver rows, cleaned and accepted.

    Returns:
        With the features of the times, `is_same_zone` (null where a zone is) and `is_shared` (never null).
    """
    pickup, dropoff = (F.unix_timestamp(F.col(name)) for name in ("pickup_datetime", "dropoff_datetime"))
    first = {
        **moments(),
        "duration_seconds": dropoff - pickup,
        "is_same_zone": F.col("pickup_location_id") == F.col("dropoff_location_id"),
        "is_shared": F.coalesce(F.col("sr_flag") == 1, F.lit(False)),
    }
    return with_new(with_new(df, first), of_moments())


def aggregate(df: DataFrame) -> DataFrame:
    """One row a pickup zone and hour: trips, shared ones, mean duration. Trips without zone make a row without."""
    return df.groupBy("pickup_date", "pickup_hour", "pickup_location_id").agg(
        F.count("*").alias("trips"),
        F.count_if("is_shared").alias("shared_trips"),
        mean_duration_minutes().alias("mean_duration_minutes"),
    )


def _code(name: str) -> Column:
    code = F.upper(F.trim(F.col(name)))
    return F.when(code != "", code)
