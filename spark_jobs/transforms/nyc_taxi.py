"""New York taxi trips: what is done to the rows. Pure functions; no session, no files, no dataset's name.

`spark_jobs.transforms.trip_times` says what holds for the times.
"""

from __future__ import annotations

from datetime import date
from functools import reduce
from operator import add, or_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs.conform import ONCE, evaluated, with_new
from spark_jobs.transforms.trip_times import is_weekend, mean_duration_minutes, moments, of_moments

# The TLC's rush-hour surcharge: 16:00 to 20:00 on weekdays.
_RUSH_FROM, _RUSH_TO = 16, 20
_MONDAY, _THURSDAY = 1, 4
_MICRO = 1_000_000
_HOUR = 3600
_DAY = 24 * _HOUR
_PICKUP, _DROPOFF, _SUNDAY, _ODD_HOUR = "_pickup", "_dropoff", "_sunday", "_odd_hour"
_MARCH, _NOVEMBER = 3, 11
_DAYLIGHT_SAVING_SINCE = (date(2007, 1, 1) - date(1970, 1, 1)).days
"""Days since 1970. Energy Policy Act of 2005, section 110: second Sunday of March to first Sunday of November; before
2007 clocks changed on other days, of which we know nothing."""
_JUNETEENTH_SINCE = date(2021, 1, 1)
_FIXED_HOLIDAYS = (101, 704, 1111, 1225)
"""New Year, Independence Day, Veterans Day and Christmas; month * 100 + day, as below."""
_MONDAY_HOLIDAYS = ((115, 121), (215, 221), (525, 531), (901, 907), (1008, 1014))
"""First and last day on which Martin Luther King's and Washington's Birthday, Memorial, Labor and Columbus Day fall."""
_THANKSGIVING = (1122, 1128)
_AIRPORTS = (1, 132, 138)
"""The TLC's table of taxi zones: Newark, JFK and LaGuardia."""
_BUCKETS = (1, 2, 5, 10, 20)


def clean(df: DataFrame) -> DataFrame:
    """Tidy conformed silver rows, and make the derived columns; rows and the other columns stay the same.

    Returns:
        `store_and_fwd_flag` without blanks and in capitals, a blank one null.

        `duration_seconds: bigint`, the time that passed between pickup and dropoff: what the clock says, but an hour
        less where the trip crosses the hour that is left out in March, and an hour more where it crosses the whole hour
        that is there twice in November, or where it lies in that hour and ends no later than it began.

        `_ambiguous_time: boolean`, true where pickup or dropoff lies in one of these hours, so that the duration may be
        an hour off. Both are null where a time is null.
    """
    flag = F.upper(F.trim(F.col("store_and_fwd_flag")))
    return _with_time_passed(df.withColumn("store_and_fwd_flag", F.when(flag != "", flag)))


def _with_time_passed(df: DataFrame) -> DataFrame:
    # Whole seconds are arithmetic on numbers; functions of times and zones make calendar objects of each row.
    day = F.floor(_seconds("pickup_datetime") / _DAY).cast("int")
    weekday = F.weekday(F.date_from_unix_date(day))  # 0 is Monday
    date_ = F.date_from_unix_date(F.col(_SUNDAY))
    month, day_of_month = F.month(date_), F.dayofmonth(date_)
    spring = (month == _MARCH) & day_of_month.between(8, 14)
    fall = (month == _NOVEMBER) & (day_of_month <= 7)
    steps = (
        {
            _PICKUP: _seconds("pickup_datetime"),
            _DROPOFF: _seconds("dropoff_datetime"),
            # A trip that crosses the change and began before Saturday lasts longer than a day, which no trip may.
            _SUNDAY: F.when(day >= _DAYLIGHT_SAVING_SINCE, F.when(weekday == 6, day).when(weekday == 5, day + 1)),
        },
        # When the hour begins that is left out, or there twice; null on all other days.
        {_ODD_HOUR: F.col(_SUNDAY).cast("bigint") * _DAY + F.when(spring, 2 * _HOUR).when(fall, _HOUR)},
        _time_passed(F.col(_PICKUP), F.col(_DROPOFF), F.col(_ODD_HOUR)),
    )
    made = reduce(with_new, steps, df)
    # The rules use the duration several times, and the optimizer would write all of its steps into each.
    return evaluated(made).drop(ONCE, _PICKUP, _DROPOFF, _SUNDAY, _ODD_HOUR)


