"""Makes months of yellow-taxi trips in the shape the TLC publishes since 2025, with the dirt known from there.

    python -m ingest.generator --year 2025 --month 1 --rows 3000000 --seed 7 OUT

Same arguments, same bytes (with the same numpy and pyarrow). Amounts, distances, times and zones have plausible
distributions, no more: the data is for trying the pipeline out, not for learning anything about taxis.
"""

from __future__ import annotations

import argparse
import calendar
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import UsageError

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Columns = dict[str, npt.NDArray[Any]]
"""Column name to its values, as integers (amounts in cents, distances in hundredths, times in seconds) or text."""

CHUNK_ROWS = 500_000

# Shares of dirty rows: counts over 327 million published yellow rows (2009 to 2025).
REFUND = 0.014  # fare < 0: all amounts negated
NO_DISTANCE = 0.017
NO_PASSENGERS = 0.079  # and with it no rate code, flag, congestion surcharge and airport fee
NO_TIME = 0.0031  # dropoff at or before pickup
WRONG_YEAR = 6.4e-6
FAR_AWAY = 2.5e-5  # more than 200 miles
DUPLICATE = 4e-5

_HOURS = (28, 18, 14, 14, 6, 5, 14, 28, 38, 41, 44, 44, 45, 52, 52, 55, 59, 69, 80, 61, 66, 62, 63, 44)
_WEEKDAYS = (108, 129, 144, 149, 161, 170, 138)
_ZONES = 265
_AIRPORTS = (132, 138)
_BUSY = (236, 237, 161, 132, 186, 234, 230, 162, 68, 249, 239, 79, 163, 138, 142, 170, 48, 164, 141, 107)
# The zones where yellow taxis alone may take passengers from the street.
_CORE: tuple[int, ...] = (
    *(4, 12, 13, 24, 43, 45, 48, 50, 68, 79, 87, 88, 90, 100, 103, 104, 105, 107, 113, 114, 125, 137, 140, 141, 142),
    *(143, 144, 148, 151, 158, 161, 162, 163, 164, 170, 186, 194, 209, 211, 224, 229, 230, 231, 232, 233, 234, 236),
    *(237, 238, 239, 246, 249, 261, 262, 263),
)

SCHEMA = pa.schema(
    [
        ("VendorID", pa.int32()),
        ("tpep_pickup_datetime", pa.timestamp("us")),
        ("tpep_dropoff_datetime", pa.timestamp("us")),
        ("passenger_count", pa.int64()),
        ("trip_distance", pa.float64()),
        ("RatecodeID", pa.int64()),
        ("store_and_fwd_flag", pa.string()),
        ("PULocationID", pa.int32()),
        ("DOLocationID", pa.int32()),
        ("payment_type", pa.int64()),
        ("fare_amount", pa.float64()),
        ("extra", pa.float64()),
        ("mta_tax", pa.float64()),
        ("tip_amount", pa.float64()),
        ("tolls_amount", pa.float64()),
        ("improvement_surcharge", pa.float64()),
        ("total_amount", pa.float64()),
        ("congestion_surcharge", pa.float64()),
        ("Airport_fee", pa.float64()),
        ("cbd_congestion_fee", pa.float64()),
    ]
)


def month_file_name(year: int, month: int) -> str:
    """The TLC's name of a month's file."""
    return f"yellow_tripdata_{year}-{month:02d}.parquet"


