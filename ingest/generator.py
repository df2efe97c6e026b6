"""Makes months of TLC trip records in the shape that was published for the month, with the dirt known from there.

    python -m ingest.generator --year 2025 --month 1 --rows 3000000 --seed 7 OUT
    python -m ingest.generator --dataset nyc_green --year 2023 --month 2 --rows 60000 --seed 7 OUT

Same arguments, same bytes (with the same numpy and pyarrow). Amounts, distances, times and zones have plausible
distributions, no more: the data is for trying the pipeline out, not for learning anything about taxis.

Yellow months since 2025 hold what they held before there were others, so that what was measured with them can be
measured again: they lack the dirt of `ingest.dirt.spoil_further`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import UsageError
from ingest.dirt import BY_DISPATCH, NO_CODES, spoil, spoil_further
from ingest.eras import (
    FIRST_MONTHS,
    GREEN,
    YELLOW,
    PublishedColumn,
    month_file_name,
    published_columns,
    published_schema,
)
from ingest.fhv import make_fhv_trips
from ingest.parquet_files import open_writer
from ingest.tariffs import tariff
from ingest.trips import AMOUNTS, Columns, make_amounts, make_places, make_trips

CHUNK_ROWS = 500_000

SCHEMA = published_schema(YELLOW, 2025, 1)
"""The shape of yellow months since 2025."""

_VENDOR_NAMES = {1: "CMT", 2: "VTS", 6: "DDS", 7: "DDS"}
_PAYMENT_CODES = {0: "UNK", 1: "CRE", 2: "CAS", 3: "NOC", 4: "DIS", 5: "UNK"}
# Which spelling a record of 2009 has depends on its vendor.
_PAYMENT_WORDS = {0: "No Charge", 1: "Credit", 2: "Cash", 3: "No Charge", 4: "Dispute", 5: "No Charge"}
_LOUD = {"Credit": "CREDIT", "Cash": "CASH"}


def generate_month(path: Path, year: int, month: int, rows: int, seed: int, dataset: str = YELLOW) -> None:
    """Write a month of trips to `path`; the file appears whole or not at all.

    Args:
        rows: exactly so many, 0 or more; at most `CHUNK_ROWS` of them are held in memory.
        seed: 0 or more; the same arguments make the same bytes.
        dataset: one of `ingest.eras.FIRST_MONTHS`.

    Raises:
        UsageError: an argument is out of its range, the TLC published no such month, or the file cannot be written.
    """
    columns = published_columns(dataset, year, month)
    schema = published_schema(dataset, year, month)
    if rows < 0 or seed < 0:
        raise UsageError(f"rows {rows}, seed {seed}: 0 or more were expected.")
    # Nothing is added for yellow, so that its months stay what they are.
    own = [list(FIRST_MONTHS).index(dataset)] if dataset != YELLOW else []
    unfinished = path.with_name(f"{path.name}.part")
    try:
        with open_writer(unfinished, schema) as writer:
            for number, start in enumerate(range(0, rows, CHUNK_ROWS)):
                random = np.random.Generator(np.random.PCG64([seed, year, month, number, *own]))
                trips = _trips(random, dataset, year, month, min(CHUNK_ROWS, rows - start))
                trips["row"] = np.arange(start, start + len(trips["pickup"]))
                arrays = [_published(trips, column) for column in columns]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=CHUNK_ROWS)
        unfinished.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error}.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _trips(random: np.random.Generator, dataset: str, year: int, month: int, rows: int) -> Columns:
    """All that columns of any era hold, dirt and all."""
    if dataset not in (YELLOW, GREEN):
        return make_fhv_trips(random, year, month, rows)
    green = dataset == GREEN
    trips = make_trips(random, year, month, rows, green)
    trips |= make_amounts(random, trips, tariff(year, month, green))
    no_codes = random.random(rows) < NO_CODES
    with_places = not green and year < 2011
    if green or year < 2025:
        # Before anything is spoilt: a record that is there twice is the same in all of them.
        trips |= {"no_codes": no_codes, "trip_type": np.where(random.random(rows) < BY_DISPATCH, 2, 1)}
        trips |= make_places(random, trips) if with_places else {}
    spoil(random, trips)
    if "no_codes" in trips:
        spoil_further(random, trips)
    trips.setdefault("no_codes", no_codes)
    trips["payment"][trips["no_codes"]] = 0
    return trips | (_spelled(trips) if with_places else {})


def _spelled(trips: Columns) -> Columns:
    """Codes as the words that files had before 2011."""
    vendors = _looked_up(trips["vendor"], _VENDOR_NAMES)
    words = _looked_up(trips["payment"], _PAYMENT_WORDS)
    loud = np.array([_LOUD.get(word, word) for word in words], dtype=object)
    return {
        "vendor_name": vendors,
        "payment_code": _looked_up(trips["payment"], _PAYMENT_CODES),
        "payment_word": np.where(vendors == "CMT", words, loud),
    }


def _looked_up(codes: npt.NDArray[Any], names: dict[int, str]) -> npt.NDArray[Any]:
    table = np.full(max(names) + 1, None, dtype=object)
    table[list(names)] = list(names.values())
    found: npt.NDArray[Any] = table[codes]
    return found


def _published(trips: Columns, column: PublishedColumn) -> pa.Array:
    """A column as its file has it: amounts and miles in whole units, times as instants or text."""
    if column.holds is None:
        return pa.nulls(len(trips["pickup"]), column.type)
    values = trips[column.holds]
    mask = trips["no_codes"] if column.with_codes else None
    if column.holds in ("pickup", "dropoff"):
        times = values.astype("datetime64[s]")
        if pa.types.is_string(column.type):
            return pc.strftime(pa.array(times), format="%Y-%m-%d %H:%M:%S")
        return pa.array(times.astype("datetime64[us]"), type=column.type)
    if column.holds in AMOUNTS or column.holds == "distance":
        return pa.array(values / 100, type=column.type, mask=mask)
    if pa.types.is_string(column.type) and values.dtype != object:
        return pa.array(values, mask=mask).cast(column.type)
    if values.dtype == float:
        # Not a number stands for null, which integers do not have.
        return pa.array(values, mask=mask, from_pandas=True).cast(column.type)
    return pa.array(values, type=column.type, mask=mask)


def main(arguments: list[str] | None = None) -> None:
    """The command line: writes one month and prints its path."""
    parser = argparse.ArgumentParser(prog="python -m ingest.generator", description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", choices=list(FIRST_MONTHS), default=YELLOW)
    parser.add_argument("--year", type=int, required=True)
    parser.add_argument("--month", type=int, required=True)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write, or a folder for a file of the usual name")
    chosen = parser.parse_args(arguments)
    name = month_file_name(chosen.year, chosen.month, chosen.dataset)
    path = chosen.out / name if chosen.out.is_dir() else chosen.out
    try:
        generate_month(path, chosen.year, chosen.month, chosen.rows, chosen.seed, chosen.dataset)
    except UsageError as error:
        parser.error(error.message)
    print(path)


if __name__ == "__main__":
    main()
