"""Rows of the published shape."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

PICKUP = datetime(2025, 1, 15, 17, 30)

TYPES = {
    "VendorID": pa.int32(),
    "tpep_pickup_datetime": pa.timestamp("us"),
    "tpep_dropoff_datetime": pa.timestamp("us"),
    "passenger_count": pa.int64(),
    "trip_distance": pa.float64(),
    "RatecodeID": pa.int64(),
    "store_and_fwd_flag": pa.string(),
    "PULocationID": pa.int32(),
    "DOLocationID": pa.int32(),
    "payment_type": pa.int64(),
    "fare_amount": pa.float64(),
    "extra": pa.float64(),
    "mta_tax": pa.float64(),
    "tip_amount": pa.float64(),
    "tolls_amount": pa.float64(),
    "improvement_surcharge": pa.float64(),
    "total_amount": pa.float64(),
    "congestion_surcharge": pa.float64(),
    "Airport_fee": pa.float64(),
    "cbd_congestion_fee": pa.float64(),
}


def trip(**changes: Any) -> dict[str, Any]:
    """One trip that no rule says anything of, with some fields changed: 20 minutes, 5 miles, 30 dollars in all."""
    row = {
        "VendorID": 2,
        "tpep_pickup_datetime": PICKUP,
        "tpep_dropoff_datetime": PICKUP + timedelta(minutes=20),
        "passenger_count": 1,
        "trip_distance": 5.0,
        "RatecodeID": 1,
        "store_and_fwd_flag": "N",
        "PULocationID": 132,
        "DOLocationID": 230,
        "payment_type": 1,
        "fare_amount": 20.0,
        "extra": 1.0,
        "mta_tax": 0.5,
        "tip_amount": 2.75,
        "tolls_amount": 1.5,
        "improvement_surcharge": 1.0,
        "total_amount": 30.0,
        "congestion_surcharge": 2.5,
        "Airport_fee": 0.0,
        "cbd_congestion_fee": 0.75,
    }
    return row | changes


def table(
    *rows: dict[str, Any],
    types: dict[str, pa.DataType] | None = None,
    without: tuple[str, ...] = (),
    repeats: bool = False,
) -> pa.Table:
    """Trips as a file of the newest era; `types` changes columns, `without` leaves some out.

    A trip that is there again has its pickup some microseconds later, since a record that is there twice is rejected;
    with `repeats` it stays as it is.
    """
    schema = {name: kind for name, kind in (TYPES | (types or {})).items() if name not in without}
    content = rows if repeats else _told_apart(rows)
    return pa.table({name: pa.array([row[name] for row in content], kind) for name, kind in schema.items()})


def _told_apart(rows: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    seen: Counter[str] = Counter()
    content = []
    for row in rows:
        times, pickup = seen[repr(row)], row["tpep_pickup_datetime"]
        if times and isinstance(pickup, datetime | int):
            later = timedelta(microseconds=times) if isinstance(pickup, datetime) else times
            content.append(row | {"tpep_pickup_datetime": pickup + later})
        else:
            content.append(row)
        seen[repr(row)] += 1
    return content