def generate_month(path: Path, year: int, month: int, rows: int, seed: int) -> None:
    """Write a month of trips to `path`; the file appears whole or not at all.

    Args:
        rows: exactly so many, 0 or more.
        seed: 0 or more; the same arguments make the same bytes.

    Raises:
        UsageError: an argument is out of its range, or the file cannot be written.
    """
    if not (2009 <= year <= 2200 and 1 <= month <= 12 and rows >= 0 and seed >= 0):
        raise UsageError(
            f"year {year}, month {month}, rows {rows}, seed {seed}: year 2009 to 2200, month 1 to 12, and rows and "
            "seed of 0 or more were expected."
        )
    unfinished = path.with_name(f"{path.name}.part")
    try:
        # All options that shape the bytes are written out, so that a new default changes no file.
        with pq.ParquetWriter(
            unfinished,
            SCHEMA,
            version="2.6",
            compression="snappy",
            data_page_version="1.0",
            use_dictionary=True,
            write_statistics=True,
            store_schema=False,
        ) as writer:
            for number, start in enumerate(range(0, rows, CHUNK_ROWS)):
                random = np.random.Generator(np.random.PCG64([seed, year, month, number]))
                count = min(CHUNK_ROWS, rows - start)
                writer.write_table(_chunk(random, year, month, count), row_group_size=CHUNK_ROWS)
        unfinished.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error}.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _chunk(random: np.random.Generator, year: int, month: int, rows: int) -> pa.Table:
    trips = _trips(random, year, month, rows)
    trips |= _amounts(random, trips)
    unknown = random.random(rows) < NO_PASSENGERS
    _dirty(random, trips)
    trips["payment_type"][unknown] = 0
    nullable = ("passenger_count", "RatecodeID", "store_and_fwd_flag", "congestion_surcharge", "Airport_fee")
    arrays = [
        pa.array(_published(trips[name], field.type), type=field.type, mask=unknown if name in nullable else None)
        for name, field in zip(SCHEMA.names, SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _published(values: npt.NDArray[Any], kind: pa.DataType) -> npt.NDArray[Any]:
    """Values as the file has them: amounts and distances in whole units, times as instants."""
    if pa.types.is_floating(kind):
        return values / 100
    if pa.types.is_timestamp(kind):
        return values.astype("datetime64[s]").astype("datetime64[us]")
    return values


def _trips(random: np.random.Generator, year: int, month: int, rows: int) -> Columns:
    """Clean trips: times in seconds since 1970 (wall-clock), distances in hundredths of a mile, sorted by pickup."""
    pickup = np.sort(_pickups(random, year, month, rows))
    origin, target = _zones(random, rows), _zones(random, rows)
    to_airport = np.isin(origin, _AIRPORTS) | np.isin(target, _AIRPORTS)
    miles = np.where(to_airport, random.normal(13, 4, rows), random.lognormal(0.5, 0.75, rows)).clip(0.1, 60)
    # Cars go faster at night and on long ways.
    hour = pickup // 3600 % 24
    slow = 8.5 - 2 * ((hour >= 8) & (hour < 19))
    speed = ((slow + 1.2 * miles.clip(0, 25)) * random.lognormal(0, 0.25, rows)).clip(2, 60)
    seconds = (60 + miles / speed * 3600).astype(np.int64)
    rate = random.choice([1, 99, 5, 4, 3], rows, p=[0.979, 0.012, 0.006, 0.002, 0.001])
    rate[to_airport & (random.random(rows) < 0.4)] = 2
    return {
        "VendorID": random.choice([1, 2, 6, 7], rows, p=[0.2, 0.7974, 0.0006, 0.002]),
        "tpep_pickup_datetime": pickup,
        "tpep_dropoff_datetime": pickup + seconds,
        "passenger_count": random.choice(7, rows, p=[0.006, 0.797, 0.135, 0.032, 0.018, 0.008, 0.004]),
        "trip_distance": (miles * 100).astype(np.int64),
        "RatecodeID": rate,
        "store_and_fwd_flag": np.where(random.random(rows) < 0.008, "Y", "N").astype(object),
        "PULocationID": origin,
        "DOLocationID": target,
        "payment_type": random.choice([1, 2, 4, 3], rows, p=[0.84, 0.13, 0.022, 0.008]),
    }


def _pickups(random: np.random.Generator, year: int, month: int, rows: int) -> Ints:
    first, days = calendar.monthrange(year, month)
    weights = np.concatenate([_WEEKDAYS[(first + day) % 7] * np.array(_HOURS, dtype=float) for day in range(days)])
    hours = random.choice(days * 24, rows, p=weights / weights.sum())
    start = int(np.datetime64(f"{year}-{month:02d}-01", "s").astype(np.int64))
    return start + hours * 3600 + random.integers(0, 3600, rows)


def _zones(random: np.random.Generator, rows: int) -> Ints:
    weights = np.full(_ZONES, 0.3)
    weights[np.array(_CORE) - 1] = 10
    weights[np.array(_BUSY) - 1] = np.linspace(50, 22, len(_BUSY))
    return 1 + random.choice(_ZONES, rows, p=weights / weights.sum())


def _amounts(random: np.random.Generator, trips: Columns) -> Columns:
    """What a clean trip costs, in cents."""
    rows = len(trips["VendorID"])
    pickup = trips["tpep_pickup_datetime"].astype(np.int64)
    minutes = (trips["tpep_dropoff_datetime"] - pickup) / 60
    hour, weekend = pickup // 3600 % 24, (pickup // 86400 + 3) % 7 >= 5
    clicks = np.rint(4 * trips["trip_distance"].astype(float) / 100 + 0.55 * minutes).astype(np.int64)
    core = np.isin(trips["PULocationID"], _CORE) | np.isin(trips["DOLocationID"], _CORE)
    airport = np.isin(trips["PULocationID"], _AIRPORTS) | np.isin(trips["DOLocationID"], _AIRPORTS)
    night = (hour >= 20) | (hour < 6)
    costs = {
        "fare_amount": np.where(trips["RatecodeID"] == 2, 7000, 300 + 70 * clicks),
        "extra": np.where(night, 100, np.where((hour >= 16) & ~weekend, 250, 0)),
        "mta_tax": np.where(random.random(rows) < 0.991, 50, 0),
        "tolls_amount": np.where(random.random(rows) < np.where(airport, 0.4, 0.01), 694, 0),
        "improvement_surcharge": np.full(rows, 100),
        "congestion_surcharge": np.where(core, 250, 0),
        "Airport_fee": np.where(np.isin(trips["PULocationID"], _AIRPORTS), 175, 0),
        "cbd_congestion_fee": np.where(core & (random.random(rows) < 0.85), 75, 0),
    }
    before_tip = sum(costs.values())
    share = np.where(random.random(rows) < 0.65, 0.2, random.lognormal(-1.9, 0.5, rows).clip(0, 1))
    tipping = (trips["payment_type"] == 1) & (random.random(rows) < 0.94)
    tip = np.where(tipping, np.rint(before_tip * share), 0).astype(np.int64)
    return costs | {"tip_amount": tip, "total_amount": before_tip + tip}


def _dirty(random: np.random.Generator, trips: Columns) -> None:
    """Spoil some rows in place, each kind of dirt independently of the others."""
    rows = len(trips["VendorID"])

    def some(share: float) -> Flags:
        return random.random(rows) < share

    refund = some(REFUND)
    for name in SCHEMA.names[SCHEMA.get_field_index("fare_amount") :]:
        trips[name][refund] *= -1
    trips["payment_type"][refund] = 4
    trips["trip_distance"][some(NO_DISTANCE)] = 0
    far = some(FAR_AWAY)
    trips["trip_distance"][far] = random.integers(20_001, 8_000_000, int(far.sum()))
    no_time = some(NO_TIME)
    pickup, dropoff = trips["tpep_pickup_datetime"], trips["tpep_dropoff_datetime"]
    dropoff[no_time] = pickup[no_time] - random.choice([0, 0, 0, 3600], int(no_time.sum()))
    wrong_year = some(WRONG_YEAR)
    shift = random.choice([-16, -6, -1, 1, 60], int(wrong_year.sum())) * 366 * 86_400
    pickup[wrong_year] += shift
    dropoff[wrong_year] += shift
    twice = np.flatnonzero(some(DUPLICATE)[1:]) + 1
    for values in trips.values():
        values[twice] = values[twice - 1]


def main(arguments: list[str] | None = None) -> None:
    """The command line: writes one month and prints its path."""
    parser = argparse.ArgumentParser(prog="python -m ingest.generator", description=__doc__.partition("\n")[0])
    parser.add_argument("--year", type=int, required=True)
    parser.add_argument("--month", type=int, required=True)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write, or a folder for a file of the usual name")
    chosen = parser.parse_args(arguments)
    path = chosen.out / month_file_name(chosen.year, chosen.month) if chosen.out.is_dir() else chosen.out
    try:
        generate_month(path, chosen.year, chosen.month, chosen.rows, chosen.seed)
    except UsageError as error:
        parser.error(error.message)
    print(path)


if __name__ == "__main__":
    main()