def _time_passed(pickup: Column, dropoff: Column, odd_hour: Column) -> dict[str, Column]:
    clock, began, ended = dropoff - pickup, pickup - odd_hour, dropoff - odd_hour
    is_spring = odd_hour - F.floor(odd_hour / _DAY) * _DAY == 2 * _HOUR
    shift = (
        F.when((began < 0) & (ended >= _HOUR), F.when(is_spring, -_HOUR).otherwise(_HOUR))
        # Only inside of the hour that is there twice can a trip end before its pickup by the clock.
        .when(~is_spring & _within(began) & _within(ended) & (clock <= 0), _HOUR)
        .otherwise(0)
    )
    odd = F.coalesce(_within(began) | _within(ended), F.lit(False))
    return {"duration_seconds": clock + shift, "_ambiguous_time": F.when(clock.isNotNull(), odd)}


def _within(seconds: Column) -> Column:
    return seconds.between(0, _HOUR - 1)


def _seconds(name: str) -> Column:
    """A wall-clock time in whole seconds since 1970."""
    return F.unix_timestamp(F.col(name))


def features(df: DataFrame) -> DataFrame:
    """Add the features of each trip; one row in, one row out, all columns kept.

    Args:
        df: silver rows, and the boroughs of their zones, null where they are not known. Amounts in USD, distance in
            miles, duration in seconds.

    Returns:
        With time, place, distance, duration and ratio features, whose formulas are in docs/data.md. A feature is null
        where a part of it is null, and a ratio where its divisor is 0.
    """
    times = moments()
    miles = F.col("trip_distance").cast("double")
    seconds = F.col("duration_seconds").cast("double")
    fare = F.col("fare_amount").cast("double")
    first = {
        **times,
        "day_of_month": F.dayofmonth(times["pickup_date"]),
        "month": F.month(times["pickup_date"]),
        "is_same_zone": F.col("pickup_location_id") == F.col("dropoff_location_id"),
        "is_airport": F.col("pickup_location_id").isin(*_AIRPORTS) | F.col("dropoff_location_id").isin(*_AIRPORTS),
        "log_distance": F.when(miles >= 0, F.ln(miles + 1)),
        "distance_bucket": reduce(add, ((miles >= bound).cast("int") for bound in _BUCKETS)),
        "log_fare": F.when(fare >= 0, F.ln(fare + 1)),
    }
    then = {
        **of_moments(),
        "is_holiday": _is_holiday(),
        "is_rush_hour": ~is_weekend() & F.col("hour_of_day").between(_RUSH_FROM, _RUSH_TO - 1),
        "speed_mph": F.try_divide(miles * 3600, seconds),
        "miles_per_minute": F.try_divide(miles * 60, seconds),
        "fare_per_mile": F.try_divide(fare, miles),
        "fare_per_minute": F.try_divide(fare * 60, seconds),
        "tip_share": _share_of_total("tip_amount"),
        "tolls_share": _share_of_total("tolls_amount"),
        "borough_pair": F.concat(F.col("pickup_borough"), F.lit("-"), F.col("dropoff_borough")),
    }
    return with_new(with_new(df, first), then)


def aggregate(df: DataFrame) -> DataFrame:
    """One row a pickup zone and hour: trips, revenue, mean duration, mean speed, tips as a share of the totals.

    Means are quotients of exact sums, so the order of the rows changes nothing; nulls are left out.
    """
    micro_mph = F.rint(F.col("speed_mph") * _MICRO).try_cast("bigint")
    return df.groupBy("pickup_date", "pickup_hour", "pickup_location_id").agg(
        F.count("*").alias("trips"),
        F.sum("total_amount").cast("decimal(18,2)").alias("revenue"),
        mean_duration_minutes().alias("mean_duration_minutes"),
        F.try_divide(F.sum(micro_mph).cast("double"), F.count(micro_mph) * float(_MICRO)).alias("mean_speed_mph"),
        F.try_divide(F.sum("tip_amount").cast("double"), F.sum("total_amount").cast("double")).alias("tip_share"),
    )


def _is_holiday() -> Column:
    """Federal holidays (5 U.S.C. 6103) on the day itself; Juneteenth since 2021."""
    month_day = F.col("month") * 100 + F.col("day_of_month")
    weekday = F.col("day_of_week")
    mondays = reduce(or_, (month_day.between(*days) for days in _MONDAY_HOLIDAYS))
    return (
        month_day.isin(*_FIXED_HOLIDAYS)
        | ((month_day == 619) & (F.col("pickup_date") >= F.lit(_JUNETEENTH_SINCE)))
        | ((weekday == _MONDAY) & mondays)
        | ((weekday == _THURSDAY) & month_day.between(*_THANKSGIVING))
    )


def _share_of_total(part: str) -> Column:
    return F.try_divide(F.col(part).cast("double"), F.col("total_amount").cast("double"))
