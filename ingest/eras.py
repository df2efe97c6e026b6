"""Which columns the TLC published for a dataset in a month: their names, types and what they hold. A table, no I/O.

The types are those of the footers of the published files. A column in which a month has no value at all has the null
type there (parquet stores it as INT32), so such columns flip to and fro. Parquet has one type of text, so Arrow's
`large_string`, which some months note besides, is `string` here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa

from contracts.errors import UsageError

YELLOW, GREEN, FHV = "nyc_yellow", "nyc_green", "nyc_fhv"

Month = tuple[int, int]
"""Year and month."""

FIRST_MONTHS: dict[str, Month] = {YELLOW: (2009, 1), GREEN: (2013, 8), FHV: (2015, 1)}
_FILES = {YELLOW: "yellow", GREEN: "green", FHV: "fhv"}

_INT32, _INT64, _DOUBLE, _TEXT = pa.int32(), pa.int64(), pa.float64(), pa.string()
_TIME, _NOTHING = pa.timestamp("us"), pa.null()


@dataclass(frozen=True)
class PublishedColumn:
    """One column of a published file."""

    name: str
    type: pa.DataType
    holds: str | None
    """Which value of a trip, by its name in `ingest.trips` or `ingest.fhv`; None: the month has no value at all."""
    with_codes: bool = False
    """Null in records that came without passengers and codes."""


def published_columns(dataset: str, year: int, month: int) -> tuple[PublishedColumn, ...]:
    """The columns of a month's file, in its order.

    Raises:
        UsageError: the dataset is none of the TLC's, or the month lies before its first one.
    """
    first = FIRST_MONTHS.get(dataset)
    if first is None:
        raise UsageError(f"The TLC publishes no dataset {dataset!r}. Known: {', '.join(FIRST_MONTHS)}.")
    if not (1 <= month <= 12 and first <= (year, month) <= (2200, 12)):
        raise UsageError(
            f"{year}-{month:02d} is no month of {dataset}: its first one is {first[0]}-{first[1]:02d}, and month 1 to "
            "12 of a year up to 2200 was expected."
        )
    return {YELLOW: _yellow, GREEN: _green, FHV: _fhv}[dataset]((year, month))


def published_schema(dataset: str, year: int, month: int) -> pa.Schema:
    """The same as an Arrow schema; raises the same."""
    return pa.schema([(column.name, column.type) for column in published_columns(dataset, year, month)])


def month_file_name(year: int, month: int, dataset: str = YELLOW) -> str:
    """The TLC's name of a month's file; `dataset` is one of `FIRST_MONTHS`."""
    return f"{_FILES[dataset]}_tripdata_{year}-{month:02d}.parquet"


def _yellow(at: Month) -> tuple[PublishedColumn, ...]:
    if at < (2010, 1):
        return _YELLOW_2009
    if at < (2011, 1):
        return _yellow_2010(at)
    ids = _INT64 if at < (2023, 2) else _INT32
    counts = _DOUBLE if (2018, 7) <= at < (2023, 2) else _INT64
    columns = (
        PublishedColumn("VendorID", ids, "vendor"),
        PublishedColumn("tpep_pickup_datetime", _TIME, "pickup"),
        PublishedColumn("tpep_dropoff_datetime", _TIME, "dropoff"),
        PublishedColumn("passenger_count", counts, "passengers", with_codes=True),
        PublishedColumn("trip_distance", _DOUBLE, "distance"),
        PublishedColumn("RatecodeID", counts, "rate", with_codes=True),
        PublishedColumn("store_and_fwd_flag", _TEXT, "flag", with_codes=True),
        PublishedColumn("PULocationID", ids, "origin"),
        PublishedColumn("DOLocationID", ids, "target"),
        PublishedColumn("payment_type", _INT64, "payment"),
        *_amounts("fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount"),
        _no_value("improvement_surcharge") if at == (2014, 8) else _amount("improvement_surcharge"),
        _amount("total_amount"),
        _yellow_congestion(at),
        _yellow_airport_fee(at),
    )
    return columns if at < (2025, 1) else (*columns, _amount("cbd_congestion_fee"))


# Months before the charge came whose column is DOUBLE all the same.
_CONGESTION_AS_DOUBLE = frozenset(
    {(2011, 1), (2011, 3), (2012, 12), (2013, 5), (2014, 1), (2018, 1), (2018, 6), (2018, 9), (2018, 11)}
)
_AIRPORT_FEE_AS_DOUBLE = frozenset({(2011, 1), (2018, 1), (2020, 8), (2020, 9), (2020, 11), (2020, 12)})


def _yellow_congestion(at: Month) -> PublishedColumn:
    if at < (2019, 1):
        return _no_value("congestion_surcharge", _DOUBLE if at in _CONGESTION_AS_DOUBLE else _NOTHING)
    return replace(_amount("congestion_surcharge"), with_codes=True)


def _yellow_airport_fee(at: Month) -> PublishedColumn:
    if at < (2021, 1):
        return _no_value("airport_fee", _DOUBLE if at in _AIRPORT_FEE_AS_DOUBLE else _NOTHING)
    name = "airport_fee" if at < (2023, 2) else "Airport_fee"
    return PublishedColumn(name, _DOUBLE, "airport_fee", with_codes=True)


def _yellow_2010(at: Month) -> tuple[PublishedColumn, ...]:
    stray = at in ((2010, 2), (2010, 3))
    columns = (
        PublishedColumn("vendor_id", _TEXT, "vendor_name"),
        PublishedColumn("pickup_datetime", _TEXT, "pickup"),
        PublishedColumn("dropoff_datetime", _TEXT, "dropoff"),
        PublishedColumn("passenger_count", _INT64, "passengers", with_codes=True),
        PublishedColumn("trip_distance", _DOUBLE, "distance"),
        PublishedColumn("pickup_longitude", _DOUBLE, "origin_lon"),
        PublishedColumn("pickup_latitude", _DOUBLE, "origin_lat"),
        PublishedColumn("rate_code", _INT64 if stray else _TEXT, "rate", with_codes=True),
        PublishedColumn("store_and_fwd_flag", _TEXT, "flag", with_codes=True),
        PublishedColumn("dropoff_longitude", _DOUBLE, "target_lon"),
        PublishedColumn("dropoff_latitude", _DOUBLE, "target_lat"),
        PublishedColumn("payment_type", _TEXT, "payment_code"),
        _amount("fare_amount"),
        PublishedColumn("surcharge", _DOUBLE, "extra"),
        *_amounts("mta_tax", "tip_amount", "tolls_amount", "total_amount"),
    )
    return (*columns, PublishedColumn("__index_level_0__", _INT64, "row")) if stray else columns


def _green(at: Month) -> tuple[PublishedColumn, ...]:
    ids = _INT64 if at < (2023, 2) else _INT32
    counts = _DOUBLE if at < (2025, 1) else _INT64
    columns = (
        PublishedColumn("VendorID", ids, "vendor"),
        PublishedColumn("lpep_pickup_datetime", _TIME, "pickup"),
        PublishedColumn("lpep_dropoff_datetime", _TIME, "dropoff"),
        PublishedColumn("store_and_fwd_flag", _TEXT, "flag", with_codes=True),
        PublishedColumn("RatecodeID", counts, "rate", with_codes=True),
        PublishedColumn("PULocationID", ids, "origin"),
        PublishedColumn("DOLocationID", ids, "target"),
        PublishedColumn("passenger_count", counts, "passengers", with_codes=True),
        PublishedColumn("trip_distance", _DOUBLE, "distance"),
        *_amounts("fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount"),
        _no_value("ehail_fee", _NOTHING if (2019, 9) <= at < (2023, 2) else _DOUBLE),
        *_amounts("improvement_surcharge", "total_amount"),
        PublishedColumn("payment_type", counts, "payment", with_codes=True),
        PublishedColumn("trip_type", counts, "trip_type", with_codes=True),
        replace(_amount("congestion_surcharge"), with_codes=True)
        if at >= (2019, 1)
        else _no_value("congestion_surcharge", _DOUBLE),
    )
    return columns if at < (2025, 1) else (*columns, _amount("cbd_congestion_fee"))


def _fhv(at: Month) -> tuple[PublishedColumn, ...]:
    whole = at >= (2023, 2)
    origin = _INT64 if whole or at in ((2019, 5), (2019, 6)) else _DOUBLE
    target = _INT64 if whole or at in ((2019, 5), (2019, 6), (2020, 7)) else _DOUBLE
    # Shared rides were told from mid-2017 until they had a file of their own.
    shared = PublishedColumn("SR_Flag", _DOUBLE, "shared")
    if not (2017, 7) <= at < (2019, 3):
        shared = _no_value("SR_Flag", _INT64 if whole else _NOTHING)
    return (
        PublishedColumn("dispatching_base_num", _TEXT, "base"),
        PublishedColumn("pickup_datetime", _TIME, "pickup"),
        PublishedColumn("dropOff_datetime", _TIME, "dropoff"),
        PublishedColumn("PUlocationID", origin, "origin"),
        PublishedColumn("DOlocationID", target, "target"),
        shared,
        PublishedColumn("Affiliated_base_number", _TEXT, "affiliated"),
    )


def _amount(name: str) -> PublishedColumn:
    return PublishedColumn(name, _DOUBLE, name)


def _amounts(*names: str) -> tuple[PublishedColumn, ...]:
    return tuple(map(_amount, names))


def _no_value(name: str, kind: pa.DataType = _NOTHING) -> PublishedColumn:
    return PublishedColumn(name, kind, None)


_YELLOW_2009 = (
    PublishedColumn("vendor_name", _TEXT, "vendor_name"),
    PublishedColumn("Trip_Pickup_DateTime", _TEXT, "pickup"),
    PublishedColumn("Trip_Dropoff_DateTime", _TEXT, "dropoff"),
    PublishedColumn("Passenger_Count", _INT64, "passengers", with_codes=True),
    PublishedColumn("Trip_Distance", _DOUBLE, "distance"),
    PublishedColumn("Start_Lon", _DOUBLE, "origin_lon"),
    PublishedColumn("Start_Lat", _DOUBLE, "origin_lat"),
    _no_value("Rate_Code", _DOUBLE),
    _no_value("store_and_forward", _DOUBLE),
    PublishedColumn("End_Lon", _DOUBLE, "target_lon"),
    PublishedColumn("End_Lat", _DOUBLE, "target_lat"),
    PublishedColumn("Payment_Type", _TEXT, "payment_word"),
    PublishedColumn("Fare_Amt", _DOUBLE, "fare_amount"),
    PublishedColumn("surcharge", _DOUBLE, "extra"),
    _no_value("mta_tax", _DOUBLE),
    PublishedColumn("Tip_Amt", _DOUBLE, "tip_amount"),
    PublishedColumn("Tolls_Amt", _DOUBLE, "tolls_amount"),
    PublishedColumn("Total_Amt", _DOUBLE, "total_amount"),
)
