"""Files of trips of every era, a third of whose rows have something wrong, odd or at the edge of a rule."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.eras import GREEN, YELLOW, month_file_name, published_columns
from ingest.generator import generate_month
from ingest.trips import AMOUNTS
from tests.spark_jobs.reference import EPOCH

MONTHS = {
    # Each change of the published columns, and months in which clocks change.
    YELLOW: ((2009, 3), (2010, 2), (2010, 11), (2014, 8), (2018, 11), (2023, 3), (2025, 11)),
    GREEN: ((2013, 11), (2019, 11), (2023, 3), (2025, 3)),
}
ROWS = 40
NUMBER = "_number"
"""A column of ours that no contract names: a row's place in its file."""

Changes = dict[str, Any]
"""What a row is to hold, by the names of `ingest.trips`; those that an era lacks are left out."""


@dataclass(frozen=True)
class DirtyFile:
    """One file, as an Arrow table and as rows."""

    key: str
    rows: list[dict[str, Any]]
    """Times as microseconds since 1970, or as the text that the file has."""
    table: pa.Table

    @property
    def names(self) -> list[str]:
        """Columns that are not of the null type."""
        return [field.name for field in self.table.schema if field.type != pa.null()]


def dirty_files(folder: Path, dataset: str, seed: int) -> Iterator[DirtyFile]:
    """A file for each era of a dataset; the same arguments make the same files."""
    for year, month in MONTHS[dataset]:
        name = month_file_name(year, month, dataset)
        path = folder / name
        generate_month(path, year, month, ROWS, seed, dataset)
        clean = pq.read_table(path)
        columns = {column.holds: column.name for column in published_columns(dataset, year, month) if column.holds}
        # Of a month's own: a text as the seed is the same in every process.
        rng = random.Random(f"{seed} {name}")
        rows = list(_dirty(rng, [_as_numbers(row) for row in clean.to_pylist()], columns, year, month))
        for place, row in enumerate(rows):
            row[NUMBER] = place
        schema = clean.schema.append(pa.field(NUMBER, pa.int64()))
        yield DirtyFile(f"{dataset}/{name}", rows, _table(rows, schema))


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """The rows as a table; they then hold what it holds, which is null where a column's type has no such value."""
    arrays = []
    for field in schema:
        values = [_of_type(row[field.name], field.type) for row in rows]
        for row, value in zip(rows, values, strict=True):
            row[field.name] = value
        arrays.append(pa.array(values, field.type, from_pandas=False))
    return pa.Table.from_arrays(arrays, schema=schema)


def _of_type(value: Any, kind: pa.DataType) -> Any:
    if value is None or pa.types.is_null(kind):
        return None
    if pa.types.is_string(kind):
        return str(value)
    if pa.types.is_floating(kind):
        return float(value)
    if pa.types.is_integer(kind):
        whole = math.isfinite(float(value)) and float(value) == int(float(value))
        return int(float(value)) if whole and abs(float(value)) < 2.0 ** (kind.bit_width - 1) else None
    return value


def _as_numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _micros(value) if isinstance(value, datetime) else value for name, value in row.items()}


def _micros(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


def _dirty(
    rng: random.Random, rows: list[dict[str, Any]], columns: dict[str, str], year: int, month: int
) -> Iterator[dict[str, Any]]:
    kinds = list(_kinds(rng, year, month))
    textual = isinstance(rows[0][columns["pickup"]], str)

    def changed(row: dict[str, Any], changes: Changes) -> dict[str, Any]:
        return row | {columns[name]: _stored(value, textual) for name, value in changes.items() if name in columns}

    for place in range(max(len(rows), len(kinds))):
        row = rows[place % len(rows)]
        if place >= len(rows):
            # Told apart from the row that was there before.
            row = changed(row, {"tip_amount": place / 100})
        kind = kinds[place] if place < len(kinds) else {}
        row = changed(row, kind) if isinstance(kind, dict) else row
        yield row
        if callable(kind):
            yield from (
                changed(row, extra) for extra in kind({name: row[columns[name]] for name in AMOUNTS if name in columns})
            )


def _stored(value: Any, textual: bool) -> Any:
    if not isinstance(value, datetime):
        return value
    return value.isoformat(sep=" ") if textual else _micros(value)


Follow = Callable[[dict[str, float | None]], list[Changes]]


def _kinds(rng: random.Random, year: int, month: int) -> Iterator[Changes | Follow]:
    """What may be wrong with a row, as changes of it; or rows to follow it, made of its amounts."""
    start = datetime(year, month, 1)
    end = datetime(year + month // 12, month % 12 + 1, 1)
    noon = start + timedelta(days=rng.randrange(20), hours=12, seconds=rng.randrange(3600))
    second, day = timedelta(seconds=1), timedelta(days=1)
    trip = {"pickup": noon, "distance": 3.0}
    yield from (trip | {"dropoff": noon + length} for length in (second * 0, -second, day, day + second, day * 3))
    yield from (
        {"pickup": at, "dropoff": at + day / 48, "distance": 2.0}
        for at in (start - day, start - day - second, end + day - second, end + day, start + day * 9000)
    )
    yield from _nights(year, month)
    yield from ({"distance": miles} for miles in (0.0, -1.0, 0.004, 0.005, 0.01, None, math.nan, 1e9))
    yield from ({"distance": miles, "pickup": noon, "dropoff": noon + day / 2} for miles in (200.0, 200.01, 199.994))
    yield from ({"distance": miles, "pickup": noon, "dropoff": noon + day / 72} for miles in (33.33, 33.34, 60.0))
    for name in ("fare_amount", "total_amount"):
        yield from (
            {name: value} for value in (-0.01, 0.0, 5000.0, 5000.01, 99_999_999.99, 1e12, None, math.nan, 2.675)
        )
    yield from ({"tip_amount": value} for value in (None, math.nan, math.inf, 1e8, 0.005))
    yield from ({name: value} for name in ("origin", "target") for value in (0, 1, 132, 264, 265, 266, None))
    yield from ({"passengers": value} for value in (0, 9, 10, -1, None, 1.5, math.nan, 2**40))
    yield from ({"rate": value} for value in (99, 7, 6, 0, None))
    yield from ({"payment": value} for value in (0, 5, 6, 7, None))
    yield from ({"vendor": value} for value in (1, 3, 5, 7, None))
    yield from ({"flag": value} for value in (" y ", "", "n", None, "X"))
    yield from ({"vendor_name": value} for value in ("CMT", " vts", "DDS", "XYZ", "2", None))
    yield from ({name: value} for name in ("payment_word", "payment_code")
                for value in ("CASH", "Cash ", "credit", "NOC", "Dis", "unknown", "?", None))  # fmt: skip
    yield from (
        {"origin_lon": lon, "origin_lat": lat} for lon, lat in ((0.0, 0.0), (40.7, -73.9), (None, 40.7), (-75.0, 42.0))
    )
    yield from ({name: value} for name in ("target_lon", "target_lat") for value in (0.0, 3300.0, None))
    if year < 2011:
        yield from ({name: value} for name in ("pickup", "dropoff") for value in ("soon", "2010-02-30 00:00:00", None))
    else:
        yield from ({name: value} for name in ("pickup", "dropoff") for value in (2**62, -(2**62), None))
    parts = {"fare_amount": 20.0, "extra": 1.0, "mta_tax": 0.5, "tip_amount": 2.0, "tolls_amount": 1.5}
    parts |= {
        "improvement_surcharge": 1.0,
        "congestion_surcharge": 2.5,
        "airport_fee": 1.25,
        "cbd_congestion_fee": 0.75,
    }
    yield from (
        parts | {"total_amount": total} for total in (25.0, 26.0, 30.5, 29.75, 28.5, 27.75, 25.01, 25.02, 24.99, 40.0)
    )
    yield {"fare_amount": -5.0, "passengers": 0, "origin": 264, "distance": 0.0, "payment": 5}
    yield _refund
    yield lambda amounts: [{}]
    yield lambda amounts: [{}, {}]
    yield lambda amounts: _refund(amounts) * 2
    yield lambda amounts: [*_refund(amounts), {}]
    yield lambda amounts: [_refund(amounts)[0] | {"total_amount": 0.01}]
    yield lambda amounts: [_refund(amounts)[0] | {"distance": 1.23}]
    yield lambda amounts: [{"passengers": 3}]


def _refund(amounts: dict[str, float | None]) -> list[Changes]:
    return [{name: None if value is None else -value for name, value in amounts.items()} | {"payment": 4}]


def _nights(year: int, month: int) -> Iterator[Changes]:
    """Trips of the night in which clocks change, and of the night a week later."""
    if month not in (3, 11):
        return
    sundays = [day for day in range(1, 15) if datetime(year, month, day).weekday() == 6]
    sunday = datetime(year, month, sundays[1 if month == 3 else 0])
    clock = [(h, m) for h in (-1, 0, 1, 2, 3) for m in (0, 30, 59)]
    for week in (0, 7):
        times = [sunday + timedelta(days=week, hours=h, minutes=m) for h, m in clock]
        for place, pickup in enumerate(times):
            for dropoff in (pickup, *times[max(0, place - 2) :: 3]):
                yield {"pickup": pickup, "dropoff": dropoff, "distance": 0.5}
    yield {"pickup": sunday + timedelta(hours=1), "dropoff": sunday + timedelta(hours=24, minutes=30), "distance": 5.0}
    yield {"pickup": sunday + timedelta(hours=-21), "dropoff": sunday + timedelta(hours=4), "distance": 5.0}
    yield {"pickup": sunday + timedelta(hours=0.5), "dropoff": sunday + timedelta(hours=24.5), "distance": 5.0}
